"""Check a dataset folder, two class folders and an optional groups.csv, as a whole before anything uses it."""

import csv
import hashlib
import os
import re
import sys
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ctscan.core.errors import UserError
from ctscan.core.params import Classes
from ctscan.images.decode import EXTENSIONS, HOUNSFIELD, decode, resize
from ctscan.images.greys import Greys
from ctscan.images.kinds import READ, UNREAD, check_file, look
from ctscan.images.pictures import UnlikelyGreysError
from ctscan.split.duplicates import THUMBNAIL, Pairs, find_copies

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

GROUPS_FILE = "groups.csv"
PROBE_SIZE = 28  # pixels, square, of the thumbnails that the leak probe compares
SHOWN_WARNINGS = 10
_AT_ONCE = 1024  # files that threads are given: a pool keeps a record of each file that waits
# How a dataset of the repository is fetched.
_FETCH = {"data": "run `ctscan data`", "sample": "run `dvc pull sample`"}


class Scan(NamedTuple):
    """What `scan` found in a dataset folder, with n images in natural order of their path.

    `manifest` has n rows, `copies` are the positions (m, 2) of pairs of copies by hash (see `duplicates.find_copies`),
    and `thumbnails`, uint8 (n, 28, 28), are those of the leak probe.
    """

    manifest: pd.DataFrame
    copies: Pairs
    thumbnails: Greys


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts `Covid (2)` before `Covid (10)`."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if part.isdecimal() else part for part in parts], name


def scan(folder: Path, classes: Classes, min_size: int) -> Scan:
    """Decode every file of a dataset folder fully, once, and find it sound.

    Args:
        folder: holds one folder for each class and, optionally, groups.csv (columns path, group).
        classes: the names of the two class folders.
        min_size: least width and height, in pixels.

    Returns:
        The manifest has a row for each image, in natural order of `path`:
        path (posix, relative to `folder`), label (1 positive class, 0 negative), width and height (pixels, upright),
        mode (Pillow's, as stored), pixel_hash (SHA-256 of the greys and their shape), perceptual_hash (hex of 256 bits,
        see `perceptual_hash`), listed_group (groups.csv's; None without that file).
        Its `attrs["warnings"]` is the list of what is odd but harmless; its size and first lines are printed, too.

    Raises:
        UserError: the folder is absent, or a line for every fault found, each `path: what is wrong; what to do`.
    """
    errors: list[str] = []
    oddities: list[str] = []
    listed = [
        (path, label)
        for name, label in ((classes.negative, 0), (classes.positive, 1))
        for path in _class_files(folder, name, errors, oddities)
    ]
    _check_top_level(folder, classes, errors, oddities)

    rows: list[dict[str, Any]] = []
    dark: defaultdict[Path, list[UnlikelyGreysError]] = defaultdict(list)
    with warnings.catch_warnings():
        # Pillow warns of damage that it can live with: we don't.
        warnings.simplefilter("error", UserWarning)
        results = _examine_all(folder, [path for path, _ in listed], min_size)
        progress = tqdm(results, total=len(listed), desc=f"checking {folder}", unit="file", disable=None)
        for (path, label), result in zip(listed, progress, strict=True):
            if isinstance(result, UnlikelyGreysError):
                dark[path.parent].append(result)
                continue
            if isinstance(result, UserError):
                errors.append(str(result))
                continue
            kind = result.pop("format")
            if kind != EXTENSIONS.get(path.suffix.lower(), kind):
                oddities.append(f"{path}: holds another image format than its name says")
            rows.append({"path": path.relative_to(folder).as_posix(), "label": label, **result})
    rows.sort(key=lambda row: natural_key(row["path"]))
    for place, found in dark.items():
        count = f"{place}: {len(found)} images use few of the greys that they declare; the first is "
        several = count if len(found) > 1 else ""
        errors.append(f"{several}{found[0]}")
    oddities += _mixed_windows(folder, classes, rows)
    thumbnails = [row.pop("probe") for row in rows]
    copies = _check_copies(folder, rows, [row.pop("thumbnail") for row in rows], errors, oddities)

    # A file with a fault of its own still counts as an image that groups.csv has to list.
    paths = [path.relative_to(folder).as_posix() for path, _ in listed]
    groups = read_groups(folder / GROUPS_FILE, paths, errors)
    if errors:
        noun = "fault" if len(errors) == 1 else "faults"
        raise UserError("\n  ".join([f"{folder}: {len(errors)} {noun}, nothing was changed", *errors]))
    print_warnings(str(folder), oddities)
    manifest = pd.DataFrame(rows)
    manifest["listed_group"] = [groups[path] for path in manifest["path"]] if groups else None
    manifest.attrs["warnings"] = oddities
    return Scan(manifest, copies, np.stack(thumbnails))


