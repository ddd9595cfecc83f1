"""A bounded computation looks at whole groups of every kind."""

from ctscan.core.sampling import whole_groups

import numpy as np


def test_all_images_up_to_the_number_and_then_no_more_groups_than_it_takes() -> None:
    groups = np.repeat(np.arange(50), 4)
    kinds = groups % 2
    for seed in range(20):
        assert whole_groups(groups, kinds, 200, np.random.default_rng(seed)).all()
        taken = whole_groups(groups, kinds, 42, np.random.default_rng(seed)).reshape(50, 4)
        assert (taken.all(axis=1) == taken.any(axis=1)).all()
        assert taken.sum() == 44


def test_a_rare_kind_is_reached() -> None:
    groups, kinds = np.arange(100), np.arange(100) == 3
    drawn = [whole_groups(groups, kinds, 5, np.random.default_rng(seed)) for seed in range(20)]
    assert all(taken[3] for taken in drawn)
    assert min(taken.sum() for taken in drawn) < max(taken.sum() for taken in drawn)
