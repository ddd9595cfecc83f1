"""Format the results as a table for people to read."""

from collections.abc import Callable, Mapping
from typing import Any

from ctscan.evaluation.metrics import HEADLINE


def headline(report: Mapping[str, Any]) -> list[str]:
    """The study's five metrics of one model on test, each with its 95 % interval: `0.972 (0.931-1.000)`."""
    return [f"{report['test'][metric]:.3f} ({interval(report['intervals'][metric])})" for metric in HEADLINE]


def interval(bounds: Mapping[str, float], show: Callable[[float], str] = "{:.3f}".format) -> str:
    """`0.931-1.000`, or `no spread` where both ends are equal.

    The resamples of a set without errors hold no errors either, however small the set is; an interval of width 0 would
    promise too much.
    """
    return "no spread" if bounds["low"] == bounds["high"] else f"{show(bounds['low'])}-{show(bounds['high'])}"


def results_table(details: Mapping[str, Mapping[str, Any]]) -> str:
    """The headline metrics of each model, one line per model, for a terminal."""
    lines = ["test".ljust(11) + "".join(metric.rjust(22) for metric in HEADLINE)]
    for model, report in details.items():
        lines.append(model.ljust(11) + "".join(cell.rjust(22) for cell in headline(report)))
    return "\n".join(lines)
