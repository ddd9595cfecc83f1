"""Read CT slices from a file of any common kind as 8-bit greys."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ctscan.core.errors import UserError
from ctscan.images.greys import Greys
from ctscan.images.kinds import DICOM, MAX_UNPACKED, NIFTI, PICTURES, UNREAD, look, read_content
from ctscan.images.pictures import decode_picture, in_colour

import numpy as np
from PIL import Image

EXTENSIONS = {  # of files of slices, and the kind that each promises; what a file holds is told by its content
    ".bmp": "BMP",
    ".dcm": DICOM,
    ".dicom": DICOM,
    ".gif": "GIF",
    ".ima": DICOM,
    ".j2k": "JPEG2000",
    ".jfif": "JPEG",
    ".jp2": "JPEG2000",
    ".jpe": "JPEG",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".nii": NIFTI,
    ".pgm": "PPM",
    ".png": "PNG",
    ".pnm": "PPM",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
HOUNSFIELD = "HU"  # the mode of slices in Hounsfield units
_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "LA", HOUNSFIELD)


class Slice(NamedTuple):
    """A slice: `pixels` uint8 (H, W); the colour `mode` that Pillow found, or HU; the `format`, one of `kinds.READ`."""

    pixels: Greys
    mode: str
    format: str


def read_slice(path: Path) -> Greys:
    """The greys of a file that holds one slice, uint8 (H, W), 0 black to 255 white.

    An image file is turned upright by its EXIF orientation. Its colours become luma (ITU-R BT.601: .299 R + .587 G +
    .114 B), which leaves a grey (v, v, v) at v. Transparency is composited on black: alpha 255 changes nothing, alpha 0
    is black. Greys of more than 8 bits are scaled by the bits that the file declares, so that the highest value is 255,
    and inverted where it says that 0 is white. DICOM and NIfTI give Hounsfield units, of which a lung window is taken.
    All may be packed by gzip.

    Raises:
        pictures.UnlikelyGreysError: an image uses a small part of its bits.
        UserError: the file is absent, empty, truncated, no image, of several slices, of more than 16.8 million
            (4096 * 4096) pixels, of values without a defined white (floating point, signed, over 16 bits), in a format
            that is not read, or what `dicom.read_frames` and `nifti.read_volume` refuse.
    """
    return decode(path).pixels


def load_slice(path: Path, size: int) -> Greys:
    """`read_slice` resized to uint8 (size, size): bilinear, antialiased when it shrinks, aspect ratio not kept."""
    return resize(read_slice(path), size)


def resize(pixels: Greys, size: int) -> Greys:
    """uint8 (H, W) to uint8 (size, size), as `load_slice` does it."""
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))


def decode(path: Path) -> Slice:
    """What `read_slice` reads, with the mode and format it had. Raises what `read_slice` raises."""
    found = slices(path)
    first, second = next(found, None), next(found, None)
    if second is not None:
        raise UserError(f"{path}: holds several frames; export each slice as a file of its own")
    if isinstance(first, UserError):
        raise first
    if first is None:
        raise UserError(f"{path}: holds no slice; export it again, or remove the file")
    return first


def slices(path: Path) -> Iterator[Slice | UserError]:
    """The slices of a file, one at a time: one of an image file, all frames of DICOM, all axial slices of NIfTI.

    Yields:
        A slice, or the fault of one that can't be read, while the others of its file can.

    Raises:
        UserError: what `read_slice` raises, where it is not of one slice among several.
    """
    held = look(path)
    promised = EXTENSIONS.get(path.suffix.lower())
    if held.kind == DICOM or (held.kind is None and promised == DICOM):
        from ctscan.images.dicom import read_frames  # pydicom takes a while to import, and most files are images

        for greys in read_frames(path, read_content(path, held.packed, MAX_UNPACKED)):
            yield greys if isinstance(greys, UserError) else Slice(greys, HOUNSFIELD, DICOM)
    elif held.kind == NIFTI:
        from ctscan.images.nifti import read_volume  # nibabel takes a while, too

        for greys in read_volume(path, read_content(path, held.packed, MAX_UNPACKED)):
            yield greys if isinstance(greys, UserError) else Slice(greys, HOUNSFIELD, NIFTI)
    elif held.kind in UNREAD:
        raise UserError(f"{path}: holds {held.kind}, which is not read here; {UNREAD[held.kind]}, or remove it")
    elif held.kind is not None and held.kind not in PICTURES:
        raise UserError(f"{path}: not a readable image (it holds a {held.kind}); give the slices themselves")
    else:
        yield Slice(*decode_picture(path, read_content(path, held.packed)))


def shows_colour(path: Path, found: Slice) -> bool:
    """Whether `found`, the slice of the file at `path`, was in colour, of which the greys show the luma alone."""
    return found.mode not in _GREY_MODES and in_colour(read_content(path, look(path).packed))
