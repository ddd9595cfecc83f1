"""BatchNormalization by its own statistics, in bfloat16, in one pass over memory.

Keras goes to float32 and back in four passes, in three to four times as long. Either rounds once, from float32. A
network in float32 stays Keras' own, bit for bit.
"""

from functools import partial
from typing import Any

import keras
import tensorflow as tf


def use_fused(model: keras.Model) -> None:
    """Let each BatchNormalization of `model` that computes on images in bfloat16 do so by `normalize`.

    How `model` is saved stays as it is, and so does a step that trains the layer. Compile afterwards. A GPU has better
    ways of its own.
    """
    if tf.config.list_physical_devices("GPU"):
        return
    for layer in model._flatten_layers():
        if type(layer) is keras.layers.BatchNormalization and layer.compute_dtype == "bfloat16":
            rank = layer.input_spec.ndim
            if rank == 4 and layer.axis % rank == rank - 1:
                layer.call = partial(_call, layer)


def normalize(inputs: tf.Tensor, mean: Any, variance: Any, scale: Any, offset: Any, epsilon: float) -> tf.Tensor:
    """`tf.nn.batch_normalization` of (n, h, w, d), computed in float32, by (d,) float32, which get no gradient."""

    @tf.custom_gradient
    def normalized(inputs: tf.Tensor) -> tuple[tf.Tensor, Any]:
        nothing = tf.zeros_like(variance)

        def by(inputs: tf.Tensor, mean: Any, offset: Any) -> tf.Tensor:
            arguments = {"scale": scale, "offset": offset, "mean": mean, "variance": variance, "epsilon": epsilon}
            return tf.raw_ops.FusedBatchNormV3(x=inputs, **arguments, is_training=False).y

        return by(inputs, mean, offset), lambda upstream: by(upstream, nothing, nothing)

    return normalized(inputs)


def _call(layer: keras.layers.BatchNormalization, inputs: tf.Tensor, training: bool = False, mask: Any = None) -> Any:
    if training and layer.trainable:
        return keras.layers.BatchNormalization.call(layer, inputs, training, mask)
    mean, variance = (tf.convert_to_tensor(values) for values in (layer.moving_mean, layer.moving_variance))
    scale = tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones_like(variance)
    offset = tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros_like(variance)
    return normalize(inputs, mean, variance, scale, offset, layer.epsilon)
