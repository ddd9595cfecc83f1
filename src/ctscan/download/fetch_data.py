"""Fill data/ with the study's dataset and say whether it is the release that data.dvc pins.

    python src/fetch_data.py [--archive PATH] [--pin]

Without --archive it downloads the release from Kaggle, unless data/ is that already.
"""

import argparse
import sys
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.core.params import read_params
from ctscan.download.dataset import CITATION, DATA, LICENCE, fetch
from ctscan.download.release import PIN, describe, pin


def main(arguments: list[str] | None = None) -> None:
    """Exits 1 after a `UserError`, 130 after Ctrl-C. Data that differ from the pinned release are no failure."""
    parser = argparse.ArgumentParser(description="Fill data/ with the study's dataset.")
    parser.add_argument(
        "--archive", type=Path, help="a zip, tar or folder that holds the dataset, instead of a download"
    )
    parser.add_argument("--pin", action="store_true", help=f"make what data/ then holds the release that {PIN} pins")
    options = parser.parse_args(arguments)
    try:
        _run(options.archive, options.pin)
    except UserError as error:
        sys.exit(f"fetch-data: {error}")
    except KeyboardInterrupt:
        print(f"\nfetch-data: interrupted; {DATA}/ is whole: as before, or filled", file=sys.stderr)
        sys.exit(130)


def _run(archive: Path | None, pinning: bool) -> None:
    classes = read_params().classes
    is_release, _ = describe(DATA)  # also finds a bad data.dvc before the download
    if archive is not None or not is_release:
        print(f"The dataset's licence is {LICENCE}; cite {CITATION}.", flush=True)
        fetch(classes, archive)
    is_release, lines = describe(DATA)
    print("\n".join(lines))
    if pinning and not is_release:
        pin(DATA)
        print(f"{PIN} now pins {DATA}/ as it is; commit it to keep that")


if __name__ == "__main__":
    main()
