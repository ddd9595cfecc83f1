"""Define the one error that users are meant to read, and turn refusals of the disk into it."""

import errno
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """A fault that the user can put right. The message is one line that says what is wrong, where, and what to do.

    `ctscan.core.stage.run_stage` prints it without a traceback and exits with status 1.
    """


def escape_unprintable() -> None:
    """Let the screen show names that its encoding lacks as escapes, such as \\u80ba, where Python would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f`)",
    errno.EACCES: "change the permissions of it or of its folder",
    errno.EPERM: "change the permissions of it or of its folder",
    errno.EROFS: "work on a disk that can be written to",
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Surround code that writes to `path`.

    Raises:
        UserError: the system refuses to write, because the disk is full or read-only, or the user has no rights.
    """
    try:
        yield
    except OSError as error:
        # This is how NumPy reports a full disk.
        short_write = error.errno is None and str(error).endswith(" written")
        if not short_write and error.errno not in _REMEDIES:
            raise
        number = error.errno or errno.ENOSPC
        reason = error.strerror or "the disk took only a part of it"
        raise UserError(
            f"{error.filename or path}: {reason}; {_REMEDIES[number]} and run again, all that was finished is kept"
        ) from None
