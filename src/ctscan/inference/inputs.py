"""Find and read the slices of files, folders and globs, each checked as the pipeline checks its own."""

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from ctscan.core.errors import UserError
from ctscan.core.params import Classes
from ctscan.images.decode import EXTENSIONS, Slice, resize, shows_colour, slices
from ctscan.images.greys import Greys
from ctscan.images.kinds import READ, UNREAD, look
from ctscan.split.folders import refresh_if_asked

GROUPS_FILE = "groups.csv"
SHOWN_FAULTS = 3  # of a file
LINKED = "link to a folder that is read anyway"


class Incoming(NamedTuple):
    """A slice of a file, its `pixels` uint8 (s, s); of a file of several slices, one of them, numbered from 1."""

    path: Path
    frame: int | None
    pixels: Greys
    colour: bool

    @property
    def name(self) -> str:
        """The path, and the number of a frame; bytes that are not UTF-8 are escaped, so that it can be written."""
        text = str(self.path).encode("utf-8", "backslashreplace").decode()
        return text if self.frame is None else f"{text}#{self.frame}"


@dataclass
class Found:
    """What PATHs lead to: `files` of slices in a fixed order, and what folders hold beside them.

    `passed` gives the reason for each file that was passed over, `refused` are images in a format that is not read.
    """

    files: list[Path] = field(default_factory=list)
    passed: dict[Path, str] = field(default_factory=dict)
    refused: list[Path] = field(default_factory=list)

    def passed_over(self) -> list[str]:
        """A line for the files that were passed over, with their number and why; none where there are none."""
        if not self.passed:
            return []
        reasons = Counter(self.passed.values())
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        some = ", ".join(str(path) for path in list(self.passed)[:3])
        more = ", ..." if len(self.passed) > 3 else ""
        noun = "file" if len(self.passed) == 1 else "files"
        return [f"{len(self.passed)} {noun} passed over, as no slices: {listed} ({some}{more})"]


def class_folders(folder: Path, classes: Classes) -> dict[int, Path]:
    """The folders of the classes in `folder` by their label, 1 = positive; without a class that has none.

    Names match in any case and in either form of accents (NFC, NFD), as they do on macOS and Windows.

    Raises:
        UserError: two folders match one class, and neither has its very name.
    """
    found: dict[int, Path] = {}
    for label, name in enumerate((classes.negative, classes.positive)):
        alike = [entry for entry in sorted(folder.iterdir()) if _folded(entry.name) == _folded(name) and entry.is_dir()]
        exact = [entry for entry in alike if entry.name == name]
        if len(alike) > 1 and not exact:
            raise UserError(
                f"{folder}: {' and '.join(entry.name for entry in alike)} may both be class {name}; rename one"
            )
        found.update((label, entry) for entry in exact or alike)
    return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def expand(text: str) -> str:
    """`text` with a leading `~` as the home folder, unless a file has that very name."""
    return text if os.path.lexists(text) else os.path.expanduser(text)  # noqa: PTH111 - a glob is no path


def find(given: Sequence[str], faults: list[str]) -> Found:
    """The files that PATHs name, each once: a file as given, a glob's matches, a folder's slices however deep.

    In a folder, and in folders that links in it lead to, files are taken by their content, or where their name promises
    slices. Hidden ones and those that hold no slices are passed over and counted. What leads nowhere, and an image in a
    format that is not read, adds a line to `faults`. What is given in split/images is made that of the split first.
    """
    files: dict[Path, None] = {}
    found = Found()
    refresh_if_asked(given)
    for text in given:
        start = expand(text)
        matches = [start] if os.path.lexists(start) else sorted(glob.glob(start, recursive=True))  # noqa: PTH207
        if not matches:
            faults.append(f"{text}: no such file or folder; correct the path")
        for path in map(Path, matches):
            taken = list(_below(path, found, faults)) if path.is_dir() else [path]
            if not taken and len(matches) == 1:
                faults.append(f"{path}: no image in this folder (PNG, JPEG, TIFF, BMP, DICOM, NIfTI); correct the path")
            files.update(dict.fromkeys(taken))
    found.files = list(files)
    return found


