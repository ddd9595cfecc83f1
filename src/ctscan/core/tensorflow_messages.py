"""Keep from the terminal what TensorFlow's libraries print while they load, and nothing else that they say."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

# Two libraries each print this message, before they read any setting (tensorflow#100442), and nothing has to be done.
LINES = ("All log messages before absl::InitializeLog() is called", "oneDNN custom operations are on.")
_FILTER = """
import sys
for line in sys.stdin.buffer:
    if not any(part.encode() in line for part in sys.argv[1:]):
        sys.stdout.buffer.write(line)
        sys.stdout.flush()
"""


class QuietTensorFlow(MetaPathFinder):
    """Stands first in `sys.meta_path` until TensorFlow is imported, and filters standard error during that import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of `tensorflow`, as it would be, but for the filter; None for all other modules."""
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec and spec.loader and sys.stderr:  # closed, there is nothing to filter
            load = spec.loader.exec_module

            def load_quietly(module: ModuleType) -> None:
                with _filtered_stderr():
                    load(module)

            spec.loader.exec_module = load_quietly  # type: ignore[method-assign]
        return spec


@contextmanager
def _filtered_stderr() -> Iterator[None]:
    """Let standard error pass through a process that drops LINES.

    Libraries write to the file descriptor, not to `sys.stderr`. A process, not a thread, filters: it outlives a crash
    during the import, as on a processor that lacks an instruction, and so does what the library said about it.
    """
    sys.stderr.flush()
    original = os.dup(2)
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _FILTER, *LINES], stdin=subprocess.PIPE, stdout=original
        ) as program:
            assert program.stdin
            os.dup2(program.stdin.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(original, 2)
    finally:
        os.close(original)
