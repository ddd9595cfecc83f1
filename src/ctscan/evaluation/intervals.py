"""Compute bootstrap 95 % intervals, and compare two models on the same images.

The method is the percentile method of Efron & Tibshirani, An Introduction to the Bootstrap (1993). A resample is how
often it holds each image, so that a metric of many resamples is a few matrix operations.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ctscan.core import seeds
from ctscan.core.errors import UserError
from ctscan.evaluation.metrics import HEADLINE, Labels, Scores, checked, checked_labels

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
GRID = np.linspace(0, 1, 101)
# Rates are quotients and grid points are sums: without a margin, rounding decides on which side of a step a point is.
ROUNDING = 1e-12
# Counts that a block of resamples holds, so that memory does not grow with the images. 2000 resamples of 2000
# images are one block.
AT_ONCE = 4_000_000

Counts = npt.NDArray[np.float64]


class Resamples(NamedTuple):
    """Bootstrap resamples of one test set of n images: how often each of b resamples holds each unit and its images."""

    drawn: npt.NDArray[np.int32]  # (b, units)
    unit_of_image: npt.NDArray[np.intp]  # (n,)
    resampled: str  # "group" or "image", which is what a unit is

    @property
    def number(self) -> int:
        """The number of resamples."""
        return len(self.drawn)

    @property
    def units(self) -> int:
        """The number of groups or images in the set."""
        return int(self.drawn.shape[1])

    @property
    def counts(self) -> Counts:
        """How often each resample holds each image, (b, n); `apply` does without so large an array."""
        return self._counts(slice(None))

    def apply(self, statistic: Callable[[Counts], npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        """What `statistic` gives, row by row, of the counts (b, n) of all resamples: (b, ...)."""
        block = max(1, AT_ONCE // len(self.unit_of_image))
        starts = range(0, self.number, block)
        return np.concatenate([statistic(self._counts(slice(start, start + block))) for start in starts])

    def describe(self) -> dict[str, Any]:
        return {"resampled": self.resampled, "units": self.units, "resamples": self.number, "level": LEVEL}

    def _counts(self, rows: slice) -> Counts:
        return self.drawn[rows, self.unit_of_image].astype(np.float64)


def resample(labels: npt.ArrayLike, groups: npt.ArrayLike | None, resamples: int, seed: int, name: str) -> Resamples:
    """Resamples with replacement: of whole groups where `groups` (n,) is given, else of images.

    A resample without both classes is drawn again. The same labels, groups and seed give the same resamples for every
    model, so that differences between models are paired.

    Raises:
        UserError: labels that `checked_labels` refuses, not one group per image, or fewer than two groups.
    """
    truth = checked_labels(labels, name)
    units, unit_of_image = len(truth), np.arange(len(truth))
    if groups is not None:
        group = np.asarray(groups)
        if group.shape != truth.shape:
            raise UserError(f"{name}: {len(truth)} images but groups of shape {group.shape}; give each image one group")
        names, unit_of_image = np.unique(group, return_inverse=True)
        units = len(names)
        if units < 2:
            raise UserError(f"{name}: all images are of one group, which can't be resampled; split otherwise")
    images, positives = (np.bincount(unit_of_image, weights, minlength=units) for weights in (None, truth))
    rng = seeds.generator(seed, "bootstrap")
    kept: list[npt.NDArray[np.int32]] = []
    missing = resamples
    while missing:
        # A block at a time, as counts of 64 bits of all would be twice as large; the numbers drawn are the same.
        drawn = rng.multinomial(units, np.full(units, 1 / units), size=min(missing, max(1, AT_ONCE // units)))
        held = drawn @ positives
        kept.append(drawn[(held > 0) & (held < drawn @ images)].astype(np.int32))
        missing -= len(kept[-1])
    return Resamples(np.concatenate(kept), unit_of_image, "image" if groups is None else "group")


def headline_intervals(
    labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float, resamples: Resamples, name: str
) -> dict[str, Any]:
    """`{metric: {"low", "high"}}` for each metric in `HEADLINE`, with what was resampled beside it.

    A perfect metric has an interval of width 0: the percentile method can't see errors that the set doesn't hold.
    Raises `UserError` as `checked` does.
    """
    truth, values = checked(labels, scores, name)
    table = resamples.apply(lambda counts: _headline(truth, values, threshold, counts))
    return {
        **resamples.describe(),
        **{metric: percentile_interval(column) for metric, column in zip(HEADLINE, table.T, strict=True)},
    }


def roc_band(labels: npt.ArrayLike, scores: npt.ArrayLike, resamples: Resamples, name: str) -> dict[str, Any]:
    """ROC curve on a fixed grid of false-positive rates, with a pointwise band.

    `points` holds `fpr`, `tpr` (of the set itself), `low` and `high` (of the resamples) at 101 rates from 0 to 1.
    Between thresholds the curve is linear; where it rises vertically the upper end counts. Raises `UserError` as
    `checked` does.
    """
    truth, values = checked(labels, scores, name)
    observed = _tpr_on_grid(truth, values, np.ones((1, len(truth))))[0]
    return {
        **resamples.describe(),
        "points": _band("fpr", "tpr", observed, resamples.apply(partial(_tpr_on_grid, truth, values))),
    }


def pr_band(labels: npt.ArrayLike, scores: npt.ArrayLike, resamples: Resamples, name: str) -> dict[str, Any]:
    """Precision on a fixed grid of recalls, with a pointwise band.

    `points` holds `recall`, `precision` (of the set itself), `low` and `high` (of the resamples) at 101 recalls from
    0 to 1. It is the precision at the highest threshold that reaches the recall, and at recall 0 that of the first true
    positive. Linear interpolation would be too optimistic (Davis & Goadrich 2006). Raises `UserError` as `checked`
    does.
    """
    truth, values = checked(labels, scores, name)
    observed = _precision_on_grid(truth, values, np.ones((1, len(truth))))[0]
    drawn = resamples.apply(partial(_precision_on_grid, truth, values))
    return {**resamples.describe(), "points": _band("recall", "precision", observed, drawn)}


def auc_difference(
    labels: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike, resamples: Resamples, name: str
) -> dict[str, Any]:
    """ROC AUC of the second model less that of the first, in [-1, 1]: `difference`, `low`, `high`.

    Both are taken on the same resamples. Raises `UserError` as `checked` does.
    """
    truth, first_scores = checked(labels, first, f"{name}, first model")
    _, second_scores = checked(labels, second, f"{name}, second model")

    def difference(counts: Counts) -> npt.NDArray[np.float64]:
        return weighted_auc(truth, second_scores, counts) - weighted_auc(truth, first_scores, counts)

    observed = float(difference(np.ones((1, len(truth))))[0])
    return {**resamples.describe(), "difference": observed, **percentile_interval(resamples.apply(difference))}


def weighted_auc(labels: Labels, scores: Scores, counts: Counts) -> npt.NDArray[np.float64]:
    """ROC AUC of each row of `counts` (b, n), shape (b,); a tie between the classes counts one half."""
    true, false = _cumulated(labels, scores, counts)
    rise = np.diff(true, axis=1, prepend=0)
    run = np.diff(false, axis=1, prepend=0)
    area: npt.NDArray[np.float64] = (run * (true - rise / 2)).sum(axis=1) / (true[:, -1] * false[:, -1])
    return area


def _headline(labels: Labels, scores: Scores, threshold: float, counts: Counts) -> npt.NDArray[np.float64]:
    """The metrics in `HEADLINE`, in that order, of each row of `counts` (b, n): (b, metrics)."""
    called = scores >= threshold
    hits = counts @ (called & (labels == 1))
    calls = counts @ called
    positives = counts @ labels
    return np.column_stack(
        [
            counts @ (called == labels) / counts.sum(axis=1),
            hits / np.maximum(calls, 1),
            hits / positives,
            2 * hits / (calls + positives),
            weighted_auc(labels, scores, counts),
        ]
    )


def _cumulated(labels: Labels, scores: Scores, counts: Counts) -> tuple[Counts, Counts]:
    """True and false positives at each distinct score as threshold, from the highest down; each (b, distinct)."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    true = np.add.reduceat((counts * labels)[:, order], starts, axis=1)
    false = np.add.reduceat((counts * (1 - labels))[:, order], starts, axis=1)
    return true.cumsum(axis=1), false.cumsum(axis=1)


