"""Write and read the table of predictions, from which every statistic of a run can be computed again."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.evaluation.metrics import Scores

import numpy as np
import pandas as pd

PREDICTIONS = Path("predictions.csv")
MODELS = ("initial", "finetuned")
NOVELTY = "novelty"  # the column of the novelty score, which is not a score of a class
FOLD = "fold"  # the column that says which fold's models made a row, where several folds stand in one table
IMAGE = ("path", "label", "subset", "group")  # the columns that say which image a row is about


def predictions_table(images: pd.DataFrame, scores: Mapping[str, Scores]) -> pd.DataFrame:
    """One row for each image: the columns `IMAGE` of `images` (n rows), and a column for each of `scores` (n,)."""
    return (
        images.loc[:, list(IMAGE)]
        .reset_index(drop=True)
        .assign(**{name: np.asarray(values, np.float64) for name, values in scores.items()})
    )


def score_columns(table: pd.DataFrame) -> list[str]:
    """The columns of `table` that hold scores of the positive class: of the models, and of baselines and controls."""
    return [str(column) for column in table if column not in (*IMAGE, NOVELTY, FOLD)]


def write_predictions(path: Path, table: pd.DataFrame) -> None:
    """As CSV whose numbers, read again, are the same to the last bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, lineterminator="\n")


def parse_predictions(text: str, name: str) -> pd.DataFrame:
    """The table of which `text` is the CSV, as it was written.

    Raises `UserError`, which begins with `name`, where a column is missing.
    """
    table = pd.read_csv(
        StringIO(text),
        dtype={"path": str, "subset": str, "group": str},
        keep_default_na=False,
        float_precision="round_trip",
    )
    if missing := [column for column in IMAGE if column not in table]:
        raise UserError(f"{name}: no column {', '.join(missing)}; make the table again with `dvc repro`")
    return table
