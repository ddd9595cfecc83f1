"""Load the weights a backbone starts from: those that Keras publishes for ImageNet, or a file of one's own."""

import os
import socket
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError

import h5py
import keras

PATIENCE = 15.0  # seconds in which a server has to answer and a download to get further


def imagenet_model(application: Any, **arguments: Any) -> keras.Model:
    """What `application(weights="imagenet", **arguments)` gives; Keras downloads its file once, into `keras_cache`.

    Raises:
        UserError: no network, a server that refuses or stays silent for `PATIENCE`, or a file that is not whole. Keras
            itself replaces a damaged file in the families for which it publishes a hash.
        ValueError: the arguments don't suit the application.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # Keras itself waits for a silent server without limit
    try:
        return application(weights="imagenet", **arguments)
    except Exception as error:  # Keras reports downloads, and h5py damaged files, with errors of any type
        application(weights=None, **arguments)  # raises the ValueError of arguments that don't suit
        raise UserError(
            f"weights = imagenet: {application.__name__}'s weights can't be loaded ({_one_line(error)[:300]}); "
            f"run `ctscan weights` with a network, which downloads them to {keras_cache()}; if their file there is "
            "damaged, delete it first"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def keras_cache() -> Path:
    """The folder where Keras keeps published weights; /tmp/.keras/models in its place where it can't be written."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def load_weights(base: keras.Model, name: str, path: Path) -> None:
    """Load `path` into `base`, the network `name` without its top: every weight of the one has its place in the other.

    Takes Keras' `.weights.h5` and the older `.h5` in which keras.applications publishes its weights.

    Raises:
        UserError: the file is absent, not HDF5, truncated, or of another network, in part or as a whole.
    """
    if not path.is_file():
        raise UserError(
            f"params.yaml: weights = '{path.name}', and there is no file {path}; it needs random, imagenet or the "
            "name of a file that `ctscan weights FILE` put there"
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
