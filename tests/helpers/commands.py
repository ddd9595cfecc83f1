"""Run the commands of the library, in the process of a test or in one of their own."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ctscan.__main__ import main

from repository import REPO


def ctscan(*arguments: object) -> None:
    """Run `ctscan` with `arguments`. Raises SystemExit where it fails: with its message, or after Ctrl-C with 130."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = main([str(argument) for argument in arguments])
    if status == 0 or status == 130:
        sys.stderr.write(said.getvalue())
    if status:
        text = said.getvalue().removesuffix("\n")
        # Progress bars come before the message.
        raise SystemExit(text[text.rindex(f"{arguments[0]}: ") :] if status == 1 else status)


def ctscan_process(
    *arguments: object, at: Path | None = None, variables: dict[str, str] | None = None, **streams: Any
) -> subprocess.CompletedProcess[str]:
    """Run `ctscan` of this work tree, whichever one is installed, in a process of its own in the folder `at`.

    Its environment is that of the test with `variables`; both of its outputs are kept unless `streams` say otherwise.
    """
    command = [sys.executable, "-m", "ctscan", *map(str, arguments)]
    environment = {**os.environ, **(variables or {}), "PYTHONPATH": str(REPO / "src")}
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run(command, cwd=at, env=environment, text=True, check=False, **kept)
