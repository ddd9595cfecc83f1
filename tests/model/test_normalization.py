"""One pass in bfloat16: the same network and gradients."""

from ctscan.model.backbone import build_backbone
from ctscan.model.forward import forward
from ctscan.model.freezing import freeze
from ctscan.model.normalization import normalize, use_fused

import keras
import numpy as np
import pytest
import tensorflow as tf

SIZE = 64


@pytest.fixture
def bfloat16(float32_policy: None) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")


def _draw(layers: list[keras.layers.Layer]) -> None:
    """Normalizations that do something."""
    rng = np.random.default_rng(1)
    for layer in layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in layer.variables:
                low, high = (-0.5, 0.5) if variable.name in ("beta", "moving_mean") else (0.5, 1.5)
                variable.assign(rng.uniform(low, high, variable.shape))


def _images() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (4, SIZE, SIZE, 3)).astype("float32")


def _fused(model: keras.Model) -> int:
    return sum("call" in vars(layer) for layer in model._flatten_layers())


def test_outputs_and_gradient_are_the_formulas() -> None:
    rng = np.random.default_rng(0)
    inputs = tf.constant(rng.standard_normal((2, 3, 4, 5)), tf.float32)
    mean, variance, scale, offset = tf.constant(rng.uniform(0.5, 2, (4, 5)), tf.float32)
    found = []
    for function in (normalize, lambda x, m, v, s, o, e: tf.nn.batch_normalization(x, m, v, o, s, e)):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = function(inputs, mean, variance, scale, offset, 0.1)
            loss = tf.reduce_sum(outputs * tf.sin(outputs))
        found.append((outputs, tape.gradient(loss, inputs)))
    for ours, plain in zip(*found, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["ResNet50V2", "MobileNetV2"])
def test_as_close_to_float32_as_keras_own(name: str, float32_policy: None) -> None:
    found = []
    for precision, fused in (("float32", False), ("mixed_bfloat16", False), ("mixed_bfloat16", True)):
        keras.config.set_dtype_policy(precision)
        base = build_backbone(name, "random", SIZE, seed=3).get_layer("base")
        _draw(base.layers)
        freeze(base, 20)
        config = base.get_config()
        if fused:
            use_fused(base)
        assert base.get_config() == config
        with tf.GradientTape() as tape:
            outputs = tf.cast(base(_images(), training=True), tf.float32)
            loss = tf.reduce_mean(outputs**2)
        gradients = tape.gradient(loss, [variable.value for variable in base.trainable_variables])
        found.append([outputs, *gradients])
    for exact, own, ours in zip(*found, strict=True):
        assert tf.norm(ours - exact) <= 1.1 * tf.norm(own - exact) < 0.2 * tf.norm(exact)


def test_a_trained_normalization_is_keras_own(bfloat16: None) -> None:
    ends = []
    for fused in (False, True):
        base = build_backbone("ResNet50V2", "random", SIZE, seed=3).get_layer("base")
        freeze(base, len(base.layers), "trained")
        if fused:
            use_fused(base)
        model = keras.Sequential([base, keras.layers.GlobalAveragePooling2D(dtype="float32")])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.train_on_batch(_images(), np.zeros((4, base.output_shape[-1])))
        ends.append(base.get_weights())
    for own, ours in zip(*ends, strict=True):
        np.testing.assert_array_equal(ours, own)


def test_inference_in_bfloat16_goes_by_it_and_float32_stays(float32_policy: None) -> None:
    found = []
    for precision in ("mixed_bfloat16", "float32"):
        keras.config.set_dtype_policy(precision)
        backbone = build_backbone("MobileNetV2", "random", SIZE, seed=3)
        forward(backbone)
        found.append(_fused(backbone))
    layers = backbone.get_layer("base").layers
    assert found == [sum(isinstance(layer, keras.layers.BatchNormalization) for layer in layers), 0]


def test_only_images_with_their_channels_last(bfloat16: None) -> None:
    for shape, axis, fused in (((8, 8, 3), -1, 1), ((8, 8, 3), 1, 0), ((5,), -1, 0)):
        inputs = keras.Input(shape)
        layer = keras.layers.BatchNormalization(axis, center=False, scale=False)
        model = keras.Model(inputs, layer(inputs))
        values = tf.constant(np.random.default_rng(0).standard_normal((2, *shape)), tf.bfloat16)
        layer.moving_mean.assign(np.linspace(-1, 1, layer.moving_mean.shape[0]))
        own = model(values)
        use_fused(model)
        assert _fused(model) == fused
        np.testing.assert_array_equal(tf.cast(model(values), tf.float32), tf.cast(own, tf.float32))
