"""DVC runs the pipeline in a clone on a small sample, as users run it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ctscan.core.files import read_record
from ctscan.phantoms import SAMPLE_SEED, draw_slice

import pandas as pd
import pytest
import yaml
from PIL import Image
from repository import REPO
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

pytestmark = pytest.mark.slow

SMALL = {
    "dataset": "small",
    "backbone": "MobileNet",
    "image_size": 48,
    "unfreeze_depth": 30,
    "initial": {"epochs": 4, "patience": 4},
    "finetune": {"epochs": 1, "patience": 1, "schedule": "constant", "normalization": "frozen"},
}
STAGES = ["prepare-split", "extract-features", "train-initial", "finetune", "evaluate"]


def run(clone: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)


def ran(process: subprocess.CompletedProcess[str]) -> list[str]:
    assert process.returncode == 0, process.stdout + process.stderr
    return [line.split("'")[1] for line in process.stdout.splitlines() if line.startswith("Running stage")]


def tracked(clone: Path) -> dict[str, bytes]:
    files = [
        clone / "dvc.lock",
        *(file for name in ("metrics", "plots", "models") for file in (clone / name).rglob("*")),
    ]
    return {str(file.relative_to(clone)): file.read_bytes() for file in files if file.is_file()}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This work tree as a repository of its own, after `dvc repro` on 48 phantoms with a small backbone."""
    folder = tmp_path_factory.mktemp("pipeline") / "a clone"
    names = [
        "src",
        "weights",
        ".dvc/config",
        ".dvc/.gitignore",
        ".dvc/plots",
        "dvc.yaml",
        "params.yaml",
        ".gitignore",
        ".dvcignore",
    ]
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (REPO / name).is_dir() else shutil.copy
        copy(REPO / name, target)
    for name, positive in (("COVID", True), ("non-COVID", False)):
        (folder / "small" / name).mkdir(parents=True)
        for number in range(24):
            pixels, _ = draw_slice(number // 4 + 1, number % 4 + 1, positive, SAMPLE_SEED)
            Image.fromarray(pixels).save(folder / "small" / name / f"Slice ({number + 1}).png")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump({**params, **SMALL}))
    run(folder, "git", "init", "-q")
    run(folder, "git", "config", "user.email", "test@example.org")
    run(folder, "git", "config", "user.name", "test")
    run(folder, "git", "add", "src", "weights", ".dvc", "dvc.yaml", "params.yaml", ".gitignore", ".dvcignore")
    run(folder, "git", "commit", "-qm", "code")
    first = run(folder, "dvc", "repro")
    assert ran(first) == STAGES
    run(folder, "git", "add", "-A")
    assert run(folder, "git", "commit", "-qm", "run").returncode == 0
    return folder


def test_outs_are_there_and_a_second_repro_does_nothing(clone: Path) -> None:
    assert ran(run(clone, "dvc", "repro")) == []
    metrics = json.loads((clone / "metrics" / "test.json").read_text())
    assert set(metrics) == {"acc_init", "auc_init", "acc_ft", "auc_ft"}
    images = clone / "split" / "images"
    assert sorted(str(path.relative_to(images)) for path in images.glob("*/*")) == [
        "test/COVID",
        "test/non-COVID",
        "train/COVID",
        "train/non-COVID",
    ]


def test_the_metrics_can_be_computed_again_from_the_predictions(clone: Path) -> None:
    predictions = pd.read_csv(clone / "predictions.csv", float_precision="round_trip")
    manifest = pd.read_csv(clone / "split" / "manifest.csv")
    judged = manifest[manifest["subset"] != "train"]
    assert sorted(predictions["path"]) == sorted(judged["path"])
    merged = judged.merge(predictions, on=["path", "label", "subset", "group"])
    assert len(merged) == len(judged)
    test = predictions[predictions["subset"] == "test"]
    details = read_record(clone / "metrics" / "details.json")
    for model in ("initial", "finetuned"):
        called = test[model] >= 0.5
        assert details[model]["test"] == pytest.approx(
            {
                "accuracy": accuracy_score(test["label"], called),
                "precision": precision_score(test["label"], called, zero_division=0),
                "recall": recall_score(test["label"], called),
                "f1": f1_score(test["label"], called),
                "roc_auc": roc_auc_score(test["label"], test[model]),
            }
        )
    for row in details["controls"]:
        assert row["roc_auc"] == pytest.approx(roc_auc_score(test["label"], test[row["name"]]))
    assert (test["novelty"] <= 1).mean() == pytest.approx(details["novelty"]["test_passes"])


