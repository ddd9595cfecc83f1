"""The results table as a person should see it."""

from collections.abc import Callable, Mapping
from typing import Any

from ctscan.evaluation.metrics import HEADLINE


def headline(report: Mapping[str, Any]) -> list[str]:
    """The study's five metrics of one model on test, each with its 95 % interval: `0.972 (0.931-1.000)`."""
    return [f"{report['test'][metric]:.3f} ({interval(report['intervals'][metric])})" for metric in HEADLINE]


def interval(bounds: Mapping[str, float], show: Callable[[float], str] = "{:.3f}".format) -> str:
    """Resamples of a set without an error hold none either, whatever its size: that is no interval of no width."""
    return "no spread" if bounds["low"] == bounds["high"] else f"{show(bounds['low'])}-{show(bounds['high'])}"


def results_table(details: Mapping[str, Mapping[str, Any]]) -> str:
    """The headline of each model, as a person reads it in a terminal."""
    lines = ["test".ljust(11) + "".join(metric.rjust(22) for metric in HEADLINE)]
    for model, report in details.items():
        lines.append(model.ljust(11) + "".join(cell.rjust(22) for cell in headline(report)))
    return "\n".join(lines)
