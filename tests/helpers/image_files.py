"""Image files for the tests with what Pillow doesn't write: TIFF of any bits and polarity, a PNG's significant bits."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image


def tiff(
    values: np.ndarray, bits: int = 16, white_is_zero: bool = False, order: str = "<", sample_format: int = 1
) -> bytes:
    """A grey TIFF of `values` (H, W), uncompressed: of 8, 12 (packed) or 16 `bits`; `order` "<" Intel, ">" Motorola."""
    height, width = values.shape
    if bits == 12:
        pairs = values.astype(np.uint32).reshape(-1, 2)
        packed = (pairs[:, 0] << 12 | pairs[:, 1]).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
        pixels = packed.tobytes()
    else:
        kind = {1: "u", 2: "i"}[sample_format]
        pixels = values.astype(f"{order}{kind}{-(-bits // 8)}").tobytes()
    shorts = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: 0 if white_is_zero else 1,
        277: 1,
        278: height,
        339: sample_format,
    }
    longs = {273: 8 + 2 + 12 * (len(shorts) + 2) + 4, 279: len(pixels)}
    entries = [(tag, struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)) for tag, value in shorts.items()]
    entries += [(tag, struct.pack(f"{order}HHII", tag, 4, 1, value)) for tag, value in longs.items()]
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entry for _, entry in sorted(entries))
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HI", 42, 8) + directory + bytes(4) + pixels


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of_significant_bits(values: np.ndarray, bits: int) -> bytes:
    """A 16-bit grey PNG of uint16 `values` whose chunk sBIT says that `bits` of them are significant."""
    stream = BytesIO()
    Image.fromarray(values.astype(np.uint16)).save(stream, "PNG")
    content = stream.getvalue()
    end_of_header = 8 + 25
    return content[:end_of_header] + png_chunk(b"sBIT", bytes([bits])) + content[end_of_header:]