def test_evidence_on_both_models_stands_in_the_details(clone: Path) -> None:
    details = read_record(clone / "metrics" / "details.json")
    for model in ("initial", "finetuned"):
        report = details[model]
        assert {row["prevalence"] for row in report["predictive_values"]["study"]} == {0.01, 0.05, 0.2, 0.5}
        assert report["predictive_values"].keys() == {"study", *report["operating_points"]}
        assert all(row["gain_low"] <= row["gain"] <= row["gain_high"] for row in report["net_benefit"])
        assert 0 <= report["win_probability"]["controls"] <= 1
        assert [row["coverage"] for row in report["selective"]["confidence"]] == [0.8, 0.9]
    assert "novelty" in details["finetuned"]["selective"]
    assert details["comparison"].keys() == {"permutation", "auc_difference"}


def test_metrics_and_plots_show_both_models(clone: Path) -> None:
    shown = run(clone, "dvc", "metrics", "show", "--json")
    files = json.loads(shown.stdout)[""]["data"]
    shown_metrics = {name for file in files.values() for name in file.get("data", {})}
    assert shown_metrics == {"val_init", "val_ft", "acc_init", "auc_init", "acc_ft", "auc_ft"}
    plots = json.loads(run(clone, "dvc", "plots", "show", "--json", "--split").stdout)
    assert "errors" not in plots
    (roc,) = plots["data"]["ROC, test images"]
    points = roc["anchor_definitions"]["<DVC_METRIC_DATA>"]
    assert {point["model"] for point in points} == {"initial", "finetuned"}
    assert all(0 <= point["low"] <= point["high"] <= 1 for point in points)


@pytest.mark.parametrize(
    ("key", "value", "stage"),
    [
        ("lr", 3e-4, "train-initial"),
        ("finetune_lr", 3e-5, "finetune"),
        ("evaluate", {"threshold": 0.4, "bootstrap": 200, "bins": 5}, "evaluate"),
        ("image_size", 64, "extract-features"),
    ],
)
def test_a_param_runs_no_stage_before_the_one_that_reads_it(clone: Path, key: str, value: object, stage: str) -> None:
    params = yaml.safe_load((clone / "params.yaml").read_text())
    (clone / "params.yaml").write_text(yaml.safe_dump({**params, key: value}))
    dry = run(clone, "dvc", "repro", "--dry")
    difference = run(clone, "dvc", "params", "diff")
    run(clone, "git", "checkout", "-q", "params.yaml")
    assert ran(dry) == [stage], "a dry run tells the first stage alone, as the others wait for its outs"
    assert key in difference.stdout


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lr", -1, "params.yaml: lr = -1; it needs a number > 0"),
        ("unfreeze_depth", 999, "unfreeze_depth = 999; 86 layers are all that the backbone has"),
        ("weights", "absent.h5", "weights/absent.h5"),
    ],
)
def test_a_failing_run_is_a_line_and_earlier_results_come_back_as_it_says(
    clone: Path, key: str, value: object, message: str
) -> None:
    before = tracked(clone)
    params = yaml.safe_load((clone / "params.yaml").read_text())
    (clone / "params.yaml").write_text(yaml.safe_dump({**params, key: value}))
    failed = run(clone, "dvc", "repro")
    run(clone, "git", "checkout", "-q", "params.yaml", "dvc.lock", "metrics", "plots")
    run(clone, "dvc", "checkout", "-q", "dvc.yaml")
    assert failed.returncode != 0
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert tracked(clone) == before


def test_an_evaluation_that_fails_at_its_last_figure_replaces_nothing(clone: Path) -> None:
    before = tracked(clone)
    program = """
import sys
sys.path.insert(0, "src")
import evaluate
from ctscan.core.errors import UserError
from ctscan.core.stage import run_stage

def fail(path, *drawn):
    raise UserError("no room for the last figure")

evaluate.figures.draw_saliency = fail
evaluate.confusion_rows = lambda *arguments: [{"spoilt": True}]
run_stage("evaluate", evaluate.evaluate)
"""
    failed = run(clone, sys.executable, "-c", program)
    assert failed.returncode == 1
    assert "evaluate: no room for the last figure" in failed.stderr
    assert tracked(clone) == before
