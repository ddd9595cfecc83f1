"""Print the results of the last run: what says most of the models, and below it the metrics of the study."""

import argparse

from ctscan.experiments.compare import WORK_TREE, is_evaluated, read_details


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes none."""


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where no run is there."""
    details = read_details(WORK_TREE)
    if not is_evaluated(WORK_TREE):
        print("not evaluated: the last run ended before the stage evaluate; `dvc repro` evaluates it")
        return 0
    # Here, as scikit-learn takes half a second that help can do without.
    from ctscan.evaluation.tables import run_tables

    print(run_tables(details))
    return 0
