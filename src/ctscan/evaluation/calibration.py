"""Measure how well scores agree with probabilities, and bring them closer by temperature scaling."""

from ctscan.evaluation.metrics import Scores, checked

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss

# A float32 sigmoid reaches 0 and 1, whose logits are infinite; the clip is at Keras' own epsilon.
CLIP = 1e-7
TEMPERATURES = (0.05, 20.0)


def calibration(labels: npt.ArrayLike, scores: npt.ArrayLike, bins: int, name: str) -> dict[str, float]:
    """Brier score, expected calibration error and the number of bins that it rests on.

    The error is the mean over images of |observed fraction - mean score| of their bin, on equal-width bins (Naeini et
    al. 2015, for the probability of the positive class). Both are in [0, 1], 0 is best. Raises `UserError` as
    `checked` does.
    """
    truth, values = checked(labels, scores, name)
    rows = reliability(truth, values, bins, name)
    gap = sum(row["count"] * abs(row["observed"] - row["mean_score"]) for row in rows)
    return {"brier": float(brier_score_loss(truth, values)), "ece": gap / len(truth), "bins": bins}


def reliability(labels: npt.ArrayLike, scores: npt.ArrayLike, bins: int, name: str) -> list[dict[str, float]]:
    """The reliability diagram as a table, with one row per bin that holds images.

    Bins have equal width: [0, 1/bins), [1/bins, 2/bins), ..., the last with 1 in it. `bin_low` and `bin_high` bound the
    bin, `mean_score` is predicted, `observed` the fraction of positives with its 95 % Wilson interval `low` to `high`,
    `count` the images. Raises `UserError` as `checked` does.
    """
    truth, values = checked(labels, scores, name)
    bin_of_image = np.digitize(values, np.arange(1, bins) / bins)
    rows = []
    for index in np.unique(bin_of_image).tolist():
        inside = bin_of_image == index
        count, positives = int(inside.sum()), int(truth[inside].sum())
        interval = binomtest(positives, count).proportion_ci(0.95, method="wilson")
        rows.append(
            {
                "bin_low": index / bins,
                "bin_high": (index + 1) / bins,
                "mean_score": float(values[inside].mean()),
                "observed": positives / count,
                "low": float(interval.low),
                "high": float(interval.high),
                "count": count,
            }
        )
    return rows


def fit_temperature(labels: npt.ArrayLike, scores: npt.ArrayLike, name: str) -> float:
    """The temperature that minimises the negative log-likelihood of `apply_temperature` (Guo et al. 2017).

    Fit it on validation. Above 1 it softens overconfident scores, below 1 it sharpens them. It stays between 0.05 and
    20: on separable data the likelihood has no optimum, and the lower bound is the result. Raises `UserError` as
    `checked` does.
    """
    truth, values = checked(labels, scores, name)
    margins = np.where(truth == 1, 1, -1) * logits(values)

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -margins / np.exp(log_temperature)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded").x))


def apply_temperature(scores: npt.ArrayLike, temperature: float) -> Scores:
    """Scores with their logits divided by `temperature`; (n,) in [0, 1]. Scores are first clipped to [1e-7, 1 - 1e-7].

    The order of the images stays as it is, and so does the side of .5 on which a score lies: AUC and calls at .5 do not
    change.
    """
    softened: Scores = expit(logits(np.asarray(scores, dtype=np.float64)) / temperature)
    return softened


def logits(scores: Scores) -> Scores:
    """The logits of scores in [0, 1], clipped to [1e-7, 1 - 1e-7] first, so that they are finite; any shape."""
    values: Scores = logit(np.clip(scores, CLIP, 1 - CLIP))
    return values
