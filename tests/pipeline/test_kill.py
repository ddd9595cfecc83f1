"""A training stage that SIGKILL ended at any moment ends in the same bytes when it is run again."""

import json
import math
import os
import random
import shutil
import signal
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path

from ctscan.core.files import read_record
from ctscan.model.saving import load_model

import numpy as np
import pytest
import yaml
from killable import Killable
from repository import REPO

EPOCHS, STEPS = 6, 4  # 28 training images in batches of 8
POINTS = sorted(random.Random(2).sample(range(STEPS + 1, EPOCHS * STEPS), 5))


@pytest.fixture(scope="module")
def run() -> Killable:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PYTHONPATH", f"{REPO / 'tests' / 'helpers'}{os.pathsep}{REPO / 'src'}"
        )  # read as the server starts
        killable = Killable()
        forkserver.ensure_running()
    return killable


@pytest.fixture(scope="module")
def inputs(run: Killable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copy(REPO / "dvc.yaml", folder)
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    params |= {"batch_size": 8, "unfreeze_depth": 4, "lr": 0.01, "finetune_lr": 0.001}
    params["head"] |= {"units": 8}
    for phase in ("initial", "finetune"):
        params[phase] |= {"epochs": EPOCHS, "patience": EPOCHS}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    assert run("prepare", folder) == 0
    return folder


@pytest.fixture
def whole(run: Killable, tmp_path: Path) -> Callable[[str, Path], dict[str, bytes]]:
    def outs(stage: str, inputs: Path) -> dict[str, bytes]:
        folder = Path(shutil.copytree(inputs, tmp_path / "whole"))
        assert run("run", folder, stage, None) == 0, (folder / "log").read_text()
        return _outs(folder, stage)

    return outs


def _outs(folder: Path, stage: str) -> dict[str, bytes]:
    declared = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"][stage]
    paths = [folder / path for path in (*declared["outs"], *(path for out in declared["metrics"] for path in out))]
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}


def _epochs_done(folder: Path) -> int:
    (last,) = (folder / ".scratch" / "checkpoints").glob("*/*/last.npz")
    with np.load(last) as arrays:
        return len(json.loads(str(arrays["history"])))


def _assert_nothing_is_kept(folder: Path) -> None:
    files = [file for name in ("checkpoints", "activations") for file in (folder / ".scratch" / name).rglob("*")]
    assert not [file for file in files if file.is_file() and file.suffix != ".lock"]


def _killed(run: Killable, folder: Path, stage: str, moment: tuple[str, int]) -> None:
    assert run("run", folder, stage, moment) == -signal.SIGKILL, (folder / "log").read_text()


def test_train_initial_killed_at_random_points_and_inside_a_checkpoint(
    run: Killable, inputs: Path, whole: Callable[[str, Path], dict[str, bytes]], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(inputs, tmp_path / "killed"))
    _killed(run, folder, "train-initial", ("writing", 4))
    assert _epochs_done(folder) == 1
    (half,) = (folder / ".scratch" / "checkpoints").glob("*/*/*.fresh")
    assert half.stat().st_size > 0
    for point in POINTS:
        _killed(run, folder, "train-initial", ("step", point))
        done = (point - 1) // STEPS
        assert _epochs_done(folder) == done
    _killed(run, folder, "train-initial", ("publishing", 0))
    assert _epochs_done(folder) == EPOCHS
    assert run("run", folder, "train-initial", None) == 0
    log = (folder / "log").read_text()
    assert f"continuing after epoch {done}," in log
    assert _outs(folder, "train-initial") == whole("train-initial", inputs)
    _assert_nothing_is_kept(folder)


