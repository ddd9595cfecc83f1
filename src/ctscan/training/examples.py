"""Feed the images of a subset to training, in an order that a disk can follow where they do not fit into memory."""

import math
from collections.abc import Callable

from ctscan.core.seeds import INFERENCE_BATCH, generator
from ctscan.images.batches import ahead
from ctscan.images.manifest import rows
from ctscan.training.devices import device_count

import numpy as np
import pandas as pd
import tensorflow as tf

Fetch = Callable[[tf.Tensor], tf.Tensor | tuple[tf.Tensor, ...]]

BLOCKWISE_ABOVE = 10_000  # training images
WINDOW = 64 * 2**20  # bytes; tf.data holds up to four windows at a time


def is_blockwise(manifest: pd.DataFrame, augmenting: bool) -> bool:
    """Whether training reads block by block, see `Examples`: above `BLOCKWISE_ABOVE` training images.

    Augmentation needs the image files themselves, of which each lies somewhere else on the disk anyway.
    """
    return not augmenting and len(rows(manifest, "train")) > BLOCKWISE_ABOVE


def block_size(batch_size: int) -> int:
    """The number of neighbouring images in a block: whole batches, and at least `INFERENCE_BATCH` images."""
    return math.ceil(INFERENCE_BATCH / batch_size) * batch_size


class Examples:
    """The images of one subset in the form that a model reads: what `fetch` gives for their positions, and labels.

    An epoch of training reads them in one of two orders. The first is a permutation of all images. The second is
    blockwise, for sets that do not fit into memory: blocks of neighbours are permuted, a few blocks at a time are read
    as a window of `WINDOW` bytes, from the lowest position to the highest, and the images are permuted within that
    window. A disk then reads long pieces, and memory holds a few windows however many images there are.

    Args:
        positions: (n,) positions that `fetch` understands.
        labels: (n,) 0 or 1.
        fetch: (b,) positions -> the model's input for those images, of a known shape but for b.
        blockwise: whether the order is blockwise.
    """

    def __init__(self, positions: np.ndarray, labels: np.ndarray, fetch: Fetch, blockwise: bool = False) -> None:
        self.positions = positions.astype("int64")
        self.labels = labels.astype("float32")
        self.fetch = fetch
        self.blockwise = blockwise

    @property
    def trained(self) -> int:
        """The number of images in an epoch of training: n, less what several devices can't share out equally.

        Keras' synchronized BatchNormalization fails on shares of different sizes.
        """
        return len(self.labels) - len(self.labels) % device_count()

    def steps(self, batch_size: int) -> int:
        """The number of batches in an epoch of training."""
        return math.ceil(self.trained / batch_size)

    def ordered(self, batch_size: int) -> tf.data.Dataset:
        """Batches of one pass, in order."""
        count = len(self.labels)
        return self._batches(lambda epoch: np.arange(count), count, range(1), batch_size)

    def shuffled(self, batch_size: int, seed: int, epochs: range) -> tf.data.Dataset:
        """Batches of one pass per epoch of `epochs`, in an order that depends on `seed` and the epoch alone."""
        count, block, window = self.trained, block_size(batch_size), self._window(batch_size)

        def permutation(epoch: int) -> np.ndarray:
            return generator(seed, "shuffle", int(epoch)).permutation(len(self.labels))[:count]

        def blockwise(epoch: int) -> np.ndarray:
            random, order = generator(seed, "shuffle", int(epoch)), np.arange(count)
            whole = count // block * block  # a shorter block stays the last, so that all others are whole
            random.shuffle(order[:whole].reshape(-1, block))
            for start in range(0, count, window):
                random.shuffle(order[start : start + window])
            return order

        return self._batches(blockwise if self.blockwise else permutation, count, epochs, batch_size)

    def _window(self, batch_size: int) -> int:
        """The number of images in a window: whole blocks, one at least."""
        spec = tf.data.Dataset.from_tensors(self.positions[:1]).map(self._load).element_spec
        image = sum(math.prod(tensor.shape[1:]) * tensor.dtype.size for tensor in tf.nest.flatten(spec[0]))
        block = block_size(batch_size)
        return max(1, WINDOW // (int(image) * block)) * block

    def _load(self, order: tf.Tensor) -> tuple[tf.Tensor | tuple[tf.Tensor, ...], tf.Tensor]:
        return self.fetch(tf.gather(self.positions, order)), tf.gather(self.labels, order)

    def _load_sorted(self, order: tf.Tensor) -> tuple[tf.Tensor | tuple[tf.Tensor, ...], tf.Tensor]:
        """As `_load`, but reads from the lowest position to the highest."""
        ascending = tf.sort(order)
        places = tf.searchsorted(ascending, order)
        loaded: tuple[tf.Tensor, tf.Tensor] = tf.nest.map_structure(
            lambda tensor: tf.gather(tensor, places), self._load(ascending)
        )
        return loaded

    def _batches(
        self, order: Callable[[int], np.ndarray], count: int, epochs: range, batch_size: int
    ) -> tf.data.Dataset:
        """Batches of the `count` images that `order` gives for each epoch."""

        def pieces(size: int) -> tf.data.Dataset:
            def of_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
                drawn = tf.ensure_shape(tf.numpy_function(order, [epoch], tf.int64, stateful=False), [None])
                return tf.data.Dataset.from_tensor_slices(drawn).batch(size)

            return tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(of_epoch)

        # Without a known number of batches, Keras warns when they run out.
        known = tf.data.experimental.assert_cardinality(len(epochs) * math.ceil(count / batch_size))
        if not self.blockwise:
            return ahead(pieces(batch_size).apply(known), self._load)
        windows = pieces(self._window(batch_size)).map(self._load_sorted).prefetch(1)
        batches = windows.flat_map(lambda *window: tf.data.Dataset.from_tensor_slices(window).batch(batch_size))
        return ahead(batches.apply(known), lambda *batch: batch)


def examples(manifest: pd.DataFrame, subset: str, fetch: Fetch, blockwise: bool = False) -> Examples:
    """The images of `subset`; `fetch` takes their positions in `manifest`."""
    positions = rows(manifest, subset)
    return Examples(positions, manifest["label"].to_numpy()[positions], fetch, blockwise)
