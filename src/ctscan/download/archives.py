"""Unpack a zip or a tar that nobody has vouched for: regular files below the target, or one clear refusal."""

import platform
import tarfile
import zipfile
from pathlib import Path

from ctscan.core.errors import UserError

MAX_MEMBERS = 20_000
MAX_BYTES = 4 * 2**30


def unpack(source: Path, target: Path) -> None:
    """Write the files of `source`, a zip or a tar (plain, .gz, .bz2 or .xz), below the folder `target`.

    zipfile and tarfile's filter "data" see to it that nothing lands outside `target`. Archives inside the archive stay
    files. When it raises, `target` holds what had been written so far.

    Raises:
        UserError: `source` is neither, damaged, cut short or encrypted; it declares more than `MAX_MEMBERS` members or
            `MAX_BYTES` bytes; a member of a tar is a link or a device, or would land outside `target`; or `source` is a
            tar and Python is older than 3.11.4.
        OSError: the file system refuses to read or to write.
    """
    try:
        # The tar first: zipfile also takes a tar for a zip where a zip lies at its end.
        if tarfile.is_tarfile(source):
            _unpack_tar(source, target)
        else:
            _unpack_zip(source, target)
    except UserError:
        raise
    except Exception as error:  # the readers and their decompressors meet damaged bytes with errors of any type
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{source}: is no zip or tar that can be unpacked ({reason}); get it again, or unpack it yourself and give "
            "the folder"
        ) from None


def _unpack_zip(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        # Before the first file is written. zipfile reads no more of a member than it declares.
        _check_bounds(source, len(members), sum(member.file_size for member in members))
        archive.extractall(target)


def _unpack_tar(source: Path, target: Path) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise UserError(
            f"{source}: Python {platform.python_version()} can't unpack a tar safely; take Python 3.11.4 or later, or "
            "unpack it yourself and give the folder"
        )
    with tarfile.open(source) as archive:
        declared = 0
        for count, member in enumerate(archive, start=1):
            declared += member.size
            _check_bounds(source, count, declared)
            if not (member.isreg() or member.isdir()):
                raise UserError(
                    f"{source}: {member.name!r} is a link, a device or a pipe; give an archive of regular files"
                )
            archive.extract(member, target, filter="data")
        # tarfile takes a cut or a damaged header for the end; a whole archive has a block of zeros there. Reading on
        # lets the decompressors compare their checksums.
        assert archive.fileobj is not None
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(2**20)[: tarfile.BLOCKSIZE] != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it has no end mark")


def _check_bounds(source: Path, members: int, size: int) -> None:
    if members > MAX_MEMBERS or size > MAX_BYTES:
        raise UserError(
            f"{source}: unpacks to more than {MAX_MEMBERS} members or {MAX_BYTES} bytes; "
            "give an archive of the dataset alone"
        )
