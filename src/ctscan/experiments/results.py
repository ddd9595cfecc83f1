"""Print the table of results of the last run."""

import argparse

from ctscan.experiments.compare import MODELS, WORK_TREE, is_evaluated, read_details


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes none."""


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where no run is there."""
    details = read_details(WORK_TREE)
    if not is_evaluated(WORK_TREE):
        print("not evaluated: the last run ended before the stage evaluate; `dvc repro` evaluates it")
        return 0
    # Here, as scikit-learn takes half a second that help can do without.
    from ctscan.evaluation.tables import results_table

    print(results_table({model: details[model] for model in MODELS}))
    return 0
