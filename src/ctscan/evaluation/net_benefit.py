"""Compute decision curves, which say at which thresholds a model does more good than treating everybody or nobody.

Vickers & Elkin, Decision Curve Analysis (Medical Decision Making 2006). Whoever acts from a probability t on holds one
missed patient to be as bad as (1 - t) / t needless treatments. Net benefit counts what that person gains: the share of
true positives, less the share of false positives times t / (1 - t). To treat nobody has a net benefit of 0.
"""

from collections.abc import Mapping
from functools import partial
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


def net_benefit(labels: Labels, probabilities: Scores, thresholds: Curve, prevalence: float, counts: Counts) -> Curve:
    """Net benefit of acting where a probability reaches each of `thresholds` (t,), in each resample: (b, t).

    Args:
        prevalence: share of positives, in [0, 1], of the population that the result is for. It is fixed, as a
            stratified split fixes that of a test set, so resamples don't vary it.
        counts: how often each resample holds each image, (b, n); each row holds images of both classes.
    """
    called = probabilities[:, None] >= thresholds
    positive = counts * labels
    negative = counts - positive
    gained = prevalence * (positive @ called) / positive.sum(axis=1, keepdims=True)
    lost = (1 - prevalence) * (negative @ called) / negative.sum(axis=1, keepdims=True)
    benefit: Curve = gained - lost * (thresholds / (1 - thresholds))
    return benefit


def decision_curves(
    labels: npt.ArrayLike, probabilities: Mapping[str, Scores], resamples: Resamples, name: str, prevalence: float
) -> list[dict[str, Any]]:
    """The curves of all models in `probabilities`, of treating all and of treating nobody, with pointwise 95 % bands.

    Each row holds `model`, `threshold`, `net_benefit`, `low` and `high`.

    Args:
        probabilities: by model, (n,), calibrated for the share of positives in the set.
        prevalence: share of positives, between 0 and 1, of the population that the curves are for. The probabilities
            are shifted to it (see `shift_prior`).

    Raises:
        UserError: as `metrics.checked` does.
    """
    truth = checked_labels(labels, name)
    own = float(truth.mean())
    curves = {
        model: shift_prior(checked(truth, values, f"{name}, {model}")[1], own, prevalence)
        for model, values in probabilities.items()
    }
    curves |= {TREAT_ALL: np.ones(len(truth)), TREAT_NONE: np.zeros(len(truth))}
    rows = []
    for model, values in curves.items():
        observed = net_benefit(truth, values, THRESHOLDS, prevalence, np.ones((1, len(truth))))[0]
        drawn = resamples.apply(partial(net_benefit, truth, values, THRESHOLDS, prevalence))
        low, high = percentiles(drawn)
        columns = {"threshold": THRESHOLDS, "net_benefit": observed, "low": low, "high": high}
        rows += [
            {"model": model, **dict(zip(columns, row, strict=True))}
            for row in np.column_stack(list(columns.values())).tolist()
        ]
    return rows


def net_benefit_table(
    labels: npt.ArrayLike, probabilities: Mapping[str, Scores], resamples: Resamples, name: str
) -> dict[str, list[dict[str, Any]]]:
    """What each model gains at the thresholds `REPORTED`, a row for each, at the set's own share of positives.

    A row holds `threshold`, `net_benefit` with `low` and `high`, and `gain`: the net benefit less that of the better of
    treating all and treating nobody, with its interval `gain_low` to `gain_high`. A model is worth using at a threshold
    where the whole interval of its gain is above 0. Raises `UserError` as `metrics.checked` does.
    """
    truth = checked_labels(labels, name)
    thresholds, own = np.array(REPORTED), float(truth.mean())
    everyone = np.ones((1, len(truth)))
    default = np.maximum(net_benefit(truth, everyone[0], thresholds, own, everyone)[0], 0)
    table = {}
    for model, scores in probabilities.items():
        values = checked(truth, scores, f"{name}, {model}")[1]
        observed = net_benefit(truth, values, thresholds, own, everyone)[0]
        drawn = resamples.apply(partial(net_benefit, truth, values, thresholds, own))
        table[model] = [
            {
                "threshold": threshold,
                "net_benefit": float(observed[at]),
                **percentile_interval(drawn[:, at]),
                "gain": float(observed[at] - default[at]),
                **{f"gain_{end}": value for end, value in percentile_interval(drawn[:, at] - default[at]).items()},
            }
            for at, threshold in enumerate(REPORTED)
        ]
    return table
