"""Split images into train, validation and test: at random as the study did, or with related slices kept together."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from ctscan.core.errors import UserError
from ctscan.core.params import Split
from ctscan.core.seeds import derive_seed, generator
from ctscan.split.check import print_warnings
from ctscan.split.duplicates import Pairs
from ctscan.split.folds import test_fold

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedShuffleSplit

SUBSETS = ("train", "val", "test")
TOLERANCE = 0.01  # of a class: a grouped part that comes so close is taken at once, and one that doesn't is told of
ATTEMPTS = 100

Mask = npt.NDArray[np.bool_]


def assign_subsets(manifest: pd.DataFrame, copies: Pairs, split: Split, seed: int) -> pd.DataFrame:
    """`manifest` with the columns `group` and `subset` added; it and `copies` are those of `check.scan`.

    Strategies: `random` draws images; `blocked` keeps blocks of `block_size` file numbers of a class together, within
    names of one text before the number; `grouped` keeps the groups of groups.csv together. Each is stratified: a class
    gives test `test_fraction` of its images, and validation `val_fraction` of what remains, to within one percentage
    point and one group. With `folds` above 1, the images are cut into that many parts instead, and part number `fold`
    is test. The same images and seed give the same split.

    `group` is groups.csv's under `grouped`, and the block under `blocked`. Under `random`, which ignores it, it is
    groups.csv's if there is one, else the block of a numbered file, else the image itself. Copies
    join their groups into one, which has the name of the first. A group may hold both classes.

    `attrs["warnings"]` is that of `manifest` and what is doubtful about this split: file numbers that say little about
    who is who, and parts that miss their fraction of a class by more than one percentage point. The latter are
    printed, too.

    Raises:
        UserError: groups.csv or file numbers are needed and absent, or blocks would cut what names seem to keep
            together, or there are too few images or groups to put every class into train, validation and test, or to
            come near the fractions.
    """
    doubts: list[str] = []
    result = manifest.copy()
    result["group"] = _join_copies(copies, _groups(result, split, doubts))
    labels = result["label"].to_numpy()
    codes = pd.factorize(result["group"])[0]
    draw: Callable[[Mask, float, str], Mask]
    if split.strategy == "random":

        def draw(rows: Mask, fraction: float, name: str) -> Mask:
            return _draw_images(labels, rows, fraction, derive_seed(seed, "split", name))
    else:
        _require_groups(result)

        def draw(rows: Mask, fraction: float, name: str) -> Mask:
            reserve = 2 if name == "test" else 1
            return _draw_groups(labels, codes, rows, fraction, reserve, generator(seed, "split", name))

    if split.folds > 1:
        test = test_fold(labels, None if split.strategy == "random" else codes, split.folds, split.fold, seed)
    else:
        test = draw(np.ones(len(result), bool), split.test_fraction, "test")
    val = draw(~test, split.val_fraction, "val")
    result["subset"] = np.select([test, val], ["test", "val"], "train")
    for subset in SUBSETS:
        for label in (0, 1):
            if not ((result["subset"] == subset) & (result["label"] == label)).any():
                raise UserError(f"split: no image of class {_class_name(result, label)} in {subset}; {_REMEDY}")
    if split.strategy != "random":
        doubts += _missed_fractions(result, split)
    print_warnings("split", doubts)
    result.attrs["warnings"] = [*manifest.attrs.get("warnings", ()), *doubts]
    return result


def _missed_fractions(manifest: pd.DataFrame, split: Split) -> list[str]:
    """A line for each part that has another share of a class than params.yaml asks for, by more than TOLERANCE."""
    missed = []
    rest = manifest[manifest["subset"] != "test"]
    tested = split.test_fraction if split.folds == 1 else 1 / split.folds
    for rows, subset, fraction in ((manifest, "test", tested), (rest, "val", split.val_fraction)):
        shares = []
        for label in (1, 0):
            members = rows[rows["label"] == label]
            got = int((members["subset"] == subset).sum())
            if abs(got / len(members) - fraction) > TOLERANCE + 0.5 / len(members):  # half an image, by rounding
                name = _class_name(manifest, label)
                shares.append(f"{got} of {len(members)} images of class {name} ({got / len(members):.1%})")
        if shares:
            missed.append(
                f"{subset} has {' and '.join(shares)} where params.yaml asks for {fraction:.0%}: whole groups give no "
                f"better (the largest holds {rows.groupby('group').size().max()} images); use smaller ones for a closer"
            )
    return missed


_REMEDY = "add images or groups, or change split.strategy, split.block_size or the fractions in params.yaml"


def _class_name(manifest: pd.DataFrame, label: int) -> str:
    names = manifest.loc[manifest["label"] == label, "path"]
    return "'" + (PurePosixPath(names.iloc[0]).parts[0] if len(names) else str(label)) + "'"


def _groups(manifest: pd.DataFrame, split: Split, doubts: list[str]) -> list[str]:
    listed = manifest["listed_group"].notna().all()
    if split.strategy == "grouped" and not listed:
        raise UserError(
            "split.strategy = grouped needs groups.csv (path,group) in the dataset folder; add it, or choose blocked"
        )
    if listed and split.strategy != "blocked":
        return [str(group) for group in manifest["listed_group"]]
    paths = [PurePosixPath(path) for path in manifest["path"]]
    numbered = [_number(path) for path in paths]
    if split.strategy == "blocked" and None in numbered:
        path = manifest["path"].iloc[numbered.index(None)]
        raise UserError(
            f"{path}: split.strategy = blocked needs a number in each file name; number the files, or choose another"
        )
    names: list[str] = [str(path) for path in paths]
    for folder in dict.fromkeys(path.parent.name for path in paths):
        rows = [
            (row, *number)
            for row, (path, number) in enumerate(zip(paths, numbered, strict=True))
            if path.parent.name == folder and number is not None
        ]
        names = _name_blocks(names, folder, rows, split, doubts)
    return names


def _number(path: PurePosixPath) -> tuple[str, int] | None:
    """The text before the last number of a file's name, and that number."""
    found = re.fullmatch(r"(.*?)(\d+)\D*", path.stem, re.DOTALL)
    return (found[1], int(found[2])) if found else None


