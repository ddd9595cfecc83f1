"""The fine-tuned model, the notice that goes with it, and how to read both."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from ctscan.evaluation import novelty
from ctscan.inference.reading import MODEL, NOVELTY, Reading
from ctscan.model.forward import forward
from ctscan.model.saving import load_model

import tensorflow as tf


class Evaluated(NamedTuple):
    """The model and how to read it."""

    network: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]  # slices uint8 (n, s, s, 1) -> (n, 1), features (n, d)
    size: int  # s, pixels
    reading: Reading
    notice: novelty.Novelty


def load_evaluated(reading: Reading, traced: bool = True) -> Evaluated:
    """The model of the last run.

    Args:
        reading: of that model.
        traced: make a graph of the network, which takes over a second and more than a batch of slices to pay.

    Raises:
        UserError: a part is missing or damaged.
    """
    model = novelty.with_features(load_model(MODEL))
    network = forward(model) if traced else partial(model, training=False)
    return Evaluated(network, model.input_shape[1], reading, novelty.load(NOVELTY))
