"""COVID vs non-COVID on chest CT slices: the library that the stage scripts share, one topic a module."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# Read by TensorFlow and Keras when they are first imported, so they are set before anything of ours can do that.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GLOG_minloglevel", "3")

# Passes stderr on but for what TensorFlow says while its libraries load, where no log level holds (tensorflow#100442).
# A process of its own, so that nothing is lost of what a library says as it aborts.
_FILTER = r"""
import re, sys
for line in sys.stdin.buffer:
    if not re.match(rb"WARNING: All log messages before absl::InitializeLog\(\)|I0000 ", line):
        sys.stderr.buffer.write(line)
"""


class _LeanImports(MetaPathFinder):
    """Executes each of `packages`, as it is imported, inside the context that it names."""

    def __init__(self, packages: dict[str, Callable[[], AbstractContextManager[None]]]) -> None:
        self.packages = packages

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        surroundings = self.packages.get(name)
        spec = PathFinder.find_spec(name) if surroundings else None
        if surroundings and spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_inside(module: ModuleType) -> None:
                with surroundings():
                    execute(module)

            spec.loader.exec_module = execute_inside  # type: ignore[method-assign]
        return spec


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Nothing of TensorFlow's chatter on stderr; whatever else is written there is passed on."""
    if sys.stderr is None:
        yield
        return
    sys.stderr.flush()
    screen = os.dup(2)
    command = [sys.executable, "-IS", "-c", _FILTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=screen, start_new_session=True) as child:
        assert child.stdin
        os.dup2(child.stdin.fileno(), 2)
        child.stdin.close()
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)  # the last end of the pipe, so the child ends too
            os.close(screen)


@contextmanager
def _without_extras() -> Iterator[None]:
    """Absent, for the time being: what Keras imports where it can, for wrappers and galleries that nobody uses here."""
    hidden = [package for package in ("matplotlib", "sklearn") if package not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]


# Half a second of every start is Keras' import of packages that only some stages need.
sys.meta_path.insert(0, _LeanImports({"tensorflow": _without_chatter, "keras": _without_extras}))
