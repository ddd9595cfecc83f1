"""What every stage script does around its recipe: read its params, fail in one line, publish outs whole."""

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ctscan.errors import UserError
from ctscan.params import Params, load_params, pipeline

SCRATCH = Path(".scratch")


def run_stage(name: str, recipe: Callable[[Params], None]) -> None:
    """Run `recipe` on the params that stage `name` declares. Exits 1 after a `UserError`, 130 after Ctrl-C."""
    try:
        recipe(load_params(name))
    except UserError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; earlier results are as they were", file=sys.stderr)
        sys.exit(130)


@contextmanager
def checkpoint(stage: str) -> Iterator[Path]:
    """The folder for what `stage` needs to continue after a kill; removed when the block ends without an error.

    It belongs to the stage's inputs: other params, code or data have another folder, so a run never continues from
    another experiment's state.
    """
    folder = SCRATCH / "checkpoints" / stage / _fingerprint(stage)
    yield folder
    _remove(folder)


def _fingerprint(stage: str) -> str:
    """A hash of all that DVC tracks as the input of `stage`: the content of its deps and its params."""
    declared = pipeline()["stages"][stage]
    digest = hashlib.sha256(load_params(stage).model_dump_json().encode())
    for dependency in declared["deps"]:
        path = Path(dependency)
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(str(file).encode())
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """A scratch path to write an out to; it takes the place of `path` only when the block ends without an error.

    DVC keeps outs marked `persist` in place while a stage runs, so a failed stage leaves the earlier result whole.
    A block that makes a folder publishes a folder.
    """
    fresh = SCRATCH / "publish" / path
    _remove(fresh)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield fresh
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh.is_dir():
            _remove(path)
        fresh.replace(path)
    finally:
        _remove(fresh)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
