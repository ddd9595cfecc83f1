"""Net benefit against a case counted by hand, explicit resamples and a simulation with a known curve."""

import json
from statistics import NormalDist

from ctscan.core.errors import UserError
from ctscan.evaluation.intervals import percentiles, resample
from ctscan.evaluation.net_benefit import (
    THRESHOLDS,
    TREAT_ALL,
    TREAT_NONE,
    decision_curves,
    net_benefit,
    net_benefit_table,
)
from ctscan.evaluation.prevalence import shift_prior

import numpy as np
import pandas as pd
import pytest

# 10 images, 4 of them positive; in falling order of probability: + + - + - - + - - -
LABELS = np.array([1, 1, 0, 1, 0, 0, 1, 0, 0, 0])
SCORES = np.array([0.95, 0.9, 0.8, 0.7, 0.5, 0.4, 0.3, 0.15, 0.1, 0.05])
ONCE = np.ones((1, 10))


@pytest.mark.parametrize(
    ("threshold", "counted"),
    [
        (0.2, 4 / 10 - 3 / 10 * (0.2 / 0.8)),  # 4 true, 3 false positives, each a quarter of a true one
        (0.5, 3 / 10 - 2 / 10),  # a score equal to the threshold is acted on
        (0.6, 3 / 10 - 1 / 10 * (0.6 / 0.4)),
        (0.92, 1 / 10),
        (0.99, 0),
    ],
)
def test_counted_by_hand(threshold: float, counted: float) -> None:
    assert net_benefit(LABELS, SCORES, np.array([threshold]), 0.4, ONCE) == pytest.approx(np.array([[counted]]))


def test_treating_all_gains_the_prevalence_less_the_weighted_rest() -> None:
    draws = resample(LABELS, None, 100, 0, "test")
    curves = pd.DataFrame(decision_curves(LABELS, {"model": SCORES}, draws, "test", 0.4))
    everyone = curves[curves["model"] == TREAT_ALL].set_index("threshold")["net_benefit"]
    assert everyone[0.25] == pytest.approx(0.4 - 0.6 / 3)
    assert everyone[0.4] == pytest.approx(0)  # at the prevalence, to treat all and to treat nobody come to the same
    assert (curves.loc[curves["model"] == TREAT_NONE, ["net_benefit", "low", "high"]] == 0).all(axis=None)


def test_another_prevalence_is_that_of_a_set_in_which_one_class_is_held_more_often() -> None:
    """With each negative five times, 4 of 34 are positive."""
    weights = np.where(LABELS == 1, 1.0, 5.0)[None]
    prevalence = 4 / 34
    shifted = shift_prior(SCORES, 0.4, prevalence)
    drawn = resample(LABELS, None, 100, 0, "test")
    rows = pd.DataFrame(decision_curves(LABELS, {"model": SCORES}, drawn, "test", prevalence))
    curve = rows.loc[rows["model"] == "model", "net_benefit"].to_numpy()
    assert curve == pytest.approx(net_benefit(LABELS, shifted, THRESHOLDS, prevalence, weights)[0])


def test_bands_are_quantiles_over_explicit_resamples_of_fixed_prevalence() -> None:
    draws = resample(LABELS, np.arange(10) // 2, 200, 3, "test")
    explicit = []
    for counts in draws.counts:
        images = np.repeat(np.arange(10), counts.astype(int))
        called, truth = SCORES[images] >= 0.2, LABELS[images]
        explicit.append(0.4 * called[truth == 1].mean() - 0.6 * called[truth == 0].mean() / 4)
    curves = decision_curves(LABELS, {"model": SCORES}, draws, "test", 0.4)
    row = next(row for row in curves if row["model"] == "model" and row["threshold"] == 0.2)
    low, high = np.quantile(explicit, [0.025, 0.975])
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    reported = next(
        row for row in net_benefit_table(LABELS, {"model": SCORES}, draws, "test")["model"] if row["threshold"] == 0.2
    )
    everyone = 0.4 - 0.6 / 4
    assert (reported["low"], reported["high"]) == pytest.approx((low, high))
    assert (reported["gain_low"], reported["gain_high"]) == pytest.approx((low - everyone, high - everyone))
    assert reported["gain"] == pytest.approx(0.325 - everyone)


def test_the_band_covers_the_true_curve() -> None:
    """Probabilities that are right by construction: normal scores at distance 2, one half positive."""
    rng, normal, trials, covered = np.random.default_rng(2), NormalDist(), 200, 0
    threshold = 0.3
    cut = np.log(threshold / (1 - threshold)) / 2  # the probability of x is expit(2 x)
    truth = (1 - normal.cdf(cut - 1)) / 2 - (1 - normal.cdf(cut + 1)) / 2 * threshold / (1 - threshold)
    for trial in range(trials):
        labels = np.repeat([0, 1], 100)
        scores = 1 / (1 + np.exp(-2 * rng.normal(2 * labels - 1, 1)))
        counts = resample(labels, None, 300, trial, "test").counts
        low, high = percentiles(net_benefit(labels, scores, np.array([threshold]), 0.5, counts)[:, 0])
        covered += low <= truth <= high
    assert covered / trials > 0.9


def test_rows_are_json_and_scores_are_checked() -> None:
    draws = resample(LABELS, None, 100, 0, "test")
    json.dumps(decision_curves(LABELS, {"model": SCORES}, draws, "test", 0.4), allow_nan=False)
    json.dumps(net_benefit_table(LABELS, {"model": SCORES}, draws, "test"), allow_nan=False)
    with pytest.raises(UserError, match="test, model: scores run from"):
        decision_curves(LABELS, {"model": SCORES * 2}, draws, "test", 0.4)
