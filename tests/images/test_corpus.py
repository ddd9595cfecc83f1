"""Read the test images that other packages ship: each to the greys that its library gives, or refused in one line."""

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.core.params import Classes
from ctscan.images.decode import Slice, slices
from ctscan.images.greys import Greys
from ctscan.inference.inputs import read
from ctscan.split.check import scan

import imageio.v3
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels.processing import apply_modality_lut, apply_windowing
from skimage.io import imread

# Folders of the installed packages; what is not installed has none.
PLACES = (
    "pydicom/data/test_files",
    "skimage/data",
    "matplotlib/mpl-data/images",
    "matplotlib/mpl-data/sample_data",
    "sklearn/datasets/images",
    "nibabel/tests/data",
    "jpeg_ls/tests",
    "openjpeg/tests",
    "libjpeg/tests",
    "pylibjpeg/tests",
    "imageio/resources",
)


def corpus() -> list[Path]:
    files = []
    for place in PLACES:
        package, _, below = place.partition("/")
        found = find_spec(package)
        for root in (found.submodule_search_locations or []) if found else []:
            files += [path for path in Path(root, below).rglob("*") if path.is_file() and path.suffix[:3] != ".py"]
    return sorted(files)


def by_pydicom(path: Path) -> np.ndarray:
    """Greys by pydicom's own rescale and window, padding black."""
    dataset = pydicom.dcmread(path)
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = -600, 1500, "LINEAR_EXACT"
    stored = dataset.pixel_array
    bits = dataset.BitsStored
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if dataset.PixelRepresentation else [0, 2**bits - 1])
    black, white = ends * dataset.RescaleSlope + dataset.RescaleIntercept
    greys = (apply_windowing(apply_modality_lut(stored, dataset), dataset) - black) / (white - black) * 255
    return np.where(stored == dataset.get("PixelPaddingValue"), 0, greys)


def by_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        if image.mode.startswith("I"):
            return np.asarray(image) / 257
        black = Image.new("RGBA", image.size, "black")
        black.alpha_composite(image.convert("RGBA"))
    return np.asarray(black.convert("L"))


@pytest.mark.filterwarnings("ignore:::pydicom", "ignore:::nibabel")
def test_each_is_read_as_its_library_reads_it_or_refused_in_one_line() -> None:
    outcomes: Counter[str] = Counter()
    for path in corpus():
        results = read(path, 64, 8)
        assert results, path
        for fault in (str(found) for found in results if isinstance(found, UserError)):
            assert fault.startswith(str(path))
            assert "; " in fault
            assert "\n" not in fault
        try:
            found = [one for one in slices(path) if isinstance(one, Slice)]
        except UserError:
            found = []
        outcomes[found[0].format if found else "refused"] += 1
        if found and found[0].format == "DICOM":
            np.testing.assert_allclose(found[0].pixels, by_pydicom(path), atol=0.51, err_msg=str(path))
        elif found and found[0].format != "NIfTI":
            np.testing.assert_allclose(found[0].pixels, by_pillow(path), atol=1, err_msg=str(path))
    assert outcomes["DICOM"] >= 5
    assert outcomes["PNG"] >= 30
    assert outcomes["JPEG"] >= 4
    assert outcomes["refused"] >= 100


@pytest.mark.filterwarnings("ignore:::pydicom", "ignore:::nibabel")
def test_a_dataset_of_them_has_a_line_for_each_that_it_can_not_hold(tmp_path: Path) -> None:
    """Nothing is lost on the way: each file is an image, a fault, or a warning."""
    for name in ("COVID", "non-COVID"):
        (tmp_path / name).mkdir()
    files = corpus()
    for number, path in enumerate(files):
        name = f"{number:04d} {path.name}" if path.suffix else f"{number:04d}"
        (tmp_path / ("COVID", "non-COVID")[number % 2] / name).write_bytes(path.read_bytes())
    with pytest.raises(UserError) as raised:
        scan(tmp_path, Classes(positive="COVID", negative="non-COVID"), 8)
    first, *faults = str(raised.value).split("\n  ")
    assert first.startswith(f"{tmp_path}: {len(faults)} faults")
    assert all(line.startswith(str(tmp_path)) and "; " in line for line in faults)
    bad = {line[len(str(tmp_path)) :].partition(": ")[0] for line in faults}
    for name in bad:
        (tmp_path / name.lstrip("/")).unlink(missing_ok=True)
    manifest = scan(tmp_path, Classes(positive="COVID", negative="non-COVID"), 8).manifest
    ignored = [line for line in manifest.attrs["warnings"] if line.endswith("ignored")]
    assert len(manifest) + len(ignored) == sum(1 for path in tmp_path.glob("*/*"))


KINDS = {
    "grey": lambda greys: greys,
    "colour": lambda greys: np.dstack([greys, greys[::-1], 255 - greys]),
    "deep": lambda greys: greys.astype(np.uint16) * 257,
}


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        *(("grey", suffix) for suffix in ("png", "tiff", "jp2", "bmp", "webp", "pgm", "jpg")),
        *(("colour", suffix) for suffix in ("png", "tiff", "jp2", "bmp", "webp", "jpg")),
        *(("deep", suffix) for suffix in ("png", "tiff", "jp2", "pgm")),
    ],
)
def test_greys_are_those_on_which_three_libraries_agree(tmp_path: Path, kind: str, suffix: str) -> None:
    random = np.random.default_rng(1)
    greys: Greys = np.asarray(Image.fromarray(random.integers(0, 256, (9, 9), np.uint8)).resize((40, 36)))
    path = tmp_path / f"a.{suffix}"
    if suffix == "webp":
        Image.fromarray(KINDS[kind](greys)).save(path, lossless=True)
    else:
        Image.fromarray(KINDS[kind](greys)).save(path)
    (found,) = slices(path)
    assert isinstance(found, Slice)
    read_by = [np.asarray(Image.open(path)), imread(path), imageio.v3.imread(path)]
    for values in read_by:
        values = values.astype(float)
        if values.ndim == 3:
            values = values[..., :3] @ [0.299, 0.587, 0.114]
        # Pillow and imageio give a PGM of 16 bits as 32 bits.
        expected = values / 257 if kind == "deep" else values
        np.testing.assert_allclose(found.pixels, expected, atol=1)
