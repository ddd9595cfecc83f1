"""Run a network in inference mode, batch by batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ctscan.core.seeds import INFERENCE_BATCH
from ctscan.model.bfloat16 import use_fused_normalization

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm


def forward(model: keras.Model) -> Callable[[Any], Any]:
    """A function that runs `model`, which takes slices uint8, in inference mode on batches of any size.

    It is one graph for all sizes. Keras traces the network again for the last, shorter batch, which takes seconds in a
    deep network.
    """
    use_fused_normalization(model)
    signature = [tf.TensorSpec(model.input_shape, tf.uint8)]
    network: Callable[[Any], Any] = tf.function(partial(model, training=False), input_signature=signature)
    return network


def predict(model: keras.Model, inputs: np.ndarray, title: str) -> np.ndarray:
    """Probabilities (n,) float64 of the positive class for `inputs` (n, ...), batch by batch under a progress bar."""
    scores = [
        model.predict_on_batch(inputs[start : start + INFERENCE_BATCH])[:, 0]
        for start in tqdm(range(0, len(inputs), INFERENCE_BATCH), desc=title, unit="batch")
    ]
    joined: np.ndarray = np.concatenate(scores)
    return joined.astype(float)
