"""Any `keras.applications` model as a backbone: grey slices in, feature maps out, preprocessing inside."""

import hashlib
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctscan.errors import UserError
from ctscan.seeds import derive_seed

import h5py
import keras
import numpy as np

DOWNLOAD_TIMEOUT = 20  # seconds without a byte


def build_backbone(name: str, weights: str, image_size: int, seed: int) -> keras.Model:
    """A model from grey slices (n, image_size, image_size, 1) in [0, 255] to feature maps (n, h, w, d).

    The network itself is the layer called `base`, with the layers that `keras.applications` gives it.

    Args:
        name: of a function of `keras.applications`, such as ResNet101V2.
        weights: `random` (drawn from `seed`), `imagenet` (downloaded once by Keras, its hash checked), or the path of
            a weights file for this architecture without its top.
        image_size: pixels, square.
        seed: the experiment's.

    Raises:
        UserError: no such model, too small an image, weights that can't be had or don't fit.
    """
    application = _application(name)
    keras.utils.set_random_seed(derive_seed(seed, "backbone"))
    arguments = {"include_top": False, "input_shape": (image_size, image_size, 3), "name": "base"}
    try:
        base = application(weights=None, **arguments)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"params.yaml: image_size = {image_size} does not fit backbone {name}: {reason}") from None
    if weights == "imagenet":
        with _explained_download(name):
            base = application(weights="imagenet", **arguments)
    elif weights != "random":
        _load_weights(base, name, Path(weights))

    slices = keras.Input((image_size, image_size, 1), name="slice")
    rgb = keras.layers.Concatenate(name="grey_to_rgb")([slices, slices, slices])
    return keras.Model(slices, base(_preprocessing(application)(rgb)), name="backbone")


def weights_hash(base: keras.Model) -> str:
    """SHA-256 over the values of all weights in layer order: what a run started from, wherever it came from."""
    digest = hashlib.sha256()
    for value in base.get_weights():
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _application(name: str) -> Any:
    application = getattr(keras.applications, name, None)
    if not callable(application):
        known = ", ".join(sorted(key for key, value in vars(keras.applications).items() if callable(value)))
        raise UserError(f"params.yaml: backbone = '{name}'; it needs one of {known}")
    return application


def _preprocessing(application: Any) -> keras.layers.Layer:
    """The family's `preprocess_input` as a layer that a saved model carries.

    Every family's preprocessing is affine in each channel (some also swap the channels, which are equal here), so its
    values at 0 and at 1 determine it.
    """
    preprocess = sys.modules[application.__module__].preprocess_input
    offset, one = (preprocess(np.full((1, 1, 1, 3), value, "float32"))[0, 0, 0] for value in (0.0, 1.0))
    return keras.layers.Rescaling((one - offset).tolist(), offset.tolist(), name="preprocessing")


@contextmanager
def _explained_download(name: str) -> Iterator[None]:
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"params.yaml: weights = imagenet is not to be had for {name}: {reason}") from None
    except Exception as error:  # get_file raises a bare Exception where the network fails
        reason = " ".join(str(error).split())
        raise UserError(
            f"weights = imagenet: the download for {name} failed ({reason}); try again with a network, "
            "or set weights to a file you already have"
        ) from None
    finally:
        socket.setdefaulttimeout(patience)


def _load_weights(base: keras.Model, name: str, path: Path) -> None:
    if not path.is_file():
        raise UserError(f"params.yaml: weights = '{path}' is no file; it needs random, imagenet or a path")
    if not h5py.is_hdf5(path) or path.suffix != ".h5":
        raise UserError(f"{path}: not a Keras weights file (HDF5, .h5 or .weights.h5); fetch or export it again")
    try:
        base.load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: truncated, or not the weights of {name} without its top ({reason})") from None
