"""Judge the fine-tuned model on a labelled set that it was not made with, by what was chosen on validation.

Nothing is chosen on the set: threshold and temperature come from validation, and the share of positives to which
probabilities are shifted is estimated without the labels.
"""

from typing import Any, NamedTuple

from ctscan.core.seeds import generator
from ctscan.evaluation import calibration, intervals, metrics, net_benefit, prevalence

import numpy as np
import numpy.typing as npt

METRICS = ("roc_auc", "accuracy", "sensitivity", "specificity")


class Reading(NamedTuple):
    """How the scores of the model are read, as the run chose it."""

    threshold: float  # on scores
    temperature: float
    prior: float  # share of positives where the temperature was fitted


class Settings(NamedTuple):
    """How intervals and calibration are computed."""

    bootstrap: int
    bins: int
    seed: int


def assess_set(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    reading: Reading,
    settings: Settings,
    name: str,
) -> dict[str, Any]:
    """The figures of a set of n slices, for a report beside those of the internal test.

    Args:
        groups: (n,), what has to be resampled as a whole; None where that is not known.

    Returns:
        `slices`, `positive`, `resampled`, `units`; `metrics`, each with `value`, `low` and `high`; `prevalence` (of the
        labels, and as estimated without them); `calibration` (`before` and `after` the shift to the estimate: Brier
        score, calibration error, mean probability); `net_benefit` with and without the shift.

    Raises:
        UserError: as `metrics.checked` does, or as `intervals.resample` does.
    """
    truth, values = metrics.checked(labels, scores, name)
    resamples = intervals.resample(truth, groups, settings.bootstrap, settings.seed, name)
    calibrated = calibration.apply_temperature(values, reading.temperature)
    estimate = prevalence.estimate_prevalence(
        calibrated, reading.prior, groups, settings.bootstrap, generator(settings.seed, "prevalence")
    )
    both = {"before": calibrated, "after": shifted(calibrated, reading.prior, estimate["prevalence"])}
    return {
        "slices": len(truth),
        "positive": int(truth.sum()),
        "resampled": resamples.resampled,
        "units": resamples.units,
        "metrics": measure(truth, values, reading.threshold, resamples),
        "prevalence": {"labels": float(truth.mean()), "estimate": estimate},
        "calibration": {
            moment: {
                **calibration.calibration(truth, probabilities, settings.bins, name),
                "mean": float(probabilities.mean()),
            }
            for moment, probabilities in both.items()
        },
        "net_benefit": net_benefit.net_benefit_table(truth, both, resamples, name),
    }


def shifted(calibrated: metrics.Scores, prior: float, estimate: float) -> metrics.Scores:
    """Probabilities (n,) shifted to an estimated share of positives, which is kept off 0 and 1 by half an image."""
    edge = 1 / (2 * len(calibrated))
    return prevalence.shift_prior(calibrated, prior, float(np.clip(estimate, edge, 1 - edge)))


def measure(
    labels: metrics.Labels, scores: metrics.Scores, threshold: float, resamples: intervals.Resamples
) -> dict[str, dict[str, float]]:
    """Each of `METRICS`, in [0, 1]: `value`, and the ends `low` and `high` of its 95 % interval."""
    called = scores >= threshold

    def measured(counts: intervals.Counts) -> np.ndarray:
        """The metrics `METRICS`, in that order, in each row of `counts` (b, n): (b, metrics)."""
        positives, all_images = counts @ labels, counts.sum(axis=1)
        true, true_negatives = counts @ (called & (labels == 1)), counts @ (~called & (labels == 0))
        columns = {
            "roc_auc": intervals.weighted_auc(labels, scores, counts),
            "accuracy": (true + true_negatives) / all_images,
            "sensitivity": true / positives,
            "specificity": true_negatives / (all_images - positives),
        }
        return np.column_stack([columns[metric] for metric in METRICS])

    observed, drawn = measured(np.ones((1, len(labels))))[0], resamples.apply(measured)
    return {
        metric: {"value": float(value), **intervals.percentile_interval(column)}
        for metric, value, column in zip(METRICS, observed, drawn.T, strict=True)
    }


def by_novelty(
    labels: npt.ArrayLike, scores: npt.ArrayLike, novelty: npt.ArrayLike, threshold: float
) -> dict[str, dict[str, float | int | None]]:
    """What the novelty detector sorts the slices (n,) into: `marked` (novelty score above 1) and `unmarked`.

    Each holds `slices`, `positive`, `share` of all, `accuracy` and `roc_auc`, which are None where they mean nothing.
    """
    truth, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    marked = np.asarray(novelty) > 1
    parts = {}
    for part, inside in (("marked", marked), ("unmarked", ~marked)):
        own, count = truth[inside], int(inside.sum())
        both = 0 < own.sum() < count
        parts[part] = {
            "slices": count,
            "positive": int(own.sum()),
            "share": float(inside.mean()),
            "accuracy": float(((values[inside] >= threshold) == own).mean()) if count else None,
            "roc_auc": float(intervals.weighted_auc(own, values[inside], np.ones((1, count)))[0]) if both else None,
        }
    return parts
