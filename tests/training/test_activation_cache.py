"""The activations at the cut are what the frozen part gives, kept or computed anew, and none of them stay on disk."""

import shutil
from collections import namedtuple
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from ctscan.training import activation_cache
from ctscan.training.activation_cache import ActivationCache, FrozenPart, Speeds, choose_activations

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

COUNT, SIZE, BLOCK = 11, 4, 4
PARTS = [7, 4]

Choose = Callable[..., AbstractContextManager[ActivationCache | FrozenPart]]


@pytest.fixture(params=["float32", "bfloat16"])
def frozen_part(request: pytest.FixtureRequest, tmp_path: Path) -> FrozenPart:
    """A frozen part whose cut is two tensors of different shapes."""
    inputs = keras.Input((SIZE, SIZE, 1))
    policy = "float32" if request.param == "float32" else "mixed_bfloat16"
    scaled = keras.layers.Rescaling(1 / 255, dtype=policy)(inputs)
    first = keras.layers.Conv2D(3, 3, dtype=policy)(scaled)
    second = keras.layers.Conv2D(2, 1, dtype=policy)(scaled)
    files = [tmp_path / f"{number}.png" for number in range(COUNT)]
    for path, pixels in zip(files, _images(), strict=True):
        Image.fromarray(pixels).save(path)
    return FrozenPart(keras.Model(inputs, [first, second]), files, BLOCK)


@pytest.fixture
def choose(frozen_part: FrozenPart, tmp_path: Path) -> Choose:
    return partial(choose_activations, tmp_path / "cache", frozen_part, PARTS, epochs=5)


def _images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE), dtype=np.uint8)


def _bits(rows: tuple[tf.Tensor, ...]) -> list[bytes]:
    return [row.numpy().tobytes() for row in rows]


def test_rows_are_what_the_frozen_part_gives_in_any_order(choose: Choose, frozen_part: FrozenPart) -> None:
    with choose(blockwise=False) as cache:
        assert isinstance(cache, ActivationCache)
        assert sum(file.stat().st_size for file in cache.files) == cache.size
        order = tf.constant([7, 0, 10, 7])
        expected = frozen_part.network(tf.gather(_images()[..., None], order))
        for kept, computed, wanted in zip(cache.rows(order), frozen_part.rows(order), expected, strict=True):
            for row in (kept, computed):
                assert row.dtype == wanted.dtype
                # Batches of other sizes round otherwise.
                np.testing.assert_allclose(tf.cast(row, tf.float32), tf.cast(wanted, tf.float32), rtol=1e-5)


def test_a_block_has_the_same_bits_kept_and_computed_anew(choose: Choose, frozen_part: FrozenPart) -> None:
    with choose(blockwise=True) as cache:
        assert isinstance(cache, ActivationCache)
        for window in ([4, 5, 6], [0, 1, 2, 3, 4, 5, 6], [7, 8, 9, 10]):
            assert _bits(cache.rows(tf.constant(window))) == _bits(frozen_part.rows(tf.constant(window)))


def test_every_image_goes_through_the_frozen_part_once_in_blocks_of_one_part(
    choose: Choose, frozen_part: FrozenPart
) -> None:
    crossed: list[list[int]] = []
    network, known = frozen_part.network, [image.tobytes() for image in _images()]

    def spy(images: tf.Tensor) -> list[tf.Tensor]:
        crossed.append([known.index(image.tobytes()) for image in images.numpy()])
        activations: list[tf.Tensor] = network(images)
        return activations

    frozen_part.network = spy
    with choose(blockwise=True) as cache:
        for _ in range(3):
            cache.rows(tf.range(COUNT))
    assert crossed == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10]]


def test_the_cache_goes_with_the_block_and_after_an_error(choose: Choose, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), choose(blockwise=False):
        assert list((tmp_path / "cache").iterdir())
        raise RuntimeError
    assert not (tmp_path / "cache").exists()


def test_what_a_killed_run_left_is_removed(choose: Choose, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cut-9.bin").write_bytes(b"left over")
    with choose(blockwise=False):
        assert {path.name for path in (tmp_path / "cache").iterdir()} == {"cut-0.bin", "cut-1.bin"}


@pytest.mark.parametrize("blockwise", [False, True])
def test_too_small_a_disk_is_announced(
    choose: Choose,
    frozen_part: FrozenPart,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    blockwise: bool,
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free=2**20))
    with choose(blockwise=blockwise) as source:
        assert source is frozen_part
    said = capsys.readouterr().out
    assert "computing the frozen part in each epoch" in said
    assert ("may round otherwise" in said) == (not blockwise)


def test_a_cache_larger_than_memory_has_to_be_faster_than_the_frozen_part(
    choose: Choose, frozen_part: FrozenPart, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(activation_cache, "_memory", lambda: 0)
    monkeypatch.setattr(activation_cache, "MEASURED", 1)
    measured = activation_cache._measure
    for reading, kept in ((1e-4, True), (1.0, False)):

        def speeds(part: FrozenPart, folder: Path, reading: float = reading) -> Speeds:
            assert min(measured(part, folder)) > 0
            assert list(folder.iterdir()) == []
            return Speeds(computing=0.02, writing=0.01, reading=reading)

        monkeypatch.setattr(activation_cache, "_measure", speeds)
        with choose(blockwise=True) as source:
            assert isinstance(source, ActivationCache) == kept
        assert f"computing the frozen part {'once' if kept else 'in each epoch'}" in capsys.readouterr().out
    with choose(blockwise=False) as source:
        assert isinstance(source, ActivationCache), "speeds choose only between what gives equal bits"
    assert capsys.readouterr().out == ""


def test_caching_pays_where_it_saves_time_over_all_epochs() -> None:
    speeds = Speeds(computing=0.010, writing=0.015, reading=0.005)
    assert [epochs for epochs in range(1, 9) if speeds.caching_pays(epochs)] == [6, 7, 8]
