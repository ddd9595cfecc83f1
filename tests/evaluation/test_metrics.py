"""Metrics agree with tables counted by hand, among them the study's own."""

import json

from ctscan.core.errors import UserError
from ctscan.evaluation.metrics import HEADLINE, checked, confusion, headline, per_class
from ctscan.evaluation.tables import headline as headline_cells

import numpy as np
import pytest
from sklearn.metrics import classification_report


def cells(tp: int, fp: int, fn: int, tn: int) -> tuple[list[int], list[float]]:
    """Labels and scores with these counts at threshold .5."""
    return [1] * tp + [0] * fp + [1] * fn + [0] * tn, [0.9] * (tp + fp) + [0.1] * (fn + tn)


# Study's table 7.1, whose positive class is non-COVID: 369 of the 745 test images.
FINE_TUNED = cells(tp=354, fp=5, fn=15, tn=371)
INITIAL = cells(tp=343, fp=27, fn=26, tn=349)


@pytest.mark.parametrize(
    ("counts", "accuracy", "precision", "recall", "f1"),
    [
        (FINE_TUNED, 0.973154, 0.986072, 0.959350, 0.972527),
        (INITIAL, 0.928859, 0.927027, 0.929539, 0.928281),
    ],
)
def test_counts_give_the_published_table(
    counts: tuple[list[int], list[float]], accuracy: float, precision: float, recall: float, f1: float
) -> None:
    table = headline(*counts, threshold=0.5, name="test")
    expected = {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1}
    assert {metric: table[metric] for metric in expected} == pytest.approx(expected, abs=5e-7)


def test_other_class_as_positive() -> None:
    labels, scores = FINE_TUNED
    table = per_class(labels, scores, 0.5, positive="non-COVID", negative="COVID", name="test")
    assert table["non-COVID"]["recall"] == 354 / 369
    assert table["COVID"]["precision"] == pytest.approx(371 / 386) == pytest.approx(0.9611, abs=5e-5)
    assert table["COVID"]["recall"] == pytest.approx(371 / 376) == pytest.approx(0.9867, abs=5e-5)
    assert (table["COVID"]["support"], table["non-COVID"]["support"]) == (376, 369)


def test_confusion_names_the_cells() -> None:
    assert confusion(*cells(tp=4, fp=1, fn=2, tn=3), threshold=0.5, name="test") == {"tn": 3, "fp": 1, "fn": 2, "tp": 4}


def test_a_score_at_the_threshold_is_positive() -> None:
    assert confusion([1, 0], [0.5, np.nextafter(0.5, 0)], 0.5, "test") == {"tn": 1, "fp": 0, "fn": 0, "tp": 1}
    assert headline([1, 0], [0.5, np.nextafter(0.5, 0)], 0.5, "test")["accuracy"] == 1


def test_roc_auc_counts_pairs() -> None:
    # Positives .9 .6 .4 against negatives .6 .1: of six pairs, four are in order, one is tied, one is reversed.
    assert headline([1, 1, 1, 0, 0], [0.9, 0.6, 0.4, 0.6, 0.1], 0.5, "test")["roc_auc"] == pytest.approx(4.5 / 6)


def test_per_class_agrees_with_the_report_of_the_library() -> None:
    rng = np.random.default_rng(3)
    labels, scores = rng.integers(0, 2, 50), rng.random(50)
    report = classification_report(labels, scores >= 0.3, target_names=["no", "yes"], output_dict=True)
    table = per_class(labels, scores, 0.3, positive="yes", negative="no", name="test")
    for kind in ("yes", "no"):
        assert table[kind] == pytest.approx(
            {"f1" if key == "f1-score" else key: value for key, value in report[kind].items()}
        )


def test_no_positive_call_gives_zero_and_json() -> None:
    table = headline([1, 0], [0.2, 0.1], 0.5, "test")
    assert (table["precision"], table["f1"], table["roc_auc"]) == (0, 0, 1)
    json.dumps([table, per_class([1, 0], [0.2, 0.1], 0.5, "a", "b", "test")], allow_nan=False)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "no images"),
        ([0, 0], [0.1, 0.2], "none of its 2 images is of the positive class"),
        ([1, 1], [0.1, 0.2], "none of its 2 images is of the negative class"),
        ([0, 1], [0.1, np.nan], "1 of 2 scores are NaN"),
        ([0, 1], [0.1], "2 labels but scores of shape"),
        ([0, 1], [[0.1], [0.2]], "2 labels but scores of shape"),
        ([0, 1], [0.1, 1.2], "scores run from 0.1 to 1.2"),
        ([0, 1], [-np.inf, 0.2], "scores run from -inf"),
        ([0, 2], [0.1, 0.2], "labels must be"),
    ],
)
def test_bad_input_is_named(labels: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(UserError, match=f"^test, initial: .*{message}"):
        checked(labels, scores, "test, initial")


def test_a_metric_whose_resamples_are_all_alike_shows_no_interval() -> None:
    test = dict.fromkeys(HEADLINE, 1.0)
    intervals = {metric: {"low": 1.0, "high": 1.0} for metric in HEADLINE}
    shown = headline_cells({"test": test | {"f1": 0.9}, "intervals": intervals | {"f1": {"low": 0.8, "high": 0.95}}})
    assert shown == ["1.000 (no spread)"] * 3 + ["0.900 (0.800-0.950)", "1.000 (no spread)"]
