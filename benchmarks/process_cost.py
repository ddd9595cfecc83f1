"""Run a program as a process of its own and measure its seconds, its processor time and its peak memory.

python benchmarks/process_cost.py COST.json PROGRAM ARGUMENTS ...
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from ctscan.core.errors import UserError
from ctscan.core.files import write_json


class Cost(NamedTuple):
    """What a process cost, with all processes that it waited for; `peak_mib` is that of the largest one."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def measure(command: list[str], folder: Path, log: Path) -> Cost:
    """Run `command` in `folder`; its output goes to `log`.

    Raises:
        UserError: it failed; the message has the end of its output.
    """
    with log.open("wb") as stream:
        code, cost = _run(command, folder, stream)
    if code:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        raise UserError("\n".join([f"{log.stem} failed with status {code}; the end of its output:", *tail]))
    return cost


def _run(command: list[str], folder: Path, stream: IO[bytes] | None) -> tuple[int, Cost]:
    clock = time.perf_counter()
    output = {} if stream is None else {"stdout": stream, "stderr": subprocess.STDOUT}
    child = subprocess.Popen(command, cwd=folder, **output)
    try:
        # Not child.wait(): only wait4 tells the memory of one child.
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    except BaseException:
        child.kill()
        raise
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return child.returncode, Cost(time.perf_counter() - clock, usage.ru_utime + usage.ru_stime, peak)


def main() -> None:
    code, cost = _run(sys.argv[2:], Path(), None)
    write_json(Path(sys.argv[1]), cost._asdict())
    sys.exit(code)


if __name__ == "__main__":
    main()
