"""Slices in their order, and networks on batches of any size."""

import threading
from functools import partial
from pathlib import Path

from ctscan.core.seeds import INFERENCE_BATCH
from ctscan.images.batches import THREADS, Slices, ahead
from ctscan.images.decode import load_slice
from ctscan.model.forward import forward

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

SIZE = 12


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """More than two batches."""
    found = [tmp_path / f"{number}.png" for number in range(2 * INFERENCE_BATCH + 3)]
    for path in found:
        pixels = np.random.default_rng(int(path.stem)).integers(0, 256, (20, 17), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return found


@pytest.mark.parametrize("rows", [slice(None), slice(1, 60, 7), [5, 2], np.arange(40), []], ids=repr)
def test_slices_are_indexed_as_an_array_of_them(paths: list[Path], rows: slice | list[int] | np.ndarray) -> None:
    paths.reverse()
    slices = Slices(paths, SIZE)
    every = np.stack([load_slice(path, SIZE) for path in paths])[..., None]
    expected = every[rows if isinstance(rows, slice) else np.array(rows, int)]
    assert len(slices) == len(every)
    assert slices[rows].dtype == np.uint8
    np.testing.assert_array_equal(slices[rows], expected)
    assert [len(batch) for batch in slices.batches(np.arange(33))] == [INFERENCE_BATCH, 1]


def test_elements_come_in_their_order_however_long_each_takes() -> None:
    turns = [threading.Event() for _ in range(THREADS)]
    came = []

    def load(element: np.ndarray) -> np.ndarray:
        """Each waits for the one after it, which has a thread of its own."""
        if element + 1 < THREADS:
            came.append(turns[element + 1].wait(timeout=10))
        turns[element].set()
        return 2 * element

    # What is stateful goes one by one in a process that once asked for determinism.
    stateless = partial(tf.numpy_function, load, Tout=tf.int64, stateful=False)
    data = ahead(tf.data.Dataset.range(THREADS), lambda element: stateless([element]))
    assert [int(element) for element in data] == [2 * element for element in range(THREADS)]
    assert came == [True] * (THREADS - 1)
    assert data.options().autotune.enabled is False  # or the end of a pass waits, for up to a minute


def test_forward_is_the_network_in_inference_mode_traced_once() -> None:
    traced = []

    class Spy(keras.layers.Layer):
        def call(self, values: tf.Tensor) -> tf.Tensor:
            traced.append(values.shape)
            return tf.cast(values, tf.float32)

    inputs = keras.Input((SIZE, SIZE, 1))
    model = keras.Model(inputs, keras.layers.Dropout(0.5)(Spy()(inputs)))
    network = forward(model)
    traced.clear()
    for count in (5, 5, 3, 1):
        slices = np.random.default_rng(count).integers(0, 256, (count, SIZE, SIZE, 1), dtype=np.uint8)
        np.testing.assert_array_equal(network(slices), slices)
    assert len(traced) == 1
