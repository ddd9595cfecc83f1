import gzip
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import BytesIO
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.images.decode import load_slice, read_slice
from ctscan.images.greys import MAX_PIXELS, Greys
from ctscan.images.kinds import MAX_BYTES

import numpy as np
import pytest
from drawing import texture
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import png_chunk, png_of_significant_bits, tiff
from PIL import Image, ImageFile

GREYS = np.array([[0, 1, 60, 127], [128, 200, 254, 255], [9, 99, 199, 3]], np.uint8)
IMAGE = Image.fromarray(GREYS)
TWELVE = np.rint(GREYS * (4095 / 255))
HOUNSFIELD = np.array([[-1024, -1000, -850, -600], [-100, 0, 40, 400]])


def with_alpha(image: Image.Image, alpha: int) -> Image.Image:
    image = image.copy()
    image.putalpha(alpha)
    return image


def palette(transparent: bool = False) -> bytes:
    """Palette entries in reverse, so that an index is never its own grey; index 0 is white, or transparent white."""
    image = Image.fromarray(255 - GREYS).convert("P")
    image.putpalette([value for grey in range(255, -1, -1) for value in (grey, grey, grey)])
    return encode(image, "PNG", transparency=0) if transparent else encode(image, "PNG")


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def inked(greys: Greys) -> Image.Image:
    """CMYK with black ink alone."""
    none = Image.new("L", Image.fromarray(greys).size, 0)
    return Image.merge("CMYK", (none, none, none, Image.fromarray(255 - greys)))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that its few bytes of content don't keep."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + pixels + png_chunk(b"IEND", b"")


@pytest.fixture
def put(tmp_path: Path) -> Callable[[bytes], Path]:
    def put(content: bytes) -> Path:
        path = tmp_path / "Covid (1) é.png"
        path.write_bytes(content)
        return path

    return put


Put = Callable[[bytes], Path]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(encode(IMAGE, "PNG"), id="L"),
        pytest.param(encode(IMAGE, "JPEG2000"), id="JPEG2000"),
        pytest.param(encode(Image.fromarray(GREYS.astype(np.uint16) * 257), "JPEG2000"), id="I;16-JPEG2000"),
        pytest.param(gzip.compress(encode(IMAGE, "PNG")), id="gzip"),
        pytest.param(tiff(GREYS * 257.0), id="16-TIFF"),
        pytest.param(tiff(65535 - GREYS * 257.0, white_is_zero=True), id="16-TIFF-white-is-0"),
        pytest.param(tiff(65535 - GREYS * 257.0, white_is_zero=True, order=">"), id="16-TIFF-white-is-0-Motorola"),
        pytest.param(tiff(GREYS * 257.0, order=">"), id="16-TIFF-Motorola"),
        pytest.param(tiff(255 - GREYS, bits=8, white_is_zero=True), id="8-TIFF-white-is-0"),
        pytest.param(tiff(TWELVE, bits=12), id="12-TIFF"),
        pytest.param(tiff(TWELVE, bits=12, order=">"), id="12-TIFF-Motorola"),
        pytest.param(tiff(4095 - TWELVE, bits=12, white_is_zero=True), id="12-TIFF-white-is-0"),
        pytest.param(png_of_significant_bits(TWELVE, 12), id="sBIT-12-not-shifted"),
        pytest.param(png_of_significant_bits(GREYS * 257.0, 12), id="sBIT-12-shifted"),
        pytest.param(b"P5 4 3 4095\n" + TWELVE.astype(">u2").tobytes(), id="PGM-12"),
        pytest.param(encode(IMAGE.convert("RGB"), "PNG"), id="RGB"),
        pytest.param(encode(IMAGE.convert("RGBA"), "PNG"), id="RGBA-opaque"),
        pytest.param(encode(IMAGE.convert("LA"), "PNG"), id="LA-opaque"),
        pytest.param(palette(), id="P"),
        pytest.param(encode(Image.fromarray(GREYS.astype(np.uint16) * 257), "PNG"), id="I;16-PNG"),
        pytest.param(encode(Image.fromarray(GREYS.astype(np.uint16) * 257), "TIFF"), id="I;16-TIFF"),
        pytest.param(encode(Image.fromarray(GREYS.astype(np.int32) * 257), "TIFF"), id="I-TIFF"),
        pytest.param(encode(inked(GREYS), "TIFF"), id="CMYK-TIFF"),
        pytest.param(encode(IMAGE, "BMP"), id="BMP"),
        pytest.param(encode(IMAGE, "GIF"), id="GIF"),
        pytest.param(encode(IMAGE, "PPM"), id="PGM"),
        pytest.param(encode(IMAGE, "WEBP", lossless=True), id="WEBP"),
    ],
)
def test_every_lossless_kind_gives_the_greys_it_holds(content: bytes, put: Put) -> None:
    pixels = read_slice(put(content))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, GREYS)


def test_16_bits_are_rounded_not_cut(put: Put) -> None:
    deep = np.array([[0, 128, 129, 32896, 65407, 65406, 65535]], np.uint16)
    assert read_slice(put(encode(Image.fromarray(deep), "PNG"))).tolist() == [[0, 0, 1, 128, 255, 254, 255]]


