"""Tell whose slice a file is, and judge patients instead of slices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctscan.inference.bundle import Evaluation, Prediction


def patient_of(path: Path, groups: Mapping[Path, str]) -> str | None:
    """The patient of a file: of groups.csv, else DICOM's PatientID, else its SeriesInstanceUID; None where unknown."""
    if path in groups:
        return groups[path]
    import pydicom
    from pydicom.errors import InvalidDicomError

    tags = ["PatientID", "SeriesInstanceUID"]
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except (InvalidDicomError, OSError):
        return None
    found = (str(header.get(tag) or "").strip() for tag in tags)
    return next((value for value in found if value), None)


def patient_rows(
    predictions: Sequence[Prediction], patients: Sequence[str | None], evaluation: Evaluation, point: str
) -> list[dict[str, Any]]:
    """One row for each known patient: `patient`, `slices`, a score by each rule, and the `label` by the run's own rule.

    The label is None where the run has chosen no rule. Scores are those of `evaluation.patients.by_patient`.

    Args:
        patients: of each of `predictions`; those that are None are left out.
        point: the operating point, whose threshold is for slices and patients alike.
    """
    from ctscan.evaluation.patients import by_patient

    known = [(one.score, patient) for one, patient in zip(predictions, patients, strict=True) if patient is not None]
    if not known:
        return []
    threshold, names = evaluation.thresholds[point], (evaluation.classes.negative, evaluation.classes.positive)
    table = by_patient([score for score, _ in known], [patient for _, patient in known], threshold)
    rows = []
    for row in table.rename(columns={"group": "patient"}).to_dict("records"):
        rule = evaluation.patient_rule
        label = None if rule is None else names[int(row[rule] >= threshold)]
        rows.append({**{str(key): value for key, value in row.items()}, "label": label})
    return rows
