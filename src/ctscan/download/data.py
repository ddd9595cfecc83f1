"""Fill data/ with the study's dataset and say whether it is the release that data.dvc pins.

    ctscan data [--archive PATH] [--pin]

Without --archive it downloads the release from Kaggle, unless data/ is that already.
"""

import argparse
from pathlib import Path

from ctscan.core.params import read_params
from ctscan.download.dataset import CITATION, DATA, LICENCE, fetch
from ctscan.download.release import PIN, describe, pin

INTERRUPTED = f"{DATA}/ is whole: as before, or filled"  # said after Ctrl-C


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the dataset comes from, and whether to pin it."""
    parser.add_argument(
        "--archive", type=Path, help="a zip, tar or folder that holds the dataset, instead of a download"
    )
    parser.add_argument("--pin", action="store_true", help=f"make what {DATA}/ then holds the release that {PIN} pins")


def run(arguments: argparse.Namespace) -> int:
    """Fill data/. Data that differ from the pinned release are not a failure.

    Raises:
        UserError: data/ can't be filled, or can't be compared with the pin.
    """
    classes = read_params().classes
    is_release, _ = describe(DATA)  # also finds a bad data.dvc before the download
    if arguments.archive is not None or not is_release:
        print(f"The dataset's licence is {LICENCE}; cite {CITATION}.", flush=True)
        fetch(classes, arguments.archive)
    is_release, lines = describe(DATA)
    print("\n".join(lines))
    if arguments.pin and not is_release:
        pin(DATA)
        print(f"{PIN} now pins {DATA}/ as it is; commit it to keep that")
    return 0
