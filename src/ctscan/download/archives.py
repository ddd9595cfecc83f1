"""Unpacking an archive that nobody has vouched for: regular files below the target, or one clear refusal."""

import lzma
import os
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import IO, NamedTuple

from ctscan.core.errors import UserError

MAX_MEMBERS = 20_000
MAX_BYTES = 4 * 2**30
MAX_TAR_EXTENSION = 2**20  # bytes of a long name or of extended headers, which tarfile reads whole into memory

_BLOCK = 2**20
_TAR_END = bytes(512)
# What zipfile, tarfile and the decompressors were seen to raise on mutated bytes (OSError apart: `_refusing`).
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    struct.error,
    ArithmeticError,
    LookupError,
    RuntimeError,
    ValueError,
)


class _Member(NamedTuple):
    name: str
    size: int  # bytes, as the archive declares it
    stream: IO[bytes]


def unpack(source: Path, target: Path) -> None:
    """Write the regular files of `source` below `target`, a folder that is not there yet.

    Archives inside the archive stay files. From a folder, hidden entries are left out. When it raises, `target` holds
    what had been written so far, never anything outside it.

    Args:
        source: a zip, a tar (plain, .gz, .bz2 or .xz) or a folder.
        target: created, with its parents.

    Raises:
        UserError: `source` is none of these, damaged, cut short or encrypted; it holds more than `MAX_MEMBERS`
            members or `MAX_BYTES` bytes, whatever it declares; or a member is a link, a device or a pipe, would land
            outside `target`, or comes twice. The message names `source` and the member.
    """
    with _refusing(source):
        if not source.exists():
            raise UserError(f"{source}: there is no such file or folder; check the path")
        if source.is_dir():
            members = _folder_members(source)
        elif not source.is_file():
            raise UserError(f"{source}: is a device or a pipe; give a zip, a tar or a folder")
        # Not zipfile.is_zipfile: it takes a tar for a zip when a zip lies at its end.
        elif _starts_with(source, b"PK"):
            members = _zip_members(source)
        else:
            members = _tar_members(source)
        target.mkdir(parents=True)
        _write(members, source, target)


def _write(members: Iterator[_Member], source: Path, target: Path) -> None:
    declared = written = 0
    for member in members:
        declared += member.size
        if declared > MAX_BYTES:
            raise UserError(_too_large(source))
        path = target / _safe_path(member.name, source)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                while block := member.stream.read(_BLOCK):
                    written += len(block)
                    if written > MAX_BYTES:
                        raise UserError(_too_large(source))
                    file.write(block)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"{source}: {member.name!r} comes twice; give an archive with one file a name") from None


def _folder_members(source: Path) -> Iterator[_Member]:
    root = source.resolve()
    count = 0
    for folder, subfolders, files in os.walk(root, onerror=_raise):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in [*subfolders, *sorted(files)]:
            path = Path(folder, name)
            if name.startswith("."):
                continue
            count = _counted(count, source)
            inside = path.relative_to(root).as_posix()
            if path.is_symlink() and (path.is_dir() or not path.resolve().is_relative_to(root)):
                raise UserError(
                    f"{source}: {inside!r} is a link to a folder or out of it; put the files themselves there"
                )
            if name in subfolders:
                continue
            if not path.is_file():
                raise UserError(f"{source}: {inside!r} is no regular file; take it out of the folder")
            with path.open("rb") as stream:
                yield _Member(inside, path.stat().st_size, stream)


def _zip_members(source: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(source) as archive:
        infos = archive.infolist()
        _counted(len(infos) - 1, source)
        # All at once, so that a bomb is refused before its first file.
        if sum(info.file_size for info in infos) > MAX_BYTES:
            raise UserError(_too_large(source))
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UserError(_not_regular(info.filename, source))
            if info.is_dir():
                _safe_path(info.filename, source)
                continue
            if info.flag_bits & 1:
                raise UserError(f"{source}: {info.filename!r} is encrypted; decrypt the archive and give that")
            with archive.open(info) as stream:
                yield _Member(info.filename, info.file_size, stream)


def _tar_members(source: Path) -> Iterator[_Member]:
    try:
        archive = tarfile.open(source, tarinfo=_BoundedTarInfo)  # noqa: SIM115 - the errors differ from those of the rest
    except tarfile.ReadError:
        raise UserError(
            f"{source}: is no zip, tar or folder, or is damaged from its start; get the archive again"
        ) from None
    count = 0
    with archive:
        for info in archive:
            count = _counted(count, source)
            if info.isdir():
                _safe_path(info.name, source)
                continue
            if not info.isreg() or info.issparse():
                raise UserError(_not_regular(info.name, source))
            stream = archive.extractfile(info)
            assert stream is not None
            yield _Member(info.name, info.size, stream)
        _check_tar_end(archive, source)


class _BoundedTarInfo(tarfile.TarInfo):
    """A tar header whose extensions can't claim the memory of the machine."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_BoundedTarInfo":
        info = super().frombuf(buf, encoding, errors)
        plain = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE)
        if info.type not in plain and info.size > MAX_TAR_EXTENSION:
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info


def _check_tar_end(archive: tarfile.TarFile, source: Path) -> None:
    """tarfile takes a cut or a damaged header for the end; a whole archive has its end mark there."""
    file = archive.fileobj
    assert file is not None
    file.seek(archive.offset)
    if file.read(len(_TAR_END)) != _TAR_END:
        raise tarfile.ReadError("no end mark")
    # To the end, where the decompressors compare their checksums.
    rest = 0
    while block := file.read(_BLOCK):
        rest += len(block)
        if rest > MAX_BYTES:
            raise UserError(_too_large(source))


def _safe_path(name: str, source: Path) -> Path:
    """`name` as a path below the target; backslashes separate too, as in archives made on Windows."""
    parts = PureWindowsPath(name)
    if parts.drive or parts.root or ".." in parts.parts:
        raise UserError(f"{source}: {name!r} leads out of the folder; this archive isn't safe, get another")
    # Control characters and names that no text encoding gives: nobody means them, and no message could show them.
    if not parts.parts or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
        raise UserError(f"{source}: {name!r} is no file name; this archive isn't safe, get another")
    return Path(*parts.parts)


def _counted(count: int, source: Path) -> int:
    if count >= MAX_MEMBERS:
        raise UserError(f"{source}: holds more than {MAX_MEMBERS} files; give an archive of the dataset alone")
    return count + 1


def _too_large(source: Path) -> str:
    return f"{source}: unpacks to more than {MAX_BYTES} bytes; give an archive of the dataset alone"


def _not_regular(name: str, source: Path) -> str:
    return f"{source}: {name!r} is a link, a device or a pipe; give an archive of regular files"


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _raise(error: OSError) -> None:
    raise error


@contextmanager
def _refusing(source: Path) -> Iterator[None]:
    """Damage and failures of the file system as one `UserError`."""
    try:
        yield
    except OSError as error:
        # The decompressors report damage as an OSError too, without a number.
        if error.errno is not None:
            where = f" ({error.filename})" if error.filename else ""
            raise UserError(f"{source}: cannot be unpacked: {error.strerror}{where}; put that right first") from None
        raise UserError(_damaged(source, error)) from None
    except _DAMAGE as error:
        raise UserError(_damaged(source, error)) from None


def _damaged(source: Path, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{source}: is damaged or cut short ({reason}); get the archive again"
