"""Build the study's classification head."""

from ctscan.core.params import Head
from ctscan.core.seeds import derive_seed

import keras
import tensorflow as tf


class OnePassL2(keras.regularizers.L2):
    """Keras' L2 penalty, l2 * sum(w^2), in one pass over the weights; Keras first writes their squares to memory."""

    def __call__(self, weights: keras.Variable) -> tf.Tensor:
        return 2 * self.l2 * tf.nn.l2_loss(weights)


def build_head(features: int, settings: Head, seed: int) -> keras.Model:
    """From pooled features (n, features) to the probability of the positive class (n, 1), float32.

    Dense (ReLU, L2) -> BatchNormalization -> Dropout -> sigmoid, as in the study (section 5).
    """
    keras.utils.set_random_seed(derive_seed(seed, "head"))
    head = keras.Sequential(
        [
            keras.Input((features,), name="features"),
            keras.layers.Dense(
                settings.units, "relu", kernel_regularizer=keras.regularizers.L2(settings.l2), name="hidden"
            ),
            keras.layers.BatchNormalization(name="normalization"),
            keras.layers.Dropout(settings.dropout, seed=derive_seed(seed, "dropout"), name="dropout"),
            keras.layers.Dense(1, "sigmoid", dtype="float32", name="probability"),
        ],
        name="head",
    )
    # On the variable and not on the layer, so that a saved head names Keras' own class and loads without this package.
    head.get_layer("hidden").kernel.regularizer = OnePassL2(settings.l2)
    return head
