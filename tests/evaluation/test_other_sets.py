"""Figures of another set: against scikit-learn, and after a shift of the prior in a simulation."""

import json

from ctscan.evaluation.calibration import apply_temperature
from ctscan.evaluation.intervals import resample
from ctscan.evaluation.other_sets import Reading, Settings, assess_set, by_novelty, measure

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import accuracy_score, brier_score_loss, recall_score, roc_auc_score

SETTINGS = Settings(bootstrap=200, bins=10, seed=0)


def test_metrics_agree_with_the_library_on_the_set_and_on_explicit_resamples() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.3), 0, 1)
    draws = resample(labels, np.arange(60) // 4, 100, 0, "other")

    def by_library(rows: np.ndarray) -> dict[str, float]:
        truth, values = labels[rows], scores[rows]
        return {
            "roc_auc": roc_auc_score(truth, values),
            "accuracy": accuracy_score(truth, values >= 0.3),
            "sensitivity": recall_score(truth, values >= 0.3),
            "specificity": recall_score(truth, values >= 0.3, pos_label=0),
        }

    explicit = [by_library(np.repeat(np.arange(60), counts.astype(int))) for counts in draws.counts]
    found = measure(labels, scores, 0.3, draws)
    assert {name: row["value"] for name, row in found.items()} == pytest.approx(by_library(np.arange(60)))
    for name, row in found.items():
        ends = np.quantile([one[name] for one in explicit], [0.025, 0.975])
        assert (row["low"], row["high"]) == pytest.approx(tuple(ends))


def test_where_only_the_prevalence_differs_the_shift_restores_the_calibration() -> None:
    """Scores whose logits are twice those of the true probability at one half; in this set a tenth is positive."""
    rng = np.random.default_rng(1)
    labels = (rng.random(4000) < 0.1).astype(int)
    right = expit(2 * rng.normal(2 * labels - 1, 1))
    scores = expit(2 * logit(right))
    assert apply_temperature(scores, 2.0) == pytest.approx(right, abs=1e-3)
    found = assess_set(labels, scores, None, Reading(0.5, 2.0, 0.5), SETTINGS, "other")
    estimate = found["prevalence"]["estimate"]
    assert estimate["low"] <= labels.mean() <= estimate["high"]
    before, after = found["calibration"]["before"], found["calibration"]["after"]
    assert after["ece"] < 0.02 < before["ece"]
    assert after["mean"] == pytest.approx(labels.mean(), abs=0.02)
    assert before["brier"] == pytest.approx(brier_score_loss(labels, right), abs=1e-6)
    json.dumps(found, allow_nan=False)


def test_a_set_that_seems_to_hold_one_class_still_has_finite_figures() -> None:
    labels = np.array([0, 1] * 10)
    found = assess_set(labels, np.full(20, 1e-6), None, Reading(0.5, 1.0, 0.5), SETTINGS, "other")
    assert found["prevalence"]["estimate"]["prevalence"] == pytest.approx(0)
    json.dumps(found, allow_nan=False)


def test_slices_are_sorted_by_the_novelty_detector() -> None:
    labels, scores = np.array([1, 1, 0, 0, 1]), np.array([0.9, 0.4, 0.6, 0.1, 0.8])
    parts = by_novelty(labels, scores, [0.5, 1.0, 2.0, 0.3, 1.1], 0.5)
    assert parts["marked"] == {"slices": 2, "positive": 1, "share": 0.4, "accuracy": 0.5, "roc_auc": 1.0}
    others = {"slices": 3, "positive": 2, "share": 0.6, "accuracy": 2 / 3, "roc_auc": 1.0}
    assert parts["unmarked"] == pytest.approx(others)
    nothing = by_novelty(labels, scores, np.zeros(5), 0.5)["marked"]
    assert (nothing["slices"], nothing["accuracy"], nothing["roc_auc"]) == (0, None, None)
