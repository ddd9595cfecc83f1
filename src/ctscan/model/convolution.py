"""Convolutions in bfloat16 by way of matrix products.

A kernel's gradient is such a product, and oneDNN's own way to it takes 1.1 to 2 times as long in bfloat16. In float32
both are alike, so there everything stays Keras' own, bit for bit.
"""

from functools import partial
from typing import Any

import keras
import tensorflow as tf


def use_products(base: keras.Model) -> None:
    """Let the trained convolutions of `base` that compute in bfloat16, and move by one pixel, do so by `convolve`.

    How `base` is saved stays as it is. Compile afterwards. A GPU has better ways of its own.
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