@pytest.mark.parametrize(("normalization", "schedule"), [("frozen", "constant"), ("trained", "cosine")])
def test_finetune_killed_in_the_activation_cache_in_training_and_in_a_checkpoint(
    run: Killable,
    inputs: Path,
    whole: Callable[[str, Path], dict[str, bytes]],
    tmp_path: Path,
    normalization: str,
    schedule: str,
) -> None:
    folder = Path(shutil.copytree(inputs, tmp_path / "killed"))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["finetune"] |= {"normalization": normalization, "schedule": schedule}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    changed = Path(shutil.copytree(folder, tmp_path / "changed"))

    _killed(run, folder, "finetune", ("filling", 2))
    (partial,) = (folder / ".scratch" / "activations").glob("cut-0.bin")
    assert not list((folder / ".scratch" / "checkpoints").glob("*/*/last.npz"))
    assert partial.is_file()
    _killed(run, folder, "finetune", ("step", 2 * STEPS + 3))
    assert _epochs_done(folder) == 2
    _killed(run, folder, "finetune", ("writing", 2))
    assert run("run", folder, "finetune", None) == 0
    assert _outs(folder, "finetune") == whole("finetune", changed)
    _assert_nothing_is_kept(folder)

    before = load_model(folder / "models" / "initial.keras").get_layer("normalization")
    after = load_model(folder / "models" / "finetuned.keras").get_layer("head").get_layer("normalization")
    moved = not np.array_equal(before.moving_mean, after.moving_mean)
    assert moved == (normalization == "trained")
    rates = [row["lr"] for row in json.loads((folder / "plots/finetune/train/lr.json").read_text())]
    share = [(1 + math.cos(math.pi * epoch / EPOCHS)) / 2 if schedule == "cosine" else 1 for epoch in range(EPOCHS)]
    assert rates == pytest.approx([params["finetune_lr"] * part for part in share])


def test_blockwise_training_ends_in_the_same_bytes_after_a_kill_and_by_whatever_the_speeds_choose(
    run: Killable, inputs: Path, tmp_path: Path
) -> None:
    whole, killed = (Path(shutil.copytree(inputs, tmp_path / name)) for name in ("whole", "killed"))
    for stage in ("train-initial", "finetune"):
        assert run("run_blockwise", whole, stage, None, True) == 0, (whole / "log").read_text()
        assert run("run_blockwise", killed, stage, ("step", 2 * STEPS + 1), False) == -signal.SIGKILL
        assert run("run_blockwise", killed, stage, None, stage == "train-initial") == 0, (killed / "log").read_text()
        outs = _outs(whole, stage)
        assert _outs(killed, stage) == outs
        assert read_record(whole / "metrics" / f"{stage.removeprefix('train-')}.json")["order"] == "blockwise"
    assert "computing the frozen part once" in (whole / "log").read_text()
    assert "computing the frozen part in each epoch" in (killed / "log").read_text()
    _assert_nothing_is_kept(killed)


def test_two_devices_train_as_one_does_and_continue_after_a_kill(run: Killable, inputs: Path, tmp_path: Path) -> None:
    params = yaml.safe_load((inputs / "params.yaml").read_text())
    params["head"]["dropout"] = 0.0  # which each device draws anew
    params["finetune"]["normalization"] = "trained"
    one, two = (Path(shutil.copytree(inputs, tmp_path / name)) for name in ("one", "two"))
    for folder, function in ((one, "run"), (two, "run_on_two_devices")):
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        assert run(function, folder, "train-initial", None) == 0, (folder / "log").read_text()
    killed = Path(shutil.copytree(two, tmp_path / "killed"))
    assert run("run", one, "finetune", None) == 0, (one / "log").read_text()
    assert run("run_on_two_devices", two, "finetune", None) == 0, (two / "log").read_text()
    assert run("run_on_two_devices", killed, "finetune", ("step", 2 * STEPS + 1)) == -signal.SIGKILL
    assert run("run_on_two_devices", killed, "finetune", None) == 0, (killed / "log").read_text()
    assert _outs(killed, "finetune") == _outs(two, "finetune")
    for model in ("initial", "finetuned"):
        alone, together = (load_model(folder / "models" / f"{model}.keras").get_weights() for folder in (one, two))
        for expected, found in zip(alone, together, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert "training on 2 devices, each of which takes 4 images of a batch" in (two / "log").read_text()
