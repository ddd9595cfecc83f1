"""Load the model bundle: the fine-tuned model, its thresholds and temperature, and its novelty detector."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ctscan.core.errors import UserError
from ctscan.core.files import read_record, require
from ctscan.core.params import Classes, parse_lock

if TYPE_CHECKING:  # TensorFlow takes seconds, a mistyped path is told before
    from ctscan.evaluation.novelty import NoveltyDetector

    import tensorflow as tf

LOCK = Path("dvc.lock")
MODEL = Path("models/finetuned.keras")
DETAILS = Path("metrics/details.json")
NOVELTY = Path("models/novelty.npz")
STUDY = "study"  # the operating point at the study's threshold


class Evaluation(NamedTuple):
    """What stage evaluate found for the fine-tuned model: how its scores are to be read."""

    md5: str  # of the model's file
    temperature: float
    thresholds: dict[str, float]  # by operating point; on scores before the temperature, as evaluate chose them
    classes: Classes
    prior: float  # share of positives where the temperature was fitted
    patient_rule: str | None  # of `evaluation.patients`, as chosen on validation; None where it could not be


class Prediction(NamedTuple):
    """What the model says about one slice."""

    path: Path
    name: str  # the path, with the number of the frame where there are several
    score: float  # in [0, 1], before the temperature: what thresholds are for
    probability: float  # of the positive class, calibrated, in [0, 1]
    label: str  # class at the operating point
    novelty: float  # the novelty score
    unfamiliar: bool  # whether the novelty score is above 1
    colour: bool  # whether the file was in colour, of which the model sees only the luma


class ModelBundle(NamedTuple):
    """All that a prediction needs."""

    # Slices uint8 (n, s, s, 1) -> scores (n, 1) and pooled features (n, d).
    network: "Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]"
    size: int  # s, pixels
    evaluation: Evaluation
    detector: "NoveltyDetector"


def load_bundle(evaluation: Evaluation, traced: bool = True) -> ModelBundle:
    """Load the model and the novelty detector of the last run.

    Args:
        evaluation: of that model, by `read_evaluation`.
        traced: make a graph of the network, which takes over a second and more than a batch of slices to pay.

    Raises:
        UserError: a part is missing or damaged.
    """
    from ctscan.evaluation.novelty import load_detector, with_features
    from ctscan.model.forward import forward
    from ctscan.model.saving import load_model

    model = with_features(load_model(MODEL))
    network = forward(model) if traced else partial(model, training=False)
    return ModelBundle(network, model.input_shape[1], evaluation, load_detector(NOVELTY))


def read_evaluation(*beside: Path) -> Evaluation:
    """Read what evaluate found, without loading the model.

    The model, metrics/details.json and the files `beside` are those of the run that dvc.lock records.

    Raises:
        UserError: one is missing, or is not of that run.
    """
    recorded = _lock_of_evaluate()
    written = (DETAILS, *beside)
    for path in (MODEL, *written):
        require(path)
    md5 = _md5(MODEL)
    if md5 != recorded["files"].get(MODEL.as_posix()):
        raise UserError(
            f"{MODEL} is not the model that evaluate saw ({LOCK}), so temperature, thresholds and novelty detector are "
            f"another model's; run `dvc repro`, or get that model back with `dvc checkout --force {MODEL}`"
        )
    for path in written:
        if _md5(path) != recorded["files"].get(path.as_posix()):
            raise UserError(f"{path} is not what evaluate wrote ({LOCK}); run `dvc repro`, or take back your change")
    report = read_record(DETAILS)["finetuned"]
    chosen = {point: float(values["threshold"]) for point, values in report["operating_points"].items()}
    thresholds = {STUDY: float(report["threshold"]), **chosen}
    temperature, prior = (float(report["calibration"][key]) for key in ("temperature", "prior"))
    rule = report["patients"]["rule"] if report["patients"] else None
    return Evaluation(md5, temperature, thresholds, Classes(**recorded["classes"]), prior, rule)


def _lock_of_evaluate() -> dict[str, Any]:
    """The md5 of each file that the last run of evaluate read or wrote, and the classes that it read."""
    try:
        stage = parse_lock(LOCK.read_text(encoding="utf-8"))["evaluate"]
        files = {entry["path"]: entry.get("md5") for entry in [*stage["deps"], *stage["outs"]]}
        return {"files": files, "classes": stage["params"]["params.yaml"]["classes"]}
    except (OSError, KeyError, TypeError):
        raise UserError(f"{LOCK} records no run of evaluate in this folder; run `dvc repro` at the top") from None


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
