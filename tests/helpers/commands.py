"""Run the commands of the library in the process of a test."""

import contextlib
import io
import sys

from ctscan.__main__ import main


def ctscan(*arguments: object) -> None:
    """Run `ctscan` with `arguments`. Raises SystemExit where it fails: with its message, or after Ctrl-C with 130."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = main([str(argument) for argument in arguments])
    if status == 0 or status == 130:
        sys.stderr.write(said.getvalue())
    if status:
        text = said.getvalue().removesuffix("\n")
        # Progress bars come before the message.
        raise SystemExit(text[text.rindex(f"{arguments[0]}: ") :] if status == 1 else status)
