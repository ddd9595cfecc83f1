"""Tell what a file holds by its first bytes, whatever its name says, and read its content."""

import zlib
from pathlib import Path
from typing import NamedTuple

from ctscan.core.errors import UserError

HEAD = 512  # bytes that decide; a tar archive has its mark at 257, NIfTI at 344
MAX_BYTES = 128 * 2**20  # of an image file: room for the most pixels that are read, uncompressed
MAX_UNPACKED = 2**30  # of a volume, or of what a gzip file holds

DICOM, NIFTI, GZIP = "DICOM", "NIfTI", "gzip"
PICTURES = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # Pillow's names
READ = frozenset((*PICTURES, DICOM, NIFTI))

_CONVERT = "convert it to PNG, DICOM or NIfTI"
# Images in formats that are not read here: whoever put one among the slices should hear of it. With the remedy.
UNREAD = {
    "DICOM without its preamble": "write it again as a DICOM file (`dcmconv +F` of dcmtk)",
    "JPEG-LS": _CONVERT,
    "JPEG XL": _CONVERT,
    "HEIF or AVIF": _CONVERT,
    "NRRD": _CONVERT,
    "MetaImage": _CONVERT,
    "Analyze or NIfTI in two files": "convert it to NIfTI in one file (.nii)",
    "MINC": _CONVERT,
    "HDF5": "export each slice as a PNG",
    "NumPy array": "save each slice as a PNG",
    "MATLAB file": "save each slice as a PNG",
    "Photoshop image": "export it as a PNG",
    "OpenEXR": "export it as a PNG",
    "bzip2": "unpack it",
    "xz": "unpack it",
    "Zstandard": "unpack it",
}
# Files that may lie among slices and hold none, and archives. They are passed over, and counted.
NO_IMAGE = ("DICOM directory", "zip archive", "7z archive", "RAR archive", "tar archive", "PDF")

_MARKS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    *((0, mark, "TIFF") for mark in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (0, b"\x1f\x8b", GZIP),
    (344, b"n+1\0", NIFTI),
    (4, b"n+2\0", NIFTI),
    (344, b"ni1\0", "Analyze or NIfTI in two files"),
    (4, b"ni2\0", "Analyze or NIfTI in two files"),
    (0, b"\x5c\x01\0\0", "Analyze or NIfTI in two files"),  # the size of its header, 348, and no mark of NIfTI
    (0, b"\0\0\x01\x5c", "Analyze or NIfTI in two files"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    *((4, b"ftyp" + brand, "HEIF or AVIF") for brand in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")),
    (0, b"NRRD", "NRRD"),
    (0, b"ObjectType", "MetaImage"),
    (0, b"NDims", "MetaImage"),
    (0, b"CDF\x01", "MINC"),
    (0, b"CDF\x02", "MINC"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5"),
    (0, b"\x93NUMPY", "NumPy array"),
    (0, b"MATLAB 5.0", "MATLAB file"),
    (0, b"8BPS", "Photoshop image"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard"),
    (0, b"PK\x03\x04", "zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z archive"),
    (0, b"Rar!\x1a\x07", "RAR archive"),
    (257, b"ustar", "tar archive"),
    (0, b"%PDF-", "PDF"),
)
_DIRECTORY = b"1.2.840.10008.1.3.10"  # the SOP class of a DICOMDIR
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # sizes; "BM" alone begins many a text


def kind(head: bytes) -> str | None:
    """What a file holds whose first `HEAD` bytes are these: one of READ, GZIP, UNREAD or NO_IMAGE; None if unknown."""
    if head[128:132] == b"DICM":
        return "DICOM directory" if _DIRECTORY in head else DICOM
    for offset, mark, name in _MARKS:
        if head.startswith(mark, offset):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n#" and len(head) > 2:
        return "PPM"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return "DICOM without its preamble" if _is_bare_dicom(head) else None


def _is_bare_dicom(head: bytes) -> bool:
    """A data set that begins at once with an element of group 2 or 8, with a value representation or a short length."""
    if len(head) < 16 or head[:2] not in (b"\x02\0", b"\x08\0", b"\0\x08") or max(head[2:4]) > 0x1F:
        return False
    return (head[4:6].isalpha() and head[4:6].isupper()) or int.from_bytes(head[4:8], "little") in range(2, 256)


class Content(NamedTuple):
    """What a file holds: its `kind`, None if unknown, and its bytes where they were `packed` by gzip."""

    kind: str | None
    packed: bool


def look(path: Path) -> Content:
    """What the file at `path` holds, by its first bytes, inside of gzip too. Raises `UserError` if it can't be read."""
    check_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            found = kind(head)
            if found != GZIP:
                return Content(found, False)
            try:
                inner = zlib.decompressobj(wbits=31).decompress(head + file.read(2**16), HEAD)
            except zlib.error:
                return Content(GZIP, True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions and the disk") from None
    return Content(kind(inner), True)


def check_file(path: Path) -> None:
    """Raises `UserError` unless `path` is a regular file: opening a pipe would wait for ever."""
    if not path.exists():
        raise UserError(f"{path}: no such file; restore it, or correct the path")
    if not path.is_file():
        raise UserError(f"{path}: not a regular file; put the image itself there")


def read_content(path: Path, packed: bool, most: int = MAX_BYTES) -> bytes:
    """The bytes of a file, unpacked if they were `packed` by gzip.

    Raises:
        UserError: the file is absent, empty, damaged, or of over `most` bytes.
    """
    check_file(path)
    try:
        if path.stat().st_size > most:
            raise UserError(oversized(path, most))
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions and the disk") from None
    if packed:
        content = _unpack(path, content, most)
    if not content:
        raise UserError(f"{path}: empty (0 bytes); fetch or export it again, or remove the file")
    return content


def _unpack(path: Path, content: bytes, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        while content:  # a gzip file may have several members
            unpacker = zlib.decompressobj(wbits=31)
            parts.append(unpacker.decompress(content, most - size + 1))
            size += len(parts[-1])
            if size > most:
                raise UserError(oversized(path, most))
            if not unpacker.eof:
                raise zlib.error("it ends too early")
            content = unpacker.unused_data.lstrip(b"\0")
    except zlib.error as error:
        raise UserError(f"{path}: damaged gzip file ({error}); fetch or export it again, or remove the file") from None
    return b"".join(parts)


def oversized(path: Path, most: int) -> str:
    return f"{path}: absurdly large for CT slices (over {most // 2**20} MiB); export it smaller, or remove the file"
