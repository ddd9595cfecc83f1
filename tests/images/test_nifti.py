"""NIfTI volumes to the greys of their axial slices."""

import gzip
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.images.decode import decode, slices
from ctscan.images.greys import lung_window

import nibabel
import numpy as np
import pytest
from nibabel.orientations import inv_ornt_aff

# Hounsfield units (slice from the feet, row from the front, column from the right side), as DICOM orders them.
CHEST = np.random.default_rng(1).integers(-125, 125, (4, 6, 8)) * 8.0


def volume(axes: str, kind: type = np.int16, slope: float = 1, intercept: float = 0) -> nibabel.Nifti1Image:
    """CHEST stored along `axes`, such as RAS: the directions in which its three indices grow."""
    left_to_right = CHEST[:, ::-1, ::-1].transpose(2, 1, 0)  # RAS: to the right, the front and the head
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(axes)
    )
    stored = nibabel.apply_orientation(np.rint((left_to_right - intercept) / slope), turn)
    affine = inv_ornt_aff(turn, left_to_right.shape)
    image = nibabel.Nifti1Image(stored, affine, dtype=kind)
    image.header.set_slope_inter(slope, intercept)
    return image


def greys(path: Path) -> list[Any]:
    return [str(found) if isinstance(found, UserError) else found.pixels.tolist() for found in slices(path)]


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SRA"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "1.2.840.113"])
def test_slices_are_axial_and_turned_as_in_dicom(axes: str, name: str, tmp_path: Path) -> None:
    content = volume(axes).to_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert greys(tmp_path / name) == lung_window(CHEST).tolist()


@pytest.mark.parametrize(
    ("kind", "slope", "intercept"),
    [(np.int16, 1, -1024), (np.uint16, 2, -1024), (np.float32, 1, 0), (np.uint8, 8, -1000)],
)
def test_values_are_scaled_by_the_header(kind: type, slope: float, intercept: float, tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(volume("RAS", kind, slope, intercept).to_bytes())
    expected = lung_window(CHEST).tolist()
    np.testing.assert_allclose(greys(tmp_path / "a.nii"), expected, atol=1)


def test_a_slice_without_air_is_named_and_the_others_read(tmp_path: Path) -> None:
    image = volume("RAS")
    data = np.asarray(image.dataobj).copy()
    data[..., 1] = data[..., 1] // 8 + 125  # 0 to 255
    (tmp_path / "a.nii").write_bytes(nibabel.Nifti1Image(data, image.affine).to_bytes())
    found = greys(tmp_path / "a.nii")
    assert str(found[1]).startswith(f"{tmp_path / 'a.nii'}#2: holds no air (lowest value")
    assert found[0] == lung_window(CHEST[0]).tolist()
    with pytest.raises(UserError, match="holds several frames; export each slice"):
        decode(tmp_path / "a.nii")


def test_what_is_no_volume_of_greys_is_one_clear_line(tmp_path: Path) -> None:
    sound = volume("RAS")
    without = sound.to_bytes()[:252] + bytes(4) + sound.to_bytes()[256:]  # qform_code and sform_code
    series = nibabel.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4))
    colour = nibabel.Nifti1Image(np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), np.eye(4))
    cases = {
        "cut": (sound.to_bytes()[:-30], "damaged NIfTI"),
        "head": (sound.to_bytes()[:349], "damaged NIfTI"),
        "without": (without, "NIfTI without orientation"),
        "series": (series.to_bytes(), "not one volume"),
        "colour": (colour.to_bytes(), "not of grey values"),
        "pair": (b"\x5c\x01\0\0" + bytes(344), "holds Analyze or NIfTI in two files"),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            greys(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