def test_colour_becomes_luma(put: Put) -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert read_slice(put(encode(Image.fromarray(colours), "PNG"))).tolist() == [[76, 150, 29]]


def test_one_bit_is_black_and_white(put: Put) -> None:
    bits = Image.fromarray(np.array([[0, 255, 255, 0]], np.uint8)).convert("1")
    assert read_slice(put(encode(bits, "PNG"))).tolist() == [[0, 255, 255, 0]]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_transparency_is_composited_on_black(mode: str, put: Put) -> None:
    half = read_slice(put(encode(with_alpha(IMAGE.convert(mode), 128), "PNG")))
    np.testing.assert_allclose(half, GREYS * (128 / 255), atol=0.51)
    assert not read_slice(put(encode(with_alpha(IMAGE.convert(mode), 0), "PNG"))).any()


def test_a_transparent_palette_entry_is_black(put: Put) -> None:
    np.testing.assert_array_equal(read_slice(put(palette(transparent=True))), np.where(GREYS == 255, 0, GREYS))


def test_cmyk_jpeg_is_not_inverted(put: Put) -> None:
    greys = np.repeat(np.array([[0, 80, 160, 255]], np.uint8), 8, axis=0).repeat(8, axis=1)
    pixels = read_slice(put(encode(inked(greys), "JPEG", quality=100)))
    np.testing.assert_allclose(pixels, greys, atol=2)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(2, np.fliplr), (3, lambda a: np.rot90(a, 2)), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)],
)
def test_exif_orientation_is_applied_once(
    kind: str, orientation: int, turn: Callable[[Greys], Greys], put: Put
) -> None:
    greys = texture(5, 16, 24)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if kind == "JPEG" else {}
    pixels = read_slice(put(encode(Image.fromarray(greys), kind, exif=exif, **options)))
    np.testing.assert_allclose(pixels, turn(greys), atol=3 if kind == "JPEG" else 0)


def test_load_slice_is_square_and_antialiased(put: Put) -> None:
    stripes = np.tile(np.array([0, 200], np.uint8), (64, 32))
    small = load_slice(put(encode(Image.fromarray(stripes), "PNG")), 8)
    assert small.shape == (8, 8)
    assert small.dtype == np.uint8
    np.testing.assert_allclose(small, 100, atol=8)  # picking single pixels would give 0 or 200
    np.testing.assert_array_equal(load_slice(put(encode(IMAGE.resize((7, 7)), "PNG")), 7), IMAGE.resize((7, 7)))


def rgb16_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow doesn't write."""
    height, width = values.shape
    lines = np.dstack([values] * 3).astype(">u2").reshape(height, -1).view(np.uint8)
    content = np.insert(lines, 0, 0, axis=1).tobytes()  # each line begins with its filter
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(content)) + png_chunk(b"IEND", b"")


