"""Compute from the table of predictions alone what a sceptical reader asks for, beyond the metrics of the study.

Whether a model beats the controls, how useful its probabilities are for decisions, what its calls mean where fewer
images are positive, how it judges patients, and when it had better not answer. All that is chosen is chosen on the
validation rows of the table.
"""

from collections.abc import Mapping
from typing import Any

from ctscan.evaluation import (
    calibration,
    comparison,
    metrics,
    net_benefit,
    operating_points,
    patients,
    prevalence,
    selective,
)
from ctscan.evaluation.intervals import Resamples, auc_difference, headline_intervals, percentile_interval
from ctscan.evaluation.metrics import Scores
from ctscan.evaluation.predictions import FOLD, MODELS, NOVELTY, score_columns

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import brier_score_loss

STUDY = "study"  # the operating point at the study's threshold
COMBINED = (MODELS[-1], "hog_svm")  # unlike each other, so that they err on other slices
RARE = 0.05  # a share of positives nearer to a clinic's than that of the test set


def calibrated(predictions: pd.DataFrame) -> pd.DataFrame:
    """`predictions` with each score divided by the temperature that fits it best on the rows of validation.

    Scores of controls are not probabilities before that, so their net benefit would mean nothing. Where there is a
    column `fold`, each fold has temperatures of its own. Raises `UserError` as `metrics.checked` does.
    """
    table = predictions.copy()
    folds = table[FOLD] if FOLD in table else pd.Series(0, table.index)
    for fold in folds.unique():
        own = folds == fold
        val = own & (table["subset"] == "val")
        for name in score_columns(table):
            temperature = calibration.fit_temperature(predictions.loc[val, "label"], predictions.loc[val, name], "val")
            table.loc[own, name] = calibration.apply_temperature(predictions.loc[own, name], temperature)
    return table


def assess_models(
    predictions: pd.DataFrame, threshold: float, resamples: Resamples, seed: int
) -> dict[str, dict[str, Any]]:
    """The further findings on each model in `MODELS`, by model, for metrics/details.json.

    Args:
        predictions: of `predictions.predictions_table`, with rows of validation and of test.
        threshold: from which a score is a call of the positive class.
        resamples: of the test rows, in their order.

    Returns:
        For each model `win_probability` (against the best of the controls, and against the other model),
        `predictive_values` by operating point, `brier` of the calibrated probabilities with its interval, `net_benefit`
        (see `net_benefit_table`), `patients` (see `assess_patients`) and `selective` (accuracy at some coverages, by
        the order in which images are left out).
    """
    val, test = _parts(predictions)
    labels = test["label"].to_numpy()
    controls = {name: test[name].to_numpy() for name in score_columns(test) if name not in MODELS}
    _, probable = _parts(calibrated(predictions))
    benefits = net_benefit.net_benefit_table(
        labels, {name: probable[name].to_numpy() for name in MODELS}, resamples, "test"
    )
    findings = {}
    for model in MODELS:
        scores = test[model].to_numpy()
        name, (other,) = f"test, {model}", (each for each in MODELS if each != model)
        val_orders = _orders(val, model, threshold)
        points = {STUDY: threshold} | operating_points.choose(val["label"], val[model], f"val, {model}")
        findings[model] = {
            "win_probability": {
                "controls": comparison.win_probability(labels, scores, controls, resamples, name),
                other: comparison.win_probability(labels, scores, {other: test[other].to_numpy()}, resamples, name),
            },
            "predictive_values": {
                point: prevalence.predictive_values(labels, scores, limit, resamples, name)
                for point, limit in points.items()
            },
            "brier": _brier(labels, probable[model].to_numpy(), resamples),
            "net_benefit": benefits[model],
            "patients": patients.assess_patients(
                _slices(val, model), _slices(test, model), threshold, resamples.number, seed
            ),
            "selective": {
                order: selective.accuracy_at_coverage(
                    labels, scores, threshold, trust, val_orders[order], resamples, name
                )
                for order, trust in _orders(test, model, threshold).items()
            },
        }
    return findings


def compare_models(predictions: pd.DataFrame, threshold: float, resamples: Resamples, seed: int) -> dict[str, Any]:
    """The two models on the same test images: permutation tests over groups, and the difference of ROC AUC."""
    _, test = _parts(predictions)
    first, second = (test[name].to_numpy() for name in MODELS)
    labels = test["label"].to_numpy()
    return {
        "permutation": comparison.permutation_tests(
            labels, first, second, test["group"].to_numpy(), threshold, seed, "test"
        ),
        "auc_difference": auc_difference(labels, first, second, resamples, "test"),
    }


