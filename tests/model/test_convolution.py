"""Convolutions with gradients of their own: the same outputs, the same gradients."""

from pathlib import Path

from ctscan.core.params import validate
from ctscan.images.manifest import image_paths, read_manifest
from ctscan.model import convolution
from ctscan.model.backbone import build_backbone
from ctscan.model.convolution import convolve, use_products
from ctscan.model.freezing import freeze
from ctscan.model.saving import load_model
from ctscan.training import phases

import keras
import killing
import numpy as np
import pytest
import tensorflow as tf
import yaml
from repository import REPO


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2, 5)])
def test_outputs_and_gradients_are_those_of_a_convolution(size: tuple[int, int], padding: str) -> None:
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.standard_normal((2, 7, 6, 3)), tf.float32)
    kernel = tf.constant(rng.standard_normal((*size, 3, 4)), tf.float32)
    found = []
    for own in (True, False):
        with tf.GradientTape() as tape:
            tape.watch((inputs, kernel))
            outputs = convolve(inputs, kernel, padding) if own else tf.nn.conv2d(inputs, kernel, 1, padding)
            loss = tf.reduce_sum(outputs * tf.sin(outputs))
        found.append((outputs, *tape.gradient(loss, (inputs, kernel))))
    for ours, plain in zip(*found, strict=True):
        assert ours.shape == plain.shape
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["ResNet50V2", "MobileNetV2"])
def test_a_step_is_the_same_within_bfloat16_and_to_the_bit_in_float32(name: str, precision: str) -> None:
    keras.config.set_dtype_policy(precision)
    try:
        base = build_backbone(name, "random", 64, seed=3).get_layer("base")
    finally:
        keras.config.set_dtype_policy("float32")
    freeze(base, 60)
    inputs = np.random.default_rng(0).uniform(-1, 1, (4, 64, 64, 3)).astype("float32")

    @tf.function
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            outputs = tf.cast(base(inputs, training=True), tf.float32)
            loss = tf.reduce_mean(outputs**2)
        return [outputs, *tape.gradient(loss, [variable.value for variable in base.trainable_variables])]

    config = base.get_config()
    plain = step()
    use_products(base)
    assert base.get_config() == config
    own = tf.function(step.python_function)()
    given = [layer for layer in base.layers if "convolution_op" in vars(layer)]
    assert bool(given) == (precision == "mixed_bfloat16")
    assert all(layer in base.layers[-60:] for layer in given)
    for old, new in zip(plain, own, strict=True):
        error = float(tf.norm(tf.cast(new, tf.float32) - tf.cast(old, tf.float32)))
        assert error <= (0 if precision == "float32" else 0.05 * float(tf.norm(tf.cast(old, tf.float32))))


def test_fine_tuning_in_bfloat16_goes_by_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, float32_policy: None
) -> None:
    seen: list[tuple[int, ...]] = []

    def spy(inputs: tf.Tensor, kernel: tf.Tensor, padding: str) -> tf.Tensor:
        seen.append(tuple(kernel.shape))
        return convolve(inputs, kernel, padding)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(convolution, "convolve", spy)
    normalized: list[keras.Model] = []
    monkeypatch.setattr(phases, "use_fused", normalized.append)
    values = yaml.safe_load((REPO / "params.yaml").read_text())
    values["finetune"] |= {"epochs": 1, "patience": 1}
    params = validate(values | {"batch_size": 8, "unfreeze_depth": 4, "precision": "mixed_bfloat16"})
    keras.config.set_dtype_policy(params.precision)
    killing.prepare(tmp_path)
    manifest = read_manifest()
    head = load_model(Path("models/initial.keras"))
    phases.finetune(head, manifest, image_paths(manifest), params, tmp_path / "checkpoint", tmp_path / "boundary")
    assert set(seen) == {(3, 3, killing.FEATURES, killing.FEATURES)}
    assert [model.name for model in normalized] == ["base"]
