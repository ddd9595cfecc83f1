"""The study's optimiser, RMSprop, in one pass over the weights."""

from collections.abc import Sequence

import keras
import tensorflow as tf


class FusedRMSprop(keras.optimizers.RMSprop):
    """Keras' RMSprop without momentum, by TensorFlow's own kernel for it.

    The same formula, v <- rho v + (1 - rho) g^2, w <- w - lr g / sqrt(v + epsilon), but for rounding. Keras computes it
    operation by operation, each a pass over memory, which takes most of a step of the head's two million weights.
    """

    def __init__(self, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule) -> None:
        super().__init__(learning_rate)

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(var_list)
        # The kernel also writes a momentum, which without momentum is no state: no variable of the optimiser's.
        self._unused = [tf.Variable(tf.zeros(variable.shape), trainable=False) for variable in var_list]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._velocities[index].handle,
            mom=self._unused[index].handle,
            lr=tf.cast(learning_rate, variable.dtype),
            rho=self.rho,
            momentum=0.0,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )
