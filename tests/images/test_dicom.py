"""DICOM to greys."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.images.dicom import read_frames
from ctscan.images.greys import lung_window

import numpy as np
import pydicom
import pytest
from dicom_files import write_dicom
from pydicom.data import get_testdata_file
from pydicom.pixels.processing import apply_modality_lut, apply_windowing
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

STORED = np.array([[0, 1024 - 1350, 1024 - 600], [1024 + 150, 1024 + 900, 1024 - 1000]], np.int16)
GREYS = [[0, 0, 128], [255, 255, 60]]  # in Hounsfield units -1024, -1350, -600, 150, 900, -1000


def shipped(name: str) -> Path:
    """A file that pydicom's package holds."""
    return Path(str(get_testdata_file(name, download=False)))


def frames(path: Path) -> list[Any]:
    """The greys of the frames. Raises the first fault."""
    greys = []
    for found in read_frames(path, path.read_bytes()):
        if isinstance(found, UserError):
            raise found
        greys.append(found.tolist())
    return greys


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
    assert frames(tmp_path / "b.dcm") == frames(tmp_path / "a.dcm")  # Hounsfield units stay, however they are shown


def test_frames_have_their_own_rescale(tmp_path: Path) -> None:
    stored = np.array([[[0, 375], [750, 1500]]] * 2, np.int16)
    groups = []
    for intercept in (-1350, -1725):
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
    assert frames(tmp_path / "a.dcm") == [[[0, 64], [128, 255]], [[0, 0], [64, 191]]]


@pytest.mark.parametrize(
    ("turn", "directions"),
    [
        (lambda stored: stored, [1, 0, 0, 0, 1, 0]),
        (lambda stored: stored[::-1, ::-1], [-1, 0, 0, 0, -1, 0]),  # on the belly
        (lambda stored: stored[::-1], [1, 0, 0, 0, -1, 0]),
        (lambda stored: stored[:, ::-1], [-1, 0, 0, 0, 1, 0]),
        (lambda stored: stored.T, [0, 1, 0, 1, 0, 0]),
    ],
)
def test_the_front_of_the_body_is_above_and_its_right_side_left(
    tmp_path: Path, turn: Callable[[np.ndarray], np.ndarray], directions: list[int]
) -> None:
    write_dicom(tmp_path / "a.dcm", STORED)
    write_dicom(tmp_path / "b.dcm", np.ascontiguousarray(turn(STORED)), ImageOrientationPatient=directions)
    assert frames(tmp_path / "b.dcm") == frames(tmp_path / "a.dcm")


