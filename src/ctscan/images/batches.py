"""Read slices in batches, decoded in parallel and in a fixed order (tf.data)."""

import os
from collections.abc import Callable, Iterator, Sequence
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


class Slices:
    """The slices at `paths`, decoded each time that they are asked for, so that memory need not hold them all.

    Index it as an array uint8 (n, size, size, 1), by a list of positions or by a slice of Python's.
    """

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size = np.array(paths, dtype=object), size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Sequence[int] | np.ndarray | slice) -> np.ndarray:
        slices = np.empty((len(self.paths[rows]), self.size, self.size, 1), np.uint8)
        done = 0
        for batch in self.batches(rows):
            slices[done : done + len(batch)] = batch
            done += len(batch)
        return slices

    def batches(self, rows: Sequence[int] | np.ndarray | slice) -> Iterator[np.ndarray]:
        """Batches (b, size, size, 1) of the slices at `rows`, in that order."""
        for batch in image_batches(self.paths[rows].tolist(), self.size):
            yield batch.numpy()


def _decode(paths: Sequence[Path], size: int, positions: tf.Tensor) -> tf.Tensor:
    def load(positions: np.ndarray) -> np.ndarray:
        return np.stack([load_slice(paths[position], size) for position in positions])[..., None]

    return tf.ensure_shape(tf.numpy_function(load, [positions], tf.uint8, stateful=False), (None, size, size, 1))
