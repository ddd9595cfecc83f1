"""One CT slice from a file of any common kind to 8-bit greys."""

import threading
import warnings
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from ctscan.core.errors import UserError

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

Greys = npt.NDArray[np.uint8]

# Named, so that no decoder that starts another program (EPS) or fetches anything can be reached by a file's content.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
EXTENSIONS = {  # of files in a dataset, and the format that each promises
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".pgm": "PPM",
    ".png": "PNG",
    ".pnm": "PPM",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}
MAX_PIXELS = 4096 * 4096  # 32 times the area of a 512x512 CT slice
MAX_BYTES = 128 * 2**20  # room for MAX_PIXELS uncompressed

# Filters of warnings belong to the whole process: one thread at a time may exchange them.
_filters = threading.Lock()


class Slice(NamedTuple):
    """A decoded file: `pixels` uint8 (H, W), and the colour `mode` and `format` that Pillow found in it."""

    pixels: Greys
    mode: str
    format: str


def read_slice(path: Path) -> Greys:
    """The greys of an image file, uint8 (H, W), 0 black to 255 white, upright by its EXIF orientation.

    Colours become luma (ITU-R BT.601: .299 R + .587 G + .114 B), which leaves a grey (v, v, v) at v. Transparency is
    composited on black: alpha 255 changes nothing, alpha 0 is black. 16-bit greys are divided by 257 and rounded,
    so that 65535 is 255.

    Raises:
        UserError: the file is absent, empty, truncated, no image, animated, of more than 16.8 million (4096 * 4096)
            pixels, or of values without a defined white (floating point, over 16 bits).
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
    content = _read(path)
    try:
        # Decoding stops at the last row: only this notices a PNG with damaged checksums or without its end.
        _open(content).verify()
        image = _open(content)
        animated = getattr(image, "is_animated", False)
        if not animated and _area(image) <= MAX_PIXELS:
            image.load()
            upright = ImageOps.exif_transpose(image)
            return Slice(_greys(upright, path), image.mode, str(image.format))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(_oversized(path)) from None
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(_unreadable(path, "its content is none of " + ", ".join(FORMATS))) from None
    except Exception as error:  # decoders meet damaged content with errors of any type
        raise UserError(_unreadable(path, " ".join(str(error).split()) or type(error).__name__)) from None
    if animated:
        raise UserError(f"{path}: holds several frames; export each slice as a file of its own")
    raise UserError(_oversized(path))


def _read(path: Path) -> bytes:
    if not path.exists():
        raise UserError(f"{path}: no such file; restore it, or correct the path")
    if not path.is_file():  # opening a pipe would wait for ever
        raise UserError(f"{path}: not a regular file; put the image itself there")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(_oversized(path))
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions and the disk") from None
    if not content:
        raise UserError(f"{path}: empty (0 bytes); fetch or export it again, or remove the file")
    return content


def _open(content: bytes) -> Image.Image:
    """The header alone is read here, so the lock doesn't keep threads from decoding side by side."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(BytesIO(content), formats=FORMATS)


def _area(image: Image.Image) -> int:
    return image.width * image.height


def _unreadable(path: Path, why: str) -> str:
    return f"{path}: not a readable image ({why}); fetch or export it again, or remove the file"


def _oversized(path: Path) -> str:
    return (
        f"{path}: absurdly large for a CT slice (over {MAX_PIXELS / 1e6:.1f} million pixels or "
        f"{MAX_BYTES // 2**20} MiB); export it smaller, or remove the file"
    )


def _greys(image: Image.Image, path: Path) -> Greys:
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UserError(f"{path}: values outside 0..65535 have no defined white; export it with 8 or 16 bits")
        return ((values + 128) // 257).astype(np.uint8)
    if image.mode == "F":
        raise UserError(f"{path}: floating-point values have no defined white; export it with 8 or 16 bits")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return np.array(Image.composite(layered.convert("L"), Image.new("L", image.size), layered.getchannel("A")))
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return np.array(image.convert("L"))
