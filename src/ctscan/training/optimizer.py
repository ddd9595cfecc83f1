"""Provide the study's optimiser, RMSprop, in a form that goes over the weights once per step."""

from collections.abc import Sequence

import keras
import tensorflow as tf


class FusedRMSprop(keras.optimizers.RMSprop):
    """Keras' RMSprop without momentum, by TensorFlow's own kernel for it.

    The formula is the same but for rounding: v <- rho v + (1 - rho) g^2, w <- w - lr g / sqrt(v + epsilon). Keras
    computes it operation by operation, each of which goes through memory; that takes most of the time of a step on the
    head's two million weights.
    """

    def __init__(self, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule) -> None:
        super().__init__(learning_rate)

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(var_list)
        # The kernel also writes a momentum. Here it means nothing, so it is not a variable of the optimiser.
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
