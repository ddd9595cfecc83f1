"""Git and DVC, run for a command: what they print is shown or read, and a failure names what was run."""

import subprocess
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.experiments.programs import attempt, calling_dvc, read_program, reason, run_program, status
from ctscan.experiments.studies import require_code
from ctscan.experiments.sweep import require_committed

import pytest


def test_what_a_program_prints_is_read_and_in_its_folder(tmp_path: Path) -> None:
    run_program("git", "init", "-q", at=tmp_path)
    assert read_program("git", "rev-parse", "--show-toplevel", at=tmp_path) == f"{tmp_path.resolve()}\n"


def test_a_failure_is_a_line_below_the_programs_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^`git log nowhere` failed; its message stands above$"):
        run_program("git", "log", "nowhere", at=tmp_path)
    assert "fatal: not a git repository" in capfd.readouterr().err


def test_a_failure_of_what_is_read_holds_the_programs_own_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^`git log nowhere` failed: fatal: not a git repository [^\n]*$"):
        read_program("git", "log", "nowhere", at=tmp_path)


def test_an_absent_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(UserError, match=r"^`git` is not installed"):
        read_program("git", "log")


def test_the_repository_of_another_user_is_named_with_gits_remedy(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where git won't look, `git diff` calls every file changed, and DVC's library fails inside libgit2."""
    run_program("git", "init", "-q")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own way to test this
    for asked in (require_committed, lambda: calling_dvc().__enter__(), lambda: require_code("HEAD")):
        with pytest.raises(UserError, match=r"^`git .* failed: fatal: detected dubious ownership .*safe\.directory"):
            asked()


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "ERROR: no such files:\nsample\nIs it there?\n\nHaving any troubles? Ask",
            "ERROR: no such files: sample Is it there?",
        ),
        ("Pulling\nERROR: no a - away\nERROR: no b - away\nERROR: no c - away", "ERROR: no a - away"),
        ("squeue: error: no controller\n", "squeue: error: no controller"),
        ("", "it does not say why"),
    ],
)
def test_why_a_program_failed_is_one_line(said: str, line: str) -> None:
    assert reason(said) == line


@pytest.mark.parametrize("name", ["dvc.lock", "params.yaml"])
def test_a_merge_conflict_is_one_line_before_dvc_is_asked(workspace: Path, name: str) -> None:
    Path(name).write_text("a:\n<<<<<<< HEAD\n  b: 1\n=======\n  b: 2\n>>>>>>> other\n")
    for asked in (status, lambda: calling_dvc().__enter__()):
        with pytest.raises(UserError, match=rf"^{name} holds a merge conflict; take one side [^\n]*$"):
            asked()


def test_what_dvc_can_not_look_at_is_not_taken_for_changed(workspace: Path) -> None:
    """`dvc status --quiet` ends with 1 for both."""
    with pytest.raises(UserError, match=r"^`dvc status --json` failed: ERROR: you are not inside of a DVC repository"):
        status()


def test_dvc_needs_no_activated_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    version = attempt("dvc", "--version", stdout=subprocess.PIPE)
    assert (version.returncode, version.stdout[:2]) == (0, "3.")
