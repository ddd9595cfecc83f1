"""Everything that evaluate says of one model: pure statistics on labels and scores, no network."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ctscan.core.params import Classes, Evaluate
from ctscan.evaluation import calibration, intervals, metrics, operating_points

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve


class Subset(NamedTuple):
    """Labels (n,), scores (n,) of one model and groups (n,) of the images of one subset."""

    labels: np.ndarray
    scores: np.ndarray
    groups: np.ndarray


def assess(
    model: str, val: Subset, test: Subset, resamples: intervals.Resamples, settings: Evaluate, classes: Classes
) -> dict[str, Any]:
    """The detailed report on `model`: what is chosen on validation, and all that is measured on test.

    Raises `UserError` as `metrics.checked` does.
    """
    name = f"test, {model}"
    points = operating_points.choose(val.labels, val.scores, f"val, {model}")
    temperature = calibration.fit_temperature(val.labels, val.scores, f"val, {model}")
    calibrated = calibration.apply_temperature(test.scores, temperature)
    return {
        "test": metrics.headline(test.labels, test.scores, settings.threshold, name),
        "intervals": intervals.headline_intervals(test.labels, test.scores, settings.threshold, resamples, name),
        "threshold": settings.threshold,
        "confusion": metrics.confusion(test.labels, test.scores, settings.threshold, name),
        "per_class": metrics.per_class(
            test.labels, test.scores, settings.threshold, classes.positive, classes.negative, name
        ),
        "operating_points": {
            point: operating_points.apply(test.labels, test.scores, threshold, name)
            for point, threshold in points.items()
        },
        "calibration": {
            "temperature": temperature,
            "before": calibration.calibration(test.labels, test.scores, settings.bins, name),
            "after": calibration.calibration(test.labels, calibrated, settings.bins, name),
        },
    }


def headline_metrics(details: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The test metrics that `dvc exp show` has: `acc_init`, `auc_init`, `acc_ft`, `auc_ft`, in [0, 1].

    Their names are short and in no other file, so that the table of experiments fits a terminal.
    """
    short = {"initial": "init", "finetuned": "ft"}
    return {
        f"{name}_{short[model]}": details[model]["test"][metric]
        for model in short
        for name, metric in (("acc", "accuracy"), ("auc", "roc_auc"))
    }


def compare(
    initial: Subset, finetuned: Subset, threshold: float, resamples: intervals.Resamples
) -> dict[str, dict[str, Any]]:
    """The two models on the same test images: exact McNemar test, and the difference of ROC AUC with its interval."""
    both = (initial.labels, initial.scores, finetuned.scores)
    return {
        "mcnemar": intervals.mcnemar(*both, threshold, "test"),
        "auc_difference": intervals.auc_difference(*both, resamples, "test"),
    }


def controls_table(
    models: Mapping[str, Subset], baselines: Mapping[str, np.ndarray], threshold: float, resamples: intervals.Resamples
) -> list[dict[str, Any]]:
    """A row for each model, baseline and control: accuracy, ROC AUC and the interval of the AUC, on test."""
    labels = next(iter(models.values())).labels
    everything = {name: ("model", subset.scores) for name, subset in models.items()}
    everything |= {name: ("baseline", scores) for name, scores in baselines.items()}
    table = []
    for name, (kind, scores) in everything.items():
        measured = metrics.headline(labels, scores, threshold, f"test, {name}")
        interval = intervals.headline_intervals(labels, scores, threshold, resamples, f"test, {name}")["roc_auc"]
        table.append(
            {"name": name, "kind": kind, "accuracy": measured["accuracy"], "roc_auc": measured["roc_auc"], **interval}
        )
    return table


def roc_points(model: str, test: Subset, resamples: intervals.Resamples) -> list[dict[str, Any]]:
    """The ROC curve with its pointwise band: model, fpr, tpr, threshold, low and high a point; all finite."""
    fpr, tpr, thresholds = roc_curve(test.labels, test.scores)
    thresholds[0] = min(1.0, np.nextafter(test.scores.max(), np.inf))  # scikit-learn's infinity is no JSON
    band = pd.DataFrame(intervals.roc_band(test.labels, test.scores, resamples, f"test, {model}")["points"])
    points = {
        "fpr": fpr,
        "tpr": tpr,
        "threshold": thresholds,
        "low": np.interp(fpr, band["fpr"], band["low"]),
        "high": np.interp(fpr, band["fpr"], band["high"]),
    }
    return _rows(model, pd.DataFrame(points))


def pr_points(model: str, test: Subset, resamples: intervals.Resamples) -> list[dict[str, Any]]:
    """Precision at 101 recalls with its pointwise band: model, recall, precision, low, high and prevalence a point."""
    band = pd.DataFrame(intervals.pr_band(test.labels, test.scores, resamples, f"test, {model}")["points"])
    return _rows(model, band.assign(prevalence=test.labels.mean()))


def confusion_rows(test: Subset, settings: Evaluate, classes: Classes) -> list[dict[str, str]]:
    """Actual and predicted class of each test image, as DVC's confusion templates count them."""
    names = np.array([classes.negative, classes.positive])
    called = (test.scores >= settings.threshold).astype(int)
    return [
        {"actual": actual, "predicted": predicted}
        for actual, predicted in zip(names[test.labels], names[called], strict=True)
    ]


def _rows(model: str, points: pd.DataFrame) -> list[dict[str, Any]]:
    return [{"model": model, **{str(key): value for key, value in row.items()}} for row in points.to_dict("records")]
