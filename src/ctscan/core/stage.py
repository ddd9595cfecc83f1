"""Run a stage: read its params, turn an error into one line, and continue after a kill from its checkpoint."""

import gc
import hashlib
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

from ctscan.core.errors import UserError, escape_unprintable, writing
from ctscan.core.files import SCRATCH, remove
from ctscan.core.params import Params, load_params, pipeline

import zc.lockfile

EARLIER_RESULTS = (
    "earlier results come back with `git checkout params.yaml dvc.lock metrics plots` and `dvc checkout dvc.yaml`"
)
ABANDONED = 14 * 24 * 3600  # seconds after which an untouched checkpoint is taken for forgotten


def run_stage(name: str, function: Callable[[Params], None]) -> None:
    """Call `function` with the params that stage `name` declares. Exits 1 after a `UserError`, 130 after Ctrl-C.

    DVC removes the outputs of a stage before it runs, so whatever ends it early also says how to get them back.
    """
    escape_unprintable()
    try:
        with writing(Path.cwd()):
            function(load_params(name))
    except UserError as error:
        sys.exit(f"{name}: {error}\n{EARLIER_RESULTS}")
    except Exception as error:
        # A `UserError` that is raised inside tf.data, where images are read, arrives quoted in TensorFlow's own error.
        quoted = re.search(r"\bUserError: (.+)", str(error))
        if quoted:
            sys.exit(f"{name}: {quoted[1]}\n{EARLIER_RESULTS}")
        traceback.print_exc()
        sys.exit(EARLIER_RESULTS)
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; run again to continue\n{EARLIER_RESULTS}", file=sys.stderr)
        sys.exit(130)
    finally:
        # The process ends now. Python would first look for garbage among TensorFlow's objects, which takes a second.
        gc.freeze()


@contextmanager
def checkpoint(stage: str) -> Iterator[Path]:
    """Give the folder for what `stage` needs to continue after a kill; it is removed when the block ends without error.

    The folder belongs to the stage's inputs: other params, code or data have another folder, so a run never continues
    from another experiment's state. Where another run with the same inputs holds it, this run gets a folder of its
    own, which is removed at the end.

    Raises:
        UserError: the folder can't be written to.
    """
    home = _checkpoints() / stage
    folder = home / _fingerprint(stage)
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
        _forget_abandoned(home, folder)
        lock = _lock(folder)
    if lock is None:
        print(f"another run of {stage} holds {folder}: this one starts afresh, and again if it is interrupted")
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=home) as private:
            yield Path(private)
        return
    try:
        yield folder
        # Renamed first, so that a kill during the removal does not leave half a checkpoint.
        done = folder.with_suffix(".done")
        remove(done)
        if folder.exists():
            folder.rename(done)
            remove(done)
    finally:
        lock.close()


def _checkpoints() -> Path:
    """Where checkpoints lie: under the current folder, which is the top of the repository.

    DVC deletes the workspace of a run with `--temp` or from the queue, so such a run keeps them in the repository that
    it was started from.
    """
    for folder in Path.cwd().parents:
        if folder.parts[-3:] == (".dvc", "tmp", "exps"):
            return folder.parents[2] / SCRATCH / "checkpoints"
    return SCRATCH / "checkpoints"


def _lock(folder: Path) -> zc.lockfile.LockFile | None:
    """The lock on a checkpoint, or None where another process has it. The system releases it when its process dies."""
    try:
        # The lock file is never deleted: a process that had opened it before would then lock a name that is gone.
        return zc.lockfile.LockFile(str(folder.with_suffix(".lock")))
    except zc.lockfile.LockError:
        return None


def _forget_abandoned(home: Path, wanted: Path) -> None:
    for folder in sorted(home.iterdir()):
        if folder.stem != wanted.name and folder.stat().st_mtime < time.time() - ABANDONED:
            remove(folder)


def _fingerprint(stage: str) -> str:
    """A hash of all that DVC tracks as the input of `stage`: the content of its deps and its params."""
    declared, params = pipeline()["stages"][stage], load_params(stage)
    digest = hashlib.sha256(params.model_dump_json().encode())
    for dependency in declared["deps"]:
        path = Path(Template(dependency).substitute(dict(params)))  # ${dataset} is how DVC names a param, too
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:  # importing writes these
                digest.update(str(file).encode())
                with file.open("rb") as stream:  # in pieces, because features.npy may be large
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
