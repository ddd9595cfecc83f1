"""Bring the figures in README.md and MODEL_CARD.md in step with the metrics that git keeps."""

import sys
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.experiments.readme_tables import PAGES, fill


def main() -> None:
    try:
        for name in PAGES:
            page = Path(name)
            page.write_text(fill(page.read_text(encoding="utf-8"), Path()), encoding="utf-8")
    except UserError as error:
        sys.exit(f"fill_pages: {name}: {error}")


if __name__ == "__main__":
    main()
