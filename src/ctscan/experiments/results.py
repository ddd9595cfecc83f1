"""Print the table of results of the last run."""

import argparse
import json
from pathlib import Path

from ctscan.core.errors import UserError

DETAILS = Path("metrics/details.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes none."""


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where no run is there."""
    if not DETAILS.is_file():
        raise UserError(f"{DETAILS} is missing; run the pipeline with `make repro`")
    # Here, as scikit-learn takes half a second that help can do without.
    from ctscan.evaluation.tables import results_table

    report = json.loads(DETAILS.read_text(encoding="utf-8"))
    print(results_table({model: report[model] for model in ("initial", "finetuned")}))
    return 0
