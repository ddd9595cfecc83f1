"""Choose thresholds on validation, and measure what they give on test.

An image is called positive when its score is at least the threshold. Candidates are the distinct validation scores, so
that tied images are called alike, and one just above the highest score, at which no image is called positive.
"""

from ctscan.evaluation.metrics import checked, confusion

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_curve

SPECIFICITIES = (0.90, 0.95)


def choose(labels: npt.ArrayLike, scores: npt.ArrayLike, name: str) -> dict[str, float]:
    """Thresholds by name.

    `youden` has the highest sensitivity + specificity - 1 (Youden 1950); of equals, the most sensitive.
    `specificity_90` and `specificity_95` have the highest sensitivity among those with at least that specificity (per
    cent); of equals, the most specific. Raises `UserError` as `checked` does.
    """
    truth, values = checked(labels, scores, name)
    fpr, tpr, thresholds = roc_curve(truth, values, drop_intermediate=False)
    thresholds[0] = np.nextafter(values.max(), np.inf)
    positives, negatives = int(truth.sum()), int((1 - truth).sum())
    # Whole counts, because quotients that are equal on paper may differ by rounding.
    true = np.rint(tpr * positives).astype(np.int64)
    false = np.rint(fpr * negatives).astype(np.int64)
    youden = true * negatives - false * positives
    chosen = {"youden": np.flatnonzero(youden == youden.max())[-1]}
    for specificity in SPECIFICITIES:
        allowed = (negatives - false) / negatives >= specificity
        chosen[f"specificity_{specificity:.0%}".rstrip("%")] = np.argmax(np.where(allowed, true, -1))
    return {point: float(thresholds[index]) for point, index in chosen.items()}


def apply(labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float, name: str) -> dict[str, float]:
    """The threshold and its sensitivity, specificity, precision and accuracy, in [0, 1].

    Precision is 0 where no image is called positive. Raises `UserError` as `checked` does.
    """
    cells = confusion(labels, scores, threshold, name)
    tn, fp, fn, tp = (cells[cell] for cell in ("tn", "fp", "fn", "tp"))
    return {
        "threshold": threshold,
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "precision": tp / max(tp + fp, 1),
        "accuracy": (tp + tn) / (tp + tn + fp + fn),
    }
