"""One run of either way, as processes of their own, in a scratch workspace: seconds, peak memory and test AUC."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

from ctscan.core.errors import UserError
from ctscan.core.files import write_json
from ctscan.core.params import PARAMS_FILE, PIPELINE_FILE, Params, validate
from ctscan.core.seeds import derive_seed, generator
from ctscan.images.decode import EXTENSIONS, load_slice
from ctscan.images.manifest import read_manifest
from ctscan.split.check import natural_key

import yaml
from PIL import Image
from process_cost import measure

BENCHMARKS = Path(__file__).resolve().parent
REPO = BENCHMARKS.parent
WEIGHTS = REPO / "weights"
PUBLISHED = ("random", "imagenet")  # what `weights` can be other than the name of a file in weights/
STAGES = ("extract-features", "train-initial", "finetune", "evaluate")

Run = dict[str, Any]


class Workspace(NamedTuple):
    """A folder with params.yaml, dvc.yaml, the dataset and its split, as the stages want it.

    `plain` inside it holds the same slices as plain Keras wants them, {train,val,test}/<class>/<file>.png, resized by
    the pipeline: Keras' own loader resizes without antialiasing, which makes another problem of it.
    """

    folder: Path
    params: Params
    images: dict[str, int]  # by subset


def read_study(overrides: dict[str, Any]) -> dict[str, Any]:
    """The values of this repository's params.yaml with `overrides`, the study's head and random split, unaugmented."""
    values = yaml.safe_load((REPO / PARAMS_FILE).read_text(encoding="utf-8"))
    values |= overrides
    values["split"]["strategy"] = "random"
    values["head"] = {"units": 1024, "l2": 0.01, "dropout": 0.5}  # as plain_keras.py has it
    values["augment"]["enabled"] = False
    validate(values)
    return dict(values)


def make_workspace(folder: Path, study: dict[str, Any], dataset: Path, images: int | None) -> Workspace:
    """An empty `folder` made a workspace of `images` images of each class (None: all).

    Raises:
        UserError: the dataset lacks a class folder or has fewer images, or weights/ has no such file.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if study["weights"] not in PUBLISHED:
        _copy_weights(study["weights"], folder)
    for name in study["classes"].values():
        _copy_class(dataset / name, folder / "dataset" / name, images)
    shutil.copyfile(REPO / PIPELINE_FILE, folder / PIPELINE_FILE)
    params = _write_params(folder, study | {"dataset": "dataset"})
    _run_child("prepare-split", [str(REPO / "src" / "prepare_split.py")], folder)

    manifest = read_manifest(folder / "split" / "manifest.csv")
    for path, subset in zip(manifest["path"], manifest["subset"], strict=True):
        resized = load_slice(folder / "dataset" / path, params.image_size)
        target = folder / "plain" / subset / f"{path}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(resized).save(target)
    counts = manifest["subset"].value_counts()
    return Workspace(folder, params, {subset: int(counts[subset]) for subset in ("train", "val", "test")})


def _copy_weights(name: str, folder: Path) -> None:
    source = WEIGHTS / name
    if not source.is_file():
        raise UserError(f"there is no file weights/{name}; put one there with `ctscan weights FILE`")
    (folder / "weights").mkdir(parents=True)
    shutil.copyfile(source, folder / "weights" / name)


