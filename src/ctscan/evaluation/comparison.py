"""Compare models: shares of resamples that a model wins, and permutation tests over whole groups.

Images of one group (slices of a patient) are not independent, so a test over images finds differences that are none.
Here the group is the unit: it is drawn as a whole, and the two models change places in it as a whole.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ctscan.core import seeds
from ctscan.evaluation.intervals import AT_ONCE, Resamples, weighted_auc
from ctscan.evaluation.metrics import Labels, Scores, checked

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

PERMUTATIONS = 2000
# AUCs are quotients: what is equal on paper may differ by rounding.
ROUNDING = 1e-12


def win_probability(
    labels: npt.ArrayLike, scores: npt.ArrayLike, rivals: Mapping[str, Scores], resamples: Resamples, name: str
) -> float:
    """The share of resamples, in [0, 1], in which the ROC AUC is above that of each rival; a tie counts one half.

    The rival to beat is the best one of each resample, so none is chosen on the set that the result is about. Below .95
    the set does not show that the model is better. Raises `UserError` as `metrics.checked` does.
    """
    truth, values = checked(labels, scores, name)
    own = resamples.apply(partial(weighted_auc, truth, values))
    best = np.max(
        [
            resamples.apply(partial(weighted_auc, truth, checked(truth, rival, f"{name}, {key}")[1]))
            for key, rival in rivals.items()
        ],
        axis=0,
    )
    return float((own > best + ROUNDING).mean() + (np.abs(own - best) <= ROUNDING).mean() / 2)


def permutation_tests(
    labels: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    groups: npt.ArrayLike,
    threshold: float,
    seed: int,
    name: str,
) -> dict[str, Any]:
    """Paired tests of two models on the same images, two-sided: `accuracy` at `threshold`, and `roc_auc`.

    Each holds `difference` (second less first, in [-1, 1]) and `p_value` in (0, 1]; `units` counts the groups. If the
    models were equal, they could change places in any group:

    - accuracy: the exact distribution of the difference over all such changes. Where each image is a group of its own,
      it is the exact test of McNemar (1947).
    - ROC AUC: `PERMUTATIONS` random changes of the two models' ranks, because their scores may have different scales
      (Venkatraman & Begg 1996, whose unit is the image). The least possible value is 1 / (PERMUTATIONS + 1).

    Raises:
        UserError: as `metrics.checked` does, or not one group per image.
    """
    truth, first_scores = checked(labels, first, f"{name}, first model")
    _, second_scores = checked(labels, second, f"{name}, second model")
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    right = [((scores >= threshold) == truth).astype(int) for scores in (first_scores, second_scores)]
    gained = np.bincount(codes, weights=right[1] - right[0]).astype(int)
    return {
        "units": len(gained),
        "accuracy": {"difference": float(gained.sum() / len(truth)), "p_value": _sign_flip_p_value(gained)},
        "roc_auc": _auc_test(truth, first_scores, second_scores, codes, seed),
    }


def _sign_flip_p_value(gained: npt.NDArray[np.int_]) -> float:
    """How often the sum of `gained` (one number a group) under all choices of signs is as far from 0 as it is."""
    steps = np.abs(gained[gained != 0])
    reach = int(steps.sum())
    share: npt.NDArray[np.float64] = np.zeros(2 * reach + 1)  # of the choices, by their sum from -reach to reach
    share[reach] = 1
    for step in steps.tolist():
        share = (np.roll(share, step) + np.roll(share, -step)) / 2
    sums = np.arange(-reach, reach + 1)
    return float(min(1, share[np.abs(sums) >= abs(int(gained.sum()))].sum()))


def _auc_test(
    labels: Labels, first: Scores, second: Scores, codes: npt.NDArray[np.intp], seed: int
) -> dict[str, float]:
    rng = seeds.generator(seed, "permutation")
    swapped = rng.integers(0, 2, (PERMUTATIONS, int(codes.max()) + 1), dtype=bool)
    one, other = rankdata(first), rankdata(second)
    observed = float(np.diff(_auc(labels, np.stack([one, other])))[0])
    as_far, block = 0, max(1, AT_ONCE // len(labels))
    for start in range(0, PERMUTATIONS, block):
        swaps = swapped[start : start + block, codes]
        drawn = _auc(labels, np.where(swaps, one, other)) - _auc(labels, np.where(swaps, other, one))
        as_far += int((np.abs(drawn) >= abs(observed) - ROUNDING).sum())
    return {"difference": observed, "p_value": (1 + as_far) / (1 + PERMUTATIONS)}


def _auc(labels: Labels, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """ROC AUC of each row of `scores` (b, n), by the rank sum of the positives (Mann & Whitney 1947)."""
    positives = int(labels.sum())
    above = rankdata(scores, axis=1)[:, labels == 1].sum(axis=1) - positives * (positives + 1) / 2
    area: npt.NDArray[np.float64] = above / (positives * (len(labels) - positives))
    return area
