"""`ctscan check-lock` sees each way in which dvc.lock can fall out of step."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from commands import ctscan_process
from dvc.repo import Repo
from repository import REPO


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This work tree's pipeline, whose lock holds stub outs, as a clone has it: without data, models and cache."""
    folder = tmp_path_factory.mktemp("committed")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPO / name, folder)
    shutil.copytree(REPO / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(REPO / "weights", folder / "weights")
    stages = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]
    outs = {
        path: options
        for stage in stages.values()
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, ())
        for path, options in ({out: {}} if isinstance(out, str) else out).items()
    }
    dataset = yaml.safe_load((REPO / "params.yaml").read_text())["dataset"]
    for path in (dataset, *outs):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({"of": path}))
    Repo.init(str(folder), no_scm=True).close()
    # DVC takes paths of its run cache from the current folder.
    with pytest.MonkeyPatch.context() as patch, Repo(str(folder)) as repo:
        patch.chdir(folder)
        repo.commit(force=True)
    shutil.rmtree(folder / ".dvc" / "cache")
    for path in (dataset, *(path for path, options in outs.items() if options.get("cache", True))):
        (folder / path).unlink()
    return folder


@pytest.fixture
def clone(committed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(committed, tmp_path / "clone"))


def _check(folder: Path) -> subprocess.CompletedProcess[str]:
    # As in a shell in which nobody has activated the virtual environment, which holds DVC.
    return ctscan_process("check-lock", at=folder, variables={"PATH": os.defpath})


def _edit(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before


def test_a_lock_in_step_passes_without_data(clone: Path) -> None:
    checked = _check(clone)
    assert checked.returncode == 0, checked.stderr
    assert "dvc.lock is in step" in checked.stdout


@pytest.mark.parametrize(
    ("file", "change", "stage"),
    [
        ("src/ctscan/training/loop.py", lambda text: text + "# edited\n", "train-initial"),
        ("src/evaluate.py", lambda text: text + "# edited\n", "evaluate"),
        ("params.yaml", lambda text: text.replace("finetune_lr: 0.00001", "finetune_lr: 0.00002"), "finetune"),
        ("metrics/test.json", lambda text: text.replace("of", "OF"), "evaluate"),
        ("plots/roc.json", lambda text: text.replace("of", "OF"), "evaluate"),
        ("dvc.lock", lambda text: text.replace("lr: 0.0001\n", "lr: 0.0002\n", 1), "train-initial"),
    ],
    ids=["module", "stage script", "param", "metric", "plot", "lock"],
)
def test_each_fault_is_caught_and_its_stage_named(
    clone: Path, file: str, change: Callable[[str], str], stage: str
) -> None:
    _edit(clone / file, change)
    checked = _check(clone)
    assert checked.returncode == 1
    assert checked.stderr.startswith(f"check-lock: dvc.lock is not in step at {stage}: run `dvc repro`")