def read(path: Path, size: int, min_size: int) -> list[Incoming | UserError]:
    """The slices of one file, resized to (size, size) as the pipeline does it, or the fault of those that have one.

    Faults are what `decode.slices` raises, and as prepare-split would refuse the image: a side below `min_size` pixels,
    or every pixel the same. It never raises: one bad file, or one bad frame, is no reason to lose the others. Of a file
    with many bad slices, `SHOWN_FAULTS` are named and the others counted.
    """
    results: list[Incoming | UserError] = []
    try:
        found = slices(path)
        start = list(islice(found, 2))
        for number, one in enumerate(chain(start, found), 1):
            frame = number if len(start) > 1 else None
            results.append(one if isinstance(one, UserError) else _incoming(path, frame, one, size, min_size))
    except UserError as error:
        results.append(error)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        results.append(UserError(f"{path}: not readable ({reason}); remove it"))
    return _fewer_faults(path, results)


def _fewer_faults(path: Path, results: list[Incoming | UserError]) -> list[Incoming | UserError]:
    faulty = [at for at, found in enumerate(results) if isinstance(found, UserError)]
    more = faulty[SHOWN_FAULTS:]
    if len(more) < 2:
        return results
    kept = [found for at, found in enumerate(results) if at not in set(more)]
    first, last = more[0] + 1, more[-1] + 1
    return [*kept, UserError(f"{path}#{first} to #{last}: {len(more)} more slices with faults; look at those named")]


def _incoming(path: Path, frame: int | None, found: Slice, size: int, min_size: int) -> Incoming | UserError:
    name = str(path) if frame is None else f"{path}#{frame}"
    height, width = found.pixels.shape
    if min(width, height) < min_size:
        return UserError(f"{name}: {width}x{height} pixels, below checks.min_size = {min_size}; export it larger")
    if found.pixels.min() == found.pixels.max():
        return UserError(f"{name}: constant, every pixel is {found.pixels.min()}; export it again")
    return Incoming(path, frame, resize(found.pixels, size), shows_colour(path, found))


def _below(folder: Path, found: Found, faults: list[str]) -> Iterator[Path]:
    """The files of slices in `folder` and below. The others are noted in `found`, or in `faults`."""

    def refused(error: OSError) -> None:
        faults.append(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions")

    visited = {folder.resolve()}
    for place, folders, names in os.walk(folder, onerror=refused, followlinks=True):
        entered = []
        for path in (Path(place, name) for name in sorted(folders)):
            if path.name.startswith("."):
                found.passed[path] = "hidden"
            elif _is_read_anyway(path, folder, visited):
                found.passed[path] = LINKED
            else:
                visited.add(path.resolve())
                entered.append(path.name)
        folders[:] = entered
        for path in (Path(place, name) for name in sorted(names)):
            reason = _reason(path)
            if reason is None:
                yield path
            elif reason in UNREAD:
                faults.append(f"{path}: holds {reason}, which is not read here; {UNREAD[reason]}, or remove it")
                found.refused.append(path)
            elif reason:
                found.passed[path] = reason


def _is_read_anyway(path: Path, top: Path, visited: set[Path]) -> bool:
    """Whether the walk of `top` meets a folder elsewhere, too: a link back would be followed for ever."""
    target = path.resolve()
    return target in visited or (path.is_symlink() and target.is_relative_to(top.resolve()))


def _reason(path: Path) -> str | None:
    """Why a file in a folder is not one of slices; "" where nothing more is to be said, None where it is one."""
    if path.name.startswith("."):
        return "hidden"
    if path.name == GROUPS_FILE:
        return ""
    if path.suffix.lower() in EXTENSIONS:
        return None
    try:
        held = look(path).kind
    except UserError:
        return None  # taken, so that `read` says what is wrong with it
    if held in READ:
        return None
    return held or "of unknown content"
