"""Read the manifest, which is the split as a table with one row per image."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # help should not wait for it
    import pandas as pd

SPLIT_FOLDER = Path("split")
MANIFEST = SPLIT_FOLDER / "manifest.csv"
SLICES = SPLIT_FOLDER / "slices.csv"  # the column `path` of the manifest, which is the same for every split
IMAGES = SPLIT_FOLDER / "images"  # made of links, for people (see `split.folders`); stages read the dataset


def read_manifest(path: Path = MANIFEST) -> "pd.DataFrame":
    """Rows in a fixed order, with the columns path, label (1 = positive class), subset, group, width, height, mode."""
    import pandas as pd

    return pd.read_csv(path, dtype={"path": str, "group": str, "subset": str}, keep_default_na=False)


def image_paths(manifest: "pd.DataFrame", dataset: str) -> list[Path]:
    """Where each row's image lies in the folder `dataset`."""
    return [Path(dataset, path) for path in manifest["path"]]


def rows(manifest: "pd.DataFrame", *subsets: str) -> np.ndarray:
    """Positions, in manifest order, of the images of `subsets`: (n,) int."""
    return np.flatnonzero(manifest["subset"].isin(subsets))
