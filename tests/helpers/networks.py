"""Build a whole network as `phases.finetune` does, small enough for fast tests."""

from ctscan.core.params import Head
from ctscan.model.freezing import classify
from ctscan.model.head import build_head

import keras

SIZE = 24


def tiny_network(seed: int = 0, channels: int = 3, size: int = SIZE) -> keras.Model:
    """Slices (n, size, size, 1) -> probabilities (n, 1), over feature maps `wide` (size / 2) and `last` (size / 4)."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((size, size, 3))
    maps = keras.layers.Conv2D(channels, 3, 2, "same", activation="relu", name="wide")(image)
    maps = keras.layers.BatchNormalization(name="norm")(maps)
    maps = keras.layers.Conv2D(channels, 3, 2, "same", activation="relu", name="last")(maps)
    base = keras.Model(image, maps, name="base")
    slices = keras.Input((size, size, 1), name="slice")
    rgb = keras.layers.Concatenate(name="grey_to_rgb")([slices, slices, slices])
    preprocessed = keras.layers.Rescaling(1 / 127.5, -1, name="preprocessing")(rgb)
    head = build_head(channels, Head(units=8, l2=0.01, dropout=0.5), seed)
    return keras.Model(slices, classify(base(preprocessed), head), name="classifier")
