"""Give the activations at the cut, once computed and kept on disk, or computed anew in each epoch.

Both give the same bits where training reads blockwise (`examples.Examples`): what goes through the frozen part together
is then a block, and a block holds the same images in every epoch. So a measured speed may choose between them.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from ctscan.core.errors import writing
from ctscan.images.batches import image_batches
from ctscan.model.forward import forward

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

SPARE_DISK = 2 * 2**30  # bytes left free for checkpoints and the model
MEASURED = 4  # blocks by which the speeds of the disk and of the frozen part are measured


class FrozenPart:
    """The activations at the cut of images, computed whenever they are asked for.

    Args:
        network: from slices to the tensors that cross the cut.
        files: of the n images.
        block: the number of images that go through the network together.
    """

    def __init__(self, network: keras.Model, files: Sequence[Path], block: int) -> None:
        self.files, self.size, self.block = files, network.input_shape[1], block
        self.cut = network.outputs
        self.network = forward(network)

    def batches(self, positions: Iterable[int]) -> Iterator[list[np.ndarray]]:
        """The activations of the images at `positions`, in order: arrays (b, ...) of a block, one for each tensor."""
        for images in image_batches([self.files[position] for position in positions], self.size, self.block):
            yield [tensor.numpy() for tensor in tf.nest.flatten(self.network(images))]

    def rows(self, indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The activations of the images at `indices` (b,): a (b, ...) tensor for each tensor of the cut."""

        def compute(positions: np.ndarray) -> list[np.ndarray]:
            return [np.concatenate(parts) for parts in zip(*self.batches(positions), strict=True)]

        return _as_tensors(compute, indices, self.cut)


