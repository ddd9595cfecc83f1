"""Find the labelled folders among what is predicted, and judge the model on them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ctscan.core.errors import UserError
from ctscan.core.params import Params
from ctscan.inference.inputs import GROUPS_FILE, LINKED, Found, class_folders, expand


class LabelledSet(NamedTuple):
    """A folder with the two class folders: `labels` of its files, 1 = positive, and `groups` where groups.csv is.

    `unread` are files in the class folders that hold no slices by their content.
    """

    folder: Path
    labels: dict[Path, int]
    groups: dict[Path, str] | None
    unread: list[Path]


def labelled_sets(given: Sequence[str], found: Found, params: Params) -> list[LabelledSet]:
    """Of the PATHs that hold both class folders. Says on stderr where one holds a single class, so isn't judged."""
    sets = []
    for folder in map(Path, dict.fromkeys(map(expand, given))):
        if not folder.is_dir():
            continue
        places = class_folders(folder, params.classes)
        if len(places) == 2:
            sets.append(_labelled(folder, places, found))
        elif places:
            (only,) = places.values()
            names = f"{params.classes.positive} and {params.classes.negative}"
            print(f"{folder}: not judged, it holds {only.name} alone of the classes {names}", file=sys.stderr)
    return sets


def _labelled(folder: Path, places: dict[int, Path], found: Found) -> LabelledSet:
    """Raises `UserError` where groups.csv has faults: before hours of predictions, not after."""

    def within(paths: Sequence[Path]) -> dict[Path, int]:
        return {path: label for label, place in places.items() for path in paths if path.is_relative_to(place)}

    labels = within(found.files)
    passed = [path for path, reason in found.passed.items() if reason not in ("hidden", LINKED)]
    unread = list(within([*passed, *found.refused]))
    listing = folder / GROUPS_FILE
    if not listing.exists():
        return LabelledSet(folder, labels, None, unread)
    from ctscan.split.check import read_groups

    errors: list[str] = []
    groups = read_groups(listing, [path.relative_to(folder).as_posix() for path in labels], errors)
    if errors:
        raise UserError("\n  ".join([f"{listing}: {len(errors)} faults, nothing was predicted", *errors]))
    return LabelledSet(folder, labels, {path: groups[path.relative_to(folder).as_posix()] for path in labels}, unread)


def _left_out(labelled: LabelledSet, scores: dict[Path, list[float]], faults: Sequence[str]) -> str:
    """What a figure on a labelled set must say of files that it is not about; "" where it is about all."""
    files = len(labelled.labels) + len(labelled.unread)
    lost = len(labelled.unread) + sum(not scores[path] for path in labelled.labels)
    of_frames = {Path(fault.partition(": ")[0].partition("#")[0]) for fault in faults if "#" in fault}
    cut = sum(bool(scores.get(path)) for path in of_frames)
    parts = [f"{lost} of {files} files"] * bool(lost) + [f"some slices of {cut} more"] * bool(cut)
    return f", WITHOUT {' and '.join(parts)}, which could not be read" if parts else ""


def judge(
    labelled: LabelledSet, scores: dict[Path, list[float]], threshold: float, params: Params, faults: list[str]
) -> dict[str, Any] | None:
    """The study's metrics on a labelled set, with intervals; None, and a fault, where they are not defined."""
    from ctscan.evaluation import intervals, metrics, tables

    slices = [(path, score) for path in labelled.labels for score in scores[path]]
    labels = [labelled.labels[path] for path, _ in slices]
    values = [score for _, score in slices]
    name = str(labelled.folder)
    try:
        measured = metrics.headline(labels, values, threshold, name)
        groups = None if labelled.groups is None else [labelled.groups[path] for path, _ in slices]
        resamples = intervals.resample(labels, groups, params.evaluate.bootstrap, params.seed, name)
        spread = intervals.headline_intervals(labels, values, threshold, resamples, name)
    except UserError as error:
        faults.append(str(error))
        print(error, file=sys.stderr)
        return None
    table = tables.results_table({"finetuned": {"test": measured, "intervals": spread}})
    unit = "groups of groups.csv" if groups else f"slices (no {GROUPS_FILE}: too narrow where patients have several)"
    left_out = _left_out(labelled, scores, faults)
    basis = f"threshold {threshold:g}, intervals over {resamples.units} {unit}"
    text = f"\n{name}: {len(labels)} slices{left_out}, {basis}\n{table}"
    return {
        "path": name,
        "slices": len(labels),
        "left_out": left_out.removeprefix(", "),
        "test": measured,
        "intervals": spread,
        "text": text,
    }