def _name_blocks(
    names: list[str], folder: str, rows: Sequence[tuple[int, str, int]], split: Split, doubts: list[str]
) -> list[str]:
    """`names` with the block of each of `rows` (position, text before the number, number), the files of one class.

    With blocks of 20, numbers 61 to 80 are block 3; where a number 0 exists, 60 to 79 are. A block is `COVID#3`, or
    `COVID/scan_#3` where the text differs between names. Where a number comes after several texts, as if each patient
    had a series of numbers, each series is one block.

    Raises:
        UserError: there are such series, strategy is blocked, and a series is longer than a block.
    """
    series: dict[str, list[int]] = {}
    for _, text, number in rows:
        series.setdefault(text, []).append(number)
    numbers = Counter(number for _, _, number in rows)
    repeated = [number for number, count in numbers.items() if count > 1]
    if repeated:
        doubts.append(_doubt(folder, series, min(repeated), numbers[min(repeated)]) + f"; {_ASK_FOR_GROUPS}")
    apart = bool(repeated) and len(series) > 1  # as if each patient had a series of numbers

    names = list(names)
    bounds = {text: (min(1, *held), max(held)) for text, held in series.items()}
    for row, text, number in rows:
        start, end = bounds[text]
        block, last = ((each - start) // split.block_size for each in (number, end))
        if apart and split.strategy == "blocked" and block != last:
            raise UserError(
                f"{_doubt(folder, series, min(repeated), numbers[min(repeated)])}, and blocks of {split.block_size} "
                f"would cut the series `{text}`, most likely a patient; {_ASK_FOR_GROUPS}, or raise split.block_size "
                "until no series is cut"
            )
        names[row] = f"{folder}/{text}#{0 if apart else block}" if len(series) > 1 else f"{folder}#{block}"
    return names


_ASK_FOR_GROUPS = "say in groups.csv (path,group) which images belong together, and choose split.strategy = grouped"


def _doubt(folder: str, series: dict[str, list[int]], number: int, count: int) -> str:
    shown = [f"`{text}`" for text, held in sorted(series.items()) if number in held][:2]
    return (
        f"{folder}: file number {number} comes {count} times (after {' and '.join(shown)}), so numbers don't run "
        "through the class, and who belongs together is guessed from names"
    )


def _join_copies(copies: Pairs, groups: list[str]) -> list[str]:
    codes, names = pd.factorize(np.array(groups, dtype=object))
    pairs = codes[copies]
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(names), len(names)))
    component = connected_components(links, directed=False)[1]
    first = np.unique(component, return_index=True)[1]
    return [str(name) for name in names[first[component[codes]]]]


