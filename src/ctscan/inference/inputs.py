"""Slices from anywhere: files, folders and globs of images and DICOM, each checked as the pipeline checks its own."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ctscan.core.errors import UserError
from ctscan.images.decode import EXTENSIONS, Greys, decode, resize

import numpy as np
from PIL import Image

DICOM = {".dcm", ".dicom", ".ima", ""}  # scanners often give no extension
TINTED = 0.01  # share of pixels whose channels differ by over 32 of 255, from which an image is in colour


class Incoming(NamedTuple):
    """A slice of a file, its `pixels` uint8 (s, s); of a multi-frame file, one frame, numbered from 1."""

    path: Path
    frame: int | None
    pixels: Greys
    colour: bool

    @property
    def name(self) -> str:
        """The path, and the number of a frame; bytes that are not UTF-8 are escaped, so that it can be written."""
        text = str(self.path).encode("utf-8", "backslashreplace").decode()
        return text if self.frame is None else f"{text}#{self.frame}"


def find(given: Sequence[str], faults: list[str]) -> list[Path]:
    """The files that PATHs name, each once: a file as given, a glob's matches, a folder's images however deep.

    In a folder, files are taken by extension, or by content where they have none; hidden ones are left out. What leads
    nowhere adds a line to `faults`.
    """
    files: dict[Path, None] = {}
    for text in given:
        matches = [text] if os.path.lexists(text) else sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - takes absolute ones
        if not matches:
            faults.append(f"{text}: no such file or folder; correct the path")
        for path in map(Path, matches):
            found = _below(path, faults) if path.is_dir() else [path]
            if not found and len(matches) == 1:
                faults.append(f"{path}: no image in this folder (PNG, JPEG, TIFF, BMP, DICOM); correct the path")
            files.update(dict.fromkeys(found))
    return list(files)


def read(path: Path, size: int, min_size: int) -> list[Incoming]:
    """The slices of one file, resized to (size, size) as the pipeline does it.

    Raises:
        UserError: what `decode.decode` and `dicom.read_frames` raise, and as prepare-split would refuse the image: a
            side below `min_size` pixels, or every pixel the same.
    """
    try:
        if path.is_file() and _is_dicom(path):
            from ctscan.inference.dicom import (
                read_frames,  # pydicom takes a while to import, and most folders hold images
            )

            frames = [_checked(path, pixels, size, min_size) for pixels in read_frames(path)]
            several = len(frames) > 1
            return [Incoming(path, at if several else None, pixels, False) for at, pixels in enumerate(frames, 1)]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions and the disk") from None
    found = decode(path)
    pixels = _checked(path, found.pixels, size, min_size)
    return [Incoming(path, None, pixels, found.mode not in ("1", "L", "I", "I;16", "LA") and _in_colour(path))]


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        marked = file.read(132)[128:] == b"DICM"
    return marked or path.suffix.lower() in DICOM - {""}


def _below(folder: Path, faults: list[str]) -> list[Path]:
    files = []

    def refused(error: OSError) -> None:
        faults.append(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions")

    for place, folders, names in os.walk(folder, onerror=refused):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(place, name) for name in sorted(names) if not name.startswith(".")):
            suffix = path.suffix.lower()
            if suffix in EXTENSIONS or (
                suffix in DICOM and path.name != "DICOMDIR" and (suffix or _is_dicom_file(path))
            ):
                files.append(path)
    return files


def _is_dicom_file(path: Path) -> bool:
    try:
        return path.is_file() and _is_dicom(path)
    except OSError:
        return True  # taken, so that `read` says what is wrong with it


def _checked(path: Path, pixels: Greys, size: int, min_size: int) -> Greys:
    height, width = pixels.shape
    if min(width, height) < min_size:
        raise UserError(f"{path}: {width}x{height} pixels, below checks.min_size = {min_size}; export it larger")
    if pixels.min() == pixels.max():
        raise UserError(f"{path}: constant, every pixel is {pixels.min()}; export it again")
    return resize(pixels, size)


def _in_colour(path: Path) -> bool:
    """Colour modes often hold greys alone, as the study's images do: the pixels decide."""
    with Image.open(path) as image:
        factor = max(1, min(image.size) // 128)
        small = image.reduce(factor) if image.mode in ("RGB", "RGBA") else image.convert("RGBA").reduce(factor)
    channels = np.asarray(small, np.int64)[..., :3]
    return bool((np.ptp(channels, axis=-1) > 32).mean() > TINTED)
