"""Which model wins: against McNemar's test, enumeration of all permutations, and the rate of false alarms."""

from itertools import product
from typing import Any

from ctscan.core.errors import UserError
from ctscan.evaluation import comparison
from ctscan.evaluation.comparison import permutation_tests, win_probability
from ctscan.evaluation.intervals import resample

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binomtest, rankdata
from sklearn.metrics import roc_auc_score

Array = npt.NDArray[Any]


def mcnemar(labels: Array, first: Array, second: Array) -> float:
    """The p-value of McNemar's exact test on calls at .5, whose units are the images that one model calls rightly."""
    right = [(np.asarray(scores) >= 0.5) == labels for scores in (first, second)]
    only = [int((right[at] & ~right[1 - at]).sum()) for at in (0, 1)]
    return float(binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0


def test_with_a_group_for_each_image_the_test_of_accuracy_is_mcnemars() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 80)
    first, second = (np.clip(rng.normal(0.4 + 0.2 * labels, 0.3), 0, 1) for _ in range(2))
    found = permutation_tests(labels, first, second, np.arange(80), 0.5, 0, "test")["accuracy"]
    assert found["p_value"] == pytest.approx(mcnemar(labels, first, second))
    assert found["difference"] == pytest.approx(((second >= 0.5) == labels).mean() - ((first >= 0.5) == labels).mean())


def test_accuracy_of_a_hand_case() -> None:
    # One image only the first model gets right, five only the second: p = 2 * (C(6, 0) + C(6, 1)) / 2**6.
    labels = [1] * 5 + [0] * 5
    first = [0.1] * 5 + [0.1] * 5
    second = [0.9] * 5 + [0.9] + [0.1] * 4
    found = permutation_tests(labels, first, second, list("abcdefghij"), 0.5, 0, "test")
    assert found["accuracy"] == pytest.approx({"difference": 0.4, "p_value": 14 / 64})
    # If the five are one patient's, the four changes give +4, +6, -6 and -4: none is nearer to 0 than what was seen.
    found = permutation_tests(labels, first, second, list("aaaaabcccc"), 0.5, 0, "test")
    assert found["accuracy"]["p_value"] == 1


def test_both_tests_agree_with_the_enumeration_of_all_changes() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(8), [1, 2, 3, 1, 4, 2, 2, 1])
    labels = (groups % 2).astype(int)
    first, second = rng.random(16).round(2), np.clip(0.5 * rng.random(16) + 0.5 * labels, 0, 1).round(2)
    right = [((scores >= 0.5) == labels).astype(int) for scores in (first, second)]
    ranks = [rankdata(scores) for scores in (first, second)]
    accuracy, auc = [], []
    for swapped in product([False, True], repeat=8):
        swap = np.array(swapped)[groups]
        accuracy.append((np.where(swap, right[0], right[1]) - np.where(swap, right[1], right[0])).sum())
        auc.append(
            roc_auc_score(labels, np.where(swap, ranks[0], ranks[1]))
            - roc_auc_score(labels, np.where(swap, ranks[1], ranks[0]))
        )
    found = permutation_tests(labels, first, second, groups, 0.5, 0, "test")
    assert found["units"] == 8
    assert found["accuracy"]["p_value"] == pytest.approx(np.mean(np.abs(accuracy) >= abs(accuracy[0])))
    assert found["roc_auc"]["difference"] == pytest.approx(roc_auc_score(labels, second) - roc_auc_score(labels, first))
    exact = np.mean(np.abs(auc) >= abs(auc[0]) - 1e-12)
    assert found["roc_auc"]["p_value"] == pytest.approx(exact, abs=0.03)


def test_only_ranks_count_in_the_test_of_auc() -> None:
    rng = np.random.default_rng(7)
    labels, groups = rng.integers(0, 2, 40), np.arange(40) // 4
    first, second = (np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1) for _ in range(2))
    on_one_scale, apart = (
        permutation_tests(labels, first, scores, groups, 0.5, 0, "test")["roc_auc"] for scores in (second, second**8)
    )
    assert on_one_scale == apart


