"""Run git and DVC for the commands that compare, record and check runs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.files import refuse_conflict
from ctscan.core.params import LOCK_FILE, PARAMS_FILE, PIPELINE_FILE


def attempt(
    *command: str,
    at: Path | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    patience: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command`, which begins with `git` or `dvc`, whether it succeeds or not.

    DVC is the one that is installed beside this Python, and so is the `python` that its stages call, also where nobody
    has activated the virtual environment.

    Args:
        at: the folder to run in; by default the current one.
        stdout: as `subprocess.run` takes it, and so is `stderr`; by default both go to the screen.
        patience: the seconds after which it is ended; by default it takes as long as it takes.

    Raises:
        UserError: the program is not installed, or was ended; or a file that DVC is about to read holds a merge
            conflict, of which DVC says many lines and some of its commands nothing.
    """
    called, environment = _call(command, at)
    with _installed(command[0]):
        try:
            return subprocess.run(
                called, cwd=at, env=environment, stdout=stdout, stderr=stderr, text=True, check=False, timeout=patience
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"`{' '.join(command)}` had not ended after {patience:g} s and was killed") from None


def start(*command: str, at: Path, stdout: int, stderr: int) -> subprocess.Popen[str]:
    """Start `command` as `attempt` does and do not wait for it."""
    called, environment = _call(command, at)
    with _installed(command[0]):
        return subprocess.Popen(called, cwd=at, env=environment, stdout=stdout, stderr=stderr, text=True)


@contextmanager
def _installed(program: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"`{program}` is not installed, or not on the PATH; install it") from None


def _call(command: tuple[str, ...], at: Path | None) -> tuple[list[str], dict[str, str]]:
    program, *arguments = command
    if program == "dvc":
        _refuse_conflicts(at or Path())
    called = [sys.executable, "-m", "dvc"] if program == "dvc" else [program]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return [*called, *arguments], {**os.environ, "PATH": path}


def run_program(*command: str, at: Path | None = None) -> None:
    """Run `command` as `attempt` does. Raises `UserError` if it fails, after what it says itself on the screen.

    With --quiet DVC does not say why it fails, so `command` goes without.
    """
    if attempt(*command, at=at).returncode:
        raise UserError(f"`{' '.join(command)}` failed; its message stands above")


def read_program(*command: str, at: Path | None = None, patience: float | None = None) -> str:
    """What `command` prints on stdout; its warnings go to the screen.

    Raises:
        UserError: it fails; with what it says on stderr, in one line. Or it was ended after `patience` seconds.
    """
    done = attempt(*command, at=at, stdout=subprocess.PIPE, stderr=subprocess.PIPE, patience=patience)
    if done.returncode:
        raise UserError(f"`{' '.join(command)}` failed: {reason(done.stderr)}")
    sys.stderr.write(done.stderr)
    return done.stdout


def reason(said: str) -> str:
    """What git or DVC `said` of a failure, as one line, without DVC's offer of help.

    Of several failures it is the first one, with the lines below it: DVC has a line for each file that it can't pull.
    """
    lines = [line.strip() for line in said.splitlines() if not line.startswith("Having any troubles?")]
    marked = [number for number, line in enumerate(lines) if line.startswith(("fatal: ", "ERROR: "))]
    if marked:
        lines = lines[slice(*[*marked, None][:2])]
    return " ".join(line for line in lines if line) or "it does not say why"


def status(*targets: str, at: Path | None = None) -> dict[str, Any]:
    """What DVC finds changed in each of `targets` that is not up to date, as `dvc status --json` has it.

    `dvc status --quiet` gives 1 both where something has changed and where DVC could not look. Raises `UserError` for
    the latter.
    """
    found: dict[str, Any] = json.loads(read_program("dvc", "status", "--json", *targets, at=at))
    return found


@contextmanager
def calling_dvc() -> Iterator[None]:
    """Surround calls of DVC's own library. Raises `UserError`, in one line, for what DVC or git refuse."""
    from dvc.exceptions import DvcException  # help should not wait for it
    from scmrepo.exceptions import SCMError

    _refuse_conflicts(Path())
    # libgit2, which DVC calls, does not say what git says: how to use the repository of another user.
    read_program("git", "rev-parse", "--git-dir")
    try:
        yield
    except (DvcException, SCMError) as error:
        raise UserError(f"DVC refuses: {reason(str(error))}") from None


def _refuse_conflicts(folder: Path) -> None:
    for path in (folder / name for name in (LOCK_FILE, PARAMS_FILE, PIPELINE_FILE)):
        if path.is_file():
            refuse_conflict(path.read_text(encoding="utf-8"), str(path))