def assess_combination(predictions: pd.DataFrame, threshold: float, resamples: Resamples) -> dict[str, Any]:
    """How the fine-tuned model and HOG with a linear SVM judge together, by the mean of their calibrated logits.

    Returns:
        `test` and `intervals` as of a model; `gain`, the difference of ROC AUC to the calibrated fine-tuned model
        alone, because in pooled folds a temperature for each fold can change the AUC by itself; and `win_probability`
        against the calibrated controls.
    """
    _, probable = _parts(calibrated(predictions))
    labels, scores = probable["label"].to_numpy(), combined_scores(probable)
    controls = {name: probable[name].to_numpy() for name in score_columns(probable) if name not in MODELS}
    name = "test, combination"
    return {
        "test": metrics.headline(labels, scores, threshold, name),
        "intervals": headline_intervals(labels, scores, threshold, resamples, name),
        "gain": auc_difference(labels, probable[MODELS[-1]].to_numpy(), scores, resamples, name),
        "win_probability": comparison.win_probability(labels, scores, controls, resamples, name),
    }


def combined_scores(probable: pd.DataFrame) -> Scores:
    """(n,) the scores of the fine-tuned model and HOG together, of the rows of a table that `calibrated` made.

    Both count the same, so nothing but their temperatures comes from validation.
    """
    combined: Scores = expit(calibration.logits(probable[list(COMBINED)].to_numpy()).mean(axis=1))
    return combined


def _brier(labels: np.ndarray, probabilities: Scores, resamples: Resamples) -> dict[str, float]:
    """The Brier score, in [0, 1], 0 is best: `value`, and the ends `low` and `high` of its 95 % interval."""
    squares = (probabilities - labels) ** 2
    drawn = resamples.apply(lambda counts: counts @ squares / counts.sum(axis=1))
    return {"value": float(brier_score_loss(labels, probabilities)), **percentile_interval(drawn)}


def decision_panels(predictions: pd.DataFrame, resamples: Resamples, positive: str) -> dict[str, list[dict[str, Any]]]:
    """Decision curves of all scores on test, by title: at the set's own share of positives, and at `RARE`."""
    _, probable = _parts(calibrated(predictions))
    labels = probable["label"].to_numpy()
    curves = {name: probable[name].to_numpy() for name in score_columns(probable)}
    own = float(labels.mean())
    return {
        f"{place} ({share:.0%} {positive})": net_benefit.decision_curves(labels, curves, resamples, "test", share)
        for place, share in (("The set as it is", own), ("The same where the class is rare", RARE))
    }


def calibration_panels(predictions: pd.DataFrame, bins: int) -> dict[str, dict[str, list[dict[str, float]]]]:
    """The rows of `calibration.reliability` of each model on test, by title: before and after temperature scaling."""
    return {
        f"{moment} temperature scaling": {
            model: calibration.reliability(test["label"], test[model], bins, f"test, {model}") for model in MODELS
        }
        for moment, (_, test) in (("Before", _parts(predictions)), ("After", _parts(calibrated(predictions))))
    }


def risk_curves(predictions: pd.DataFrame, threshold: float, resamples: Resamples) -> dict[str, list[dict[str, float]]]:
    """Risk against coverage of the fine-tuned model on test, by the order in which images are left out."""
    _, test = _parts(predictions)
    labels, scores = test["label"].to_numpy(), test[MODELS[-1]].to_numpy()
    return {
        order: selective.risk_coverage(labels, scores, threshold, trust, resamples, f"test, {MODELS[-1]}")
        for order, trust in _orders(test, MODELS[-1], threshold).items()
    }


def _parts(predictions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of validation, and those of test."""
    return predictions[predictions["subset"] == "val"], predictions[predictions["subset"] == "test"]


def _slices(part: pd.DataFrame, model: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return part["label"].to_numpy(), part[model].to_numpy(), part["group"].to_numpy()


def _orders(table: pd.DataFrame, model: str, threshold: float) -> Mapping[str, Scores]:
    """How much an image is trusted, (n,), by what that is taken from. The novelty score is the fine-tuned model's."""
    orders = {"confidence": selective.confidence(table[model], threshold)}
    if model == MODELS[-1]:
        orders["novelty"] = -table[NOVELTY].to_numpy()
    return orders
