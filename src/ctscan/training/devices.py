"""Train on all GPUs of the machine together."""

from collections.abc import Iterator
from contextlib import contextmanager

from ctscan.core.errors import UserError

import keras
import tensorflow as tf


@contextmanager
def all_devices(batch_size: int) -> Iterator[None]:
    """Let models that are built, compiled and trained in the block be trained on all GPUs, where there are several.

    Each device holds the model and takes an equal share of a batch of `batch_size` images, so a step is the same step
    on any number of devices, but for rounding and for dropout, which each device draws for its own images.

    Raises:
        UserError: a batch can't be shared out equally.
    """
    names = _devices()
    if len(names) < 2:
        yield
        return
    if batch_size % len(names):
        raise UserError(
            f"params.yaml: batch_size = {batch_size} can't be shared out equally among {len(names)} GPUs; make it a "
            f"multiple of {len(names)}, or hide some of them with the variable CUDA_VISIBLE_DEVICES"
        )
    print(f"training on {len(names)} devices, each of which takes {batch_size // len(names)} images of a batch")
    with tf.distribute.MirroredStrategy(names).scope():
        yield


def device_count() -> int:
    """How many devices train together, inside a block of `all_devices` and outside."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def _devices() -> list[str]:
    return [device.name for device in tf.config.list_logical_devices("GPU")]


@contextmanager
def synchronized_normalization(model: keras.Model) -> Iterator[None]:
    """Let each BatchNormalization of `model` see the whole batch in training, and not its device's share alone."""
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in layers:
        layer.synchronized = device_count() > 1
    try:
        yield
    finally:
        for layer in layers:
            layer.synchronized = False