def _tpr_on_grid(labels: Labels, scores: Scores, counts: Counts) -> npt.NDArray[np.float64]:
    true, false = (np.pad(column, ((0, 0), (1, 0))) for column in _cumulated(labels, scores, counts))
    tpr, fpr = true / true[:, -1:], false / false[:, -1:]
    return np.stack([np.interp(GRID + ROUNDING, x, y) for x, y in zip(fpr, tpr, strict=True)])


def _precision_on_grid(labels: Labels, scores: Scores, counts: Counts) -> npt.NDArray[np.float64]:
    true, false = _cumulated(labels, scores, counts)
    recall = true / true[:, -1:]
    targets = np.maximum(GRID - ROUNDING, ROUNDING)
    reached = np.stack([np.searchsorted(row, targets) for row in recall])
    hits = np.take_along_axis(true, reached, axis=1)
    precision: npt.NDArray[np.float64] = hits / (hits + np.take_along_axis(false, reached, axis=1))
    return precision


def _band(x: str, y: str, observed: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64]) -> list[dict[str, float]]:
    low, high = percentiles(drawn)
    columns = {x: GRID, y: observed, "low": low, "high": high}
    return [dict(zip(columns, row, strict=True)) for row in np.column_stack(list(columns.values())).tolist()]


def percentile_interval(values: npt.NDArray[np.float64]) -> dict[str, float]:
    """`low` and `high`, the ends of the 95 % interval of the resampled `values` (b,)."""
    low, high = percentiles(values)
    return {"low": float(low), "high": float(high)}


def percentiles(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The ends of the 95 % interval along the first axis of resampled `values` (b, ...), shape (2, ...)."""
    tail = (1 - LEVEL) / 2
    ends: npt.NDArray[np.float64] = np.quantile(values, [tail, 1 - tail], axis=0)
    return ends
