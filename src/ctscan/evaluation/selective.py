"""Measure how the errors of a model fall as it leaves out the images that it is least sure of."""

from functools import partial

from ctscan.evaluation.intervals import Counts, Resamples, percentile_interval, percentiles
from ctscan.evaluation.metrics import Scores, checked

import numpy as np
import numpy.typing as npt

COVERAGES = np.arange(1, 51) / 50  # shares of the images that are answered
REPORTED = (0.8, 0.9)

Curve = npt.NDArray[np.float64]


def confidence(scores: npt.ArrayLike, threshold: float) -> Scores:
    """How far scores (n,) are from the threshold that decides their call."""
    distance: Scores = np.abs(np.asarray(scores, dtype=np.float64) - threshold)
    return distance


def risk_coverage(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    threshold: float,
    trust: npt.ArrayLike,
    resamples: Resamples,
    name: str,
) -> list[dict[str, float]]:
    """The share of wrong calls among the images with the highest `trust` (n,), with a pointwise 95 % band.

    Each row holds `coverage` (the share of images that are answered), `risk`, `low` and `high` (El-Yaniv & Wiener
    2010). Among images of equal trust, those that are answered are drawn at random: the risk is the expected one.
    Raises `UserError` as `metrics.checked` does.
    """
    truth, values = checked(labels, scores, name)
    wrong = ((values >= threshold) != truth).astype(float)
    ranked = np.asarray(trust, dtype=np.float64)
    observed = _risk(wrong, ranked, np.ones((1, len(truth))))[0]
    low, high = percentiles(resamples.apply(partial(_risk, wrong, ranked)))
    columns = {"coverage": COVERAGES, "risk": observed, "low": low, "high": high}
    return [dict(zip(columns, row, strict=True)) for row in np.column_stack(list(columns.values())).tolist()]


def accuracy_at_coverage(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    threshold: float,
    trust: npt.ArrayLike,
    val_trust: npt.ArrayLike,
    resamples: Resamples,
    name: str,
) -> list[dict[str, float]]:
    """Accuracy where the share `REPORTED` of the images is answered, a row for each.

    A row holds `coverage` and `accuracy` with `low` and `high`, as read off the curve of `risk_coverage`. Whoever uses
    the model can't rank a whole test set first, so beside them stands what a limit that lets this share of validation
    pass gives on this set: `answered` (the share of images) and `accuracy_of_answered` (0 where none is).

    Args:
        trust: of the images of the set, (n,); those with more of it are answered first.
        val_trust: of the validation images, (m,).
    """
    truth, values = checked(labels, scores, name)
    right = (values >= threshold) == truth
    ranked = np.asarray(trust, dtype=np.float64)
    wrong = (~right).astype(float)
    observed = 1 - _risk(wrong, ranked, np.ones((1, len(truth))))
    drawn = 1 - resamples.apply(partial(_risk, wrong, ranked))
    rows = []
    for coverage in REPORTED:
        at = int(np.argmin(np.abs(COVERAGES - coverage)))
        limit = np.quantile(np.asarray(val_trust, dtype=np.float64), 1 - coverage, method="lower")
        answered = ranked >= limit
        rows.append(
            {
                "coverage": coverage,
                "accuracy": float(observed[0, at]),
                **percentile_interval(drawn[:, at]),
                "answered": float(answered.mean()),
                "accuracy_of_answered": float(right[answered].mean()) if answered.any() else 0.0,
            }
        )
    return rows


def _risk(wrong: Scores, trust: Scores, counts: Counts) -> Curve:
    """Share of wrong calls at each of `COVERAGES` in each row of `counts` (b, n): (b, coverages)."""
    order = np.argsort(-trust, kind="stable")
    starts = np.flatnonzero(np.diff(trust[order], prepend=np.nan) != 0)
    answered = np.add.reduceat(counts[:, order], starts, axis=1).cumsum(axis=1)
    errors = np.add.reduceat((counts * wrong)[:, order], starts, axis=1).cumsum(axis=1)
    answered, errors = (np.pad(column, ((0, 0), (1, 0))) for column in (answered, errors))
    wanted = COVERAGES * answered[:, -1:]
    # Linear within a step, which is the expectation where images of equal trust are drawn at random.
    found = np.stack([np.interp(at, x, y) for at, x, y in zip(wanted, answered, errors, strict=True)])
    risk: Curve = found / wanted
    return risk
