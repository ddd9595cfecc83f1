"""The activation cache holds what the frozen part gives, and nothing of it stays on disk."""

import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

from ctscan.training.activation_cache import activation_cache

import keras
import numpy as np
import pytest
import tensorflow as tf

COUNT = 11


@pytest.fixture(params=["float32", "bfloat16"])
def frozen_part(request: pytest.FixtureRequest) -> keras.Model:
    """A frozen part whose cut is two tensors of different shapes."""
    inputs = keras.Input((4, 4, 1))
    policy = "float32" if request.param == "float32" else "mixed_bfloat16"
    scaled = keras.layers.Rescaling(1 / 255, dtype=policy)(inputs)
    first = keras.layers.Conv2D(3, 3, dtype=policy)(scaled)
    second = keras.layers.Conv2D(2, 1, dtype=policy)(scaled)
    return keras.Model(inputs, [first, second])


def _images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 1), dtype=np.uint8)


def test_rows_are_what_the_frozen_part_gives_in_any_order(tmp_path: Path, frozen_part: keras.Model) -> None:
    with activation_cache(tmp_path / "cache", COUNT, frozen_part.outputs) as cache:
        assert cache is not None
        cache.fill(frozen_part, tf.data.Dataset.from_tensor_slices(_images()).batch(4))
        assert sum(file.stat().st_size for file in cache.files) == cache.size
        order = tf.constant([7, 0, 10, 7])
        for row, expected in zip(cache.rows(order), frozen_part(_images()), strict=True):
            row, expected = tf.cast(row, tf.float32), tf.cast(tf.gather(expected, order), tf.float32)
            np.testing.assert_allclose(row, expected, rtol=1e-5)  # batches of other sizes round otherwise


def test_every_image_goes_through_the_frozen_part_once(tmp_path: Path) -> None:
    crossed = 0
    inputs = keras.Input((4, 4, 1))
    frozen_part = keras.Model(inputs, keras.layers.Flatten()(inputs))

    def batches() -> Iterator[np.ndarray]:
        nonlocal crossed
        for start in range(0, COUNT, 4):
            crossed += len(_images()[start : start + 4])
            yield _images()[start : start + 4]

    with activation_cache(tmp_path / "cache", COUNT, frozen_part.outputs) as cache:
        assert cache is not None
        cache.fill(frozen_part, batches())
        for _ in range(3):
            np.testing.assert_array_equal(cache.rows(tf.range(COUNT))[0], _images().reshape(COUNT, -1))
    assert crossed == COUNT


def test_the_cache_goes_with_the_block_and_after_an_error(tmp_path: Path, frozen_part: keras.Model) -> None:
    folder = tmp_path / "cache"
    with pytest.raises(RuntimeError), activation_cache(folder, COUNT, frozen_part.outputs) as cache:
        assert cache is not None
        cache.fill(frozen_part, tf.data.Dataset.from_tensor_slices(_images()).batch(4))
        raise RuntimeError
    assert not folder.exists()


def test_what_a_killed_run_left_is_removed(tmp_path: Path, frozen_part: keras.Model) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "cut-9.bin").write_bytes(b"left over")
    with activation_cache(folder, COUNT, frozen_part.outputs):
        assert list(folder.iterdir()) == []


def test_too_small_a_disk_is_announced(
    tmp_path: Path, frozen_part: keras.Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free=2**20))
    with activation_cache(tmp_path / "cache", COUNT, frozen_part.outputs) as cache:
        assert cache is None
    assert "training through the whole network instead" in capsys.readouterr().out
