"""Compute all that evaluate reports on the models from labels and scores alone, without a network."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ctscan.core.params import Classes, Evaluate
from ctscan.evaluation import calibration, intervals, metrics, operating_points

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve


class ScoredSubset(NamedTuple):
    """What the models say of the n images of a subset, beside what is true of them."""

    labels: np.ndarray  # (n,), 1 = positive class
    groups: np.ndarray  # (n,)
    scores: Mapping[str, np.ndarray]  # by model: probabilities (n,) of the positive class, float64


def assess(
    model: str,
    val: ScoredSubset,
    test: ScoredSubset,
    resamples: intervals.Resamples,
    settings: Evaluate,
    classes: Classes,
) -> dict[str, Any]:
    """The detailed report on `model`: what is chosen on validation, and all that is measured on test.

    Raises `UserError` as `metrics.checked` does.
    """
    name, labels, scores = f"test, {model}", test.labels, test.scores[model]
    points = operating_points.choose(val.labels, val.scores[model], f"val, {model}")
    temperature = calibration.fit_temperature(val.labels, val.scores[model], f"val, {model}")
    calibrated = calibration.apply_temperature(scores, temperature)
    return {
        "test": metrics.headline(labels, scores, settings.threshold, name),
        "intervals": intervals.headline_intervals(labels, scores, settings.threshold, resamples, name),
        "threshold": settings.threshold,
        "confusion": metrics.confusion(labels, scores, settings.threshold, name),
        "per_class": metrics.per_class(labels, scores, settings.threshold, classes.positive, classes.negative, name),
        "operating_points": {
            point: operating_points.apply(labels, scores, threshold, name) for point, threshold in points.items()
        },
        "calibration": {
            "temperature": temperature,
            "prior": float(val.labels.mean()),
            "before": calibration.calibration(labels, scores, settings.bins, name),
            "after": calibration.calibration(labels, calibrated, settings.bins, name),
        },
    }


def headline_metrics(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The test metrics that `dvc exp show` has: `acc_init`, `auc_init`, `acc_ft`, `auc_ft`, in [0, 1].

    Their names are short and in no other file, so that the table of experiments fits a terminal.
    """
    short = {"initial": "init", "finetuned": "ft"}
    return {
        f"{name}_{short[model]}": reports[model]["test"][metric]
        for model in short
        for name, metric in (("acc", "accuracy"), ("auc", "roc_auc"))
    }


def controls_table(
    test: ScoredSubset, baselines: Mapping[str, np.ndarray], threshold: float, resamples: intervals.Resamples
) -> list[dict[str, Any]]:
    """One row per model, baseline and control: accuracy, ROC AUC and the interval of the AUC, on test.

    Args:
        baselines: scores (n,) of the test images, by name.
    """
    labels = test.labels
    everything = {name: ("model", scores) for name, scores in test.scores.items()}
    everything |= {name: ("baseline", scores) for name, scores in baselines.items()}
    table = []
    for name, (kind, scores) in everything.items():
        measured = metrics.headline(labels, scores, threshold, f"test, {name}")
        interval = intervals.headline_intervals(labels, scores, threshold, resamples, f"test, {name}")["roc_auc"]
        table.append(
            {"name": name, "kind": kind, "accuracy": measured["accuracy"], "roc_auc": measured["roc_auc"], **interval}
        )
    return table


def roc_points(model: str, test: ScoredSubset, resamples: intervals.Resamples) -> list[dict[str, Any]]:
    """The ROC curve with its pointwise band; each point has model, fpr, tpr, threshold, low and high, all finite."""
    scores = test.scores[model]
    fpr, tpr, thresholds = roc_curve(test.labels, scores)
    thresholds[0] = min(1.0, np.nextafter(scores.max(), np.inf))  # JSON has no infinity, which scikit-learn gives
    band = pd.DataFrame(intervals.roc_band(test.labels, scores, resamples, f"test, {model}")["points"])
    points = {
        "fpr": fpr,
        "tpr": tpr,
        "threshold": thresholds,
        "low": np.interp(fpr, band["fpr"], band["low"]),
        "high": np.interp(fpr, band["fpr"], band["high"]),
    }
    return _rows(model, pd.DataFrame(points))


def pr_points(model: str, test: ScoredSubset, resamples: intervals.Resamples) -> list[dict[str, Any]]:
    """Precision at 101 recalls with its pointwise band.

    Each point has model, recall, precision, low, high and prevalence.
    """
    band = pd.DataFrame(intervals.pr_band(test.labels, test.scores[model], resamples, f"test, {model}")["points"])
    return _rows(model, band.assign(prevalence=test.labels.mean()))


def confusion_rows(model: str, test: ScoredSubset, settings: Evaluate, classes: Classes) -> list[dict[str, str]]:
    """Actual and predicted class of each test image, as DVC's confusion templates count them."""
    names = np.array([classes.negative, classes.positive])
    called = (test.scores[model] >= settings.threshold).astype(int)
    return [
        {"actual": actual, "predicted": predicted}
        for actual, predicted in zip(names[test.labels], names[called], strict=True)
    ]


def _rows(model: str, points: pd.DataFrame) -> list[dict[str, Any]]:
    return [{"model": model, **{str(key): value for key, value in row.items()}} for row in points.to_dict("records")]
