"""Two runs of the pipeline, out by out: which bytes are the same, and how far metrics lie apart where they aren't."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

TOLERANCE = 0.05  # of a metric in [0, 1]: an image or three of the sample; another processor rounds otherwise


class Out(NamedTuple):
    """An out of a stage and whether both runs have the same bytes there."""

    stage: str
    path: str
    same: bool


def compare_locks(recorded: Mapping[str, Any], rerun: Mapping[str, Any]) -> list[Out]:
    """All outs of two parsed dvc.lock files, in the order of the first; one that a lock lacks is not the same."""
    hashes = [
        {(stage, out["path"]): out["md5"] for stage, entry in lock["stages"].items() for out in entry.get("outs", [])}
        for lock in (recorded, rerun)
    ]
    keys = list(dict.fromkeys([*hashes[0], *hashes[1]]))
    return [Out(stage, path, hashes[0].get((stage, path)) == hashes[1].get((stage, path))) for stage, path in keys]


def largest_difference(recorded: Path, rerun: Path) -> float:
    """The largest absolute difference of numbers in the same place of two JSON files; infinite if places differ."""
    first, second = (dict(_numbers(json.loads(path.read_text(encoding="utf-8")))) for path in (recorded, rerun))
    if first.keys() != second.keys():
        return float("inf")
    return max((abs(first[place] - second[place]) for place in first), default=0.0)


def _numbers(value: Any, place: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{place}/{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _numbers(inner, f"{place}/{index}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield place, float(value)
