"""Equal models are equal bytes on disk, and what cannot be loaded is told in one line."""

import zipfile
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.core.params import Head
from ctscan.model.head import build_head
from ctscan.model.saving import load_model, save_model

import keras
import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture(scope="module")
def head() -> keras.Model:
    return build_head(6, Head(units=4, l2=0.01, dropout=0.5), seed=1)


def test_equal_models_are_equal_bytes_and_no_clock_is_in_them(tmp_path: Path, head: keras.Model) -> None:
    twin = build_head(6, Head(units=4, l2=0.01, dropout=0.5), seed=1)
    save_model(head, tmp_path / "a.keras")
    save_model(twin, tmp_path / "b.keras")
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.keras", "b.keras"]
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert b"date" not in archive.read("metadata.json")


def test_plain_keras_loads_what_we_save(tmp_path: Path, head: keras.Model) -> None:
    save_model(head, tmp_path / "a.keras")
    inputs = np.random.default_rng(0).normal(size=(3, 6)).astype("float32")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "a.keras")(inputs), head(inputs))
    with zipfile.ZipFile(tmp_path / "a.keras") as archive:
        assert b"ctscan" not in archive.read("config.json")


def test_the_heads_penalty_and_its_gradient_are_those_of_keras_l2(head: keras.Model) -> None:
    kernel = head.get_layer("hidden").kernel
    slopes, values = [], []
    for penalty in (lambda: head.losses[0], lambda: keras.regularizers.L2(0.01)(kernel)):
        with tf.GradientTape() as tape:
            values.append(penalty())
        slopes.append(tape.gradient(values[-1], kernel.value))
    assert values[1] > 0
    np.testing.assert_allclose(values[0], values[1], rtol=1e-6)
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-6)


def test_a_changed_weight_changes_the_bytes(tmp_path: Path, head: keras.Model) -> None:
    save_model(head, tmp_path / "a.keras")
    changed = keras.models.clone_model(head)
    changed.set_weights([weights + 1e-3 for weights in head.get_weights()])
    save_model(changed, tmp_path / "b.keras")
    assert (tmp_path / "a.keras").read_bytes() != (tmp_path / "b.keras").read_bytes()


def test_a_missing_or_damaged_model_is_one_line(tmp_path: Path, head: keras.Model) -> None:
    path = tmp_path / "initial.keras"
    with pytest.raises(UserError, match=r"initial\.keras is missing; get it with"):
        load_model(path)
    save_model(head, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="damaged") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
