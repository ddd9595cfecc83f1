"""The novelty detector finds unfamiliar images and lets slices like the training images pass."""

from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.core.seeds import INFERENCE_BATCH
from ctscan.evaluation import novelty
from ctscan.evaluation.unfamiliar_images import non_ct_images
from ctscan.images.decode import resize
from ctscan.phantoms import SAMPLE_SEED, draw_slice

import numpy as np
import pytest

Slices = np.ndarray


def phantoms(numbers: range) -> Slices:
    """A slice for each of `numbers`, below 120: of 60 patients, one of two positions."""
    drawn = [draw_slice(n // 2 % 30 + 1, 2 + n // 60, n % 2 == 0, SAMPLE_SEED)[0] for n in numbers]
    return np.stack([resize(pixels, 64) for pixels in drawn])


def features_of(slices: Slices) -> np.ndarray:
    """Stands for a network's: a projection of 8x8 means."""
    means = slices.reshape(len(slices), 8, 8, 8, 8).mean(axis=(2, 4)).reshape(len(slices), -1)
    features: np.ndarray = np.maximum(means @ np.random.default_rng(0).standard_normal((64, 20)), 0)
    return features


def fitted(train: Slices, train_features: np.ndarray, val: Slices, features: np.ndarray) -> novelty.NoveltyDetector:
    unscaled = novelty.fit_detector(train, train_features)
    return unscaled.scaled(unscaled.distances(val, features))


@pytest.fixture(scope="module")
def detector() -> novelty.NoveltyDetector:
    train, val = phantoms(range(1, 41)), phantoms(range(41, 61))
    return fitted(train, features_of(train), val, features_of(val))


def test_validation_passes_up_to_its_limit(detector: novelty.NoveltyDetector) -> None:
    val = phantoms(range(41, 61))
    assert detector.score(val, features_of(val)).max() == pytest.approx(1)


@pytest.mark.parametrize("count", [59, 261])
def test_the_level_holds_with_the_confidence_that_is_said(count: int) -> None:
    draws = np.random.default_rng(count).random((2000, count))  # of which a limit's share is the limit itself
    kept = np.mean([novelty._tolerance_limit(draw) >= novelty.LEVEL for draw in draws])
    assert 0.93 <= kept <= 0.98


def test_other_images_are_unfamiliar_and_unseen_slices_pass(detector: novelty.NoveltyDetector) -> None:
    unseen = phantoms(range(61, 101))
    assert (detector.score(unseen, features_of(unseen)) <= 1).mean() >= 0.8
    for kind, images in non_ct_images(unseen, 9, seed=3).items():
        assert (detector.score(images, features_of(images)) > 1).mean() >= 0.95, kind


def test_either_distance_alone_can_tell(detector: novelty.NoveltyDetector) -> None:
    slices = phantoms(range(1, 4))
    known = features_of(slices)
    assert (detector.score(slices, known) < 1).all()
    assert (detector.score(slices, known[:, ::-1]) > 1).all()
    assert (detector.score(255 - slices, known) > 1).all()


def test_equal_features_are_no_division_by_zero() -> None:
    slices = phantoms(range(1, 9))
    detector = fitted(slices, np.ones((8, 3)), slices, np.ones((8, 3)))
    assert np.isfinite(detector.score(slices, np.ones((8, 3)))).all()


def test_saved_is_the_same_bytes_and_reads_back(detector: novelty.NoveltyDetector, tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        detector.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    for kept, read in zip(detector, novelty.load_detector(tmp_path / "a.npz"), strict=True):
        assert np.array_equal(kept, read)


def test_a_damaged_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK damaged")
    with pytest.raises(UserError, match=r"a\.npz: damaged"):
        novelty.load_detector(tmp_path / "a.npz")


def test_references_are_a_fixed_draw_of_training() -> None:
    train = np.arange(5, 2005)
    drawn = novelty.reference_rows(train, seed=1)
    assert len(set(drawn.tolist())) == novelty.REFERENCES
    assert set(drawn.tolist()) <= set(train.tolist())
    assert np.array_equal(drawn, novelty.reference_rows(train, seed=1))
    assert not np.array_equal(drawn, novelty.reference_rows(train, seed=2))
    assert novelty.reference_rows(train[:9], seed=1).tolist() == train[:9].tolist()


def test_a_few_slices_of_a_test_set_are_tried_from_all_over_it() -> None:
    assert novelty.tried_rows(20).tolist() == list(range(20))
    tried = novelty.tried_rows(100_000)
    assert len(tried) == novelty.DRAWN
    assert np.diff(tried).tolist() == [3125] * 31


def test_images_of_other_kinds_depend_on_the_seed_alone() -> None:
    slices = phantoms(range(1, 3))
    first, again, other = (non_ct_images(slices, 4, seed) for seed in (1, 1, 2))
    for kind, images in first.items():
        assert images.dtype == np.uint8
        assert images.shape[1:] == (64, 64)
        assert np.array_equal(images, again[kind])
        assert kind == "inverted" or not np.array_equal(images, other[kind])


def test_statistics_of_many_slices_are_those_of_each() -> None:
    slices = np.random.default_rng(0).integers(0, 256, (INFERENCE_BATCH + 5, 9, 9), dtype=np.uint8)
    each = np.concatenate([novelty._statistics(one[None]) for one in slices])
    np.testing.assert_allclose(novelty._statistics(slices), each)