def _mixed_windows(folder: Path, classes: Classes, rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line where some images alone are in Hounsfield units: the look of a window may then tell the classes apart."""
    counts = []
    for label, name in enumerate((classes.negative, classes.positive)):
        modes = [row["mode"] == HOUNSFIELD for row in rows if row["label"] == label]
        counts.append((sum(modes), len(modes), name))
    if sum(counted for counted, _, _ in counts) in (0, len(rows)):
        return []
    shares = " and ".join(f"{counted} of {total} images of class {name}" for counted, total, name in counts)
    return [
        f"{folder}: {shares} are in Hounsfield units (DICOM, NIfTI) and get the lung window; nobody knows the window "
        "of the others, which may tell the classes apart"
    ]


def perceptual_hash(pixels: Greys) -> str:
    """64 hex digits: pHash with 16 x 16 = 256 bits (signs of the low frequencies of a DCT around their median).

    Chosen by measurement on CT slices. JPEG at quality 50, halving, doubling and forcing to 224x224 change at most
    4 of the 256 bits, whereas neighbouring slices differ in 6 or more. A dHash changes by up to 23 bits under the
    same edits, and 64 bits are too few: with them 22 pairs of neighbouring slices share one pHash.
    """
    bits = imagehash.phash(Image.fromarray(pixels), hash_size=16).hash
    return np.packbits(bits).tobytes().hex()


def _examine_all(folder: Path, paths: Sequence[Path], min_size: int) -> Iterator[dict[str, Any] | UserError]:
    """`_examine` of each of `paths`, in their order. Pillow releases the interpreter lock while it decodes."""
    home = folder.resolve()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), _AT_ONCE):
            yield from pool.map(lambda path: _examine(home, path, min_size), paths[start : start + _AT_ONCE])


def _examine(home: Path, path: Path, min_size: int) -> dict[str, Any] | UserError:
    """What one image adds to the manifest, and its format; or its fault, so that the others are still looked at."""
    try:
        _check_location(home, path)
        found = decode(path)
        height, width = found.pixels.shape
        if min(width, height) < min_size:
            raise UserError(
                f"{path}: {width}x{height} pixels, below checks.min_size = {min_size}; "
                "export it larger, or remove the file"
            )
        if found.pixels.min() == found.pixels.max():
            raise UserError(f"{path}: constant, every pixel is {found.pixels.min()}; export it again, or remove it")
    except UserError as error:
        return error
    return {
        "width": width,
        "height": height,
        "mode": found.mode,
        "format": found.format,
        "pixel_hash": hashlib.sha256(repr(found.pixels.shape).encode() + found.pixels.tobytes()).hexdigest(),
        "perceptual_hash": perceptual_hash(found.pixels),
        "thumbnail": resize(found.pixels, THUMBNAIL),
        "probe": resize(found.pixels, PROBE_SIZE),
    }


def _check_location(home: Path, path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!a}: its name is not valid UTF-8; rename it") from None
    check_file(path)  # first: a link to itself can't be resolved
    target = path.resolve()
    if not target.is_relative_to(home) and not _is_in_dvc_cache(target):
        raise UserError(f"{path}: a link out of the dataset; put the file itself there")


def _is_in_dvc_cache(target: Path) -> bool:
    """Whether a link leads to an object of a cache of DVC, which links with `cache.type = symlink`, by its place."""
    return re.fullmatch(r"files/md5/[0-9a-f]{2}/[0-9a-f]{30}", "/".join(target.parts[-4:])) is not None


def _class_files(folder: Path, name: str, errors: list[str], oddities: list[str]) -> list[Path]:
    """The images of one class by name or content; everything else in its folder is a warning or an error."""
    spelled = _spelled(name, _names(folder))
    place = folder / spelled
    if not spelled or not place.is_dir():
        errors.append(f"{folder / name}: no such class folder; create it, or correct `classes` in params.yaml")
        return []
    files = []
    for entry in (place / child for child in _names(place)):
        if entry.name.startswith("."):
            oddities.append(f"{entry}: hidden, ignored")
        elif entry.is_dir():
            errors.append(f"{entry}: a folder inside a class folder; move its images up, or remove it")
        elif entry.suffix.lower() in EXTENSIONS:
            files.append(entry)
        else:
            held = _held(entry)
            if held in UNREAD:
                errors.append(f"{entry}: holds {held}, which is not read here; {UNREAD[held]}, or remove it")
            elif held in READ:
                files.append(entry)
            else:
                oddities.append(f"{entry}: no image by its content, ignored")
    if not files:
        errors.append(f"{place}: holds no image; {_FETCH.get(folder.name, 'put the images of this class there')}")
    return files


def _spelled(name: str, entries: Sequence[str]) -> str:
    """`name` as it is spelled among `entries`, of which some file systems keep accents in another form; else "".

    Case has to be right, even where the system doesn't care: the pipeline runs on others, too.
    """
    return name if name in entries else next((entry for entry in entries if _composed(entry) == _composed(name)), "")


def _composed(name: str) -> str:
    """With accents in one character (NFC): macOS writes them as two (NFD), and what is typed has one."""
    return unicodedata.normalize("NFC", name)


def _held(path: Path) -> str | None:
    try:
        return look(path).kind
    except UserError:
        return None


def _check_top_level(folder: Path, classes: Classes, errors: list[str], oddities: list[str]) -> None:
    for entry in (folder / name for name in _names(folder)):
        if _composed(entry.name) in (_composed(classes.positive), _composed(classes.negative), GROUPS_FILE):
            continue
        if entry.name.startswith("."):
            oddities.append(f"{entry}: hidden, ignored")
        elif entry.is_dir():
            errors.append(
                f"{entry}: unknown class folder; params.yaml names {classes.positive} and {classes.negative}: "
                "correct `classes`, or move the folder away"
            )
        else:
            oddities.append(f"{entry}: belongs to no class, ignored")


def _names(folder: Path) -> list[str]:
    try:
        return sorted((entry.name for entry in folder.iterdir()), key=natural_key)
    except FileNotFoundError:
        remedy = _FETCH.get(folder.name, "correct `dataset` in params.yaml")
        raise UserError(f"{folder}: no such dataset folder; {remedy}") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); check `dataset` and its permissions") from None


def _check_copies(
    folder: Path, rows: Sequence[dict[str, Any]], thumbnails: Sequence[Greys], errors: list[str], oddities: list[str]
) -> Pairs:
    """The pairs of copies by hash. Each copy is reported beside the first image with its pixels, or that is like it."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        original = first.setdefault(row["pixel_hash"], row)
        if original["label"] != row["label"]:
            errors.append(
                f"{folder / row['path']}: the same pixels as {folder / original['path']} in the other class; "
                "remove the one that is wrong"
            )
        elif original is not row:
            oddities.append(f"{folder / row['path']}: the same pixels as {folder / original['path']}")
    if not rows:
        return np.empty((0, 2), np.intp)
    copies = find_copies(pd.DataFrame(rows), np.stack(thumbnails))
    reported: set[tuple[int, bool]] = set()  # once a row and class, beside its first original
    for earlier, later in copies.pairs:
        one, other = rows[earlier], rows[later]
        alike = one["label"] == other["label"]
        if one["pixel_hash"] == other["pixel_hash"] or (later, alike) in reported:
            continue
        reported.add((later, alike))
        line = f"{folder / other['path']}: a copy of {folder / one['path']}"
        if alike:
            oddities.append(f"{line}, saved again or resized")
        else:
            errors.append(f"{line} in the other class, saved again or resized; remove the one that is wrong")
    return copies.pairs[copies.by_hash]


def read_groups(path: Path, images: Iterable[str], errors: list[str]) -> dict[str, str]:
    """The group of each image by groups.csv, {} without one or with one that has faults, each a line in `errors`."""
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = [row for row in csv.reader(stream, strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        errors.append(f"{path}: not a readable CSV file in UTF-8 ({error}); write it again with columns path,group")
        return {}
    if not lines or lines[0] != ["path", "group"]:
        errors.append(f"{path}: its first line is not `path,group`; write that header")
        return {}
    groups: dict[str, str] = {}
    unlisted = set(images)
    known = frozenset(unlisted)
    composed = {_composed(name): name for name in sorted(known)}
    faults = []
    for line in lines[1:]:
        shown = ",".join(line)
        row = [line[0] if line[0] in known else composed.get(_composed(line[0]), line[0]), *line[1:]]
        if len(row) != 2 or not row[1].strip():
            faults.append(f"{path}: the line `{shown}` is not a path and a group; correct it")
        elif row[0] not in known:
            faults.append(f"{path}: `{row[0]}` is no image of this dataset; remove the line, or correct the path")
        elif row[0] in groups:
            faults.append(f"{path}: `{row[0]}` is listed twice; remove one line")
        else:
            groups[row[0]] = row[1].strip()
        unlisted.discard(row[0])
    faults += [f"{path}: `{name}` is not listed; add a line for it" for name in sorted(unlisted, key=natural_key)]
    errors += faults
    return {} if faults else groups


def print_warnings(of: str, oddities: Sequence[str]) -> None:
    """How many `oddities` there are, and the first of them, on stderr."""
    if not oddities:
        return
    noun = "warning" if len(oddities) == 1 else "warnings"
    print(f"{of}: {len(oddities)} {noun}", *oddities[:SHOWN_WARNINGS], sep="\n  ", file=sys.stderr)
    if len(oddities) > SHOWN_WARNINGS:
        print(f"  and {len(oddities) - SHOWN_WARNINGS} more", file=sys.stderr)
