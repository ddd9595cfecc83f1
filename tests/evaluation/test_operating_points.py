"""Chosen thresholds agree with cases worked out by hand and with trying every threshold."""

import json

from ctscan.core.errors import UserError
from ctscan.evaluation.operating_points import apply, choose

import numpy as np
import pytest


def test_hand_case() -> None:
    # 20 negatives at .00, .02, ... .38 but for two higher ones; 5 positives.
    negatives = [0.02 * index for index in range(18)] + [0.5, 0.7]
    positives = [0.3, 0.45, 0.6, 0.8, 0.9]
    chosen = choose([0] * 20 + [1] * 5, negatives + positives, "val")
    # At .45: 4 of 5 positives, 18 of 20 negatives; at .6: 3 of 5 and 19 of 20; at .3: all, and 15 of 20.
    assert chosen == {"youden": 0.3, "specificity_90": 0.45, "specificity_95": 0.6}


def test_a_specificity_met_exactly_is_met() -> None:
    for negatives in (10, 20, 40, 100, 370):
        scores = np.linspace(0, 0.9, negatives)
        chosen = choose([0] * negatives + [1], [*scores, scores[-(negatives // 10)]], "val")
        assert chosen["specificity_90"] == scores[-(negatives // 10)]


def test_of_equal_youden_the_most_sensitive_wins() -> None:
    # At .8: 1 of 2 positives, no false alarm; at .4: both, and 1 of 2 negatives called.
    assert choose([1, 0, 1, 0], [0.8, 0.6, 0.4, 0.2], "val")["youden"] == 0.4


def test_of_equal_sensitivity_the_most_specific_wins() -> None:
    chosen = choose([1] * 2 + [0] * 20, [0.9, 0.8] + [0.7] + [0.1] * 19, "val")
    assert chosen == {"youden": 0.8, "specificity_90": 0.8, "specificity_95": 0.8}


@pytest.mark.parametrize("top", [0.4, 1.0])
def test_when_ties_leave_no_choice_nothing_is_called(top: float) -> None:
    labels, scores = [1, 0, 0], [top, top, 0.2]
    chosen = choose(labels, scores, "val")
    assert chosen["specificity_90"] > top
    given = apply(labels, scores, chosen["specificity_90"], "val")
    assert (given["sensitivity"], given["specificity"], given["precision"]) == (0, 1, 0)
    json.dumps([chosen, given], allow_nan=False)


@pytest.mark.parametrize("seed", range(10))
def test_no_other_threshold_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation([0] * 30 + [1] * 20)
    scores = np.round(np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1), 1 + seed % 2)
    chosen = {
        point: apply(labels, scores, threshold, "val") for point, threshold in choose(labels, scores, "val").items()
    }
    every = [apply(labels, scores, threshold, "val") for threshold in [*np.unique(scores), 1.1]]
    best = max(row["sensitivity"] + row["specificity"] for row in every)
    assert chosen["youden"]["sensitivity"] + chosen["youden"]["specificity"] == pytest.approx(best)
    for level in (90, 95):
        allowed = [(row["sensitivity"], row["specificity"]) for row in every if row["specificity"] >= level / 100]
        row = chosen[f"specificity_{level}"]
        assert (row["sensitivity"], row["specificity"]) == max(allowed)


def test_apply_counts() -> None:
    # At .5, the tied one called: tp 2, fn 1, fp 1, tn 3.
    given = apply([1, 1, 1, 0, 0, 0, 0], [0.9, 0.5, 0.4, 0.6, 0.1, 0.2, 0.3], 0.5, "test")
    assert given == pytest.approx(
        {"threshold": 0.5, "sensitivity": 2 / 3, "specificity": 3 / 4, "precision": 2 / 3, "accuracy": 5 / 7}
    )


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match="val, fine-tuned: none of its 2 images is of the negative class"):
        choose([1, 1], [0.1, 0.2], "val, fine-tuned")
    with pytest.raises(UserError, match="test, fine-tuned: 1 of 2 scores are NaN"):
        apply([0, 1], [0.1, np.nan], 0.5, "test, fine-tuned")
