"""Show the split as the study's four folders, split/images/{train,test}/<class>, made of links into the dataset.

    ctscan folders

The stages read the images from the dataset, by the manifest. The folders are for people, and for commands that are
given a folder. DVC does not track them, so that they need no further copies of the images; after `dvc exp apply` or
`dvc checkout` they may show another split than split/manifest.csv. This command puts that right, and so do those that
are given a path in split/images, before they read.
"""

import argparse
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ctscan.core.errors import UserError, writing
from ctscan.core.files import read_record, require
from ctscan.images.manifest import IMAGES, MANIFEST, read_manifest

if TYPE_CHECKING:  # help should not wait for it
    import pandas as pd

METRICS = Path("metrics/split.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(arguments: argparse.Namespace) -> int:
    """0. Raises `UserError` where there is no split, or the disk is full."""
    changed = refresh()
    print(f"{IMAGES} shows split/manifest.csv; {changed} links were put right")
    return 0


def refresh() -> int:
    """Let split/images show the split of split/manifest.csv; the number of entries that had to be changed.

    Raises:
        UserError: the manifest is missing, or the disk is full or cannot be written to.
    """
    require(MANIFEST)
    require(METRICS)
    record = read_record(METRICS)
    if "dataset" not in record:
        raise UserError(f"{METRICS} is of an older version and does not name the dataset; run `dvc repro`")
    return show(read_manifest(), Path(record["dataset"]))


def refresh_if_asked(paths: Iterable[str]) -> None:
    """`refresh` if one of `paths` is split/images or lies in it. Raises as `refresh`."""
    folder = IMAGES.absolute()
    asked = (Path(os.path.abspath(path)) for path in paths)  # noqa: PTH100 - links are not to be followed
    if any(path.is_relative_to(folder) for path in asked):
        refresh()


def show(manifest: "pd.DataFrame", dataset: Path) -> int:
    """Let the class folders in split/images hold the images of `manifest` and nothing else; how many were changed.

    Each image is a relative symbolic link to the file in `dataset`, or a copy where the system makes no such links. It
    is safe to be killed: the next time puts right what is left. Other files in split/images, as a groups.csv, stay.
    """
    way = os.path.relpath(dataset.absolute(), (IMAGES / "train" / "class").absolute())
    subsets = zip(manifest["path"], manifest["subset"], strict=True)
    wanted = {IMAGES / ("test" if subset == "test" else "train") / path: path for path, subset in subsets}
    found = [entry for entry in IMAGES.glob("*/*/*") if entry.is_symlink() or not entry.is_dir()]
    with writing(IMAGES):
        right = set()
        for entry in found:
            # As text: a Path would change it.
            if entry in wanted and entry.is_symlink() and os.readlink(entry) == f"{way}/{wanted[entry]}":  # noqa: PTH115
                right.add(entry)
            else:
                entry.unlink()
        for entry in wanted.keys() - right:
            entry.parent.mkdir(parents=True, exist_ok=True)
            try:
                entry.symlink_to(f"{way}/{wanted[entry]}")
            except (OSError, NotImplementedError):
                shutil.copyfile(dataset / wanted[entry], entry)
        for folder in IMAGES.glob("*/*"):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    return len(found) - len(right) + len(wanted) - len(right)