def _draw_images(labels: npt.NDArray[np.int_], rows: Mask, fraction: float, seed: int) -> Mask:
    where = np.flatnonzero(rows)
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
    try:
        _, drawn = next(splitter.split(where, labels[where]))
    except ValueError as error:
        raise UserError(f"split: too few images to stratify ({error}); {_REMEDY}") from None
    mask = np.zeros(len(labels), bool)
    mask[where[drawn]] = True
    return mask


def _require_groups(manifest: pd.DataFrame) -> None:
    for label in (0, 1):
        count = manifest.loc[manifest["label"] == label, "group"].nunique()
        if count < len(SUBSETS):
            raise UserError(
                f"split: class {_class_name(manifest, label)} has {count} group(s), "
                f"but train, validation and test need one each; {_REMEDY}"
            )


def _draw_groups(
    labels: npt.NDArray[np.int_],
    codes: npt.NDArray[np.intp],
    rows: Mask,
    fraction: float,
    reserve: int,
    random: np.random.Generator,
) -> Mask:
    """Whole groups among `rows` that come near `fraction` of each class and leave `reserve` groups of each class.

    Own code, because scikit-learn's splitters don't do it: GroupShuffleSplit takes a share of the groups, whatever
    their sizes and classes, and StratifiedGroupKFold gives shares of 1/k only.
    """
    sizes = np.stack([np.bincount(codes[rows & (labels == label)], minlength=codes.max() + 1) for label in (0, 1)], 1)
    candidates = np.flatnonzero(sizes.any(axis=1))
    totals = sizes.sum(axis=0)
    best: list[int] = []
    least = np.inf
    for _ in range(ATTEMPTS):
        order = random.permutation(candidates).tolist()
        chosen = _fill(sizes.tolist(), order, (totals * fraction).tolist(), reserve)
        got = sizes[chosen].sum(axis=0)
        error = float(np.abs(got / totals - fraction).max()) if (got > 0).all() and (got < totals).all() else np.inf
        if error < least:
            best, least = chosen, error
        if least <= TOLERANCE:
            break
    bound = TOLERANCE + (sizes.max(axis=0) / totals).max()
    if least > bound:
        raise UserError(f"split: no choice of whole groups gives {fraction:.0%} of both classes; {_REMEDY}")
    return rows & np.isin(codes, best)


def _fill(sizes: list[list[int]], order: list[int], target: list[float], reserve: int) -> list[int]:
    """The groups, in the order given, that fit into `target` (images a class); then those that bring it nearer."""
    taken: set[int] = set()
    got = [0, 0]
    left = [sum(sizes[group][label] > 0 for group in order) for label in (0, 1)]

    def leaves_enough(group: int) -> bool:
        return all(left[label] > reserve for label in (0, 1) if sizes[group][label])

    def distance(group: int) -> float:
        return sum(abs(got[label] + sizes[group][label] - target[label]) for label in (0, 1))

    def take(group: int) -> None:
        taken.add(group)
        for label in (0, 1):
            got[label] += sizes[group][label]
            left[label] -= sizes[group][label] > 0

    for group in order:
        if all(got[label] + sizes[group][label] <= target[label] for label in (0, 1)) and leaves_enough(group):
            take(group)
    while rest := [group for group in order if group not in taken and leaves_enough(group)]:
        # No part may go without a class, however small its share.
        needed = [group for group in rest if any(sizes[group][label] and not got[label] for label in (0, 1))]
        nearest = min(needed or rest, key=distance)
        if not needed and distance(nearest) >= sum(abs(got[label] - target[label]) for label in (0, 1)):
            break
        take(nearest)
    return sorted(taken)
