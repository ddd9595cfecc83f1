"""Bootstrap intervals agree with the library on explicit resamples, and cover the truth as often as they say."""

import json
from statistics import NormalDist
from typing import Any

from ctscan.core.errors import UserError
from ctscan.evaluation import comparison, intervals
from ctscan.evaluation.comparison import permutation_tests
from ctscan.evaluation.intervals import (
    auc_difference,
    headline_intervals,
    pr_band,
    resample,
    roc_band,
    weighted_auc,
)
from ctscan.evaluation.metrics import HEADLINE, headline

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def case(seed: int, n: int = 60) -> tuple[Labels, Scores]:
    """Overlapping classes whose scores have many ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return labels, np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(1)


@pytest.mark.parametrize(("seed", "threshold"), [(0, 0.5), (1, 0.3), (2, 0.9)])
def test_every_metric_agrees_with_the_library_on_explicit_resamples(seed: int, threshold: float) -> None:
    labels, scores = case(seed)
    draws = resample(labels, None, 100, seed, "test")
    explicit = []
    for counts in draws.counts:
        images = np.repeat(np.arange(len(labels)), counts.astype(int))
        explicit.append(headline(labels[images], scores[images], threshold, "test"))
        auc = weighted_auc(labels, scores, counts[None])[0]
        assert auc == pytest.approx(roc_auc_score(labels[images], scores[images]))
    table = headline_intervals(labels, scores, threshold, draws, "test")
    for metric in HEADLINE:
        low, high = np.quantile([row[metric] for row in explicit], [0.025, 0.975])
        assert table[metric] == pytest.approx({"low": low, "high": high})


def test_resamples_have_both_classes_and_the_size_of_the_set() -> None:
    labels = np.array([1] + [0] * 9)
    draws = resample(labels, None, 500, 0, "test")
    assert draws.counts.shape == (500, 10)
    assert (draws.counts.sum(axis=1) == 10).all()
    assert (draws.counts[:, 0] > 0).all()


def test_blocks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels, first, second = np.arange(60) % 2, rng.random(60).round(1), rng.random(60).round(1)
    draws = resample(labels, np.arange(60) // 3, 100, 0, "test")

    def results() -> list[dict[str, Any]]:
        return [
            headline_intervals(labels, first, 0.5, draws, "test"),
            roc_band(labels, first, draws, "test"),
            pr_band(labels, first, draws, "test"),
            auc_difference(labels, first, second, draws, "test"),
            permutation_tests(labels, first, second, np.arange(60) // 3, 0.5, 0, "test"),
        ]

    together = results()
    for module in (intervals, comparison):
        monkeypatch.setattr(module, "AT_ONCE", 7 * 60 + 1)
    assert results() == together


def test_groups_are_drawn_whole() -> None:
    labels = np.array([1, 1, 0, 0, 0, 1])
    draws = resample(labels, ["a", "b", "a", "c", "c", "b"], 50, 0, "test")
    assert (draws.resampled, draws.units) == ("group", 3)
    assert (draws.counts[:, [0, 1, 3]] == draws.counts[:, [2, 5, 4]]).all()
    assert (draws.counts[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert resample(labels, None, 50, 0, "test").resampled == "image"


def test_resamples_depend_on_the_seed_alone() -> None:
    labels, _ = case(0)
    one, same, other = (resample(labels, None, 20, seed, name).counts for seed, name in ((1, "a"), (1, "b"), (2, "a")))
    assert (one == same).all()
    assert (one != other).any()


def test_coverage_is_near_95_per_cent() -> None:
    """Normal scores at distance 1.5: the true accuracy and AUC are known."""
    rng = np.random.default_rng(11)
    normal = NormalDist()
    recall = normal.cdf(0.75)
    truth = {"accuracy": recall, "recall": recall, "roc_auc": normal.cdf(1.5 / np.sqrt(2))}
    trials = 300
    covered = dict.fromkeys(truth, 0)
    for trial in range(trials):
        labels = np.repeat([0, 1], 75)
        scores = 1 / (1 + np.exp(-rng.normal(1.5 * labels - 0.75)))
        table = headline_intervals(labels, scores, 0.5, resample(labels, None, 400, trial, "test"), "test")
        for metric, value in truth.items():
            interval = table[metric]
            covered[metric] += interval["low"] <= value <= interval["high"]
    for metric, count in covered.items():
        assert 0.91 <= count / trials <= 0.985, metric


def test_only_the_group_bootstrap_covers_clustered_data() -> None:
    """40 groups of 8 images; a group is nearly always called as one, rightly for 80 % of the groups."""
    rng = np.random.default_rng(5)
    trials, covered, width = 150, {"group": 0, "image": 0}, {"group": 0.0, "image": 0.0}
    groups = np.repeat(np.arange(40), 8)
    labels = groups % 2
    for trial in range(trials):
        right = rng.random(40)[groups] < 0.8
        scores = np.where(right, 0.2 + 0.6 * labels, 0.8 - 0.6 * labels)
        for kind, given in (("group", groups), ("image", None)):
            interval = headline_intervals(labels, scores, 0.5, resample(labels, given, 400, trial, "test"), "test")
            accuracy = interval["accuracy"]
            covered[kind] += accuracy["low"] <= 0.8 <= accuracy["high"]
            width[kind] += accuracy["high"] - accuracy["low"]
    assert covered["group"] / trials > 0.88
    assert covered["image"] / trials < 0.7
    assert width["group"] > 2 * width["image"]


def points(band: dict[str, Any], column: str) -> list[float]:
    return [row[column] for row in band["points"]]


def test_curves_of_a_hand_case() -> None:
    # From the top: positive, negative, positive, negative.
    labels, scores = [1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]
    draws = resample(labels, None, 100, 0, "test")
    roc = roc_band(labels, scores, draws, "test")
    assert points(roc, "fpr") == pytest.approx([i / 100 for i in range(101)])
    assert points(roc, "tpr") == pytest.approx([0.5] * 50 + [1.0] * 51)
    precision = points(pr_band(labels, scores, draws, "test"), "precision")
    assert precision == pytest.approx([1.0] * 51 + [2 / 3] * 50)


def test_tied_scores_make_a_slope() -> None:
    labels, scores = [1, 0, 1, 0], [0.5, 0.5, 0.5, 0.5]
    roc = roc_band(labels, scores, resample(labels, None, 100, 0, "test"), "test")
    assert points(roc, "tpr") == pytest.approx(points(roc, "fpr"))


def test_bands_are_quantiles_of_explicit_curves() -> None:
    labels, scores = case(4)
    draws = resample(labels, None, 100, 0, "test")
    curves, precisions = [], []
    for counts in draws.counts:
        images = np.repeat(np.arange(len(labels)), counts.astype(int))
        fpr, tpr, thresholds = roc_curve(labels[images], scores[images], drop_intermediate=False)
        curves.append(np.interp(0.3 + 1e-9, fpr, tpr))
        highest = thresholds[tpr >= 0.5 - 1e-9][0]
        precisions.append(labels[images][scores[images] >= highest].mean())
    for band, row, explicit in (
        (roc_band(labels, scores, draws, "test"), 30, curves),
        (pr_band(labels, scores, draws, "test"), 50, precisions),
    ):
        ends = (points(band, "low")[row], points(band, "high")[row])
        assert ends == pytest.approx(np.quantile(explicit, [0.025, 0.975]), abs=1e-6)


def test_difference_of_auc_is_paired() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 40)
    poor = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    good = np.clip(poor + 0.1 * (2 * labels - 1), 0, 1)
    draws = resample(labels, None, 500, 0, "test")
    result = auc_difference(labels, poor, good, draws, "test")
    assert result["difference"] == pytest.approx(roc_auc_score(labels, good) - roc_auc_score(labels, poor))
    # The second model's errors are the first's, so the difference is known better than either AUC.
    single = headline_intervals(labels, poor, 0.5, draws, "test")["roc_auc"]
    low, high = result["low"], result["high"]
    assert 0 < low < high
    assert high - low < single["high"] - single["low"]
    same = auc_difference(labels, poor, poor, draws, "test")
    assert (same["low"], same["difference"], same["high"]) == (0, 0, 0)


def test_results_are_json_and_say_what_was_resampled() -> None:
    labels, scores = case(1)
    draws = resample(labels, np.arange(60) // 3, 100, 0, "test")
    results = [
        headline_intervals(labels, scores, 0.99, draws, "test"),
        roc_band(labels, scores, draws, "test"),
        pr_band(labels, scores, draws, "test"),
        auc_difference(labels, scores, scores, draws, "test"),
    ]
    json.dumps(results, allow_nan=False)
    for result in results:
        assert (result["resampled"], result["units"], result["resamples"]) == ("group", 20, 100)


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match="test: all images are of one group"):
        resample([0, 1], ["a", "a"], 100, 0, "test")
    with pytest.raises(UserError, match="test: 2 images but groups of shape"):
        resample([0, 1], ["a"], 100, 0, "test")
    with pytest.raises(UserError, match="test: none of its 2 images is of the positive class"):
        resample([0, 0], None, 100, 0, "test")
    with pytest.raises(UserError, match="test, first model: 1 of 2 scores are NaN"):
        auc_difference([0, 1], [0.1, np.nan], [0.1, 0.2], resample([0, 1], None, 1, 0, "test"), "test")
