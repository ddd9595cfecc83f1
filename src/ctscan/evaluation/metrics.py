"""Compute the metrics of a binary classifier at a fixed threshold.

Everywhere in the package, labels are (n,) integers, 1 = the positive class; scores are (n,) probabilities of the
positive class in [0, 1]; an image counts as positive when its score >= the threshold.
"""

from typing import Any

from ctscan.core.errors import UserError

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
    roc_auc_score,
)

Labels = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

HEADLINE = ("accuracy", "precision", "recall", "f1", "roc_auc")


def checked(labels: npt.ArrayLike, scores: npt.ArrayLike, name: str) -> tuple[Labels, Scores]:
    """Labels (n,) and scores (n,) as arrays for which every metric is defined.

    Args:
        name: the subset, and the model if there is more than one, for the message: `test, initial`.

    Raises:
        UserError: nothing given, unequal lengths, labels other than 0 and 1, only one class, a score that is NaN or
            outside [0, 1].
    """
    truth = checked_labels(labels, name)
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != truth.shape:
        raise UserError(f"{name}: {len(truth)} labels but scores of shape {values.shape}; give each image one score")
    if missing := int(np.isnan(values).sum()):
        raise UserError(f"{name}: {missing} of {values.size} scores are NaN; training diverged, try a lower lr")
    if values.min() < 0 or values.max() > 1:
        raise UserError(
            f"{name}: scores run from {values.min():g} to {values.max():g}; give probabilities between 0 and 1"
        )
    return truth, values


def checked_labels(labels: npt.ArrayLike, name: str) -> Labels:
    """Labels (n,) as an array. Raises `UserError` unless there are 0 and 1 among them and nothing else."""
    truth: npt.NDArray[Any] = np.asarray(labels)
    if truth.size == 0:
        raise UserError(f"{name}: no images; check the dataset and the split")
    if truth.ndim != 1 or not np.isin(truth, (0, 1)).all():
        raise UserError(f"{name}: labels must be a list of 0 and 1 (1 = the positive class)")
    truth = truth.astype(np.int64)
    for label, kind in ((1, "positive"), (0, "negative")):
        if not (truth == label).any():
            raise UserError(
                f"{name}: none of its {truth.size} images is of the {kind} class; enlarge the subset or split otherwise"
            )
    return truth


def headline(labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float, name: str) -> dict[str, float]:
    """Accuracy, precision, recall, F1 (all at `threshold`) and ROC AUC, in [0, 1], by the names in `HEADLINE`.

    Precision and F1 are 0 where no image is called positive. Raises `UserError` as `checked` does.
    """
    truth, values = checked(labels, scores, name)
    called = values >= threshold
    return {
        "accuracy": float(accuracy_score(truth, called)),
        "precision": float(precision_score(truth, called, zero_division=0)),
        "recall": float(recall_score(truth, called, zero_division=0)),
        "f1": float(f1_score(truth, called, zero_division=0)),
        "roc_auc": float(roc_auc_score(truth, values)),
    }


def per_class(
    labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float, positive: str, negative: str, name: str
) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and support (number of images) of each class, as if it were the positive one.

    The calls are the same for both: a score >= `threshold` is called `positive`, the rest `negative`. A class that is
    never called has a precision and F1 of 0. Raises `UserError` as `checked` does.
    """
    truth, values = checked(labels, scores, name)
    columns = precision_recall_fscore_support(truth, values >= threshold, labels=[1, 0], zero_division=0)
    return {
        kind: {"precision": float(precision), "recall": float(recall), "f1": float(f1), "support": int(support)}
        for kind, precision, recall, f1, support in zip((positive, negative), *columns, strict=True)
    }


def confusion(labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float, name: str) -> dict[str, int]:
    """Counts of true and false negatives and positives: tn, fp, fn, tp. Raises `UserError` as `checked` does."""
    truth, values = checked(labels, scores, name)
    tn, fp, fn, tp = confusion_matrix(truth, values >= threshold, labels=[0, 1]).ravel()
    return {"tn": int(tn), "fp": int(fp), "fn": int(fn), "tp": int(tp)}
