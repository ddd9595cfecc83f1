"""The weights a backbone starts from: those that Keras publishes for ImageNet, or a file of one's own."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from ctscan.core.errors import UserError

import h5py
import keras
from keras.src.utils import file_utils

PATIENCE = 12.0  # seconds in which a download, from resolving the name on, has to get further


class PublishedFile(NamedTuple):
    """A weights file as Keras names it. `md5` is None in the families whose downloads Keras doesn't check."""

    name: str
    url: str
    md5: str | None


def imagenet_model(application: Any, **arguments: Any) -> tuple[keras.Model, PublishedFile, Path]:
    """What `application(weights="imagenet", **arguments)` gives, the file that Keras publishes for it, and its place.

    Raises:
        UserError: as `fetch` does, or the file doesn't fit, which only one without a published hash can bring about.
        ValueError: the arguments don't suit the application.
    """
    used: list[tuple[PublishedFile, Path]] = []

    # Stands in for Keras' own at this one call: that one writes into its cache as the bytes come, so that a kill
    # leaves a part there (for ever, where no hash is checked), and it waits for a silent network without limit.
    def get_file(fname: str, origin: str, file_hash: str | None = None, **_: Any) -> str:
        file = PublishedFile(fname, origin, file_hash)
        used.append((file, fetch(file)))
        return str(used[0][1])

    try:
        with _replaced_get_file(get_file):
            base = application(weights="imagenet", **arguments)
    except UserError:
        raise
    except Exception as error:
        if not used:
            raise
        raise UserError(
            f"{used[0][1]}: not the weights of {application.__name__} ({_one_line(error)}); "
            "delete it, then run `ctscan weights`"
        ) from None
    return base, *used[0]


def fetch(file: PublishedFile) -> Path:
    """The place of `file` in Keras' cache ($KERAS_HOME/models, or ~/.keras/models); downloaded unless it is there.

    A file gets its name in the cache only when it is whole, and its md5 is Keras' where Keras publishes one.

    Raises:
        UserError: the cache can't be written, or the file can't be had: no network, no progress for `PATIENCE`
            seconds, a download that breaks off, or something else in its place.
    """
    folder = Path(file_utils.config.keras_home()).expanduser() / "models"
    target = folder / file.name
    state = "is not"
    if target.is_file():
        if file.md5 is None or file_utils.validate_file(target, file.md5):
            return target
        state = "is damaged"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="download-", dir=folder, ignore_cleanup_errors=True) as scratch:
            part = _download(file, Path(scratch))
            part.replace(target)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error}); set KERAS_HOME to a folder that can") from None
    except _DownloadError as error:
        raise UserError(
            f"weights = imagenet needs {file.name}, which {state} in {folder}, and downloading it failed ({error}); "
            f"run `ctscan weights` with a network, or put the file there yourself, from {file.url}"
        ) from None
    return target


def load_weights(base: keras.Model, name: str, path: Path) -> None:
    """Load `path` into `base`, the network `name` without its top: every weight of the one has its place in the other.

    Takes Keras' `.weights.h5` and the older `.h5` in which keras.applications publishes its weights.

    Raises:
        UserError: the file is absent, not HDF5, truncated, or of another network, in part or as a whole.
    """
    if not path.is_file():
        raise UserError(
            f"params.yaml: weights = '{path}' is no file in {Path.cwd()}; it needs random, imagenet or a path "
            "(an absolute one where `dvc exp run --temp` or `--queue` runs a copy of the repository)"
        )
    if not h5py.is_hdf5(path) or path.suffix != ".h5":
        raise UserError(f"{path}: not a Keras weights file (HDF5, .h5 or .weights.h5); fetch or export it again")
    try:
        if path.name.endswith(".weights.h5"):
            _check_count(base, path)
        base.load_weights(path)
    except Exception as error:  # h5py and Keras meet damaged files with errors of any type
        reason = _one_line(error)[:200]
        raise UserError(
            f"{path}: truncated, or not the weights of {name} without its top ({reason}); fetch or export it again"
        ) from None


class _DownloadError(Exception):
    """Why a download came to nothing."""


def _download(file: PublishedFile, folder: Path) -> Path:
    """Keras' own download into `folder`, its hash check included, given up when it makes no progress."""
    failures: list[str] = []

    def transfer() -> None:
        try:
            keras.utils.get_file(file.name, file.url, cache_dir=folder, cache_subdir="", file_hash=file.md5)
        except Exception as error:
            failures.append(_one_line(error))

    # A daemon: no timeout of a socket ends a name that doesn't resolve or a host whose many addresses are all silent.
    worker = threading.Thread(target=transfer, daemon=True)
    worker.start()
    part = folder / file.name
    size, since = 0, time.monotonic()
    while worker.is_alive():
        worker.join(0.1)
        if part.exists() and (now := part.stat().st_size) != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            raise _DownloadError(f"no answer for {PATIENCE:g} s, after {size} bytes")
    if failures:
        raise _DownloadError(failures[0].replace(f"URL fetch failure on {file.url}: ", "").replace("None -- ", ""))
    try:
        h5py.File(part).close()  # also finds that its end is missing
    except OSError as error:
        raise _DownloadError(f"what came is no whole HDF5 file: {_one_line(error)}") from None
    return part


def _check_count(base: keras.Model, path: Path) -> None:
    """Keras' loader of `.weights.h5` passes over what a file holds beyond the model: a top, or more layers."""
    names: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not {"optimizer", "seed_generator"} & set(name.split("/")):
            names.append(name)

    with h5py.File(path) as file:
        file.visititems(visit)
    if len(names) != len(base.weights):
        raise ValueError(f"{len(names)} arrays where the network has {len(base.weights)}")


@contextmanager
def _replaced_get_file(function: Callable[..., str]) -> Iterator[None]:
    original = file_utils.get_file
    file_utils.get_file = function
    try:
        yield
    finally:
        file_utils.get_file = original


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
