"""Risk against coverage: a hand case, ties, explicit resamples and the coverage of the band."""

import json

from ctscan.evaluation.intervals import resample
from ctscan.evaluation.selective import COVERAGES, accuracy_at_coverage, confidence, risk_coverage

import numpy as np
import pandas as pd
import pytest

# In falling order of confidence at .5: right, right, wrong, right, wrong.
LABELS = np.array([1, 0, 0, 1, 1])
SCORES = np.array([0.99, 0.05, 0.9, 0.8, 0.4])
TRUST = confidence(SCORES, 0.5)


def test_hand_case() -> None:
    draws = resample(LABELS, None, 100, 0, "test")
    rows = pd.DataFrame(risk_coverage(LABELS, SCORES, 0.5, TRUST, draws, "test")).set_index("coverage")
    assert rows["risk"][[0.2, 0.4, 0.6, 0.8, 1.0]].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])
    assert (rows["low"] <= rows["risk"]).all()
    json.dumps(rows.to_dict("records"), allow_nan=False)


def test_images_of_equal_trust_are_answered_at_random() -> None:
    rows = risk_coverage(LABELS, SCORES, 0.5, np.zeros(5), resample(LABELS, None, 100, 0, "test"), "test")
    assert [row["risk"] for row in rows] == pytest.approx([2 / 5] * len(COVERAGES))


def test_bands_are_quantiles_over_explicit_resamples() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 50)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    trust = confidence(scores, 0.5)
    draws = resample(labels, np.arange(50) // 5, 200, 0, "test")
    explicit = []
    for counts in draws.counts:
        images = np.repeat(np.arange(50), counts.astype(int))
        first = images[np.argsort(-trust[images], kind="stable")][:40]
        explicit.append(((scores[first] >= 0.5) != labels[first]).mean())
    row = next(row for row in risk_coverage(labels, scores, 0.5, trust, draws, "test") if row["coverage"] == 0.8)
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(explicit, [0.025, 0.975])))
    reported = accuracy_at_coverage(labels, scores, 0.5, trust, trust, draws, "test")[0]
    assert reported["accuracy"] == pytest.approx(1 - row["risk"])
    assert (reported["low"], reported["high"]) == pytest.approx((1 - row["high"], 1 - row["low"]))


def test_the_band_covers_the_true_risk() -> None:
    """Labels drawn from the scores, which are uniform: among the surest half, a quarter of the calls are wrong."""
    rng, trials, covered = np.random.default_rng(1), 200, 0
    for trial in range(trials):
        scores = rng.random(200)
        labels = (rng.random(200) < scores).astype(int)
        draws = resample(labels, None, 200, trial, "test")
        rows = risk_coverage(labels, scores, 0.5, confidence(scores, 0.5), draws, "test")
        row = next(row for row in rows if row["coverage"] == 0.5)
        covered += row["low"] <= 0.125 <= row["high"]
    assert covered / trials > 0.9


def test_the_limit_comes_from_validation_alone() -> None:
    """80 % of ten validation images pass a limit that two of the five test images don't reach."""
    val = np.linspace(0.3, 0.48, 10)
    rows = accuracy_at_coverage(LABELS, SCORES, 0.5, TRUST, val, resample(LABELS, None, 100, 0, "test"), "test")
    found = {row["coverage"]: row for row in rows}
    assert found[0.8]["answered"] == pytest.approx(3 / 5)
    assert found[0.8]["accuracy_of_answered"] == pytest.approx(2 / 3)
    nobody = accuracy_at_coverage(LABELS, SCORES, 0.5, TRUST, [9.0], resample(LABELS, None, 100, 0, "test"), "test")
    assert (nobody[0]["answered"], nobody[0]["accuracy_of_answered"]) == (0, 0)
