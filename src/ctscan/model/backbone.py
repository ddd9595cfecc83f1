"""Build a backbone from any model of `keras.applications`: it takes grey slices and gives feature maps."""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.seeds import derive_seed
from ctscan.model.weights import imagenet_model, keras_cache, load_weights

import keras
import numpy as np

WEIGHTS_FOLDER = Path("weights")  # a stage depends on the one file in it that `weights` names


def build_backbone(name: str, weights: str, image_size: int, seed: int) -> keras.Model:
    """A model from grey slices (n, image_size, image_size, 1) in [0, 255] to feature maps (n, h, w, d).

    The network itself is the layer called `base`, with the layers that `keras.applications` gives it.

    Args:
        name: of a function of `keras.applications`, such as ResNet101V2.
        weights: `random` (drawn from `seed`), `imagenet` (downloaded once by Keras, its md5 checked in the families
            for which Keras publishes one: all but MobileNet and MobileNetV2), or the name of a file in weights/ with
            the weights of this architecture without its top. EfficientNet with `imagenet` scales its input by a factor
            more than with a file, as in keras.applications.
        image_size: pixels, square.
        seed: the experiment's.

    Raises:
        UserError: no such model, too small an image, weights that can't be had or don't fit.
    """
    application = _application(name)
    keras.utils.set_random_seed(derive_seed(seed, "backbone"))
    with _fitting_size(name, image_size):
        if weights == "imagenet":
            base = imagenet_model(application, **_arguments(image_size))
        else:
            base = application(weights=None, **_arguments(image_size))
    base.name = "base"  # only now: some families make the name of the file to download from it
    if weights not in ("imagenet", "random"):
        load_weights(base, name, WEIGHTS_FOLDER / weights)

    slices = keras.Input((image_size, image_size, 1), name="slice")
    rgb = keras.layers.Concatenate(name="grey_to_rgb")([slices, slices, slices])
    return keras.Model(slices, base(_preprocessing(application)(rgb)), name="backbone")


def fetch_imagenet(name: str, image_size: int) -> tuple[Path, str]:
    """Keras' cache with the file that `build_backbone` loads for `imagenet`, and `weights_hash` of what is in it.

    Raises what `build_backbone` raises.
    """
    application = _application(name)
    with _fitting_size(name, image_size):
        base = imagenet_model(application, **_arguments(image_size))
    return keras_cache(), weights_hash(base)


def require_fitting(name: str, image_size: int, path: Path) -> None:
    """Raise `UserError` unless the file at `path` holds the weights of backbone `name` without its top."""
    with _fitting_size(name, image_size):
        base = _application(name)(weights=None, **_arguments(image_size))
    load_weights(base, name, path)


def weights_hash(base: keras.Model) -> str:
    """SHA-256 over the values of all weights in layer order, which tells what a run started from."""
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


def _arguments(image_size: int) -> dict[str, Any]:
    return {"include_top": False, "input_shape": (image_size, image_size, 3)}


@contextmanager
def _fitting_size(name: str, image_size: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"params.yaml: image_size = {image_size} does not fit backbone {name}: {reason}") from None


def _preprocessing(application: Any) -> keras.layers.Layer:
    """The family's `preprocess_input` as a layer that a saved model carries.

    Every family's preprocessing is affine in each channel (some also swap the channels, which are equal here), so its
    values at 0 and at 1 determine it.
    """
    preprocess = sys.modules[application.__module__].preprocess_input
    offset, one = (preprocess(np.full((1, 1, 1, 3), value, "float32"))[0, 0, 0] for value in (0.0, 1.0))
    return keras.layers.Rescaling((one - offset).tolist(), offset.tolist(), name="preprocessing")
