"""The results table as a person should see it."""

from collections.abc import Mapping
from typing import Any

from ctscan.metrics import HEADLINE


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