def test_a_tilted_gantry_still_gives_axial_slices(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", STORED)
    tilt = np.radians(30)
    write_dicom(tmp_path / "b.dcm", STORED, ImageOrientationPatient=[1, 0, 0, 0, round(np.cos(tilt), 6), -0.5])
    assert frames(tmp_path / "b.dcm") == frames(tmp_path / "a.dcm")


CHEST = np.array([[-1000, -850, -600, -100], [40, 150, 400, -900]])  # Hounsfield units
CHEST_GREYS = [[60, 85, 128, 212], [236, 255, 255, 76]]


@pytest.mark.parametrize(
    ("signed", "value", "limit", "stored"),
    [
        (False, 4095, None, 4095),
        (False, 4000, 4095, 4050),
        (False, 4095, 4000, 4050),  # the range may be given from either end
        (True, -2000, None, -2000),
        (True, ("US", 63536), None, -2000),  # written as if pixels were unsigned
        (False, ("SS", -2000), None, 63536),
    ],
)
def test_padding_is_black(tmp_path: Path, signed: bool, value: Any, limit: int | None, stored: int) -> None:
    values = (CHEST + (0 if signed else 1024)).astype(np.int64)
    values[0, 2] = stored
    changes: dict[str, Any] = {} if limit is None else {"PixelPaddingRangeLimit": limit}
    write_dicom(
        tmp_path / "a.dcm",
        values.astype(np.int16 if signed else np.uint16),
        PixelRepresentation=int(signed),
        RescaleIntercept=0 if signed else -1024,
        PixelPaddingValue=value,
        **changes,
    )
    expected = np.array(CHEST_GREYS)
    expected[0, 2] = 0
    assert frames(tmp_path / "a.dcm") == [expected.tolist()]


def test_unused_bits_are_not_values(tmp_path: Path) -> None:
    """Of 12 bits stored in 16, the upper 4 may hold anything, such as an overlay."""
    stored = (CHEST + 1024).astype(np.uint16) | 0x3000
    write_dicom(tmp_path / "a.dcm", stored, PixelRepresentation=0, BitsStored=12, HighBit=11)
    assert frames(tmp_path / "a.dcm") == [CHEST_GREYS]


def test_one_bad_frame_does_not_lose_the_others(tmp_path: Path) -> None:
    stored = np.stack([CHEST, np.full_like(CHEST, -1024), CHEST, CHEST]).astype(np.int16) + 1024
    path = tmp_path / "a.dcm"
    write_dicom(path, stored.astype(np.int16), PixelData=stored.astype(np.int16).tobytes()[:-8])
    found = [
        greys if isinstance(greys, UserError) else greys.tolist() for greys in read_frames(path, path.read_bytes())
    ]
    assert found[0] == found[2] == CHEST_GREYS
    assert str(found[1]).startswith(f"{path}#2: constant, every pixel is -1024")
    assert str(found[3]).startswith(f"{path}#4: its pixels end here, before the last of 4 frames")


@pytest.mark.parametrize("name", ["CT_small.dcm", "693_J2KI.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_greys_are_those_of_pydicom_by_its_own_rescale_and_window(name: str) -> None:
    """J2K_pixelrep_mismatch.dcm has signs in its header that differ from those of its JPEG 2000 stream."""
    path = shipped(name)
    dataset = pydicom.dcmread(path)
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = -600, 1500, "LINEAR_EXACT"
    hounsfield = apply_modality_lut(dataset.pixel_array, dataset)
    shown = apply_windowing(hounsfield, dataset)
    ends = np.array([-(2 ** (dataset.BitsStored - 1)), 2 ** (dataset.BitsStored - 1) - 1])  # signed pixels
    black, white = ends * dataset.RescaleSlope + dataset.RescaleIntercept
    expected = (shown - black) / (white - black) * 255
    padding = dataset.pixel_array == dataset.get("PixelPaddingValue", -2000)
    (greys,) = frames(path)
    np.testing.assert_allclose(greys, np.where(padding, 0, expected), atol=0.51)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Modality": "MR"}, "modality MR, not CT"),
        ({"Modality": None}, "modality none, not CT"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "a plane along the body (coronal or sagittal)"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1]}, "damaged DICOM"),
        ({"PixelData": None}, "without pixels"),
        ({"PhotometricInterpretation": "RGB"}, "in RGB, not in greys"),
        ({"RescaleSlope": None}, "without rescale slope and intercept"),
        ({"RescaleType": "OD"}, "in units OD, not in Hounsfield units"),
        ({"RescaleIntercept": 0}, "holds no air (lowest value 0"),
        ({"RescaleIntercept": -3000}, "holds air alone (highest value -1401"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "a secondary capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}, "a secondary capture"),
        ({"NumberOfFrames": 10**9}, "1000000000 frames, absurdly many"),
        ({"PixelPaddingValue": -32768, "PixelPaddingRangeLimit": 32767}, "holds padding alone"),
        ({"BitsStored": 12, "HighBit": 15}, "12 bits end at bit 15"),
        ({"Rows": 20000, "Columns": 20000}, "20000x20000 pixels, absurdly large"),
        ({"PixelData": b"\0\0"}, "can't be decoded here"),
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


@pytest.mark.parametrize(
    ("syntax", "package"),
    [
        (JPEGLosslessSV1, "python-gdcm"),
        (JPEGLSLossless, "python-gdcm"),
        (HTJ2KLossless, "pylibjpeg pylibjpeg-openjpeg"),
    ],
)
def test_a_refusal_names_the_package_that_would_decode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID, package: str
) -> None:
    monkeypatch.setattr("ctscan.images.dicom.find_spec", lambda name: None)
    write_dicom(tmp_path / "a.dcm", syntax=syntax)
    with pytest.raises(UserError) as caught:
        frames(tmp_path / "a.dcm")
    assert f"its pixels, {syntax.name}, can't be decoded here" in str(caught.value)
    assert f"`pip install {package}`, which read" in str(caught.value)


def test_jpeg_ls_is_read_with_gdcm(tmp_path: Path) -> None:
    pytest.importorskip("gdcm")
    found = []
    for name in ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm"):
        dataset = pydicom.dcmread(shipped(name))
        dataset.Modality, dataset.SOPClassUID = "CT", CTImageStorage
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1350
        dataset.save_as(tmp_path / name)
        found.append(frames(tmp_path / name))
    assert found[0] == found[1]


def test_a_file_without_transfer_syntax_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    write_dicom(path)
    dataset = pydicom.dcmread(path)
    del dataset.file_meta.TransferSyntaxUID
    dataset.save_as(path, implicit_vr=False, little_endian=True)
    with pytest.raises(UserError, match=r"a\.dcm: DICOM without transfer syntax"):
        frames(path)


def test_a_deflated_file_is_read_unless_it_would_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.dcm"
    dataset = write_dicom(path, STORED)
    expected = frames(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    assert frames(path) == expected
    dataset.add_new("PixelDataProviderURL", "UR", "x" * 200_000)
    dataset.save_as(path, enforce_file_format=True)
    assert path.stat().st_size < 2000
    monkeypatch.setattr("ctscan.images.dicom.MAX_UNPACKED", 100_000)
    with pytest.raises(UserError, match=r"a\.dcm: absurdly large for CT slices"):
        frames(path)


def test_compressed_pixels_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    dataset = write_dicom(path, STORED, syntax=RLELossless)
    run = b"\x81\x00" * 50_000  # each pair unpacks to 128 bytes
    dataset.PixelData = pydicom.encaps.encapsulate([struct.pack("<16L", 2, 64, 64 + len(run), *[0] * 13) + run + run])
    dataset.save_as(path, enforce_file_format=True)
    with pytest.raises(UserError, match=r"compressed bytes, more than 1 frames of 3x2 pixels can need"):
        frames(path)


@pytest.mark.parametrize("content", [b"no DICOM at all", b"\0" * 128 + b"DICM" + b"\xff" * 50])
def test_damaged_files_are_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.dcm: .*DICOM"):
        frames(path)
