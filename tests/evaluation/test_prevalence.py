"""Predictive values, the shift of a prior and the estimate of a prevalence, against hand cases and simulations."""

from ctscan.core.errors import UserError
from ctscan.evaluation import prevalence
from ctscan.evaluation.intervals import resample
from ctscan.evaluation.prevalence import estimate_prevalence, predictive_values, shift_prior

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit
from sklearn.metrics import precision_score


def test_predictive_values_of_a_hand_case() -> None:
    # Sensitivity 9/10, specificity 8/10: at 1 %, 9 of 207 calls in a thousand are right; 792 of 793 others are.
    labels = np.repeat([1, 0], 10)
    scores = np.array([0.9] * 9 + [0.1] + [0.9] * 2 + [0.1] * 8)
    rows = predictive_values(labels, scores, 0.5, resample(labels, None, 200, 0, "test"), "test")
    found = {row["prevalence"]: row for row in rows}
    assert set(found) == {0.01, 0.05, 0.2, 0.5}
    assert found[0.01]["ppv"] == pytest.approx(9 / 207)
    assert found[0.01]["npv"] == pytest.approx(792 / 793)
    assert found[0.5]["ppv"] == pytest.approx(precision_score(labels, scores >= 0.5))
    assert all(row["ppv_low"] <= row["ppv"] <= row["ppv_high"] for row in rows)
    assert all(row["npv_low"] <= row["npv"] <= row["npv_high"] for row in rows)


def test_the_interval_of_a_predictive_value_is_that_of_explicit_resamples() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1)
    draws = resample(labels, None, 200, 0, "test")
    explicit = []
    for counts in draws.counts:
        images = np.repeat(np.arange(80), counts.astype(int))
        called, truth = scores[images] >= 0.5, labels[images]
        true, false = called[truth == 1].mean() * 0.2, called[truth == 0].mean() * 0.8
        explicit.append(true / (true + false))
    row = predictive_values(labels, scores, 0.5, draws, "test")[2]
    assert (row["ppv_low"], row["ppv_high"]) == pytest.approx(tuple(np.quantile(explicit, [0.025, 0.975])))


def test_a_call_that_is_never_made_has_a_value_of_0() -> None:
    labels = np.repeat([0, 1], 5)
    draws = resample(labels, None, 100, 0, "test")
    assert predictive_values(labels, np.full(10, 0.2), 0.5, draws, "test")[0]["ppv"] == 0
    assert predictive_values(labels, np.full(10, 0.8), 0.5, draws, "test")[0]["npv"] == 0


def test_a_shifted_probability_is_that_of_bayes_theorem() -> None:
    # Even odds where half are positive; where a tenth is, odds of 1 to 9.
    assert shift_prior([0.5, 0.9], 0.5, 0.1) == pytest.approx([0.1, 0.5])
    assert shift_prior([0.3, 0.6], 0.4, 0.4) == pytest.approx([0.3, 0.6])
    assert shift_prior(shift_prior([0.3], 0.5, 0.01), 0.01, 0.5) == pytest.approx([0.3])
    assert np.isfinite(shift_prior([0.0, 1.0], 0.5, 0.01)).all()


def population(rng: np.random.Generator, share: float, images: int) -> tuple[npt.NDArray, npt.NDArray]:
    """Labels, and probabilities that are calibrated where half of the images are positive."""
    labels = (rng.random(images) < share).astype(int)
    return labels, expit(2 * rng.normal(2 * labels - 1, 1))


def test_shifted_probabilities_are_calibrated_at_the_new_prevalence() -> None:
    labels, probabilities = population(np.random.default_rng(0), 0.05, 200_000)
    shifted = shift_prior(probabilities, 0.5, 0.05)
    assert probabilities.mean() > 0.15  # unshifted, three times too high
    for low, high in ((0, 0.02), (0.02, 0.1), (0.1, 0.5), (0.5, 1)):
        inside = (shifted >= low) & (shifted < high)
        assert shifted[inside].mean() == pytest.approx(labels[inside].mean(), abs=0.02)


def test_the_estimate_is_where_expectation_maximisation_ends() -> None:
    _, probabilities = population(np.random.default_rng(1), 0.2, 300)
    share = 0.5
    for _ in range(2000):
        share = float(shift_prior(probabilities, 0.5, share).mean())
    found = estimate_prevalence(probabilities, 0.5, None, 100, np.random.default_rng(0))
    assert found["prevalence"] == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_the_interval_covers_the_true_prevalence(share: float) -> None:
    rng, trials, covered, widths = np.random.default_rng(3), 200, 0, []
    for _ in range(trials):
        _, probabilities = population(rng, share, 400)
        found = estimate_prevalence(probabilities, 0.5, None, 200, rng)
        covered += found["low"] <= share <= found["high"]
        widths.append(found["high"] - found["low"])
    assert covered / trials >= 0.9
    assert np.mean(widths) < 0.15


def test_only_groups_cover_where_slices_of_a_patient_are_alike() -> None:
    rng, trials, covered = np.random.default_rng(4), 150, {"group": 0, "image": 0}
    groups = np.repeat(np.arange(60), 10)
    for _ in range(trials):
        _, probabilities = population(rng, 0.3, 60)
        for kind, given in (("group", groups), ("image", None)):
            found = estimate_prevalence(probabilities[groups], 0.5, given, 150, rng)
            covered[kind] += found["low"] <= 0.3 <= found["high"]
            assert found["resampled"] == kind
    assert covered["group"] / trials > 0.88
    assert covered["image"] / trials < 0.7


def test_resamples_in_blocks_are_the_same_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    _, probabilities = population(np.random.default_rng(5), 0.3, 50)
    whole = estimate_prevalence(probabilities, 0.5, None, 40, np.random.default_rng(0))
    monkeypatch.setattr(prevalence, "AT_ONCE", 350)
    assert estimate_prevalence(probabilities, 0.5, None, 40, np.random.default_rng(0)) == pytest.approx(whole)


def test_nothing_to_estimate_from_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="no images"):
        estimate_prevalence([], 0.5, None, 10, rng)
    with pytest.raises(UserError, match="one group"):
        estimate_prevalence([0.2, 0.3], 0.5, ["a", "a"], 10, rng)
