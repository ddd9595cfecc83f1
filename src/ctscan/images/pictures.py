"""Decode an image file (PNG, JPEG, TIFF, ...) to 8-bit greys, by the bits and the polarity that it declares."""

import threading
import warnings
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from ctscan.core.errors import UserError
from ctscan.images.greys import MAX_PIXELS, Greys
from ctscan.images.kinds import HEAD, MAX_BYTES, PICTURES, kind

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

# Named, so that no decoder that starts another program (EPS) or fetches anything can be reached by a file's content.
FORMATS = PICTURES
LEAST_GREYS = 16  # between the lowest and the highest value of an image of 8 bits, at least
LEAST_SPAN = 0.25  # share of white between the lowest and the highest value of an image of over 8 bits, at least
TINTED = 0.01  # share of pixels whose channels differ by over 32 of 255, from which an image is in colour

_BITS, _POLARITY, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
_SIGNED = 2
# Grey TIFF that Pillow's decoders read, though its table (byte order, polarity, sample format, fill order, bits, extra
# samples) does not list it. Polarity 0 (WhiteIsZero) is not inverted there: `_greys` does it.
TiffImagePlugin.OPEN_INFO.update(
    {
        (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
        (b"MM", 1, (1,), 1, (12,), ()): ("I;16", "I;12"),
        (b"MM", 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
        (b"II", 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
    }
)
# Filters of warnings belong to the whole process: one thread at a time may exchange them.
_filters = threading.Lock()


class UnlikelyGreysError(UserError):
    """An image that uses a small part of its bits: its greys are not what it declares, most likely."""


class Picture(NamedTuple):
    """A decoded image file: `pixels` uint8 (H, W), and the colour `mode` and `format` that Pillow found in it."""

    pixels: Greys
    mode: str
    format: str


def decode_picture(path: Path, content: bytes) -> Picture:
    """The greys of an image file, upright by its EXIF orientation; `path` is for messages.

    Raises:
        UnlikelyGreysError: it has more than 8 bits, and its values span less than a quarter of them (12 bits in 16, or
            Hounsfield units with an offset), or lie at both ends alone (signed numbers, written as unsigned). Or it has
            8 bits, and fewer than 16 greys between its lowest and highest value (a mask).
        UserError: what `decode.read_slice` says of image files.
    """
    try:
        # Decoding stops at the last row: only this notices a PNG with damaged checksums or without its end.
        _open(content).verify()
        image = _open(content)
        animated = getattr(image, "is_animated", False)
        if not animated and image.width * image.height <= MAX_PIXELS:
            _check_unsigned(image, content, path)
            image.load()
            pixels = _greys(image, content, path)
            return Picture(pixels, image.mode, str(image.format))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(_oversized(path)) from None
    except UserError:
        raise
    except UnidentifiedImageError:
        held = kind(content[:HEAD])
        why = f"a {held} that is damaged, or of a variant that is not read" if held in FORMATS else None
        raise UserError(_unreadable(path, why or "its content is none of " + ", ".join(FORMATS))) from None
    except Exception as error:  # decoders meet damaged content with errors of any type
        raise UserError(_unreadable(path, " ".join(str(error).split()) or type(error).__name__)) from None
    if animated:
        raise UserError(f"{path}: holds several frames; export each slice as a file of its own")
    raise UserError(_oversized(path))


def in_colour(content: bytes) -> bool:
    """Whether an image file shows colours: colour modes often hold greys alone, as the study's do. Pixels decide."""
    with _open(content) as image:
        factor = max(1, min(image.size) // 128)
        small = image.reduce(factor) if image.mode in ("RGB", "RGBA") else image.convert("RGBA").reduce(factor)
    channels = np.asarray(small, np.int64)[..., :3]
    return bool((np.ptp(channels, axis=-1) > 32).mean() > TINTED)


def _open(content: bytes) -> Image.Image:
    """The header alone is read here, so the lock doesn't keep threads from decoding side by side."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(BytesIO(content), formats=FORMATS)


def _unreadable(path: Path, why: str) -> str:
    return f"{path}: not a readable image ({why}); fetch or export it again, or remove the file"


def _oversized(path: Path) -> str:
    return (
        f"{path}: absurdly large for a CT slice (over {MAX_PIXELS / 1e6:.1f} million pixels or "
        f"{MAX_BYTES // 2**20} MiB); export it smaller, or remove the file"
    )


def _tag(image: Image.Image, tag: int, default: int) -> int:
    """The first value of a TIFF tag; `default` where there is none, and in other formats."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return default
    value = image.tag_v2.get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _check_unsigned(image: Image.Image, content: bytes, path: Path) -> None:
    in_tiff = _tag(image, _SAMPLE_FORMAT, 1) == _SIGNED and _tag(image, _BITS, 1) <= 16
    if in_tiff or (image.format == "JPEG2000" and _precision(content) & 0x80):
        raise UserError(f"{path}: signed values have no defined black and white; export it with unsigned values")


def _greys(image: Image.Image, content: bytes, path: Path) -> Greys:
    """Of a loaded image; `content` is its file."""
    upright = ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(upright).astype(np.int64)
        bits = _declared_bits(image, content, int(values.max()))
        white = 2**bits - 1
        if image.format == "JPEG2000":
            values >>= 16 - bits  # Pillow shifts them to 16 bits
        if values.min() < 0 or values.max() > white:
            raise UserError(f"{path}: values outside 0..{white} have no defined white; export it with 8 or 16 bits")
        if _tag(image, _POLARITY, 1) == 0:
            values = white - values
        _check_range(values, white, path)
        greys: Greys = ((values * 255 + white // 2) // white).astype(np.uint8)
        return greys
    if image.mode == "F":
        raise UserError(f"{path}: floating-point values have no defined white; export it with 8 or 16 bits")
    pixels = _luma(upright)
    if _is_deep(image, content):  # Pillow has kept the upper 8 bits of each channel
        _check_range(pixels, 255, path)
    elif 0 < np.ptp(pixels) < LEAST_GREYS:
        raise UnlikelyGreysError(
            f"{path}: its values are {pixels.min()} to {pixels.max()} of 255, as of a mask, or of 4 bits in 8; save it "
            "with black at 0 and white at 255, or remove it"
        )
    return pixels


def _luma(image: Image.Image) -> Greys:
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return np.array(Image.composite(layered.convert("L"), Image.new("L", image.size), layered.getchannel("A")))
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return np.array(image.convert("L"))


def _check_range(values: np.ndarray, white: int, path: Path) -> None:
    """Raise `UnlikelyGreysError` for `values` from 0 to `white` that no slice with black and white has."""
    low, high = int(values.min()), int(values.max())
    between = (values > white // 8) & (values < white - white // 8)
    if low == high or (high - low >= LEAST_SPAN * white and between.any()):
        return
    # Of colours of 16 bits a channel, Pillow has kept the upper 8.
    held = f"about {low * 257} to {high * 257} of 65535" if white == 255 else f"{low} to {high} of {white}"
    if high - low >= LEAST_SPAN * white:
        held += ", and none between the ends, as of signed numbers written as unsigned"
    raise UnlikelyGreysError(
        f"{path}: its values are {held}, so they are not greys from black to white as it declares; save it with black "
        "at 0 and white at the highest value, with its bits declared (TIFF BitsPerSample), or with 8 bits"
    )


def _declared_bits(image: Image.Image, content: bytes, brightest: int) -> int:
    """How many bits the greys of a file of over 8 bits have, 9 to 16, by what it declares itself.

    A PNG has 16, and may declare that fewer are significant (sBIT). By the standard those are the upper ones; where
    all values fit into the lower ones, the writer has not shifted them.
    """
    if image.format == "TIFF":
        bits = _tag(image, _BITS, 16)
        return bits if 8 < bits < 16 else 16
    if image.format == "JPEG2000":
        bits = (_precision(content) & 0x7F) + 1
        return bits if 8 < bits < 16 else 16
    if image.format == "PNG":
        bits = _significant_bits(content)
        return bits if 8 < bits < 16 and brightest < 2**bits else 16
    return 16  # Pillow scales PGM to 16 bits by its own highest value


def _precision(jpeg2000: bytes) -> int:
    """The byte Ssiz of the first component: the number of bits less 1, and 128 more where values are signed."""
    start = jpeg2000.find(b"\xff\x4f\xff\x51")  # the markers SOC and SIZ
    return jpeg2000[start + 42] if 0 <= start < len(jpeg2000) - 42 else 15


def _significant_bits(png: bytes) -> int:
    """The first number of a PNG's chunk sBIT, 16 without one."""
    position = 8
    while position + 12 <= len(png):
        length, name = int.from_bytes(png[position : position + 4], "big"), png[position + 4 : position + 8]
        if name == b"sBIT" and length:
            return png[position + 8]
        if name == b"IDAT":
            break
        position += 12 + length
    return 16


def _is_deep(image: Image.Image, content: bytes) -> bool:
    """Whether the file has more than 8 bits a channel."""
    if image.format == "PNG":
        return content[24] == 16
    return _tag(image, _BITS, 8) > 8
