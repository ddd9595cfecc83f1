"""Say what a result means where another share of the images is positive, and estimate how large that share is.

A test set with half of its images positive is unlike a clinic. Sensitivity and specificity stay what they are when only
the share of positives (the prevalence) changes; predictive values and probabilities do not. Everything here assumes
that the images of each class look as before: no formula corrects for another scanner or another hospital.
"""

from typing import Any

from ctscan.core.errors import UserError
from ctscan.evaluation.calibration import CLIP
from ctscan.evaluation.intervals import AT_ONCE, LEVEL, Counts, Resamples, percentile_interval
from ctscan.evaluation.metrics import Scores, checked

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

PREVALENCES = (0.01, 0.05, 0.2, 0.5)
HALVINGS = 40  # of the interval that holds a prevalence: to 1e-12


def predictive_values(
    labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float, resamples: Resamples, name: str
) -> list[dict[str, float]]:
    """PPV and NPV of calls at `threshold` in populations with the shares of positives `PREVALENCES`, a row for each.

    A row holds `prevalence`, `ppv` and `npv`, and the ends of their 95 % intervals `ppv_low`, `ppv_high`, `npv_low`,
    `npv_high`. They follow from sensitivity and specificity by Bayes' theorem. A value whose call is never made is 0.
    Raises `UserError` as `metrics.checked` does.
    """
    truth, values = checked(labels, scores, name)
    called = values >= threshold

    def rates(counts: Counts) -> npt.NDArray[np.float64]:
        """Sensitivity and specificity in each row of `counts` (b, n): (b, 2)."""
        positives = counts @ truth
        negatives = counts.sum(axis=1) - positives
        found, cleared = counts @ (called & (truth == 1)), counts @ (~called & (truth == 0))
        return np.column_stack([found / positives, cleared / negatives])

    everyone = np.ones((1, len(truth)))
    sensitivity, specificity = np.concatenate([rates(everyone), resamples.apply(rates)]).T
    rows = []
    for prevalence in PREVALENCES:
        row = {"prevalence": prevalence}
        for value, right, wrong in (
            ("ppv", prevalence * sensitivity, (1 - prevalence) * (1 - specificity)),
            ("npv", (1 - prevalence) * specificity, prevalence * (1 - sensitivity)),
        ):
            made = right + wrong
            share = np.where(made > 0, right / np.where(made > 0, made, 1), 0)
            ends = percentile_interval(share[1:])
            row |= {value: float(share[0]), **{f"{value}_{end}": at for end, at in ends.items()}}
        rows.append(row)
    return rows


def shift_prior(probabilities: npt.ArrayLike, prior: float, prevalence: float) -> Scores:
    """Probabilities (n,) that are calibrated where the share of positives is `prior`, as they are at `prevalence`.

    The odds are multiplied by the ratio of the prior odds (Saerens, Latinne & Decaestecker 2002, equation 2.4).
    Probabilities are first clipped to [1e-7, 1 - 1e-7]; `prior` and `prevalence` lie between 0 and 1, both excluded.
    """
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), CLIP, 1 - CLIP)
    shifted: Scores = expit(logit(clipped) + logit(prevalence) - logit(prior))
    return shifted


def estimate_prevalence(
    probabilities: npt.ArrayLike, prior: float, groups: npt.ArrayLike | None, resamples: int, rng: np.random.Generator
) -> dict[str, Any]:
    """The share of positives among unlabelled images, with its 95 % interval.

    It is the maximum of the likelihood that the algorithm EM of Saerens et al. (2002) climbs to, found by halving
    intervals instead, because EM is slow where the classes overlap. The interval is a bootstrap over groups where
    `groups` (n,) is given, over images otherwise. It counts which images the set happens to hold, and takes the
    calibration of the probabilities as exact.

    Args:
        probabilities: (n,), calibrated where the share of positives is `prior`.

    Raises:
        UserError: no image is given, or all images are of one group.
    """
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), CLIP, 1 - CLIP)
    if clipped.size == 0:
        raise UserError("prevalence: no images; give at least one")
    unit_of_image = np.arange(len(clipped)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    units = int(unit_of_image.max()) + 1
    if groups is not None and units < 2:
        raise UserError("prevalence: all images are of one group, which can't be resampled; leave the groups out")
    observed = _most_likely_prevalence(clipped, prior, np.ones((1, len(clipped))))
    estimates: list[float] = []
    while len(estimates) < resamples:
        some = min(resamples - len(estimates), max(1, AT_ONCE // len(clipped)))
        drawn = rng.multinomial(units, np.full(units, 1 / units), size=some)[:, unit_of_image].astype(np.float64)
        estimates += _most_likely_prevalence(clipped, prior, drawn).tolist()
    return {
        "prevalence": float(observed[0]),
        **percentile_interval(np.array(estimates)),
        "resampled": "image" if groups is None else "group",
        "units": units,
        "resamples": resamples,
        "level": LEVEL,
    }


def _most_likely_prevalence(probabilities: Scores, prior: float, counts: Counts) -> npt.NDArray[np.float64]:
    """(b,), one for each row of `counts` (b, n): where the derivative of the concave log-likelihood is 0."""
    # The densities of an image in each class are in this proportion, by Bayes' theorem.
    positive, negative = probabilities / prior, (1 - probabilities) / (1 - prior)
    slope = positive - negative
    low: npt.NDArray[np.float64] = np.zeros(len(counts))
    high: npt.NDArray[np.float64] = np.ones(len(counts))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        derivative = np.einsum("bn,bn->b", counts, slope / (negative + middle[:, None] * slope))
        low, high = np.where(derivative > 0, middle, low), np.where(derivative > 0, high, middle)
    most_likely: npt.NDArray[np.float64] = (low + high) / 2
    return most_likely
