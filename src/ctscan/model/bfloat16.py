"""Compute a network's layers in bfloat16 faster than Keras does on a CPU.

Two kinds of layers are replaced. Where a layer computes in float32 nothing is, and its results stay Keras' own, bit
for bit. The same holds on a GPU, which has better ways of its own.

- A convolution's kernel gradient is a matrix product. oneDNN's own way to it takes 1.1 to 2 times as long in bfloat16.
- BatchNormalization with its moving statistics goes through memory once. Keras converts to float32 and back in four
  passes, which takes three to four times as long. Both round once, from float32.
"""

import math
from functools import partial
from typing import Any

import keras
import tensorflow as tf

LANES = 16  # float32 numbers in a register of AVX-512


def use_matrix_products(base: keras.Model) -> None:
    """Let `convolve` compute the trained bfloat16 convolutions of `base` that move by one pixel.

    The file that `base` is saved as does not change. Compile afterwards.
    """
    if tf.config.list_physical_devices("GPU"):
        return
    for layer in base.layers:
        plain = type(layer) is keras.layers.Conv2D and layer.strides == layer.dilation_rate == (1, 1)
        if plain and layer.groups == 1 and layer.trainable and layer.compute_dtype == "bfloat16":
            layer.convolution_op = partial(convolve, padding=layer.padding.upper())


def convolve(inputs: tf.Tensor, kernel: tf.Tensor, padding: str) -> tf.Tensor:
    """`tf.nn.conv2d` by one pixel: (n, h, w, d) and a kernel (k, l, d, e) -> (n, i, j, e).

    The kernel's gradient at each of its k x l taps is one product: what the tap saw of `inputs`, as (d, n i j), by the
    gradient of the outputs, as (n i j, e).
    """
    if kernel.shape[:2] == (1, 1):
        return tf.tensordot(inputs, kernel[0, 0], 1)

    @tf.custom_gradient
    def convolved(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows, columns = upstream.shape[1:3]
            height, width, depth, filters = kernel.shape
            margins = [[(side - 1) // 2, side // 2] for side in (height, width)]
            padded = tf.pad(inputs, [[0, 0], *margins, [0, 0]]) if padding == "SAME" else inputs
            flat = tf.reshape(upstream, (-1, filters))
            taps = [
                tf.matmul(tf.reshape(padded[:, y : y + rows, x : x + columns], (-1, depth)), flat, transpose_a=True)
                for y in range(height)
                for x in range(width)
            ]
            to_inputs = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(inputs), 1, padding)
            return to_inputs, tf.reshape(tf.stack(taps), kernel.shape)

        return tf.nn.conv2d(inputs, kernel, 1, padding), gradients

    return convolved(inputs, kernel)


def use_fused_normalization(model: keras.Model) -> None:
    """Let `normalize` compute each BatchNormalization of `model` that works on images in bfloat16.

    A step that trains such a layer stays Keras' own. The file that `model` is saved as does not change. Compile
    afterwards.
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
            return _fused(inputs, epsilon, mean=mean, variance=variance, scale=scale, offset=offset)

        return by(inputs, mean, offset), lambda upstream: by(upstream, nothing, nothing)

    return normalized(inputs)


def _fused(inputs: tf.Tensor, epsilon: float, **channels: Any) -> tf.Tensor:
    """TensorFlow's kernel, which takes four to six times as long where the channels don't fill a processor's registers.

    So neighbouring pixels are taken together, as one pixel of more channels: two of Xception's 728 channels each.
    """
    _, height, width, depth = inputs.shape
    together = LANES // math.gcd(depth, LANES)
    if None in (height, width) or height * width % together:
        together = 1
    wide = tf.reshape(inputs, (-1, 1, height * width // together, depth * together)) if together > 1 else inputs
    tiled = {name: tf.tile(values, [together]) for name, values in channels.items()}
    outputs = tf.raw_ops.FusedBatchNormV3(x=wide, epsilon=epsilon, is_training=False, **tiled).y
    return tf.reshape(outputs, tf.shape(inputs)) if together > 1 else outputs


def _call(layer: keras.layers.BatchNormalization, inputs: tf.Tensor, training: bool = False, mask: Any = None) -> Any:
    if training and layer.trainable:
        return keras.layers.BatchNormalization.call(layer, inputs, training, mask)
    mean, variance = (tf.convert_to_tensor(values) for values in (layer.moving_mean, layer.moving_variance))
    scale = tf.convert_to_tensor(layer.gamma) if layer.scale else tf.ones_like(variance)
    offset = tf.convert_to_tensor(layer.beta) if layer.center else tf.zeros_like(variance)
    return normalize(inputs, mean, variance, scale, offset, layer.epsilon)
