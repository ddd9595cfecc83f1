"""Read slices in batches, decoded in parallel and in a fixed order (tf.data)."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ctscan.core.seeds import INFERENCE_BATCH
from ctscan.images.decode import load_slice

import numpy as np
import tensorflow as tf

THREADS = min(8, os.cpu_count() or 1)  # each holds a batch in memory


def slice_reader(paths: Sequence[Path], size: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from positions (b,) in `paths` to their decoded slices (b, size, size, 1) uint8."""
    return lambda positions: _decode(paths, size, positions)


def image_batches(paths: Sequence[Path], size: int, batch_size: int = INFERENCE_BATCH) -> tf.data.Dataset:
    """Batches (b, size, size, 1) uint8 of the slices at `paths`, in that order."""
    order = tf.data.Dataset.range(len(paths)).batch(batch_size)
    return ahead(order, lambda positions: _decode(paths, size, positions))


def ahead(data: tf.data.Dataset, load: Callable[..., Any]) -> tf.data.Dataset:
    """What `load` gives of each element of `data`, in their order, by threads that stay a few elements ahead."""
    options = tf.data.Options()
    # Autotuning sleeps for 10 ms, then each time for twice as long, up to a minute, and the end of a pass waits until
    # it wakes (TensorFlow 2.21). A pass of 6 s takes 10 s with it.
    options.autotune.enabled = False
    # TensorFlow's own threads may be busy with the network, or there may be fewer of them.
    options.threading.private_threadpool_size = THREADS
    return data.map(load, THREADS, deterministic=True).prefetch(2).with_options(options)


def load_slices(paths: Sequence[Path], size: int) -> np.ndarray:
    """All slices at `paths`, uint8 (n, size, size, 1), in one array; hand on views of it, since it may be large."""
    slices = np.empty((len(paths), size, size, 1), np.uint8)
    done = 0
    for batch in image_batches(paths, size):
        slices[done : done + len(batch)] = batch
        done += len(batch)
    return slices


def _decode(paths: Sequence[Path], size: int, positions: tf.Tensor) -> tf.Tensor:
    def load(positions: np.ndarray) -> np.ndarray:
        return np.stack([load_slice(paths[position], size) for position in positions])[..., None]

    return tf.ensure_shape(tf.numpy_function(load, [positions], tf.uint8, stateful=False), (None, size, size, 1))
