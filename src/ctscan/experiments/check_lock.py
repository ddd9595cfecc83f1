"""Check that dvc.lock is in step with the code, the params, the metrics and the plots. No data is needed."""

import argparse
import re
import subprocess

from ctscan.core.errors import UserError
from ctscan.experiments.programs import attempt, reason


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes none."""


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where the lock is not in step."""
    # With outs present `dvc repro --dry` exits 0 whatever it would run, and without them it fails on the inputs of a
    # stage that it would run: so its words decide.
    dry = attempt("dvc", "repro", "--dry", "--allow-missing", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    stale = re.findall(r"(?:Running stage|failed to reproduce) '(.+?)'", dry.stdout + dry.stderr)
    if stale:
        raise UserError(
            f"dvc.lock is not in step at {', '.join(stale)}: run `dvc repro` and commit dvc.lock, metrics, plots"
        )
    if dry.returncode:
        raise UserError(f"dvc.lock can't be checked: {reason(dry.stderr)}")
    print("dvc.lock is in step with code, params, metrics and plots")
    return 0
