"""Adam, with a learning rate of its own for each layer, and begun anew without being traced anew."""

from collections.abc import Mapping

import keras
import tensorflow as tf


class FusedAdam(keras.optimizers.Adam):
    """Adam (Kingma and Ba, 2015) by TensorFlow's kernel, with a rate of its own for each weight.

    Keras composes an update of nine operations, each of which passes over the
    memory of all weights. To the same numbers within floating-point rounding.

    Parameters
    ----------
    learning_rate : float
    factors : list of float
        What each weight's rate is multiplied by, for each that trains, in the
        order of the network's ``trainable_variables``.
    """

    def __init__(self, learning_rate: float, factors: list[float]):
        super().__init__(learning_rate)
        self.factors = factors

    def update_step(self, gradient, variable, learning_rate):
        """Change one weight by its own rate."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,  # of TensorFlow, not of Keras
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, variable.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, variable.dtype), step),
            lr=tf.cast(learning_rate * self.factors[index], variable.dtype),
            beta1=tf.cast(self.beta_1, variable.dtype),
            beta2=tf.cast(self.beta_2, variable.dtype),
            epsilon=tf.cast(self.epsilon, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
        )


def adam(network: keras.Model, learning_rate: float, factors: Mapping[str, float]) -> keras.optimizers.Adam:
    """Make the optimizer of one phase.

    Parameters
    ----------
    network : keras.Model
        Its layers are frozen or not as they will be trained.
    learning_rate : float
    factors : mapping of str to float
        Each layer's share of the rate, by the layer's name. A layer without
        an entry learns at the full rate.
    """
    of_weight = {
        id(weight): factors.get(layer.name, 1.0) for layer in network.layers for weight in layer.trainable_weights
    }
    return FusedAdam(learning_rate, [of_weight.get(id(weight), 1.0) for weight in network.trainable_variables])


class Restart:
    """Lets a compiled network be trained anew, at any rate, by the step that was traced before.

    Parameters
    ----------
    network : keras.Model
        Compiled, and not trained yet.
    """

    def __init__(self, network: keras.Model):
        self.optimizer = network.optimizer
        self.optimizer.build(network.trainable_variables)
        # Adam begins with zeros. Its rate and the scale of a loss in half precision are numbers of their own.
        self.first = [0.0 if variable.ndim else float(variable) for variable in self.optimizer.variables]

    def __call__(self, learning_rate: float) -> None:
        """Put the optimizer back to its beginning."""
        for variable, first in zip(self.optimizer.variables, self.first, strict=True):
            variable.assign(keras.ops.full(variable.shape, first, variable.dtype))
        self.optimizer.learning_rate = learning_rate
