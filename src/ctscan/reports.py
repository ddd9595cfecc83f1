"""JSON as git should see it, and the results table as a person should."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctscan.metrics import HEADLINE


def write_json(path: Path, value: Any) -> None:
    """In the order given, ending in a newline. Raises ValueError for NaN and infinity, which JSON does not know."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def results_table(details: Mapping[str, Mapping[str, Any]]) -> str:
    """The study's five metrics of each model on test, with 95 % intervals, as a person reads them in a terminal."""
    lines = ["test".ljust(11) + "".join(metric.rjust(22) for metric in HEADLINE)]
    for model, report in details.items():
        cells = (
            f"{report['test'][metric]:.3f} ({report['intervals'][metric]['low']:.3f}-"
            f"{report['intervals'][metric]['high']:.3f})".rjust(22)
            for metric in HEADLINE
        )
        lines.append(model.ljust(11) + "".join(cells))
    return "\n".join(lines)
