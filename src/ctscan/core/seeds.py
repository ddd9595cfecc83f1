"""All randomness, derived by name from the one `seed` in params.yaml."""

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**31) that depends on `seed` and on `names` alone.

    Each consumer has a name of its own, so adding one never shifts the numbers that another draws.
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 2**31


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator seeded by `derive_seed`."""
    return np.random.default_rng(derive_seed(seed, *names))
