"""The fine-tuned model with what stage evaluate found for it, as DVC tracks them."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from ctscan import novelty
from ctscan.errors import UserError
from ctscan.models import load_model
from ctscan.params import Classes, Params

import tensorflow as tf
import yaml

LOCK = Path("dvc.lock")
MODEL = Path("models/finetuned.keras")
DETAILS = Path("metrics/details.json")
NOVELTY = Path("models/novelty.npz")
STUDY = "study"  # the point at the study's threshold


class Evaluated(NamedTuple):
    """The model and how to read it."""

    network: tf.types.experimental.GenericFunction  # slices uint8 (n, s, s, 1) to probabilities (n, 1), features (n, d)
    size: int  # s, pixels
    md5: str  # of the model's file
    temperature: float
    thresholds: dict[str, float]  # by operating point; on scores before the temperature, as evaluate chose them
    notice: novelty.Novelty
    classes: Classes


def load_evaluated(params: Params) -> Evaluated:
    """Raises `UserError` where a part is missing, damaged, or not of the run that dvc.lock records."""
    seen = _lock_of_evaluate()
    for path in (MODEL, DETAILS, NOVELTY):
        if not path.is_file():
            raise UserError(f"{path} is missing; get it with `dvc checkout {path}`, or make it with `dvc repro`")
    md5 = {path: _md5(path) for path in (MODEL, DETAILS, NOVELTY)}
    if md5[MODEL] != seen["files"].get(MODEL.as_posix()):
        raise UserError(
            f"{MODEL} is not the model that evaluate saw ({LOCK}), so temperature, thresholds and notice are another "
            f"model's; run `dvc repro`, or get that model back with `dvc checkout --force {MODEL}`"
        )
    for path in (DETAILS, NOVELTY):
        if md5[path] != seen["files"].get(path.as_posix()):
            raise UserError(f"{path} is not what evaluate wrote ({LOCK}); run `dvc repro`, or take back your change")
    if params.classes.model_dump() != seen["classes"]:
        raise UserError(f"params.yaml: classes are not those that evaluate read ({LOCK}); run `dvc repro`")

    report = json.loads(DETAILS.read_text(encoding="utf-8"))["finetuned"]
    chosen = {point: float(values["threshold"]) for point, values in report["operating_points"].items()}
    model = novelty.with_features(load_model(MODEL))
    size = model.input_shape[1]
    # Traced once for batches of any size; Keras' own way traces the last, shorter one anew, which takes seconds.
    signature = tf.TensorSpec((None, size, size, 1), tf.uint8)
    return Evaluated(
        tf.function(lambda slices: model(slices, training=False), input_signature=[signature]),
        size,
        md5[MODEL],
        float(report["calibration"]["temperature"]),
        {STUDY: float(report["threshold"]), **chosen},
        novelty.load(NOVELTY),
        params.classes,
    )


def _lock_of_evaluate() -> dict[str, Any]:
    """The md5 of each file that the last run of evaluate read or wrote, and the classes that it read."""
    try:
        stage = yaml.safe_load(LOCK.read_text(encoding="utf-8"))["stages"]["evaluate"]
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
