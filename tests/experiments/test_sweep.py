"""A sweep: which runs a grid means, what they are called, and which one validation prefers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.params import read_params
from ctscan.experiments import sweep

import pandas as pd
import pytest
from commands import ctscan
from zc.lockfile import LockFile


def test_a_grid_is_every_combination_named_after_what_varies() -> None:
    experiments = sweep.combinations(["lr=1e-4,3e-4", "head.units=256,512"], read_params(), "train-initial")
    assert list(experiments) == [
        "lr=1e-4,head.units=256",
        "lr=1e-4,head.units=512",
        "lr=3e-4,head.units=256",
        "lr=3e-4,head.units=512",
    ]
    assert experiments["lr=3e-4,head.units=256"] == ["lr=3e-4", "head.units=256"]


def test_a_value_named_twice_is_run_once() -> None:
    assert list(sweep.combinations(["lr=1e-4,1e-4"], read_params(), "train-initial")) == ["lr=1e-4"]


def test_a_run_that_goes_further_has_another_name() -> None:
    assert list(sweep.combinations(["lr=1e-4"], read_params(), "finetune")) == ["finetune,lr=1e-4"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("lr", "write a key of params.yaml"),
        ("lr=", "write a key of params.yaml"),
        ("lr=1e-4,,1e-3", "write a key of params.yaml"),
        ("learning_rate=1e-4", "no key 'learning_rate'"),
        ("head.depth=3", "no key 'head.depth'"),
        ("lr.x=3", "no key 'lr.x'"),
        ("lr=fast", "lr = 'fast'; it needs a number"),
        ("lr=1e-4,7", "lr = 7; it needs a number > 0 and <= 1"),
    ],
)
def test_a_wrong_grid_is_one_line_before_anything_is_queued(argument: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sweep.combinations(["unfreeze_depth=50,150", argument], read_params(), "finetune")


def _row(name: str, auc: float | None, loss: float, state: str | None = None) -> dict[str, Any]:
    return {"Experiment": name, "State": state, "val_init": auc, "val_ft": 1 - (auc or 0), "loss of the test": loss}


def _keep_details(
    monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], accuracies: dict[str, float] | None = None
) -> None:
    """Let DVC read, of each experiment, the details of its best epoch."""

    def read(path: str, rev: str) -> str:
        assert path == "metrics/initial.json"
        (row,) = (row for row in rows if row["Experiment"] == rev)
        accuracy = (accuracies or {}).get(rev, 0.5)
        return json.dumps(
            [{"best_epoch": 2, "epochs": 3, "val_accuracy": accuracy, "val_loss": row["loss of the test"]}]
        )

    monkeypatch.setattr("dvc.api.read", read)


def test_validation_decides_and_accuracy_breaks_ties_not_a_loss_with_a_penalty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [
        {"Experiment": None, "rev": "workspace", "val_init": 1.0},
        _row("a", 0.8, 0.3),
        _row("b", 0.9, 0.2),
        _row("c", 0.9, 0.4, "Success"),
        _row("another sweep's", 0.99, 0.1),
        _row("unfinished", 0.95, 0.1, "Running"),
    ]
    _keep_details(monkeypatch, rows, {"b": 0.7, "c": 0.8})
    ranked = sweep.ranking(rows, ["a", "b", "c", "unfinished"], "train-initial")
    assert ranked["experiment"].tolist() == ["c", "b", "a"]
    assert ranked["val_auc"].tolist() == [0.9, 0.9, 0.8]

    equal = [_row(name, 0.5, 0.1) for name in "ed"]  # DVC lists them in no fixed order
    _keep_details(monkeypatch, equal)
    assert sweep.ranking(equal, ["d", "e"], "train-initial")["experiment"].tolist() == ["d", "e"]


def test_a_setting_is_ranked_by_its_mean_over_seeds_and_folds_with_the_spread() -> None:
    values = {"lr=1,seed=7": 0.9, "lr=1,seed=8": 0.5, "lr=2,seed=7": 0.8, "lr=2,seed=8": 0.7, "lr=3,seed=7": 0.1}
    ranked = pd.DataFrame({"experiment": list(values), "val_auc": list(values.values())})
    means = sweep.mean_ranking(ranked, {name: name.split(",") for name in values})
    assert means["settings"].tolist() == ["-S lr=2", "-S lr=1", "-S lr=3"]
    assert means["runs"].tolist() == [2, 2, 1]
    assert means["val_auc"].tolist() == pytest.approx([0.75, 0.7, 0.1])
    assert means["sd"].tolist() == pytest.approx([0.05 * 2**0.5, 0.2 * 2**0.5, float("nan")], nan_ok=True)
    assert sweep.doubt(means) == "\nnot clearly, as good or within its spread are: -S lr=1"
    assert sweep.doubt(means[:1]) == ""


def test_equal_settings_of_one_run_each_are_not_told_apart() -> None:
    ranked = pd.DataFrame({"experiment": ["lr=1", "lr=2", "lr=3"], "val_auc": [0.5, 0.5, 0.4]})
    means = sweep.mean_ranking(ranked, {f"lr={value}": [f"lr={value}"] for value in (1, 2, 3)})
    assert sweep.doubt(means) == "\nnot clearly, as good or within its spread are: -S lr=2"


def _sweep(
    monkeypatch: pytest.MonkeyPatch,
    tables: list[list[dict[str, Any]]],
    *arguments: str,
    changed: str = "",
    waiting: tuple[str, ...] = (),
) -> list[list[str]]:
    calls: list[list[str]] = []
    _keep_details(monkeypatch, tables[-1] if tables else [])
    monkeypatch.setattr("dvc.api.exp_show", lambda **_: tables.pop(0))

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if command[0] != "git":
            calls.append(command[3:])
        answers = {"status": changed, "--literal-pathspecs": "" if "--others" in command else "sample.dvc\n"}
        return subprocess.CompletedProcess(command, 0, answers.get(command[1], ""), "")

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr(sweep, "waiting", lambda: list(waiting))
    ctscan("sweep", *arguments)
    return calls


def test_a_sweep_queues_what_is_new_and_names_the_best(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [_row("lr=1e-4", 0.8, 0.3), _row("lr=1e-2", None, 0.3, "Failed")]
    after = [_row("lr=1e-4", 0.8, 0.3), _row("lr=1e-3", 0.9, 0.2, "Success"), _row("lr=1e-2", 0.7, 0.2)]
    calls = _sweep(monkeypatch, [before, after], "lr=1e-4,1e-3,1e-2", "--workers", "3")
    queued = [call[call.index("--name") + 1 :] for call in calls if "--queue" in call]
    assert queued == [
        ["lr=1e-3", "--set-param", "lr=1e-3", "train-initial"],
        ["lr=1e-2", "--set-param", "lr=1e-2", "train-initial"],
    ]
    assert calls[-1] == ["exp", "run", "--run-all", "--jobs", "3"]
    assert "best on validation: dvc exp run -S lr=1e-3\n" in capsys.readouterr().out


def test_what_all_runs_have_is_said_once_and_is_part_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "dataset=sample,lr={},split.folds=2,split.fold={}"
    aucs = {("1e-3", 0): 0.7, ("1e-3", 1): 0.8, ("1e-4", 0): 0.8, ("1e-4", 1): 0.9}
    rows = [_row(name.format(*place), auc, 0.2) for place, auc in aucs.items()]
    _sweep(monkeypatch, [[], rows], "dataset=sample", "lr=1e-3,1e-4", "split.folds=2", "split.fold=0,1")
    out = capsys.readouterr().out
    assert "all with dataset=sample split.folds=2\n" in out
    ranked = [line.split()[:2] for line in out.splitlines() if line.strip().startswith("lr=")]
    assert ranked[0] == ["lr=1e-4", "split.fold=1"]
    assert "best on validation: dvc exp run -S dataset=sample -S split.folds=2 -S lr=1e-4\n" in out


def test_params_that_are_not_committed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"params\.yaml is not as committed"):
        _sweep(monkeypatch, [], "lr=1e-4", changed=" M params.yaml\n")


def test_a_dataset_that_git_does_not_have_is_refused_before_anything_is_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC queues it, fails in the run, and says only `[Errno 2]` of a folder in .dvc/tmp."""
    monkeypatch.chdir(tmp_path)
    for name in ("by git [1]/a.png", "by dvc.dvc", "by nobody/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for command in (["init", "-q"], ["add", "by git [1]", "by dvc.dvc"]):
        subprocess.run(["git", *command], check=True)
    sweep.require_tracked(["by git [1]", "by dvc"])
    with pytest.raises(UserError, match=r"^dataset by nobody: .*`dvc add by nobody`"):
        sweep.require_tracked(["by git [1]", "by nobody"])
    (tmp_path / "by git [1]/new.png").touch()
    with pytest.raises(UserError, match=r"^dataset by git \[1\]: Git does not have 1 files of it \(.*new\.png"):
        sweep.require_tracked(["by git [1]"])


def test_what_waits_in_the_queue_beside_it_is_named_before_anything_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^sweep: old in DVC's queue would run too; .*`dvc queue remove old`"):
        _sweep(monkeypatch, [], "lr=1e-4,1e-3", waiting=("lr=1e-4", "old"))


@pytest.mark.slow
def test_what_waits_is_read_from_dvc_and_why_it_queues_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("lr: 1\n")
    (tmp_path / "dvc.yaml").write_text("stages:\n  train:\n    cmd: mkdir out\n    params: [lr]\n")
    for command in (
        "git init -q",
        "git config user.name A",
        "git config user.email a@example.org",
        f"{sys.executable} -m dvc init -q",
        f"{sys.executable} -m dvc config core.analytics false",
        "git add -A",
        "git commit -qm start",
    ):
        subprocess.run(command.split(), check=True)
    assert sweep.waiting() == []
    queue = f"{sys.executable} -m dvc exp run -q --queue --name other -S lr=2"
    subprocess.run(queue.split(), check=True)
    assert sweep.waiting() == ["other"]

    other_process = LockFile(str(tmp_path / ".dvc/tmp/lock"))
    with pytest.raises(UserError, match=r"^`dvc exp run [^`]*` failed: ERROR: Unable to acquire lock"):
        sweep.queue({"lr=3": ["lr=3"]}, "train")
    other_process.close()
    sweep.queue({"lr=3": ["lr=3"]}, "train")
    assert sweep.waiting() == ["other", "lr=3"]


def test_a_run_without_a_result_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="no result of lr=1e-3"):
        _sweep(monkeypatch, [[], [_row("lr=1e-4", 0.8, 0.3)]], "lr=1e-4,1e-3")


def test_the_script_reads_from_the_top_of_the_repository_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"params\.yaml is not in this folder"):
        ctscan("sweep", "lr=1e-4")