PNG = encode(Image.fromarray(texture(1)), "PNG")
SECOND = Image.fromarray(texture(2))


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        pytest.param(b"", "empty (0 bytes)", "fetch or export it again", id="empty"),
        pytest.param(b"not an image\n" * 9, "its content is none of", "fetch or export it again", id="text"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of", "export it again", id="eps"),
        pytest.param(PNG[: len(PNG) // 2], "not a readable image", "fetch or export it again", id="truncated"),
        pytest.param(PNG[:-12], "not a readable image", "fetch or export it again", id="without-end"),
        pytest.param(
            encode(Image.fromarray(texture(1)), "JPEG")[:-200], "truncated", "fetch or export it again", id="jpeg"
        ),
        pytest.param(PNG[:60] + b"\0" + PNG[61:], "not a readable image", "fetch or export it again", id="checksum"),
        pytest.param(
            encode(IMAGE.resize((40, 40)), "GIF", save_all=True, append_images=[SECOND]),
            "several frames",
            "export each slice",
            id="gif-frames",
        ),
        pytest.param(
            encode(Image.fromarray(texture(1)), "PNG", save_all=True, append_images=[SECOND]),
            "several frames",
            "export each slice",
            id="png-frames",
        ),
        pytest.param(
            encode(Image.fromarray(texture(1)), "TIFF", save_all=True, append_images=[SECOND]),
            "several frames",
            "export each slice",
            id="tiff-pages",
        ),
        pytest.param(png_of_size(4097, 4096), "absurdly large", "export it smaller", id="above-our-limit"),
        pytest.param(png_of_size(12_000, 10_000), "absurdly large", "export it smaller", id="pillow-would-warn"),
        pytest.param(png_of_size(60_000, 60_000), "absurdly large", "export it smaller", id="pillow-would-refuse"),
        pytest.param(
            encode(Image.fromarray(np.full((9, 9), 0.5, np.float32)), "TIFF"), "floating-point", "8 or 16", id="float"
        ),
        pytest.param(
            encode(Image.fromarray(np.array([[0, 70000]], np.int32)), "TIFF"), "0..65535", "8 or 16 bits", id="32-bit"
        ),
        pytest.param(tiff(GREYS / 2, bits=8, sample_format=2), "signed values", "unsigned values", id="signed-8"),
        pytest.param(tiff(GREYS * 99.0, sample_format=2), "signed values", "unsigned values", id="signed-16"),
        pytest.param(tiff(TWELVE), "values are 0 to 4095 of 65535", "highest value", id="12-bits-in-TIFF"),
        pytest.param(
            encode(Image.fromarray(TWELVE.astype(np.uint16)), "PNG"),
            "0 to 4095 of 65535",
            "8 bits",
            id="12-in-PNG",
        ),
        pytest.param(
            encode(Image.fromarray((HOUNSFIELD + 32768).astype(np.uint16)), "PNG"),
            "31744 to 33168 of 65535",
            "black at 0",
            id="hounsfield-units-with-an-offset",
        ),
        pytest.param(
            encode(Image.fromarray(HOUNSFIELD.astype(np.uint16)), "PNG"),
            "none between the ends, as of signed numbers written as unsigned",
            "black at 0",
            id="hounsfield-units-as-unsigned",
        ),
        pytest.param(
            encode(Image.fromarray(GREYS // 64), "PNG"), "0 to 3 of 255, as of a mask", "black at 0", id="mask"
        ),
        pytest.param(rgb16_png(TWELVE), "to 3855 of 65535", "8 bits", id="12-bits-in-RGB"),
        pytest.param(tiff(GREYS * 64.0, bits=14), "a TIFF that is damaged, or of a variant", "again", id="14-bit-TIFF"),
        pytest.param(gzip.compress(PNG)[:-20], "damaged gzip file", "fetch or export it again", id="gzip-cut"),
        pytest.param(gzip.compress(PNG + bytes(MAX_BYTES)), "absurdly large", "export it smaller", id="gzip-bomb"),
        pytest.param(b"NRRD0004\ntype: short\n", "holds NRRD", "convert it to PNG, DICOM or NIfTI", id="NRRD"),
        pytest.param(b"PK\x03\x04" + bytes(40), "it holds a zip archive", "the slices themselves", id="zip"),
    ],
)
@pytest.mark.filterwarnings("default")
def test_a_bad_file_is_one_line_with_name_fault_and_remedy(content: bytes, what: str, remedy: str, put: Put) -> None:
    path = put(content)
    with warnings.catch_warnings(record=True) as shown, pytest.raises(UserError) as raised:
        read_slice(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert what in message
    assert remedy in message
    assert "\n" not in message
    assert not shown


def test_the_largest_allowed_size_is_decoded(put: Put) -> None:
    side = int(MAX_PIXELS**0.5)
    assert read_slice(put(encode(Image.new("1", (side, side)), "PNG"))).shape == (side, side)


def test_absent_file_folder_and_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name, what in (("absent.png", "no such file"), (".", "not a regular file"), ("pipe.png", "not a regular")):
        with pytest.raises(UserError, match=what):
            read_slice(tmp_path / name)


def test_state_of_the_process_is_left_alone(put: Put) -> None:
    def state() -> tuple[object, ...]:
        return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)

    before = state()
    path = put(png_of_size(12_000, 10_000))
    start = threading.Barrier(4)

    def attempt(_: int) -> None:
        start.wait()
        for _ in range(25):
            with pytest.raises(UserError):
                read_slice(path)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attempt, range(4)))
    assert state() == before


def deep(greys: Greys) -> Image.Image:
    return Image.fromarray(greys.astype(np.uint16) * 257)


SEEDS = [
    encode(deep(texture(3, 24, 20)) if mode == "I;16" else Image.fromarray(texture(3, 24, 20)).convert(mode), kind)
    for kind, modes in {
        "PNG": ["L", "RGBA", "P", "I;16"],
        "JPEG": ["L", "CMYK"],
        "GIF": ["L"],
        "TIFF": ["L", "I;16"],
        "BMP": ["L", "P"],
        "PPM": ["L"],
        "WEBP": ["RGB"],
        "JPEG2000": ["L", "I;16"],
    }.items()
    for mode in modes
]
SEEDS += [
    tiff(texture(3, 24, 20) * 16.0, bits=12),
    tiff(texture(3, 24, 20) * 257.0, white_is_zero=True, order=">"),
    png_of_significant_bits(texture(3, 24, 20) * 16.0, 12),
    gzip.compress(encode(Image.fromarray(texture(3, 24, 20)), "PNG")),
]


@settings(max_examples=400, deadline=timedelta(seconds=10))
@given(
    content=st.sampled_from(SEEDS),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_damaged_content_gives_greys_or_a_user_error(
    content: bytes, edits: list[tuple[float, int]], keep: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(content)
    for position, value in edits:
        # Squared: headers, where the harm is done, get most of the edits.
        damaged[int(position**2 * len(damaged))] = value
    path = tmp_path_factory.getbasetemp() / "fuzzed.png"
    path.write_bytes(damaged[: round(keep * len(damaged))])
    try:
        found: Greys | str = read_slice(path)
    except UserError as error:
        found = str(error)
    if isinstance(found, str):
        assert found.startswith(f"{path}: ")
        assert "; " in found
    else:
        assert found.dtype == np.uint8
        assert found.ndim == 2
