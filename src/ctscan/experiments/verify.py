"""Is a run the committed one? Says stage by stage which outs are the same bytes, and how far metrics lie apart.

`python src/verify.py` runs the committed pipeline again in a scratch clone; `python src/verify.py --run FOLDER` looks
at the run that lies in FOLDER. Exit 0: all outs are the same, or, on another kind of machine, the test metrics lie
within the tolerance. Exit 1: anything else.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ctscan.core.params import read_params
from ctscan.experiments.environment import environment
from ctscan.experiments.locks import TOLERANCE, compare_locks, largest_difference

import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="folder of a finished run, instead of running again")
    run: Path | None = parser.parse_args().run
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        recorded = Path(folder) / "recorded"
        _call("git", "clone", "--quiet", ".", str(recorded))
        sys.exit(compare(recorded, run or run_again(Path(folder) / "again")))


def run_again(clone: Path) -> Path:
    """The committed pipeline in a clone with a cache of its own, so that nothing is taken from earlier runs."""
    _call("git", "clone", "--quiet", ".", str(clone))
    params = read_params()
    if params.dataset == "sample":
        _call("dvc", "pull", "--quiet", "--remote", "sample", "sample", at=clone)
    elif not (clone / params.dataset).exists():  # git may hold a small one
        shutil.copytree(params.dataset, clone / params.dataset)
    weights = Path(params.weights)
    if weights.is_file() and not (clone / weights).exists():
        (clone / weights).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, clone / weights)
    # Forced, because a cache that the user shares between repositories may hold the runs.
    _call("dvc", "repro", "--force", at=clone)
    return clone


def compare(recorded: Path, run: Path) -> str | None:
    """Print what differs between two runs. Returns what is wrong, or None."""
    locks = [yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8")) for folder in (recorded, run)]
    altered = _altered(run)
    outs = [out._replace(same=out.same and out.path not in altered) for out in compare_locks(*locks)]
    distance = largest_difference(recorded / "metrics/evaluate.json", run / "metrics/evaluate.json")
    for out in outs:
        note = "identical" if out.same else "DIFFERS"
        if not out.same and out.path.startswith("metrics/"):
            note += f", numbers by up to {largest_difference(recorded / out.path, run / out.path):.3g}"
        print(f"{out.stage:17}{out.path:34}{note}")
    if all(out.same for out in outs):
        print(f"all {len(outs)} outs are the same bytes")
        return None

    before = json.loads((recorded / "metrics/environment.json").read_text(encoding="utf-8"))
    changed = ", ".join(key for key, value in environment().items() if value != before.get(key))
    if not changed:
        return "bytes differ on a machine of the recorded kind: what is committed is not what the code makes"
    if distance > TOLERANCE:
        return f"test metrics differ by {distance:.3g}, more than {TOLERANCE}; this machine differs in {changed}"
    print(f"test metrics are within {TOLERANCE}; this machine differs in {changed}, which rounds otherwise")
    return None


def _altered(run: Path) -> set[str]:
    """Outs in `run` that aren't, or are no longer, what its own dvc.lock says."""
    stages = json.loads(_call(sys.executable, "-m", "dvc", "status", "--json", at=run, stdout=subprocess.PIPE))
    changes = [change for stage in stages.values() for change in stage if isinstance(change, dict)]
    return {path for change in changes for path in change.get("changed outs", {})}


def _call(*command: str, at: Path | None = None, stdout: int | None = None) -> str:
    done = subprocess.run(command, cwd=at, stdout=stdout, text=True, check=False)
    if done.returncode:
        sys.exit(f"verify: `{' '.join(command)}` failed; its message stands above")
    return done.stdout or ""


if __name__ == "__main__":
    main()
