"""JSON as git should see it."""

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any) -> None:
    """In the order given, ending in a newline. Raises ValueError for NaN and infinity, which JSON does not know."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
