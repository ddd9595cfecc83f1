"""Git and DVC, run for a command: what they print is shown or read, and a failure names what was run."""

import subprocess
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.experiments.programs import attempt, read_program, run_program

import pytest


def test_what_a_program_prints_is_read_and_in_its_folder(tmp_path: Path) -> None:
    run_program("git", "init", "-q", at=tmp_path)
    assert read_program("git", "rev-parse", "--show-toplevel", at=tmp_path) == f"{tmp_path.resolve()}\n"


def test_a_failure_is_a_line_below_the_programs_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for call in (run_program, read_program):
        with pytest.raises(UserError, match=r"^`git log nowhere` failed; its message stands above$"):
            call("git", "log", "nowhere", at=tmp_path)
        assert "fatal: not a git repository" in capfd.readouterr().err


def test_dvc_needs_no_activated_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    version = attempt("dvc", "--version", stdout=subprocess.PIPE)
    assert (version.returncode, version.stdout[:2]) == (0, "3.")
