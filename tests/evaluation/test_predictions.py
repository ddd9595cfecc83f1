"""The table of predictions loses nothing on its way through a file."""

from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.evaluation.predictions import parse_predictions, predictions_table, write_predictions

import numpy as np
import pandas as pd
import pytest


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = pd.DataFrame(
        {
            "path": ["COVID/Covid (1).png", "non-COVID/a,b.png", "non-COVID/NA"],
            "label": [1, 0, 0],
            "subset": ["val", "test", "test"],
            "group": ["007", "NA", "x"],
            "width": [1, 2, 3],
        },
        index=[5, 1, 2],
    )
    scores = {"initial": rng.random(3).astype(np.float32).astype(float), "finetuned": rng.random(3)}
    table = predictions_table(images, scores)
    assert list(table) == ["path", "label", "subset", "group", "initial", "finetuned"]
    write_predictions(tmp_path / "new" / "predictions.csv", table)
    pd.testing.assert_frame_equal(
        parse_predictions((tmp_path / "new" / "predictions.csv").read_text(), "x"), table, check_exact=True
    )


def test_a_table_without_its_columns_is_refused() -> None:
    with pytest.raises(UserError, match="fold-1: no column label, subset, group"):
        parse_predictions("path,score\na,1\n", "fold-1")
