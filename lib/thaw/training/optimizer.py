"""Adam, with a learning rate of its own for each layer, and begun anew without being traced anew."""

from collections.abc import Mapping

import keras


class LayerwiseAdam(keras.optimizers.Adam):
    """Adam (Kingma and Ba, 2015) whose step for each weight is so many times the learning rate.

    Parameters
    ----------
    learning_rate : float
    factors : list of float
        One for each weight that trains, in the order of the network's
        ``trainable_variables``.
    """

    def __init__(self, learning_rate: float, factors: list[float]):
        super().__init__(learning_rate)
        self.factors = factors

    def update_step(self, gradient, variable, learning_rate):
        """Change one weight by its own rate."""
        factor = self.factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)


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
    if not factors:
        return keras.optimizers.Adam(learning_rate)
    of_weight = {
        id(weight): factors.get(layer.name, 1.0) for layer in network.layers for weight in layer.trainable_weights
    }
    return LayerwiseAdam(learning_rate, [of_weight[id(weight)] for weight in network.trainable_variables])


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
