"""Draw the test fold of a cross-validation: every image is in exactly one of the folds, and groups stay whole."""

from ctscan.core.errors import UserError
from ctscan.core.seeds import derive_seed, generator

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold

GROUPS_LEFT = 2  # groups of a class that each fold leaves: one for train, one for validation


def test_fold(
    labels: npt.NDArray[np.int_], groups: npt.NDArray[np.intp] | None, folds: int, fold: int, seed: int
) -> npt.NDArray[np.bool_]:
    """The images of test, (n,), when the images are cut into `folds` parts and part number `fold` (from 0) is tested.

    The parts depend on labels, groups and seed alone, so runs with different `fold` share them. Each has its share of
    both classes, as nearly as whole groups allow.

    Args:
        labels: (n,) of 0 and 1.
        groups: (n,) codes of what has to stay together; None where images may be drawn one by one.
        folds: 2 or more.

    Raises:
        UserError: `fold` is not one of the folds, a class has too few images or groups, or a fold lacks a class.
    """
    if not 0 <= fold < folds:
        raise UserError(f"params.yaml: split.fold = {fold}; it needs an integer from 0 to {folds - 1}")
    needed = max(folds, GROUPS_LEFT + 1)
    for label in (0, 1):
        found = int((labels == label).sum()) if groups is None else len(np.unique(groups[labels == label]))
        if found < needed:
            unit = "images" if groups is None else "groups"
            raise UserError(
                f"split: {folds} folds need {needed} {unit} of each class, but one has {found}; "
                "choose fewer split.folds"
            )
    if groups is None:
        splitter = StratifiedKFold(folds, shuffle=True, random_state=derive_seed(seed, "split", "folds"))
        parts = [test for _, test in splitter.split(labels, labels)]
        return np.isin(np.arange(len(labels)), parts[fold])
    fold_of_group = _deal_groups(labels, groups, folds, generator(seed, "split", "folds"))
    for number in range(folds):
        if len(np.unique(labels[fold_of_group[groups] == number])) < 2:
            raise UserError(f"split: fold {number} of {folds} lacks a class; choose fewer split.folds, or another seed")
    mask: npt.NDArray[np.bool_] = fold_of_group[groups] == fold
    return mask


def _deal_groups(
    labels: npt.NDArray[np.int_], groups: npt.NDArray[np.intp], folds: int, random: np.random.Generator
) -> npt.NDArray[np.intp]:
    """The fold of each group. The largest are dealt first, each to the fold that has least of what the group holds.

    Own code, because scikit-learn's StratifiedGroupKFold evens out the shares of the classes and not their numbers: it
    was seen to leave a fold without a class where each class had ten groups.
    """
    number = int(groups.max()) + 1
    sizes = np.stack([np.bincount(groups[labels == label], minlength=number) for label in (0, 1)], axis=1)
    shares = sizes / sizes.sum(axis=0)
    order = random.permutation(number)
    order = order[np.argsort(-sizes[order].sum(axis=1), kind="stable")]
    held = np.zeros((folds, 2))
    fold_of_group = np.zeros(number, np.intp)
    for group in order:
        # The growth of the sum of squares of what the folds hold, which is least where they are even.
        fold_of_group[group] = np.argmin((2 * held + shares[group]) @ shares[group])
        held[fold_of_group[group]] += shares[group]
    return fold_of_group
