"""Decision curves say at which thresholds a model does more good than treating everybody or nobody.

Vickers & Elkin, Decision Curve Analysis (Medical Decision Making 2006). Whoever acts from a probability t on holds one
missed patient to be as bad as (1 - t) / t needless treatments. Net benefit counts what that person gains: the share of
true positives, less the share of false positives times t / (1 - t). To treat nobody has a net benefit of 0.
"""

from collections.abc import Mapping
from typing import Any

from ctscan.evaluation.intervals import Counts, Resamples, percentile_interval, percentiles
from ctscan.evaluation.metrics import Labels, Scores, checked, checked_labels
from ctscan.evaluation.prevalence import shift_prior

import numpy as np
import numpy.typing as npt

THRESHOLDS = np.arange(1, 100) / 100  # probabilities from which one acts
REPORTED = (0.05, 0.1, 0.2, 0.5)  # those of a table, where a curve has all
TREAT_ALL = "treat_all"
TREAT_NONE = "treat_none"

Curve = npt.NDArray[np.float64]


def net_benefit(
    labels: Labels, probabilities: Scores, thresholds: Curve, counts: Counts, prevalence: float | None = None
) -> Curve:
    """Net benefit of acting where a probability reaches each of `thresholds` (t,), in each resample: (b, t).

    Args:
        counts: how often each resample holds each image, (b, n); each row holds images of both classes.
        prevalence: share of positives, between 0 and 1, of the population that the result is for; None stands for the
            share in the resample itself.
    """
    called = probabilities[:, None] >= thresholds
    positive = counts * labels
    negative = counts - positive
    positives, negatives = positive.sum(axis=1, keepdims=True), negative.sum(axis=1, keepdims=True)
    share = positives / (positives + negatives) if prevalence is None else prevalence
    gained = share * (positive @ called) / positives
    lost = (1 - share) * (negative @ called) / negatives
    benefit: Curve = gained - lost * (thresholds / (1 - thresholds))
    return benefit


def decision_curves(
    labels: npt.ArrayLike,
    probabilities: Mapping[str, Scores],
    resamples: Resamples,
    name: str,
    prevalence: float | None = None,
) -> list[dict[str, Any]]:
    """The curves of all models in `probabilities`, of treating all and of treating nobody, with pointwise 95 % bands.

    Each row holds `model`, `threshold`, `net_benefit`, `low` and `high`. Probabilities have to be calibrated for the
    share of positives in the set. With `prevalence`, they are first shifted to it (see `shift_prior`), and the curves
    are those of a population with that share.

    Raises:
        UserError: as `metrics.checked` does.
    """
    truth = checked_labels(labels, name)
    rows = []
    for model, values in _with_defaults(truth, probabilities, name, prevalence).items():
        observed = net_benefit(truth, values, THRESHOLDS, np.ones((1, len(truth))), prevalence)[0]
        low, high = percentiles(net_benefit(truth, values, THRESHOLDS, resamples.counts, prevalence))
        columns = {"threshold": THRESHOLDS, "net_benefit": observed, "low": low, "high": high}
        rows += [
            {"model": model, **dict(zip(columns, row, strict=True))}
            for row in np.column_stack(list(columns.values())).tolist()
        ]
    return rows


def net_benefit_table(
    labels: npt.ArrayLike, probabilities: Mapping[str, Scores], resamples: Resamples, name: str
) -> dict[str, list[dict[str, Any]]]:
    """What each model gains at the thresholds `REPORTED`, a row for each.

    A row holds `threshold`, `net_benefit` with `low` and `high`, and `gain`: the net benefit less that of the better of
    treating all and treating nobody, with its interval `gain_low` to `gain_high` from the same resamples. A model is
    worth using at a threshold where the whole interval of its gain is above 0. Raises `UserError` as `metrics.checked`
    does.
    """
    truth = checked_labels(labels, name)
    thresholds = np.array(REPORTED)
    everyone = np.ones((1, len(truth)))

    def curves(values: Scores) -> Curve:
        return np.concatenate([net_benefit(truth, values, thresholds, each) for each in (everyone, resamples.counts)])

    default = np.maximum(curves(np.ones(len(truth))), 0)
    table = {}
    for model, scores in probabilities.items():
        benefit = curves(checked(truth, scores, f"{name}, {model}")[1])
        gain = benefit - default
        table[model] = [
            {
                "threshold": threshold,
                "net_benefit": float(benefit[0, at]),
                **percentile_interval(benefit[1:, at]),
                "gain": float(gain[0, at]),
                **{f"gain_{end}": value for end, value in percentile_interval(gain[1:, at]).items()},
            }
            for at, threshold in enumerate(REPORTED)
        ]
    return table


def _with_defaults(
    labels: Labels, probabilities: Mapping[str, Scores], name: str, prevalence: float | None
) -> dict[str, Scores]:
    curves = {model: checked(labels, values, f"{name}, {model}")[1] for model, values in probabilities.items()}
    if prevalence is not None:
        curves = {model: shift_prior(values, float(labels.mean()), prevalence) for model, values in curves.items()}
    return {**curves, TREAT_ALL: np.ones(len(labels)), TREAT_NONE: np.zeros(len(labels))}
