"""Derive every random number from the one `seed` of params.yaml, and make TensorFlow give the same bits each time."""

import hashlib

import numpy as np

# Images that a network is given at a time where nothing is trained. Another number rounds results otherwise.
INFERENCE_BATCH = 32


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**31) that depends on `seed` and on `names` alone.

    Each use has a name of its own, so that a new use never changes the numbers that another draws.
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 2**31


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator seeded by `derive_seed`."""
    return np.random.default_rng(derive_seed(seed, *names))


def make_deterministic() -> None:
    """Let TensorFlow use only kernels that give the same result every time on the same machine."""
    import tensorflow as tf  # takes seconds, which code that only draws numbers need not wait for

    tf.config.experimental.enable_op_determinism()


def configure_keras(precision: str) -> None:
    """Let Keras compute in `precision`, a name of its dtype policies, and TensorFlow by `make_deterministic`."""
    import keras

    make_deterministic()
    keras.config.set_dtype_policy(precision)
