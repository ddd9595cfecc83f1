"""Calibration agrees with bins counted by hand and finds known temperatures."""

import json

from ctscan.core.errors import UserError
from ctscan.evaluation.calibration import apply_temperature, calibration, fit_temperature, reliability

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit, logit
from sklearn.metrics import log_loss


def test_errors_of_a_hand_case() -> None:
    labels, scores = [0, 0, 1, 1], [0.1, 0.3, 0.6, 1.0]
    result = calibration(labels, scores, 2, "test")
    # Lower bin: mean .2, none positive; upper bin: mean .8, all positive.
    assert result == pytest.approx({"brier": (0.01 + 0.09 + 0.16 + 0) / 4, "ece": 0.2, "bins": 2})
    assert calibration([0, 0, 0, 1], [0.25] * 4, 10, "test")["ece"] == 0


def test_error_weighs_bins_by_their_images() -> None:
    # Three images in a bin that is .1 off, one in a bin that is .5 off.
    assert calibration([0, 0, 0, 1], [0.1, 0.1, 0.1, 0.5], 4, "test")["ece"] == pytest.approx((3 * 0.1 + 0.5) / 4)


@pytest.mark.parametrize("bins", [7, 10, 100])
def test_bins_are_closed_below_and_the_last_above(bins: int) -> None:
    edges = [index / bins for index in range(bins + 1)]
    rows = reliability([index % 2 for index in range(bins + 1)], edges, bins, "test")
    assert [row["bin_low"] for row in rows] == edges[:-1]
    assert [row["bin_high"] for row in rows] == edges[1:]
    assert [row["count"] for row in rows] == [1] * (bins - 1) + [2]


def test_reliability_row_has_its_wilson_interval() -> None:
    rows = reliability([1] * 8 + [0] * 2, [0.7] * 10, 10, "test")
    # Wilson (1927) for 8 of 10 at 95 %.
    expected = {"bin_low": 0.7, "bin_high": 0.8, "mean_score": 0.7, "observed": 0.8, "low": 0.4902, "high": 0.9433}
    assert rows == [pytest.approx({**expected, "count": 10}, abs=5e-5)]
    json.dumps(rows, allow_nan=False)


def drawn(seed: int, n: int = 4000) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Calibrated logits with labels drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, n)
    return (rng.random(n) < expit(logits)).astype(np.int64), logits


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    labels, logits = drawn(1)
    scores = expit(logits * temperature)
    fitted = fit_temperature(labels, scores, "val")
    assert fitted == pytest.approx(temperature, rel=0.08)
    other_labels, other_logits = drawn(2)
    before = expit(other_logits * temperature)
    after = apply_temperature(before, fitted)
    assert calibration(other_labels, after, 10, "test")["ece"] < 0.03
    if temperature != 1:
        assert log_loss(other_labels, after) < log_loss(other_labels, before)


def test_the_fit_is_the_optimum_on_validation() -> None:
    labels, logits = drawn(3, n=100)
    scores = expit(2 * logits)
    fitted = fit_temperature(labels, scores, "val")
    best = log_loss(labels, apply_temperature(scores, fitted))
    for other in np.geomspace(0.05, 20, 50):
        assert best <= log_loss(labels, apply_temperature(scores, float(other))) + 1e-9


def test_separable_and_reversed_scores_stay_within_the_bounds() -> None:
    assert fit_temperature([0, 1], [0.3, 0.7], "val") == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature([0, 1], [0.0, 1.0], "val") >= 0.05
    assert fit_temperature([0, 1], [1.0, 0.0], "val") == pytest.approx(20, rel=1e-3)


def test_temperature_keeps_order_and_sides() -> None:
    scores = np.array([0.0, 0.2, 0.5, 0.8, 1.0])
    for temperature in (0.5, 2.0):
        after = apply_temperature(scores, temperature)
        assert (np.diff(after) > 0).all()
        assert after[2] == 0.5
        assert logit(after[1]) == pytest.approx(logit(0.2) / temperature)
        assert np.isfinite(logit(apply_temperature(np.array([0, 1], dtype=np.float32), temperature))).all()


def test_bad_input_is_named() -> None:
    for call in (
        lambda: calibration([0, 1], [0.1, np.nan], 10, "val, initial"),
        lambda: reliability([0, 1], [0.1, np.nan], 10, "val, initial"),
        lambda: fit_temperature([0, 1], [0.1, np.nan], "val, initial"),
    ):
        with pytest.raises(UserError, match="val, initial: 1 of 2 scores are NaN"):
            call()
