"""A study's folder: what git keeps of a run on real images, and its page."""

import json
import shutil
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.evaluation.tables import results_table

import pandas as pd
import yaml

KEPT = ("params.yaml", "dvc.lock", "metrics", "plots")
# Pictures of the dataset stay out of git; repeats and timing are no part of this one run.
LEFT_OUT = shutil.ignore_patterns("images", "repeats*", "timing")
BEGIN, END = "<!-- recorded -->", "<!-- end of what is recorded -->"


def snapshot(source: Path, folder: Path) -> None:
    """Copy what git keeps of the run in `source` to `folder`. Raises `UserError` where there is no whole run."""
    for name in KEPT:
        if not (source / name).exists():
            raise UserError(f"{source / name} is missing; run the pipeline with `dvc repro` first")
    for name in KEPT:
        if (source / name).is_dir():
            shutil.rmtree(folder / name, ignore_errors=True)
            shutil.copytree(source / name, folder / name, ignore=LEFT_OUT)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, folder / name)


def changes(params: Mapping[str, Any], base: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The keys of `params`, sections dotted, whose values are not those of `base`."""
    found: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, dict):
            found |= changes(value, base.get(key, {}), f"{prefix}{key}.")
        elif value != base.get(key):
            found[f"{prefix}{key}"] = value
    return found


def seconds(timing: Path) -> str:
    """What the epochs under `timing` (metrics/timing) took, a phase each."""
    phases = []
    for phase in ("initial", "finetune"):
        tables = [pd.read_csv(timing / phase / f"{subset}.tsv", sep="\t")["time"] for subset in ("train", "val")]
        epochs = tables[0] + tables[1]
        phases.append(f"{phase} {len(epochs)} epochs of {statistics.median(epochs):.1f} s")
    return ", ".join(phases)


def block(folder: Path, about: Mapping[str, str]) -> str:
    """The recorded part of the page of the study in `folder`.

    Args:
        about: what the files don't hold: `revision` (of the code), `command`, `time` and `machine`.
    """
    details, split, lock = (_read(folder / part) for part in ("metrics/details.json", "metrics/split.json", "dvc.lock"))
    params = _read(folder / "params.yaml")
    images = next(dep for dep in lock["stages"]["prepare-split"]["deps"] if dep["path"] == params["dataset"])
    controls = [row for row in details["controls"] if row["kind"] != "model"]
    lines = [
        BEGIN,
        "```console",
        "make data",
        about["command"],
        "```",
        "",
        "Test images, 95 % intervals:",
        "",
        "```text",
        results_table({model: details[model] for model in ("initial", "finetuned")}),
        "```",
        "",
        "| beside them | accuracy | ROC AUC |",
        "| --- | --- | --- |",
        *(
            f"| {row['name'].replace('_', ' ')} | {row['accuracy']:.3f} "
            f"| {row['roc_auc']:.3f} ({row['low']:.3f}-{row['high']:.3f}) |"
            for row in controls
        ),
        "",
        f"- **split:** {params['split']['strategy']}; {split['test_positive']} + {split['test_negative']} test images; "
        f"nearest neighbour on thumbnails knows {split['probe_accuracy']:.3f} of them",
        f"- **images:** {images['nfiles']} files, {images['hash']} `{images['md5']}`",
        f"- **code:** revision `{about['revision']}`",
        f"- **time:** {about['time']}",
        f"- **machine:** {about['machine']}",
        END,
    ]
    return "\n".join(lines)


def _read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
