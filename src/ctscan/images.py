"""Slices as tf.data: decoded in parallel, in a fixed order."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ctscan.slices import load_slice

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

INFERENCE_BATCH = 32


def slice_reader(paths: Sequence[Path], size: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from positions (b,) in `paths` to their decoded slices (b, size, size, 1) uint8."""
    return lambda positions: _decode(paths, size, positions)


def image_batches(paths: Sequence[Path], size: int, batch_size: int = INFERENCE_BATCH) -> tf.data.Dataset:
    """Batches (b, size, size, 1) uint8 of the slices at `paths`, in that order."""
    order = tf.data.Dataset.range(len(paths)).batch(batch_size)
    decoded = order.map(lambda positions: _decode(paths, size, positions), tf.data.AUTOTUNE, deterministic=True)
    return decoded.prefetch(2)


def _decode(paths: Sequence[Path], size: int, positions: tf.Tensor) -> tf.Tensor:
    def load(positions: np.ndarray) -> np.ndarray:
        return np.stack([load_slice(paths[position], size) for position in positions])[..., None]

    return tf.ensure_shape(tf.numpy_function(load, [positions], tf.uint8, stateful=False), (None, size, size, 1))


def predict(model: keras.Model, inputs: np.ndarray, title: str) -> np.ndarray:
    """Probabilities (n,) float64 of the positive class for `inputs` (n, ...), batch by batch under a progress bar."""
    scores = [
        model.predict_on_batch(inputs[start : start + INFERENCE_BATCH])[:, 0]
        for start in tqdm(range(0, len(inputs), INFERENCE_BATCH), desc=title, unit="batch")
    ]
    joined: np.ndarray = np.concatenate(scores)
    return joined.astype(float)
