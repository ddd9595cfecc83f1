"""DICOM to greys."""

from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.inference.dicom import lung_window, read_frames

import numpy as np
import pydicom
import pytest
from dicom_files import write_dicom
from pydicom.uid import JPEGLosslessSV1, RLELossless

STORED = np.array([[0, 1024 - 1350, 1024 - 600], [1024 + 150, 1024 + 900, 1024 - 1000]], np.int16)
GREYS = [[0, 0, 128], [255, 255, 60]]  # in Hounsfield units -1024, -1350, -600, 150, 900, -1000


def frames(path: Path) -> list[Any]:
    return [pixels.tolist() for pixels in read_frames(path)]


def test_lung_window() -> None:
    """The ends and the middle of the window: centre -600, width 1500."""
    values = np.array([-3000.0, -1350, -1344, -600, 147, 150, 3000])
    assert lung_window(values).tolist() == [0, 0, 1, 128, 254, 255, 255]


@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_stored_values_become_greys(tmp_path: Path, syntax: str | None) -> None:
    stored = STORED.copy()
    stored[0, 0] = 1024 - 3000
    write_dicom(tmp_path / "a.dcm", stored, syntax=syntax)
    assert frames(tmp_path / "a.dcm") == [GREYS]


def test_slope_and_polarity(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", np.array([[0, 100], [200, 300]], np.int16), RescaleSlope=5, RescaleIntercept=-1350)
    assert frames(tmp_path / "a.dcm") == [[[0, 85], [170, 255]]]
    write_dicom(
        tmp_path / "b.dcm",
        np.array([[0, 100], [200, 300]], np.int16),
        RescaleSlope=5,
        RescaleIntercept=-1350,
        PhotometricInterpretation="MONOCHROME1",
    )
    assert frames(tmp_path / "b.dcm") == [[[255, 170], [85, 0]]]


def test_frames_have_their_own_rescale(tmp_path: Path) -> None:
    stored = np.zeros((2, 2, 2), np.int16)
    groups = []
    for intercept in (-1350, 150):
        transformation = pydicom.Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = 1, intercept
        group = pydicom.Dataset()
        group.PixelValueTransformationSequence = [transformation]
        groups.append(group)
    write_dicom(
        tmp_path / "a.dcm",
        stored,
        RescaleSlope=None,
        RescaleIntercept=None,
        PerFrameFunctionalGroupsSequence=groups,
    )
    assert frames(tmp_path / "a.dcm") == [[[0, 0], [0, 0]], [[255, 255], [255, 255]]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Modality": "MR"}, "modality MR, not CT"),
        ({"Modality": None}, "modality none, not CT"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
        ({"PixelData": None}, "without pixels"),
        ({"PhotometricInterpretation": "RGB"}, "in RGB, not in greys"),
        ({"RescaleSlope": None}, "without rescale slope and intercept"),
        ({"Rows": 20000, "Columns": 20000}, "20000x20000 pixels, absurdly large"),
        ({"PixelData": b"\0\0"}, "can't be decoded here"),
        ({"syntax": JPEGLosslessSV1}, "JPEG Lossless"),
    ],
)
def test_what_is_no_ct_slice_is_one_clear_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.dcm"
    write_dicom(path, **changes)
    with pytest.raises(UserError) as caught:
        frames(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no DICOM at all", b"\0" * 128 + b"DICM" + b"\xff" * 50])
def test_damaged_files_are_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.dcm: .*DICOM"):
        frames(path)
