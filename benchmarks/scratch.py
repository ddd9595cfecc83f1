"""Give a benchmark a scratch folder, and end it with one line where it fails or is interrupted."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from ctscan.core.errors import UserError


@contextmanager
def scratch(folder: Path) -> Iterator[None]:
    """Remove `folder` in the end. Exits 1 after a `UserError` and 130 after Ctrl-C."""
    try:
        yield
    except UserError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        print("\nbench: interrupted; earlier results are as they were", file=sys.stderr)
        sys.exit(130)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
