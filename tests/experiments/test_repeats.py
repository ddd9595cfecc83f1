"""Repeats: each seed a protocol of its own, the leak shows between strategies, and results say what they belong to."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.params import Params, Training, read_params
from ctscan.core.seeds import make_deterministic
from ctscan.experiments import repeats
from ctscan.experiments.repeats import Material, repeat
from ctscan.images.manifest import rows
from ctscan.model.head import build_head
from ctscan.split.check import Scan, scan
from ctscan.split.strategies import assign_subsets
from ctscan.training import phases

import keras
import numpy as np
import pandas as pd
import pytest
from commands import ctscan
from drawing import draw_dataset
from repository import REPO
from sklearn.metrics import accuracy_score, roc_auc_score

SEEDS = (7, 8, 9)
PATIENTS, SLICES = 12, 4  # a class
Results = dict[str, list[dict[str, Any]]]


def _params(strategy: str) -> Params:
    params = read_params()
    split = params.split.model_copy(update={"strategy": strategy, "block_size": SLICES})
    head = params.head.model_copy(update={"units": 16})
    training = Training(epochs=12, patience=12)
    return params.model_copy(update={"split": split, "head": head, "initial": training, "lr": 0.02})


def _material() -> Material:
    """Slices that resemble those of their own patient, and say nothing of the class otherwise."""
    rng = np.random.default_rng(4)
    names = [(label, number) for label in (1, 0) for number in range(1, PATIENTS * SLICES + 1)]
    patient = np.array([(1 - label) * PATIENTS + (number - 1) // SLICES for label, number in names])
    found = pd.DataFrame(
        {
            "path": [f"{('non-COVID', 'COVID')[label]}/slice ({number}).png" for label, number in names],
            "label": [label for label, _ in names],
            "width": rng.integers(40, 60, len(names)),
            "height": rng.integers(40, 60, len(names)),
            "listed_group": None,
        }
    )
    own = rng.normal(size=(2 * PATIENTS, 32))
    features = (own[patient] + 0.6 * rng.normal(size=(len(names), 32))).astype("float32")
    images = rng.integers(0, 256, (len(names), 28, 28, 1)).astype("uint8")
    nothing = np.empty((0, 2), np.intp), np.empty((0, 28, 28), np.uint8)
    return Material(Scan(found, *nothing), [Path(path) for path in found["path"]], images, features)


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Results:
    make_deterministic()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPO)
        folder = tmp_path_factory.mktemp("repeats") / "scratch"
        return {
            strategy: repeat(_material(), _params(strategy), seeds, finetuning=False, scratch=folder)
            for strategy, seeds in (("random", SEEDS), ("blocked", SEEDS[:2]))
        }


def test_a_planted_leak_shows_between_strategies(repeated: Results) -> None:
    leaky, honest = ([run["models"]["initial"]["roc_auc"] for run in repeated[name]] for name in ("random", "blocked"))
    assert min(leaky) > 0.85
    assert np.mean(honest) < 0.7


def test_each_seed_has_a_split_of_its_own(repeated: Results) -> None:
    for runs in repeated.values():
        assert [run["seed"] for run in runs] == list(SEEDS[: len(runs)])
        assert len({run["split_sha256"] for run in runs}) == len(runs)
        assert len({json.dumps(run["models"]) for run in runs}) == len(runs)
        # 30 % of 48 images a class; within one group where groups stay whole.
        assert all(abs(run[f"test_{kind}"] - 14) <= SLICES for run in runs for kind in ("positive", "negative"))


def test_a_seed_gives_the_same_bits_alone(repeated: Results, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(REPO)
    scratch = tmp_path / "scratch"
    (scratch / "initial").mkdir(parents=True)
    (scratch / "initial" / "last.npz").write_bytes(b"of a killed run")
    again = repeat(_material(), _params("random"), SEEDS[1:2], finetuning=False, scratch=scratch)
    assert again == repeated["random"][1:2]
    assert [path.name for path in scratch.iterdir()] == ["initial"], "what it made is gone, another run's is left"


def test_a_repeat_is_what_the_stages_do_with_that_seed(
    repeated: Results, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(REPO)
    material = _material()
    params = _params("random").model_copy(update={"seed": SEEDS[2]})
    manifest = assign_subsets(material.found.manifest, material.found.copies, params.split, params.seed)
    head = build_head(material.features.shape[1], params.head, params.seed)
    phases.train_head(head, material.features, manifest, material.paths, params, tmp_path)
    test = rows(manifest, "test")
    labels, scores = manifest["label"].to_numpy()[test], head.predict(material.features[test], verbose=0)[:, 0]
    run = repeated["random"][2]
    assert run["models"]["initial"]["roc_auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert run["models"]["initial"]["accuracy"] == pytest.approx(accuracy_score(labels, scores >= 0.5))
    assert set(run["baselines"]) == {"nearest_neighbour", "hog_svm", "image_size", "image_border", "shuffled_labels"}


def test_an_impossible_strategy_shows_before_any_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(REPO)
    monkeypatch.setattr("ctscan.training.phases.train_head", None)
    with pytest.raises(UserError, match=r"grouped needs groups\.csv"):
        repeat(_material(), _params("grouped"), SEEDS, finetuning=False, scratch=tmp_path / "scratch")


def _one_line(error: pytest.ExceptionInfo[SystemExit]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture
def project(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as `dvc repro` leaves it, with a tiny dataset, a tiny backbone and as tiny a training."""
    text = (workspace / "params.yaml").read_text()
    for old, new in {
        "dataset: sample": "dataset: drawn",
        "image_size: 224": "image_size: 32",
        "unfreeze_depth: 150": "unfreeze_depth: 1",
        "units: 1024": "units: 4",
        "epochs: 100": "epochs: 2",
        "epochs: 8 ": "epochs: 1 ",
        "block_size: 20": "block_size: 2",
        "patience: 15 ": "patience: 2 ",
        "patience: 8": "patience: 1",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (workspace / "params.yaml").write_text(text)
    draw_dataset(workspace / "drawn", 10)
    manifest = scan(workspace / "drawn", read_params().classes, 32).manifest
    (workspace / "split").mkdir()
    manifest.assign(group="1", subset="train").to_csv(workspace / "split" / "manifest.csv", index=False)
    np.save("features.npy", np.random.default_rng(0).normal(size=(20, 3)).astype("float32"))
    (workspace / "metrics").mkdir()
    (workspace / "metrics" / "backbone.json").write_text('{"weights_sha256": "abc"}')
    monkeypatch.setattr("ctscan.experiments.repeats.require_features", lambda: None)
    return workspace


def _save_backbone() -> None:
    slices = keras.Input((32, 32, 1), name="slice")
    inside = keras.Input((32, 32, 1))
    base = keras.Model(inside, keras.layers.Conv2D(3, 3, 8, activation="relu")(inside), name="base")
    scaled = keras.layers.Rescaling(1 / 255, name="preprocessing")(slices)
    Path("models").mkdir()
    keras.Model(slices, base(scaled)).save("models/backbone.keras")


@pytest.mark.slow
def test_the_command_end_to_end(project: Path, float32_policy: None, capsys: pytest.CaptureFixture[str]) -> None:
    _save_backbone()
    ctscan("repeats", "--strategy", "blocked", "--seeds", "2", "--finetune")
    stored = (project / "metrics/repeats/blocked.json").read_text()
    result = json.loads(stored)
    assert result["strategy"] == "blocked"
    assert result["settings"]["seeds"] == [7, 8]
    assert result["settings"]["weights_sha256"] == "abc"
    assert result["settings"]["image_size"] == 32
    assert set(result["repeats"][0]["models"]) == {"initial", "finetuned"}
    assert (project / "plots/repeats_blocked.png").read_bytes().startswith(b"\x89PNG")
    assert "| blocked, 2 numbers" in capsys.readouterr().out

    (project / "metrics/repeats/random.json").write_text(
        stored.replace('"strategy": "blocked"', '"strategy": "random"')
    )
    ctscan("repeats", "--show")
    shown = capsys.readouterr()
    assert not shown.err
    heading = shown.out.splitlines()[0]
    assert heading.index("| random ") < heading.index("| blocked, 2 numbers ")

    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("lr: 0.0001 ", "lr: 0.0003 "))
    ctscan("repeats", "--show")
    assert "other settings than today's: lr = 0.0001 and 0.0003" in capsys.readouterr().err

    other = stored.replace('"strategy": "blocked"', '"strategy": "random"').replace(
        '"image_size": 32', '"image_size": 64'
    )
    (project / "metrics/repeats/random.json").write_text(other)
    with pytest.raises(SystemExit, match=r"different settings .image_size = 64 and 32.; repeat one of them"):
        ctscan("repeats", "--show")


