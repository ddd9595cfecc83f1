"""Each epoch has an order of its own, and large sets are read block by block without losing an image."""

from itertools import chain

from ctscan.core.seeds import generator
from ctscan.training import examples as module
from ctscan.training.examples import Examples, block_size, is_blockwise

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

COUNT, BATCH = 203, 8
BLOCK = 32
IMAGE = 1024  # bytes
STEPS = -(-COUNT // BATCH)


class Disk:
    """Gives images that hold their own position, and remembers in which pieces they were read."""

    def __init__(self) -> None:
        self.reads: list[list[int]] = []

    def fetch(self, positions: tf.Tensor) -> tf.Tensor:
        def read(asked: np.ndarray) -> np.ndarray:
            self.reads.append(asked.tolist())
            return np.tile(asked[:, None], (1, IMAGE // 8))

        return tf.ensure_shape(tf.numpy_function(read, [positions], tf.int64, stateful=False), (None, IMAGE // 8))


def _batches(data: tf.data.Dataset) -> list[list[int]]:
    """The positions of each batch, whose labels are the positions, too."""
    found = []
    for images, labels in data:
        assert images[:, 0].numpy().tolist() == labels.numpy().tolist()
        found.append([int(label) for label in labels])
    return found


@pytest.fixture(params=[False, True], ids=["one permutation", "blockwise"])
def examples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Examples:
    monkeypatch.setattr(module, "WINDOW", 2 * BLOCK * IMAGE)
    disk = Disk()
    return Examples(np.arange(COUNT), np.arange(COUNT), disk.fetch, blockwise=request.param)


def test_each_epoch_has_an_order_of_its_own_wherever_training_starts(examples: Examples) -> None:
    def orders(epochs: range) -> list[list[int]]:
        batches = _batches(examples.shuffled(BATCH, 1, epochs))
        assert [len(batch) for batch in batches] == ([BATCH] * (STEPS - 1) + [COUNT % BATCH]) * len(epochs)
        return [list(chain(*batches[start : start + STEPS])) for start in range(0, len(batches), STEPS)]

    first, second, third = orders(range(3))
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first != second != third
    assert orders(range(1, 3)) == [second, third]
    assert list(chain(*_batches(examples.ordered(BATCH)))) == list(range(COUNT))


def test_blocks_are_read_whole_and_in_ascending_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 2 * BLOCK * IMAGE)
    disk = Disk()
    batches = _batches(Examples(np.arange(COUNT), np.arange(COUNT), disk.fetch, True).shuffled(BATCH, 2, range(1)))
    whole = COUNT // BLOCK * BLOCK
    blocks = [list(range(start, start + BLOCK)) for start in range(0, whole, BLOCK)]
    last = list(range(whole, COUNT))
    read = []
    for window in disk.reads:
        assert window == sorted(window)
        assert len(window) <= 2 * BLOCK
        read += [window[start : start + BLOCK] for start in range(0, len(window), BLOCK)]
    assert sorted(read) == [*blocks, last]
    assert read[-1] == last
    assert read[:-1] != blocks, "the blocks come in random order"
    first = list(chain(*batches))[: 2 * BLOCK]
    assert sorted(first) == disk.reads[0]
    assert first != disk.reads[0], "and their images mixed"


def test_a_window_holds_a_block_however_large_its_images_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 1)
    disk = Disk()
    list(Examples(np.arange(COUNT), np.arange(COUNT), disk.fetch, True).ordered(BATCH))
    assert [len(window) for window in disk.reads] == [BLOCK] * (COUNT // BLOCK) + [COUNT % BLOCK]


def test_devices_get_equal_shares_of_each_training_batch(examples: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "device_count", lambda: 4)
    batches = _batches(examples.shuffled(BATCH, 1, range(2)))
    assert len(batches) == 2 * examples.steps(BATCH)
    assert {len(batch) % 4 for batch in batches} == {0}
    assert sum(len(batch) for batch in batches) == 2 * (COUNT - COUNT % 4)
    assert sum(len(batch) for batch in _batches(examples.ordered(BATCH))) == COUNT


def test_a_block_is_whole_batches() -> None:
    assert [block_size(batch) for batch in (8, 16, 20, 32, 33)] == [32, 32, 40, 32, 33]


def test_the_study_set_keeps_the_order_of_one_permutation() -> None:
    study, cohort = (pd.DataFrame({"subset": ["train"] * count}) for count in (1_476, 100_000))
    assert not is_blockwise(study, augmenting=False)
    assert is_blockwise(cohort, augmenting=False)
    assert not is_blockwise(cohort, augmenting=True)
    disk = Disk()
    first, *_ = _batches(Examples(np.arange(COUNT), np.arange(COUNT), disk.fetch).shuffled(BATCH, 7, range(1)))
    assert first == generator(7, "shuffle", 0).permutation(COUNT)[:BATCH].tolist()