class ActivationCache:
    """The activations at the cut of n images: one file per tensor, with one row per image, in the images' order.

    Rows are read through a memory map that lives for one batch, so memory does not grow with the number of images.

    Args:
        folder: of the files, which exists.
        count: n.
        cut: the tensors that cross the cut, as `cut_network` gives them.
    """

    def __init__(self, folder: Path, count: int, cut: Sequence[keras.KerasTensor]) -> None:
        self.count, self.cut = count, cut
        self.shapes = [tuple(tensor.shape[1:]) for tensor in cut]
        self.dtypes = [tf.as_dtype(tensor.dtype) for tensor in cut]
        self.files = [folder / f"cut-{index}.bin" for index in range(len(cut))]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.count * sum(
            int(np.prod(shape)) * int(dtype.size) for shape, dtype in zip(self.shapes, self.dtypes, strict=True)
        )

    def fill(self, frozen_part: FrozenPart, parts: Sequence[int]) -> None:
        """Write what `frozen_part` gives of all n images. Raises `UserError` where the disk is full.

        Args:
            parts: numbers of images, n together. A block of the frozen part does not cross from one part to the next.
        """
        with writing(self.files[0].parent), ExitStack() as stack:
            streams = [stack.enter_context(path.open("wb")) for path in self.files]
            with tqdm(total=self.count, desc="frozen part", unit="slice") as progress:
                for end, length in zip(accumulate(parts), parts, strict=True):
                    for arrays in frozen_part.batches(range(end - length, end)):
                        for stream, array in zip(streams, arrays, strict=True):
                            stream.write(array.tobytes())
                        progress.update(len(arrays[0]))

    def rows(self, indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The activations of the images at `indices` (b,): a (b, ...) tensor for each tensor of the cut."""

        def read(positions: np.ndarray) -> list[np.ndarray]:
            return [
                np.memmap(path, dtype.as_numpy_dtype, "r", shape=(self.count, *shape))[positions]
                for path, shape, dtype in zip(self.files, self.shapes, self.dtypes, strict=True)
            ]

        return _as_tensors(read, indices, self.cut)


def _as_tensors(
    function: Callable[[np.ndarray], list[np.ndarray]], indices: tf.Tensor, cut: Sequence[keras.KerasTensor]
) -> tuple[tf.Tensor, ...]:
    """What `function` gives of `indices` (b,): a (b, ...) tensor for each tensor of the cut."""
    dtypes = [tf.as_dtype(tensor.dtype) for tensor in cut]
    # Flattened, because outside a graph TensorFlow gives a single tensor without a list around it.
    tensors = tf.nest.flatten(tf.numpy_function(function, [indices], dtypes, stateful=False))
    return tuple(tf.ensure_shape(tensor, (None, *kept.shape[1:])) for tensor, kept in zip(tensors, cut, strict=True))


class Speeds(NamedTuple):
    """Seconds that an image takes."""

    computing: float  # through the frozen part, with reading its file
    writing: float  # its activations, until they are on the disk
    reading: float  # its activations, from the disk

    def caching_pays(self, epochs: int) -> bool:
        """Whether computing once, writing, and reading in each epoch is faster than computing in each epoch."""
        return self.computing + self.writing + epochs * self.reading < epochs * self.computing


@contextmanager
def choose_activations(
    folder: Path, frozen_part: FrozenPart, parts: Sequence[int], epochs: int, blockwise: bool
) -> Iterator[ActivationCache | FrozenPart]:
    """Give what has the activations of all images of `frozen_part`: a filled cache in `folder`, or `frozen_part`.

    It is the cache where the disk has room for it. One that is read blockwise and is larger than memory also has to be
    faster, by measured speeds, than the frozen part. What is chosen is printed unless it is a cache that fits into
    memory. The folder is removed at the end; what a killed run left there is removed first.

    Args:
        parts: see `ActivationCache.fill`.
        epochs: how often they are read.
        blockwise: whether training reads them in blocks.

    Raises:
        UserError: the disk is full, or can't be written to.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with writing(folder):
        folder.mkdir(parents=True)
    try:
        cache = ActivationCache(folder, len(frozen_part.files), frozen_part.cut)
        if _is_chosen(cache, frozen_part, epochs, blockwise):
            cache.fill(frozen_part, parts)
            yield cache
        else:
            yield frozen_part
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_chosen(cache: ActivationCache, frozen_part: FrozenPart, epochs: int, blockwise: bool) -> bool:
    folder = cache.files[0].parent
    free, needed = shutil.disk_usage(folder).free, cache.size + SPARE_DISK
    if free < needed:
        print(
            f"the activation cache needs {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free: computing the "
            f"frozen part in each epoch, which is slower{'' if blockwise else ' and may round otherwise'}"
        )
        return False
    if not blockwise or cache.size < _memory():
        return True
    speeds = _measure(frozen_part, folder)
    chosen = speeds.caching_pays(epochs)
    print(
        f"an image takes {1000 * speeds.computing:.1f} ms in the frozen part, {1000 * speeds.writing:.1f} ms to write "
        f"and {1000 * speeds.reading:.1f} ms to read: computing the frozen part {'once' if chosen else 'in each epoch'}"
    )
    return chosen


def _memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _measure(frozen_part: FrozenPart, folder: Path) -> Speeds:
    """The speeds of `frozen_part` and of the disk of `folder`, by a few blocks."""
    count = MEASURED * frozen_part.block
    batches = frozen_part.batches(range(frozen_part.block + count))
    next(batches)  # takes longer, as the network is traced
    computing = written = 0.0
    path = folder / "speed.bin"
    with writing(path), path.open("wb") as stream:
        for _ in range(MEASURED):
            started = time.monotonic()
            arrays = next(batches)
            computed = time.monotonic()
            for array in arrays:
                stream.write(array.tobytes())
            stream.flush()
            os.fsync(stream.fileno())
            computing += computed - started
            written += time.monotonic() - computed
        if hasattr(os, "posix_fadvise"):  # what is read is then read from the disk, and not from memory
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.monotonic()
    path.read_bytes()
    read = time.monotonic() - started
    path.unlink()
    return Speeds(computing / count, written / count, read / count)
