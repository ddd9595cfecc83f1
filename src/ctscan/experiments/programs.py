"""Run git and DVC for the commands that compare, record and check runs."""

import os
import subprocess
import sys
from pathlib import Path

from ctscan.core.errors import UserError


def attempt(
    *command: str, at: Path | None = None, stdout: int | None = None, stderr: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `command`, which begins with `git` or `dvc`, whether it succeeds or not.

    DVC is the one that is installed beside this Python, and so is the `python` that its stages call, also where nobody
    has activated the virtual environment.

    Args:
        at: the folder to run in; by default the current one.
        stdout: as `subprocess.run` takes it, and so is `stderr`; by default both go to the screen.
    """
    called, environment = _call(command)
    return subprocess.run(called, cwd=at, env=environment, stdout=stdout, stderr=stderr, text=True, check=False)


def start(*command: str, at: Path, stdout: int, stderr: int) -> subprocess.Popen[str]:
    """Start `command` as `attempt` does and do not wait for it."""
    called, environment = _call(command)
    return subprocess.Popen(called, cwd=at, env=environment, stdout=stdout, stderr=stderr, text=True)


def _call(command: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    program, *arguments = command
    called = [sys.executable, "-m", "dvc"] if program == "dvc" else [program]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return [*called, *arguments], {**os.environ, "PATH": path}


def run_program(*command: str, at: Path | None = None) -> None:
    """Run `command` as `attempt` does. Raises `UserError` if it fails, after what it says itself on the screen."""
    _require_success(command, attempt(*command, at=at))


def read_program(*command: str, at: Path | None = None) -> str:
    """What `command` prints on stdout; its stderr goes to the screen. Raises `UserError` if it fails."""
    done = attempt(*command, at=at, stdout=subprocess.PIPE)
    _require_success(command, done)
    return done.stdout


def _require_success(command: tuple[str, ...], done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise UserError(f"`{' '.join(command)}` failed; its message stands above")