def test_equal_models_have_a_p_value_of_1() -> None:
    labels = np.array([0, 1] * 6)
    scores = np.linspace(0, 1, 12)
    found = permutation_tests(labels, scores, scores**2, np.arange(12) // 2, 0.8, 0, "test")
    assert found["roc_auc"] == {"difference": 0, "p_value": 1}
    assert permutation_tests(labels, scores, scores, np.arange(12), 0.5, 0, "test")["accuracy"]["p_value"] == 1


def test_false_alarms_are_as_rare_as_the_level_says_and_mcnemars_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two equally good models that err on whole patients: 40 groups of 8 slices, called as one."""
    monkeypatch.setattr(comparison, "PERMUTATIONS", 199)
    rng, trials = np.random.default_rng(2), 200
    groups = np.repeat(np.arange(40), 8)
    labels = groups % 2
    alarms = dict.fromkeys(("accuracy", "roc_auc", "mcnemar"), 0)
    for trial in range(trials):
        first, second = (
            1 / (1 + np.exp(-(1.5 * labels - 0.75 + rng.normal(0, 1, 40)[groups] + 0.2 * rng.normal(0, 1, 320))))
            for _ in range(2)
        )
        found = permutation_tests(labels, first, second, groups, 0.5, trial, "test")
        alarms["roc_auc"] += found["roc_auc"]["p_value"] <= 0.05
        alarms["accuracy"] += found["accuracy"]["p_value"] <= 0.05
        alarms["mcnemar"] += mcnemar(labels, first, second) <= 0.05
    assert alarms["accuracy"] / trials <= 0.09
    assert 0.01 <= alarms["roc_auc"] / trials <= 0.09
    assert alarms["mcnemar"] / trials > 0.3


def test_a_better_model_is_found() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(40), 4)
    labels = groups % 2
    weak, strong = (np.clip(rng.normal(0.5 + lift * (labels - 0.5), 0.2), 0, 1) for lift in (0.1, 0.6))
    found = permutation_tests(labels, weak, strong, groups, 0.5, 0, "test")
    assert found["accuracy"]["p_value"] < 0.01
    assert found["roc_auc"]["p_value"] < 0.01
    assert found["roc_auc"]["difference"] > 0.2


def test_win_probability_is_the_share_of_explicit_resamples() -> None:
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1], 30)
    model, near, far = (np.clip(rng.normal(0.5 + lift * (labels - 0.5), 0.3), 0, 1) for lift in (0.4, 0.35, 0))
    draws = resample(labels, np.arange(60) // 3, 150, 0, "test")
    won = 0.0
    for counts in draws.counts:
        images = np.repeat(np.arange(60), counts.astype(int))
        areas = [roc_auc_score(labels[images], scores[images]) for scores in (model, near, far)]
        won += (areas[0] > max(areas[1:])) + (areas[0] == max(areas[1:])) / 2
    found = win_probability(labels, model, {"near": near, "far": far}, draws, "test")
    assert found == pytest.approx(won / 150)
    assert win_probability(labels, model, {"far": far}, draws, "test") > 0.95


def test_a_tie_counts_one_half_and_a_share_is_shared() -> None:
    labels = np.array([0, 1] * 10)
    scores = np.linspace(0, 1, 20).astype(np.float64)
    draws = resample(labels, None, 100, 0, "test")
    assert win_probability(labels, scores, {"same": scores**3}, draws, "test") == 0.5


def test_win_probability_of_equal_models_is_spread_over_its_range() -> None:
    """If two models are equal, their shares are near uniform over sets: above .95 in about one of twenty."""
    rng, trials, shares = np.random.default_rng(5), 200, []
    groups = np.repeat(np.arange(40), 4)
    labels = groups % 2
    for trial in range(trials):
        first, second = (
            1 / (1 + np.exp(-(labels - 0.5 + rng.normal(0, 1, 40)[groups] + 0.5 * rng.normal(0, 1, 160))))
            for _ in range(2)
        )
        draws = resample(labels, groups, 200, trial, "test")
        shares.append(win_probability(labels, first, {"second": second}, draws, "test"))
    assert np.mean(np.array(shares) > 0.95) <= 0.1
    assert 0.4 <= np.mean(shares) <= 0.6


def test_scores_are_checked() -> None:
    with pytest.raises(UserError, match="test, second model"):
        permutation_tests([0, 1], [0.1, 0.2], [0.1, 2], ["a", "b"], 0.5, 0, "test")
