"""Print the results of the last run: what says most of the models, and below it the metrics of the study."""

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
    from ctscan.evaluation.tables import evidence_table, results_table

    report = json.loads(DETAILS.read_text(encoding="utf-8"))
    models = {model: report[model] for model in ("initial", "finetuned")}
    print(evidence_table(models), results_table(models), sep="\n\n")
    return 0
