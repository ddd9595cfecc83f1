"""Same inputs, same bits."""

import tensorflow as tf


def make_deterministic() -> None:
    """TensorFlow picks only kernels that give the same result every time on the same machine."""
    tf.config.experimental.enable_op_determinism()
