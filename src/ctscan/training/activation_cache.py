"""What crosses the frontier between trunk and tail, computed once an image and kept on disk."""

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


class Boundary:
    """The frontier activations of n images: one file a frontier tensor, rows in the order of the images.

    Rows are read through a map that lives for one batch, so memory stays flat however many images there are.
    """

    def __init__(self, folder: Path, count: int, frontier: Sequence[keras.KerasTensor]) -> None:
        self.count = count
        self.shapes = [tuple(tensor.shape[1:]) for tensor in frontier]
        self.dtypes = [tf.as_dtype(tensor.dtype) for tensor in frontier]
        self.files = [folder / f"frontier-{index}.bin" for index in range(len(frontier))]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(
            self.count * int(np.prod(shape)) * dtype.size for shape, dtype in zip(self.shapes, self.dtypes, strict=True)
        )

    def fill(self, trunk: keras.Model, images: Iterable[tf.Tensor]) -> None:
        """Push each of `images`, batches in order, through `trunk` once. Raises `UserError` where the disk is full."""
        network = forward(trunk)
        with writing(self.files[0].parent), ExitStack() as stack:
            streams = [stack.enter_context(path.open("wb")) for path in self.files]
            with tqdm(total=self.count, desc="frozen trunk", unit="slice") as progress:
                for batch in images:
                    for stream, tensor in zip(streams, tf.nest.flatten(network(batch)), strict=True):
                        stream.write(tensor.numpy().tobytes())
                    progress.update(len(batch))

    def rows(self, indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The activations of the images at `indices` (b,): a (b, ...) tensor for each frontier tensor."""

        def read(positions: np.ndarray) -> list[np.ndarray]:
            return [
                np.memmap(path, dtype.as_numpy_dtype, "r", shape=(self.count, *shape))[positions]
                for path, shape, dtype in zip(self.files, self.shapes, self.dtypes, strict=True)
            ]

        # Flattened, because outside a graph TensorFlow gives a single tensor bare.
        tensors = tf.nest.flatten(tf.numpy_function(read, [indices], self.dtypes, stateful=False))
        return tuple(
            tf.ensure_shape(tensor, (None, *shape)) for tensor, shape in zip(tensors, self.shapes, strict=True)
        )


@contextmanager
def boundary_cache(folder: Path, count: int, frontier: Sequence[keras.KerasTensor]) -> Iterator[Boundary | None]:
    """An empty cache in `folder`, removed at the end; what a killed run left there is removed at the start.

    Yields None, and says so, where the disk lacks the space.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        cache = Boundary(folder, count, frontier)
        free = shutil.disk_usage(folder).free
        if free < cache.size + SPARE_DISK:
            print(
                f"the boundary cache needs {(cache.size + SPARE_DISK) / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are "
                "free: training through the whole network instead, which is slower and rounds otherwise"
            )
            yield None
        else:
            yield cache
    finally:
        shutil.rmtree(folder, ignore_errors=True)
