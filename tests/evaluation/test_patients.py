"""One row for each patient, and the metrics over patients."""

from ctscan.evaluation.metrics import headline
from ctscan.evaluation.patients import assess_patients, by_patient, choose_rule, labels_of_patients

import numpy as np
import pytest

GROUPS = np.array(["b", "a", "b", "b", "a", "b"])
SCORES = np.array([0.9, 0.2, 0.1, 0.6, 0.4, 0.8])


def test_hand_case() -> None:
    table = by_patient(SCORES, GROUPS, 0.5)
    assert table["group"].tolist() == ["a", "b"]
    assert table["slices"].tolist() == [2, 4]
    assert table["mean"].tolist() == pytest.approx([0.3, 0.6])
    assert table["share"].tolist() == pytest.approx([0, 0.75])
    assert table["top_3"].tolist() == pytest.approx([0.3, 2.3 / 3])
    assert labels_of_patients([0, 0, 0, 1, 0, 0], GROUPS).tolist() == [0, 1]


def test_the_rule_is_the_best_on_validation() -> None:
    groups = np.repeat(np.arange(8), 6)
    patients = np.arange(8) % 2
    # Of six slices, a positive patient has three sure ones, and a negative patient has six doubtful ones.
    scores = np.where(patients[groups] == 1, np.where(np.arange(48) % 6 < 3, 0.9, 0.1), 0.55)
    assert choose_rule(patients[groups], scores, groups, 0.5) == "top_3"
    assert choose_rule(patients[groups], patients[groups] * 0.5 + 0.25, groups, 0.5) == "mean"  # all are equal


def test_metrics_are_those_of_patients_by_the_rule_of_validation() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 5)
    labels = groups % 2
    val, test = (np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1) for _ in range(2))
    found = assess_patients((labels, val, groups), (labels, test, groups), 0.5, 200, 0)
    assert found is not None
    scores = by_patient(test, groups, 0.5)[choose_rule(labels, val, groups, 0.5)]
    assert found["test"] == headline(np.arange(20) % 2, scores, 0.5, "test")
    assert (found["patients"], found["positive"], found["mixed"]) == (20, 10, 0)
    assert (found["intervals"]["units"], found["intervals"]["resampled"]) == (20, "patient")
    spread = found["intervals"]["accuracy"]
    assert spread["low"] < found["test"]["accuracy"] < spread["high"]


def test_patients_of_one_class_can_not_be_judged() -> None:
    labels, scores = np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.2, 0.8])
    mixed = np.array(["a", "a", "b", "b"])
    pure = np.array(["a", "b", "c", "d"])
    assert assess_patients((labels, scores, pure), (labels, scores, mixed), 0.5, 100, 0) is None
    assert assess_patients((labels, scores, mixed), (labels, scores, pure), 0.5, 100, 0) is None
    half = assess_patients((labels, scores, pure), (labels, scores, np.array(["a", "a", "c", "d"])), 0.5, 100, 0)
    assert half is not None
    assert half["mixed"] == 1
