"""Compute the activations at the cut once per image, and keep them on disk for every epoch of fine-tuning."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ctscan.core.errors import writing
from ctscan.model.forward import forward

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

SPARE_DISK = 2 * 2**30  # bytes left free for checkpoints and the model


class ActivationCache:
    """The activations at the cut of n images: one file per tensor, with one row per image, in the images' order.

    Rows are read through a memory map that lives for one batch, so memory does not grow with the number of images.

    Args:
        folder: of the files, which exists.
        count: n.
        cut: the tensors that cross the cut, as `cut_network` gives them.
    """

    def __init__(self, folder: Path, count: int, cut: Sequence[keras.KerasTensor]) -> None:
        self.count = count
        self.shapes = [tuple(tensor.shape[1:]) for tensor in cut]
        self.dtypes = [tf.as_dtype(tensor.dtype) for tensor in cut]
        self.files = [folder / f"cut-{index}.bin" for index in range(len(cut))]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(
            self.count * int(np.prod(shape)) * dtype.size for shape, dtype in zip(self.shapes, self.dtypes, strict=True)
        )

    def fill(self, frozen_part: keras.Model, images: Iterable[tf.Tensor]) -> None:
        """Write what `frozen_part` gives of `images`, batches in order. Raises `UserError` where the disk is full."""
        network = forward(frozen_part)
        with writing(self.files[0].parent), ExitStack() as stack:
            streams = [stack.enter_context(path.open("wb")) for path in self.files]
            with tqdm(total=self.count, desc="frozen part", unit="slice") as progress:
                for batch in images:
                    for stream, tensor in zip(streams, tf.nest.flatten(network(batch)), strict=True):
                        stream.write(tensor.numpy().tobytes())
                    progress.update(len(batch))

    def rows(self, indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The activations of the images at `indices` (b,): a (b, ...) tensor for each tensor of the cut."""

        def read(positions: np.ndarray) -> list[np.ndarray]:
            return [
                np.memmap(path, dtype.as_numpy_dtype, "r", shape=(self.count, *shape))[positions]
                for path, shape, dtype in zip(self.files, self.shapes, self.dtypes, strict=True)
            ]

        # Flattened, because outside a graph TensorFlow gives a single tensor without a list around it.
        tensors = tf.nest.flatten(tf.numpy_function(read, [indices], self.dtypes, stateful=False))
        return tuple(
            tf.ensure_shape(tensor, (None, *shape)) for tensor, shape in zip(tensors, self.shapes, strict=True)
        )


@contextmanager
def activation_cache(folder: Path, count: int, cut: Sequence[keras.KerasTensor]) -> Iterator[ActivationCache | None]:
    """Give an empty cache in `folder`, which is removed at the end; what a killed run left there is removed first.

    Where the disk lacks the space, it prints so and gives None.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        cache = ActivationCache(folder, count, cut)
        free = shutil.disk_usage(folder).free
        if free < cache.size + SPARE_DISK:
            print(
                f"the activation cache needs {(cache.size + SPARE_DISK) / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB "
                "are free: training through the whole network instead, which is slower and rounds otherwise"
            )
            yield None
        else:
            yield cache
    finally:
        shutil.rmtree(folder, ignore_errors=True)
