"""Check that a run is the committed one: which outputs have the same bytes, and how far metrics lie apart.

`ctscan verify` runs the committed pipeline again in a scratch clone. `ctscan verify --run FOLDER` looks at the run that
lies in FOLDER. It succeeds where all outputs are the same or where, on another kind of machine, the test metrics lie
within the tolerance.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ctscan.core.errors import UserError
from ctscan.core.files import read_json, require
from ctscan.core.params import parse_lock, read_params
from ctscan.experiments.environment import environment
from ctscan.experiments.programs import read_program, run_program, status

TOLERANCE = 0.05  # of a metric in [0, 1]: an image or three of the sample; another processor rounds otherwise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the run lies."""
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="a finished run, instead of running again")


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where the run is not the committed one."""
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        recorded = Path(folder) / "recorded"
        read_program("git", "clone", "--quiet", ".", str(recorded))
        fault = compare(recorded, arguments.run or run_again(Path(folder) / "again"))
    if fault:
        raise UserError(fault)
    return 0


def run_again(clone: Path) -> Path:
    """The committed pipeline in a clone with a cache of its own, so that nothing is taken from earlier runs."""
    read_program("git", "clone", "--quiet", ".", str(clone))
    params = read_params()
    if params.dataset == "sample":
        read_program("dvc", "pull", "--remote", "sample", "sample", at=clone)
    elif not (clone / params.dataset).exists():  # git may hold a small one
        shutil.copytree(params.dataset, clone / params.dataset)
    weights = Path(params.weights)
    if weights.is_file() and not (clone / weights).exists():
        (clone / weights).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, clone / weights)
    # Forced, because a cache that the user shares between repositories may hold the runs.
    run_program("dvc", "repro", "--force", at=clone)
    return clone


def compare(recorded: Path, run: Path) -> str | None:
    """Print what differs between two runs. Returns what is wrong, or None."""
    locks = [_stages(folder / "dvc.lock") for folder in (recorded, run)]
    altered = _altered(run)
    outs = [out._replace(same=out.same and out.path not in altered) for out in compare_locks(*locks)]
    distance = largest_difference(recorded / "metrics/test.json", run / "metrics/test.json")
    for out in outs:
        note = "identical" if out.same else "DIFFERS"
        if not out.same and out.path.startswith("metrics/"):
            note += f", numbers by up to {largest_difference(recorded / out.path, run / out.path):.3g}"
        print(f"{out.stage:17}{out.path:34}{note}")
    if all(out.same for out in outs):
        print(f"all {len(outs)} outs are the same bytes")
        return None

    before = read_json(recorded / "metrics/environment.json")
    changed = ", ".join(key for key, value in environment().items() if value != before.get(key))
    if not changed:
        return "bytes differ on a machine of the recorded kind: what is committed is not what the code makes"
    if distance > TOLERANCE:
        return f"test metrics differ by {distance:.3g}, more than {TOLERANCE}; this machine differs in {changed}"
    print(f"test metrics are within {TOLERANCE}; this machine differs in {changed}, which rounds otherwise")
    return None


def _stages(lock: Path) -> dict[str, Any]:
    require(lock)
    return parse_lock(lock.read_text(encoding="utf-8"), str(lock))


def _altered(run: Path) -> set[str]:
    """Outs in `run` that aren't, or are no longer, what its own dvc.lock says."""
    changes = [change for stage in status(at=run).values() for change in stage if isinstance(change, dict)]
    return {path for change in changes for path in change.get("changed outs", {})}


class Out(NamedTuple):
    """An out of a stage and whether both runs have the same bytes there."""

    stage: str
    path: str
    same: bool


def compare_locks(recorded: Mapping[str, Any], rerun: Mapping[str, Any]) -> list[Out]:
    """All outs of the stages of two dvc.lock files, in the order of the first; one that is absent is not the same."""
    hashes = [
        {(stage, out["path"]): out["md5"] for stage, entry in lock.items() for out in entry.get("outs", [])}
        for lock in (recorded, rerun)
    ]
    keys = list(dict.fromkeys([*hashes[0], *hashes[1]]))
    return [Out(stage, path, hashes[0].get((stage, path)) == hashes[1].get((stage, path))) for stage, path in keys]


def largest_difference(recorded: Path, rerun: Path) -> float:
    """The largest absolute difference of numbers in the same place of two JSON files; infinite if places differ."""
    first, second = (dict(_numbers(read_json(path))) for path in (recorded, rerun))
    if first.keys() != second.keys():
        return float("inf")
    return max((abs(first[place] - second[place]) for place in first), default=0.0)


def _numbers(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{place}/{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _numbers(inner, f"{place}/{index}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, float(value)
