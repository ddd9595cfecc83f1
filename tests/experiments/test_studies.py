"""The studies that git keeps: whole, of one run, without a picture of the dataset, and true to their files."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.files import write_json
from ctscan.core.params import validate
from ctscan.experiments import recorded_folds, studies
from ctscan.experiments.studies import BEGIN, END, block, changes, seconds, snapshot

import pytest
import yaml
from repository import REPO

FOLDS = sorted(pooled.parent for pooled in (REPO / "studies").glob("*/folds.json"))
RECORDED = sorted(lock.parent for lock in (REPO / "studies").glob("*/dvc.lock"))
ABOUT = {"revision": "abc1234", "command": "dvc exp run -n x -S lr=0.1", "time": "1 s", "machine": "1 core"}


def _about(page: str) -> dict[str, str]:
    """What the page says that the files don't hold."""
    fields = {name: re.search(rf"^- \*\*{name}:\*\* (.+)$", page, re.MULTILINE) for name in ("time", "machine")}
    revision = re.search(r"revision `(\w+)`", page)
    command = re.search(r"^dvc exp run .+$", page, re.MULTILINE)
    assert revision, "no revision"
    assert command, "no command"
    found = {name: match[1] for name, match in fields.items() if match}
    return {"revision": revision[1], "command": command[0], **found}


@pytest.mark.parametrize("folder", FOLDS, ids=lambda folder: folder.name)
def test_a_page_of_folds_is_what_their_files_say(folder: Path) -> None:
    page = (folder / "README.md").read_text(encoding="utf-8")
    patterns = {
        "revision": r"^- \*\*code:\*\* revision `(\w+)`$",
        "machine": r"^- \*\*machine:\*\* (.+)$",
        "settings": r"^ctscan sweep (.+) split\.fold=",
    }
    about = {name: re.findall(pattern, page, re.MULTILINE)[0] for name, pattern in patterns.items()}
    assert recorded_folds.block(folder, about) in page
    assert len(page.partition(END)[2].split()) > 20, "a word on what it shows"


def _settings(command: str) -> dict[str, str]:
    return dict(re.findall(r"-S (\S+?)=(\S+)", command))


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_a_studys_page_is_what_its_files_say(folder: Path) -> None:
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert block(folder, _about(page)) in page
    assert len(page.partition(END)[2].split()) > 20, "a word on what it shows"


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_a_studys_command_is_that_of_its_params(folder: Path) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    validate(_filled(params, yaml.safe_load((REPO / "params.yaml").read_text(encoding="utf-8"))))
    settings = _settings(_about((folder / "README.md").read_text(encoding="utf-8"))["command"])
    assert settings
    for key, value in settings.items():
        place = params
        for name in key.split("."):
            place = place[name]
        assert str(place) == value


def _filled(params: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """`params`, with the keys that only `later` ones have."""
    return later | {
        key: _filled(value, later[key]) if isinstance(value, dict) else value for key, value in params.items()
    }


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_a_studys_command_makes_its_params_of_those_of_its_revision(folder: Path) -> None:
    about = _about((folder / "README.md").read_text(encoding="utf-8"))
    shown = subprocess.run(
        ["git", "show", f"{about['revision']}:params.yaml"], cwd=REPO, capture_output=True, text=True, check=False
    )
    if shown.returncode:
        pytest.skip(f"this clone lacks revision {about['revision']}")
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    varied = changes(params, yaml.safe_load(shown.stdout))
    assert {key: str(value) for key, value in varied.items()} == _settings(about["command"])


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_a_studys_files_are_those_that_its_lock_names(folder: Path) -> None:
    stages = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    kept = {path: md5 for path, md5 in outs.items() if (folder / path).is_file()}
    assert {"metrics/details.json", "plots/roc.json"} <= set(kept)
    assert {path: hashlib.md5((folder / path).read_bytes()).hexdigest() for path in kept} == kept
    assert not (folder / "plots" / "images").exists(), "a picture of the dataset"


def _run(folder: Path) -> Path:
    for name in ("params.yaml", "dvc.lock"):
        shutil.copyfile(REPO / name, folder / name)
    for name in ("metrics", "plots"):
        shutil.copytree(REPO / name, folder / name)
    (folder / "plots" / "images").mkdir(exist_ok=True)
    (folder / "plots" / "images" / "classes.png").write_bytes(b"a patient")
    return folder


def test_a_snapshot_holds_the_run_and_no_picture(tmp_path: Path) -> None:
    run = _run(tmp_path)
    (tmp_path / "study" / "metrics").mkdir(parents=True)
    (tmp_path / "study" / "metrics" / "old.json").write_text("{}")
    snapshot(run, tmp_path / "study")
    kept = {str(path.relative_to(tmp_path / "study")) for path in (tmp_path / "study").rglob("*") if path.is_file()}
    assert {"params.yaml", "dvc.lock", "metrics/details.json", "plots/roc.json", "plots/initial/val/auc.json"} <= kept
    assert not [name for name in kept if "classes.png" in name or "timing" in name or "old.json" in name]
    page = block(tmp_path / "study", ABOUT)
    accuracy = json.loads((REPO / "metrics" / "test.json").read_text())["acc_ft"]
    assert page.startswith(BEGIN)
    assert f"finetuned     {accuracy:.3f} (" in page
    assert "nearest" in page
    assert '<img src="plots/reliability.png" width="420" alt="reliability">' in page


def test_half_a_run_is_no_study(tmp_path: Path) -> None:
    run = _run(tmp_path)
    (run / "dvc.lock").unlink()
    with pytest.raises(UserError, match=r"dvc\.lock is missing"):
        snapshot(run, tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_run_of_other_code_than_the_page_would_name_is_no_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("src").mkdir()
    Path("src/a.py").write_text("1\n")
    for command in ("init -q", "add src", "-c user.name=test -c user.email=test@example.org commit -qm code"):
        subprocess.run(["git", *command.split()], check=True)
    studies.require_code("HEAD")
    Path("src/b.py").write_text("2\n")
    Path("src/a.py").write_text("3\n")
    with pytest.raises(UserError, match=r"the code is not that of HEAD \(src/a\.py, src/b\.py\)"):
        studies.require_code("HEAD")


def test_the_command_names_every_change_and_no_more() -> None:
    base: dict[str, Any] = {"lr": 1e-4, "seed": 7, "head": {"units": 1024, "l2": 0.01}, "split": {"strategy": "random"}}
    params = {**base, "lr": 3e-5, "head": {"units": 512, "l2": 0.01}}
    assert changes(params, base) == {"lr": 3e-5, "head.units": 512}


def test_time_is_the_epochs_own_or_not_known(tmp_path: Path) -> None:
    for phase, times in (("initial", [1.0, 4.0, 9.0]), ("finetune", [200.0])):
        losses = [0.1 + time for time in times]
        rows = [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]
        write_json(tmp_path / f"plots/{phase}/val/loss.json", rows)
        timed = [{"val_loss": loss, "seconds": time} for loss, time in zip(losses, times, strict=True)]
        write_json(tmp_path / f"metrics/timing/{phase}.json", timed)
    assert seconds(tmp_path) == "initial 3 epochs of 4.0 s, finetune 1 epochs of 200.0 s"
    (tmp_path / "metrics/timing/finetune.json").unlink()
    write_json(tmp_path / "plots/initial/val/loss.json", [{"step": step, "loss": 0.5} for step in (1, 2, 3)])
    assert seconds(tmp_path) == (
        "initial not recorded, as DVC restored the stage, finetune not recorded, as DVC restored the stage"
    )
