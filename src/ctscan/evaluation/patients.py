"""Judge patients instead of slices: one score for each group of images, by a rule that is chosen on validation.

A group is a patient where groups.csv or DICOM tells whose slice an image is, and otherwise what the split keeps
together (a block of file numbers), which is a guess at a patient.
"""

from collections.abc import Callable
from typing import Any

from ctscan.core.errors import UserError
from ctscan.evaluation import intervals, metrics
from ctscan.evaluation.metrics import Labels, Scores

import numpy as np
import numpy.typing as npt
import pandas as pd

TOP = 3  # slices of a patient that the rule `top_3` looks at

# From the scores of a patient's slices, and the threshold at which a slice is called positive, to the patient's score.
RULES: dict[str, Callable[[Scores, float], float]] = {
    "mean": lambda scores, _: float(scores.mean()),
    "share": lambda scores, threshold: float((scores >= threshold).mean()),
    f"top_{TOP}": lambda scores, _: float(np.sort(scores)[-TOP:].mean()),
}


def by_patient(scores: npt.ArrayLike, groups: npt.ArrayLike, threshold: float) -> pd.DataFrame:
    """One row for each group, sorted by its name: `group`, `slices` (their number) and a score in [0, 1] by each rule.

    The rules are `mean`, `share` (of the slices whose score reaches `threshold`) and `top_3` (mean of the three highest
    scores, or of all where there are fewer).
    """
    values = np.asarray(scores, dtype=np.float64)
    names, code = np.unique(np.asarray(groups), return_inverse=True)
    slices = np.split(values[np.argsort(code, kind="stable")], np.cumsum(np.bincount(code))[:-1])
    table = pd.DataFrame({"group": names, "slices": [len(own) for own in slices]})
    for rule, score in RULES.items():
        table[rule] = [score(own, threshold) for own in slices]
    return table


def labels_of_patients(labels: npt.ArrayLike, groups: npt.ArrayLike) -> Labels:
    """(patients,) in the order of `by_patient`: 1 where any slice of the group is positive."""
    names, code = np.unique(np.asarray(groups), return_inverse=True)
    positive = np.bincount(code, weights=np.asarray(labels), minlength=len(names)) > 0
    return positive.astype(np.int64)


def choose_rule(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.ArrayLike, threshold: float) -> str:
    """The rule with the highest ROC AUC over the patients of validation; of equals, the first of `RULES`.

    Raises `UserError` as `metrics.checked` does.
    """
    table, truth = by_patient(scores, groups, threshold), labels_of_patients(labels, groups)
    areas = {rule: metrics.headline(truth, table[rule], threshold, "val, patients")["roc_auc"] for rule in RULES}
    return max(areas, key=lambda rule: areas[rule])


def assess_patients(
    val: tuple[Labels, Scores, np.ndarray],
    test: tuple[Labels, Scores, np.ndarray],
    threshold: float,
    resamples: int,
    seed: int,
) -> dict[str, Any] | None:
    """What `measure_patients` gives on test, by the `rule` that is chosen on validation.

    Args:
        val, test: labels, scores and groups of the slices, each (n,).

    Returns:
        None where validation or test lacks patients of one class: nothing can be chosen or measured then.
    """
    try:
        rule = choose_rule(*val, threshold)
        return measure_patients(rule, *test, threshold, resamples, seed, "test")
    except UserError:
        return None


def measure_patients(
    rule: str,
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    threshold: float,
    resamples: int,
    seed: int,
    name: str,
) -> dict[str, Any]:
    """The headline metrics over patients, with intervals over patients.

    Args:
        labels, scores, groups: of the slices, each (n,).
        threshold: from which a slice is called positive by `share`, and a patient by the score of any rule.

    Returns:
        `rule`, `patients`, `positive` and `mixed` (patients with slices of both classes), `test` and `intervals` as in
        a report on slices.

    Raises:
        UserError: there are no patients of one class.
    """
    truth = labels_of_patients(labels, groups)
    of_patients = by_patient(scores, groups, threshold)[rule].to_numpy()
    drawn = intervals.resample(truth, None, resamples, seed, f"{name}, patients")
    with_negative = labels_of_patients(1 - np.asarray(labels), groups)
    spread = intervals.headline_intervals(truth, of_patients, threshold, drawn, f"{name}, patients")
    return {
        "rule": rule,
        "patients": len(truth),
        "positive": int(truth.sum()),
        "mixed": int((truth * with_negative).sum()),
        "test": metrics.headline(truth, of_patients, threshold, f"{name}, patients"),
        "intervals": {**spread, "resampled": "patient"},
    }
