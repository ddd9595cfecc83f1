"""A stage ends with the right exit code and message, and its checkpoint belongs to its inputs."""

import errno
import os
import shutil
import time
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.core.files import publish
from ctscan.core.stage import EARLIER_RESULTS, checkpoint, run_stage

import pytest


def test_a_user_error_is_one_line_and_exit_1(workspace: Path) -> None:
    def stage(params: object) -> None:
        raise UserError("x.png: truncated; fetch it again")

    with pytest.raises(SystemExit) as caught:
        run_stage("finetune", stage)
    assert caught.value.code == f"finetune: x.png: truncated; fetch it again\n{EARLIER_RESULTS}"


def test_a_disk_that_can_not_be_written_to_is_one_line(workspace: Path) -> None:
    def stage(params: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "split/a.png")

    with pytest.raises(SystemExit, match=r"^finetune: split/a\.png: Read-only file system; work on a disk that can be"):
        run_stage("finetune", stage)


def test_a_user_error_that_tensorflow_quotes_is_one_line_and_exit_1(workspace: Path) -> None:
    def stage(params: object) -> None:
        raise RuntimeError("{{node}} Error in function: UserError: x.png: truncated; fetch it again\nTraceback: ...")

    with pytest.raises(SystemExit) as caught:
        run_stage("finetune", stage)
    assert caught.value.code == f"finetune: x.png: truncated; fetch it again\n{EARLIER_RESULTS}"


def test_a_fault_of_ours_keeps_its_traceback(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stage(params: object) -> None:
        raise RuntimeError("no one's fault but ours")

    with pytest.raises(SystemExit) as caught:
        run_stage("finetune", stage)
    assert caught.value.code == EARLIER_RESULTS
    assert capsys.readouterr().err.endswith("RuntimeError: no one's fault but ours\n")


def test_ctrl_c_is_exit_130_in_words(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stage(params: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_stage("finetune", stage)
    assert caught.value.code == 130
    assert capsys.readouterr().err == f"\nfinetune: interrupted; run again to continue\n{EARLIER_RESULTS}\n"


def _inputs(workspace: Path) -> None:
    for name in ("models/backbone.keras", "models/initial.keras", "sample/COVID/a.png", "split/manifest.csv"):
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def _checkpoint_after_failure() -> Path:
    with pytest.raises(RuntimeError), checkpoint("finetune") as folder:
        folder.mkdir(parents=True, exist_ok=True)
        raise RuntimeError
    return folder


def test_a_checkpoint_outlives_a_failure_and_ends_with_success(workspace: Path) -> None:
    _inputs(workspace)
    folder = _checkpoint_after_failure()
    assert folder.is_dir()
    with checkpoint("finetune") as again:
        assert again == folder
    assert not folder.exists()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("params.yaml", "finetune_lr: 0.00001", "finetune_lr: 0.00002"),
        ("models/initial.keras", "initial", "retrained"),
        ("sample/COVID/a.png", "a.png", "b.png"),
    ],
)
def test_other_inputs_have_another_checkpoint(workspace: Path, file: str, old: str, new: str) -> None:
    _inputs(workspace)
    before = _checkpoint_after_failure()
    path = workspace / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert _checkpoint_after_failure() != before


def test_a_param_of_another_stage_keeps_the_checkpoint(workspace: Path) -> None:
    _inputs(workspace)
    before = _checkpoint_after_failure()
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("bootstrap: 2000", "bootstrap: 500"))
    assert _checkpoint_after_failure() == before


def test_runs_in_a_temporary_workspace_keep_checkpoints_in_the_repository(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = workspace / ".dvc" / "tmp" / "exps" / "standalone" / "tmpab"
    inside.mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(workspace / name, inside)
    _inputs(workspace)
    _inputs(inside)
    here = _checkpoint_after_failure().resolve()
    monkeypatch.chdir(inside)
    assert _checkpoint_after_failure() == here
    with publish(Path("a.txt")) as path:
        assert path.resolve().is_relative_to(inside), "a rename needs one file system"
        path.touch()


def test_a_second_run_with_the_same_inputs_keeps_to_itself(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _inputs(workspace)
    with checkpoint("finetune") as first:
        first.mkdir()
        (first / "last.npz").write_text("of the first")
        with checkpoint("finetune") as second:
            assert second.is_dir()
            assert second != first
        assert not second.exists()
        assert (first / "last.npz").read_text() == "of the first"
    assert "another run of finetune" in capsys.readouterr().out
    with checkpoint("finetune") as third:
        assert third == first


def test_a_kill_amid_the_removal_leaves_no_half_checkpoint(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _inputs(workspace)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), checkpoint("finetune") as folder:
        folder.mkdir()
        (folder / "last.npz").touch()
        patch.setattr(shutil, "rmtree", _interrupt)
    assert not folder.exists()
    with checkpoint("finetune") as again:
        again.mkdir()
    assert [path.suffix for path in folder.parent.iterdir()] == [".lock"]


def _interrupt(path: Path) -> None:
    raise KeyboardInterrupt


def test_forgotten_checkpoints_of_the_stage_are_deleted(workspace: Path) -> None:
    _inputs(workspace)
    current = _checkpoint_after_failure()
    forgotten, recent, foreign = (current.parents[1] / name for name in ("finetune/a", "finetune/b", "other/a"))
    for folder in (forgotten, recent, foreign):
        folder.mkdir(parents=True)
    now = time.time()
    for folder, days in ((current, 15), (forgotten, 15), (recent, 13), (foreign, 15)):
        os.utime(folder, (now, now - days * 24 * 3600))
    assert _checkpoint_after_failure() == current
    assert [folder.exists() for folder in (current, forgotten, recent, foreign)] == [True, False, True, True]


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "change the permissions")]
)
def test_an_out_that_cant_be_written_is_one_line_and_the_earlier_one_stays(
    workspace: Path, number: int, remedy: str
) -> None:
    out = Path("metrics/a.json")
    with publish(out) as path:
        path.write_text("old")

    def stage(params: object) -> None:
        with publish(out) as path:
            path.write_text("half")
            raise OSError(number, os.strerror(number))

    with pytest.raises(SystemExit) as caught:
        run_stage("finetune", stage)
    assert str(caught.value.code).startswith(f"finetune: metrics/a.json: {os.strerror(number)}; {remedy}")
    assert out.read_text() == "old"