def test_errors_are_one_clear_line(project: Path) -> None:
    with pytest.raises(SystemExit) as few:
        ctscan("repeats", "--seeds", "1")
    assert "--seeds 1: it needs 2 or more" in _one_line(few)
    with pytest.raises(SystemExit) as absent:
        ctscan("repeats", "--show")
    assert "metrics/repeats holds no result" in _one_line(absent)
    with pytest.raises(SystemExit) as ungrouped:
        ctscan("repeats", "--strategy", "grouped")
    assert "grouped needs groups.csv" in _one_line(ungrouped)
    np.save("features.npy", np.zeros((19, 3), "float32"))
    with pytest.raises(SystemExit) as others:
        ctscan("repeats")
    assert "features.npy is not of the images in drawn; run `dvc repro` first" in _one_line(others)
    assert not (project / "metrics/repeats").exists()


def test_features_must_be_there(workspace: Path) -> None:
    with pytest.raises(SystemExit) as missing:
        ctscan("repeats")
    assert "features.npy is missing; run `dvc repro` first" in _one_line(missing)


@pytest.mark.slow
def test_features_must_be_current(workspace: Path) -> None:
    stages = {
        "prepare-split": {"cmd": "cp raw split", "deps": ["raw"], "outs": ["split"]},
        "extract-features": {"cmd": "cp split features.npy", "deps": ["split"], "outs": ["features.npy"]},
    }
    stages["extract-features"]["params"] = ["image_size"]
    (workspace / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (workspace / "raw").write_text("slices")
    (workspace / "metrics").mkdir()
    (workspace / "metrics" / "backbone.json").write_text("{}")
    for arguments in (["init", "-q", "--no-scm"], ["repro", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True)
    repeats.require_features()

    text = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(text.replace("image_size: 224", "image_size: 64"))
    with pytest.raises(UserError, match=r"not of this dataset, these params and this code; run `dvc repro` first"):
        repeats.require_features()
