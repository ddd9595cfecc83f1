"""Damaged DICOM, NIfTI and gzip files give greys or one line: no traceback, no hang, nothing written."""

import gzip
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ctscan.core.errors import UserError
from ctscan.images.kinds import HEAD, kind
from ctscan.inference.inputs import read

import nibabel
import numpy as np
import pytest
from dicom_files import write_dicom
from drawing import texture
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import tiff
from pydicom.uid import JPEG2000Lossless, RLELossless

CHEST = texture(1).astype(np.int16) * 4


def seeds() -> list[bytes]:
    contents = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        variants: list[dict[str, Any]] = [
            {},
            {"pixels": np.stack([CHEST] * 3)},
            {"syntax": RLELossless},
            {"syntax": JPEG2000Lossless},
            {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 20},
        ]
        for changes in variants:
            write_dicom(path, changes.pop("pixels", CHEST), **changes)
            contents.append(path.read_bytes())
    volume = nibabel.Nifti1Image(np.stack([CHEST] * 3, -1) - 1000, np.diag([-1, -1, 1, 1])).to_bytes()
    return [*contents, volume, gzip.compress(volume), gzip.compress(contents[0]), tiff(CHEST * 16.0)]


SEEDS = seeds()


@pytest.mark.filterwarnings("ignore:::pydicom", "ignore:::nibabel")
@settings(max_examples=600, deadline=timedelta(seconds=10))
@given(
    content=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_damaged_content_gives_slices_or_one_line_each(
    content: bytes, edits: list[tuple[float, int]], keep: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(content)
    for position, value in edits:
        # Squared: headers, where the harm is done, get most of the edits.
        damaged[int(position**2 * len(damaged))] = value
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    path = folder / "a.dcm"
    path.write_bytes(damaged[: round(keep * len(damaged))])
    results = read(path, 32, 8)
    assert results
    for found in results:
        if isinstance(found, UserError):
            assert str(found).startswith(str(path))
            assert "\n" not in str(found)
        else:
            assert found.pixels.shape == (32, 32)
            assert found.pixels.dtype == np.uint8
    assert [file.name for file in folder.iterdir()] == ["a.dcm"]


@settings(max_examples=500)
@given(st.binary(max_size=HEAD))
def test_any_beginning_has_a_kind_or_none(head: bytes) -> None:
    found = kind(head)
    assert found is None or isinstance(found, str)
