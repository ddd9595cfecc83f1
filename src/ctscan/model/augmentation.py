"""Rotate, flip and zoom training images at random, in front of a classifier."""

from ctscan.core.params import Augment
from ctscan.core.seeds import derive_seed

import keras


def augmentation(settings: Augment, size: int, seed: int) -> keras.Sequential:
    """Layers that move slices (n, size, size, 1) in training and pass them on unchanged in inference.

    Where a moved image leaves a gap, it is filled with black, as air is.
    """
    layers: list[keras.layers.Layer] = [keras.Input((size, size, 1))]
    if settings.flip:
        layers.append(keras.layers.RandomFlip("horizontal", seed=derive_seed(seed, "flip")))
    if settings.rotation:
        turn = settings.rotation / 360
        layers.append(keras.layers.RandomRotation(turn, "constant", seed=derive_seed(seed, "rotation")))
    if settings.zoom:
        zoom = (-settings.zoom, settings.zoom)
        layers.append(keras.layers.RandomZoom(zoom, fill_mode="constant", seed=derive_seed(seed, "zoom")))
    return keras.Sequential(layers, name="augmentation")


def augmented(classifier: keras.Model, settings: Augment, seed: int) -> keras.Model:
    """A model of the augmentation and `classifier`, which share their layers: training it trains `classifier`."""
    slices = keras.Input(classifier.input_shape[1:], name="slice")
    moved = augmentation(settings, classifier.input_shape[1], seed)(slices)
    return keras.Model(slices, classifier(moved), name="augmented")