def _copy_class(source: Path, target: Path, images: int | None) -> None:
    found = sorted(source.iterdir(), key=lambda path: natural_key(path.name)) if source.is_dir() else []
    found = [path for path in found if path.suffix.lower() in EXTENSIONS]
    if len(found) < (images or 1):
        raise UserError(
            f"{source.parent.name}/{source.name}: {len(found)} images; lower --images, or get the dataset with "
            "`ctscan data` or `dvc pull sample`"
        )
    # Neighbouring numbers are slices of one patient, so a subset is taken evenly from all of them.
    chosen = found if images is None else [found[at * len(found) // images] for at in range(images)]
    target.mkdir(parents=True)
    for path in chosen:
        shutil.copyfile(path, target / path.name)


def _write_params(folder: Path, values: dict[str, Any]) -> Params:
    (folder / PARAMS_FILE).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return validate(values)


def run_plain(workspace: Workspace) -> Run:
    """Plain Keras, float32, on the images of `workspace`: what `_record` returns."""
    params, folder = workspace.params, workspace.folder / "plain"
    write_json(folder / "draws.json", draws(workspace))
    options = {
        "epochs": params.initial.epochs,
        "finetune-epochs": params.finetune.epochs,
        "backbone": params.backbone,
        "weights": params.weights if params.weights in PUBLISHED else f"../weights/{params.weights}",
        "image-size": params.image_size,
        "unfreeze-depth": params.unfreeze_depth,
        "batch-size": params.batch_size,
        "lr": params.lr,
        "finetune-lr": params.finetune_lr,
        "seed": derive_seed(params.seed, "backbone"),  # backbone and head start from the weights that ours start from
        "head-seed": derive_seed(params.seed, "head"),
        "draws": "draws.json",
        "json": "report.json",
    }
    classes = ["--classes", params.classes.negative, params.classes.positive]
    arguments = [*(f"--{name}={value}" for name, value in options.items()), *classes]
    wall, peak = _run_child("plain", [str(BENCHMARKS / "plain_keras.py"), ".", *arguments], folder)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if report["images"] != workspace.images:
        raise UserError(f"plain Keras saw {report['images']} images, the pipeline has {workspace.images}; report this")
    return _record(report["seconds"], wall, peak, report["auc"])


def draws(workspace: Workspace) -> dict[str, Any]:
    """What each epoch of ours draws, for plain_keras.py: `orders` of the training files, and `dropout`'s seeds."""
    params = workspace.params
    manifest = read_manifest(workspace.folder / "split" / "manifest.csv")
    names = [f"{path}.png" for path in manifest["path"][manifest["subset"] == "train"]]
    epochs = range(max(params.initial.epochs, params.finetune.epochs))
    return {
        "orders": [
            [names[at] for at in generator(params.seed, "shuffle", epoch).permutation(len(names))] for epoch in epochs
        ],
        "dropout": [derive_seed(params.seed, "epoch", epoch, 0) for epoch in epochs],
    }


def run_ours(workspace: Workspace, precision: str) -> Run:
    """The four stages after prepare-split, one process each: what `_record` returns, and `stages`.

    Phase 1 is train-initial and the share of extract-features that training and validation images take; the share of
    the test images is the initial model's evaluation, as their forward pass is in plain Keras. Phase 2 is finetune,
    with the pass that fills the activation cache. Evaluation is all of evaluate: baselines, intervals and figures, too,
    which plain Keras doesn't make.
    """
    folder = workspace.folder
    values = workspace.params.model_dump() | {"precision": precision}
    _write_params(folder, values)
    stages, walls = {}, []
    for stage in STAGES:
        wall, peak = _run_child(stage, [str(BENCHMARKS / "timed_stage.py"), stage, "seconds.json"], folder)
        walls.append(wall)
        stages[stage] = {"seconds": json.loads((folder / "seconds.json").read_text()), "peak_mib": peak}
    work = {stage: measured["seconds"] for stage, measured in stages.items()}
    tested = workspace.images["test"] / sum(workspace.images.values())
    seconds = {
        "phase_1": (1 - tested) * work["extract-features"] + work["train-initial"],
        "phase_2": work["finetune"],
        "evaluation": tested * work["extract-features"] + work["evaluate"],
    }
    metrics = json.loads((folder / "metrics" / "test.json").read_text(encoding="utf-8"))
    auc = {"initial": metrics["auc_init"], "finetuned": metrics["auc_ft"]}
    return {
        **_record(seconds, sum(walls), max(measured["peak_mib"] for measured in stages.values()), auc),
        "stages": stages,
    }


def _record(seconds: dict[str, float], wall: float, peak: float, auc: dict[str, float]) -> Run:
    """Seconds of start_up (processes and imports), phase_1, phase_2, evaluation and total; peak_mib; AUC by model."""
    return {
        "start_up": wall - sum(seconds.values()),
        **seconds,
        "total": wall,
        "peak_mib": peak,
        "auc_initial": auc["initial"],
        "auc_finetuned": auc["finetuned"],
    }


def _run_child(name: str, command: list[str], folder: Path) -> tuple[float, float]:
    """Wall seconds and peak resident memory (MiB) of a Python process; its output goes to `<name>.log`."""
    cost = measure([sys.executable, *command], folder, folder / f"{name}.log")
    return cost.seconds, cost.peak_mib
