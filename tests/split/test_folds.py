"""Folds: each image is tested once, classes are in proportion, groups are whole."""

from ctscan.core.errors import UserError
from ctscan.split.folds import test_fold as draw_fold

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st


def drawn(
    labels: npt.NDArray[np.int_], groups: npt.NDArray[np.intp] | None, folds: int, seed: int
) -> npt.NDArray[np.bool_]:
    """(folds, n)."""
    return np.stack([draw_fold(labels, groups, folds, fold, seed) for fold in range(folds)])


@settings(deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(2, 6), st.integers(40, 200), st.floats(0.2, 0.8))
def test_images_are_tested_once_and_in_proportion(seed: int, folds: int, images: int, share: float) -> None:
    labels = (np.random.default_rng(seed).random(images) < share).astype(int)
    assume(min(labels.sum(), images - labels.sum()) >= 6)
    parts = drawn(labels, None, folds, seed)
    assert (parts.sum(axis=0) == 1).all()
    for label in (0, 1):
        assert np.ptp(parts[:, labels == label].sum(axis=1)) <= 1


@settings(deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(2, 5), st.integers(20, 60))
def test_groups_are_whole_and_folds_are_in_proportion(seed: int, folds: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(number), rng.integers(1, 9, number))
    labels = groups % 2
    parts = drawn(labels, groups, folds, seed)
    assert (parts.sum(axis=0) == 1).all()
    for group in range(number):
        assert (parts[:, groups == group].sum(axis=1) % (groups == group).sum() == 0).all()
    for label in (0, 1):
        counts = parts[:, labels == label].sum(axis=1)
        assert counts.min() > 0
        assert np.ptp(counts) <= 8  # one of the largest groups


def test_folds_of_the_study_under_blocks_of_20() -> None:
    labels = np.repeat([1, 0], [1252, 1230])
    groups = np.concatenate([np.arange(1252) // 20, 63 + np.arange(1230) // 20])
    for seed in range(3):
        counts = np.stack([drawn(labels, groups, 5, seed)[:, labels == label].sum(axis=1) for label in (0, 1)])
        assert counts.min() >= 240
        assert counts.max() <= 262


def test_a_group_of_both_classes_stays_whole() -> None:
    groups = np.repeat(np.arange(12), 5)
    labels = (groups % 2).astype(int)
    labels[groups == 3] = [0, 1, 0, 1, 1]
    parts = drawn(labels, groups, 3, 0)
    assert (parts[:, groups == 3].sum(axis=1) % 5 == 0).all()
    assert [labels[part].mean() for part in parts] == pytest.approx([0.5] * 3, abs=0.15)


def test_the_seed_alone_decides() -> None:
    labels = np.arange(60) % 2
    assert (drawn(labels, None, 5, 1) == drawn(labels, None, 5, 1)).all()
    assert (drawn(labels, None, 5, 1) != drawn(labels, None, 5, 2)).any()


def test_what_can_not_be_cut_is_refused() -> None:
    labels = np.arange(20) % 2
    with pytest.raises(UserError, match=r"split\.fold = 5; it needs an integer from 0 to 4"):
        draw_fold(labels, None, 5, 5, 0)
    with pytest.raises(UserError, match="12 images of each class, but one has 10"):
        draw_fold(labels, None, 12, 0, 0)
    with pytest.raises(UserError, match="3 groups of each class, but one has 2"):
        draw_fold(labels, np.arange(20) % 4, 2, 0, 0)
