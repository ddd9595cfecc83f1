import csv
from collections import Counter
from pathlib import Path

from ctscan import phantoms
from ctscan.phantoms import PATIENTS, SAMPLE_SEED, SLICES, draw_sample, draw_slice

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "sample"
    draw_sample(folder, SAMPLE_SEED)
    return folder


def _rows(sample: Path) -> list[tuple[str, str]]:
    with (sample / "groups.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "group"]
    return [(path, group) for path, group in rows]


def test_names_follow_the_real_dataset(sample: Path) -> None:
    names = {path.relative_to(sample).as_posix() for path in sample.rglob("*.png")}
    expected = {f"COVID/Covid ({n}).png" for n in range(1, 121)}
    assert names == expected | {f"non-COVID/Non-Covid ({n}).png" for n in range(1, 121)}
    assert {path.name for path in sample.iterdir()} == {"COVID", "non-COVID", "groups.csv"}


def test_groups_number_the_images_by_patient(sample: Path) -> None:
    groups = dict(_rows(sample))
    assert set(groups) == {path.relative_to(sample).as_posix() for path in sample.rglob("*.png")}
    for n in range(1, 121):
        patient = (n + 2) // 3
        assert groups[f"COVID/Covid ({n}).png"] == f"covid-{patient:02d}"
        assert groups[f"non-COVID/Non-Covid ({n}).png"] == f"non-covid-{patient:02d}"


def test_sample_is_small(sample: Path) -> None:
    assert sum(path.stat().st_size for path in sample.rglob("*") if path.is_file()) < 4.5 * MEGABYTE


def test_sizes_and_modes_are_the_same_in_both_classes(sample: Path) -> None:
    sizes: dict[str, Counter[tuple[int, int]]] = {"COVID": Counter(), "non-COVID": Counter()}
    modes: dict[str, Counter[str]] = {"COVID": Counter(), "non-COVID": Counter()}
    for path in sample.rglob("*.png"):
        with Image.open(path) as image:
            sizes[path.parent.name][image.size] += 1
            modes[path.parent.name][image.mode] += 1
    assert sizes["COVID"] == sizes["non-COVID"]
    assert modes["COVID"] == modes["non-COVID"]
    assert set(modes["COVID"]) == {"L", "RGB", "RGBA"}
    assert len(sizes["COVID"]) > PATIENTS // 2
    assert all(160 <= width <= 220 for width, _ in sizes["COVID"])


@pytest.mark.parametrize(("patient", "position", "positive"), [(1, 1, True), (17, 3, False), (40, 2, True)])
def test_files_hold_the_slices_as_opaque_grey(sample: Path, patient: int, position: int, positive: bool) -> None:
    number = SLICES * (patient - 1) + position
    path = sample / (f"COVID/Covid ({number}).png" if positive else f"non-COVID/Non-Covid ({number}).png")
    grey, _ = draw_slice(patient, position, positive, SAMPLE_SEED)
    with Image.open(path) as image:
        bands = np.asarray(image.convert("RGBA"))
    assert all(np.array_equal(bands[..., band], grey) for band in range(3))
    assert (bands[..., 3] == 255).all()


def test_redrawing_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantoms, "PATIENTS", 3)
    monkeypatch.setattr(phantoms, "SLICES", 1)
    for folder, seed in (("once", 5), ("again", 5), ("other", 6)):
        draw_sample(tmp_path / folder, seed)
    paths = sorted(path.relative_to(tmp_path / "once") for path in (tmp_path / "once").rglob("*.*"))
    assert len(paths) == 7
    for path in paths:
        once, again, other = ((tmp_path / folder / path).read_bytes() for folder in ("once", "again", "other"))
        assert once == again
        assert (once == other) == (path.name == "groups.csv")


def test_files_carry_no_metadata(sample: Path) -> None:
    for path in sample.rglob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert image.info == {}


@pytest.mark.parametrize("positive", [True, False])
def test_seed_patient_and_position_each_change_the_slice(positive: bool) -> None:
    grey, lungs = draw_slice(2, 2, positive, 5)
    assert grey.dtype == np.uint8
    assert lungs.dtype == np.bool_
    assert grey.shape == lungs.shape
    for other in ((2, 2, 6), (3, 2, 5), (2, 3, 5)):
        changed, _ = draw_slice(other[0], other[1], positive, other[2])
        assert not np.array_equal(changed, grey)


@pytest.mark.parametrize("positive", [True, False])
def test_lesions_brighten_the_lungs_and_nothing_else(positive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    patients = range(1, 10)
    ill = [draw_slice(patient, 2, positive, SAMPLE_SEED) for patient in patients]
    monkeypatch.setattr(phantoms, "_lesion_opacity", lambda _body, _patient, _positive, x, *_: np.zeros(x.shape))
    clear = [draw_slice(patient, 2, positive, SAMPLE_SEED) for patient in patients]
    changed = 0
    for (with_lesions, lungs), (without, same_lungs) in zip(ill, clear, strict=True):
        assert np.array_equal(lungs, same_lungs)
        assert np.array_equal(with_lesions[~lungs], without[~lungs])
        assert (with_lesions[lungs] >= without[lungs]).all()
        changed += bool((with_lesions != without).any())
    # Every COVID patient has lesions; of the others a third has clear lungs.
    assert changed == len(patients) if positive else 0 < changed < len(patients)


def test_lungs_are_two_dark_regions_inside_the_body() -> None:
    grey, lungs = draw_slice(3, 2, True, SAMPLE_SEED)
    assert 0.1 < lungs.mean() < 0.5
    middle = grey.shape[1] // 2
    left, right = lungs[:, :middle].sum(), lungs[:, middle:].sum()
    assert 0.3 < left / (left + right) < 0.8
    assert not any(edge.any() for edge in (lungs[0], lungs[-1], lungs[:, 0], lungs[:, -1]))
    body = ndimage.binary_fill_holes(grey > 130)
    assert not (lungs & ~body).any()
    assert grey[lungs].mean() + 20 < grey[body & ~lungs].mean()


def test_look_up_knows_patients_and_not_the_disease(sample: Path) -> None:
    paths, groups = zip(*_rows(sample), strict=True)
    thumbnails = np.empty((len(paths), 28 * 28))
    for row, path in enumerate(paths):
        with Image.open(sample / path) as image:
            thumbnails[row] = np.asarray(image.convert("L").resize((28, 28))).ravel()
    distances = ((thumbnails[:, None] - thumbnails) ** 2).sum(axis=-1)
    np.fill_diagonal(distances, np.inf)
    group, covid = np.array(groups), np.array([path.startswith("COVID/") for path in paths])
    assert (group[distances.argmin(axis=1)] == group).mean() > 0.9
    distances[group[:, None] == group] = np.inf
    assert (covid[distances.argmin(axis=1)] == covid).mean() < 0.75


def test_image_borders_look_alike_in_both_classes(sample: Path) -> None:
    means: dict[str, list[float]] = {"COVID": [], "non-COVID": []}
    for path in sample.rglob("*.png"):
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L"), dtype=float)
        inner = grey[8:-8, 8:-8]
        means[path.parent.name].append((grey.sum() - inner.sum()) / (grey.size - inner.size))
    covid, other = np.array(means["COVID"]), np.array(means["non-COVID"])
    auc = (covid[:, None] > other).mean()
    assert 0.3 < auc < 0.7
