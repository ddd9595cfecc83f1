"""How to read the scores of the fine-tuned model: what stage evaluate found for it, as DVC tracks it."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from ctscan.core.errors import UserError
from ctscan.core.params import Classes, parse_yaml

import yaml

LOCK = Path("dvc.lock")
MODEL = Path("models/finetuned.keras")
DETAILS = Path("metrics/details.json")
NOVELTY = Path("models/novelty.npz")
STUDY = "study"  # the point at the study's threshold


class Reading(NamedTuple):
    """How to read the scores of the model."""

    md5: str  # of the model's file
    temperature: float
    thresholds: dict[str, float]  # by operating point; on scores before the temperature, as evaluate chose them
    classes: Classes


def read_evaluation(*beside: Path) -> Reading:
    """Of the model and metrics/details.json; they, and the files `beside`, are those of the run that dvc.lock records.

    Raises:
        UserError: one is missing, or not of that run.
    """
    seen = _lock_of_evaluate()
    written = (DETAILS, *beside)
    for path in (MODEL, *written):
        if not path.is_file():
            raise UserError(f"{path} is missing; get it with `dvc checkout {path}`, or make it with `dvc repro`")
    md5 = _md5(MODEL)
    if md5 != seen["files"].get(MODEL.as_posix()):
        raise UserError(
            f"{MODEL} is not the model that evaluate saw ({LOCK}), so temperature, thresholds and notice are another "
            f"model's; run `dvc repro`, or get that model back with `dvc checkout --force {MODEL}`"
        )
    for path in written:
        if _md5(path) != seen["files"].get(path.as_posix()):
            raise UserError(f"{path} is not what evaluate wrote ({LOCK}); run `dvc repro`, or take back your change")
    report = json.loads(DETAILS.read_text(encoding="utf-8"))["finetuned"]
    chosen = {point: float(values["threshold"]) for point, values in report["operating_points"].items()}
    thresholds = {STUDY: float(report["threshold"]), **chosen}
    return Reading(md5, float(report["calibration"]["temperature"]), thresholds, Classes(**seen["classes"]))


def _lock_of_evaluate() -> dict[str, Any]:
    """The md5 of each file that the last run of evaluate read or wrote, and the classes that it read."""
    try:
        text = LOCK.read_text(encoding="utf-8")
        if "\n<<<<<<< " in f"\n{text}":
            raise UserError(
                f"{LOCK} holds a merge conflict; take one side (`git checkout --ours {LOCK}`, or --theirs), then run "
                "`dvc checkout` or `dvc repro`"
            )
        stage = parse_yaml(text)["stages"]["evaluate"]
        files = {entry["path"]: entry.get("md5") for entry in [*stage["deps"], *stage["outs"]]}
        return {"files": files, "classes": stage["params"]["params.yaml"]["classes"]}
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        raise UserError(f"{LOCK} records no run of evaluate in this folder; run `dvc repro` at the top") from None


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
