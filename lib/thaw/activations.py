"""The frozen prefix of a network, computed once.

Below the first layer that trains, every epoch would compute the same numbers
from the same photos: frozen weights do not change, and a frozen BatchNorm
layer, in inference mode, knows nothing of the batch. So the photos are run
through that part once, and training starts from what leaves it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

BUDGET = 1.5e9  # bytes of memory that one phase's activations may take


@dataclass(frozen=True)
class Cut:
    """A network cut in two where its frozen part ends.

    Attributes
    ----------
    frontier : list of KerasTensor
        What flows from the frozen part to the rest: one tensor at a block's
        edge, more where the cut lies inside a residual block.
    tail : keras.Model
        From the frontier to the output; it shares the network's weights.
    saves : bool
        Whether there are weights before the frontier, so that there is
        something to compute once.
    """

    frontier: list[keras.KerasTensor]
    tail: keras.Model
    saves: bool

    @property
    def bytes_a_photo(self) -> int:
        """How much of the frontier belongs to one photo."""
        return sum(math.prod(tensor.shape[1:]) * tf.as_dtype(tensor.dtype).size for tensor in self.frontier)


def cut(model: keras.Model) -> Cut:
    """Cut a network where its frozen part ends, as its layers are frozen now.

    What trains is every layer with trainable weights, and every layer that
    depends on one of them.
    """
    live: set[str] = set()
    frontier: dict[str, keras.KerasTensor] = {}
    for layer in model.layers:  # Keras keeps them in topological order
        inputs = layer._inbound_nodes[0].input_tensors if not isinstance(layer, keras.layers.InputLayer) else []
        if layer.trainable_weights or any(_producer(tensor).name in live for tensor in inputs):
            live.add(layer.name)
            frontier |= {tensor.name: tensor for tensor in inputs if _producer(tensor).name not in live}
    tensors = list(frontier.values())
    saves = any(layer.weights for layer in model.layers if layer.name not in live)
    return Cut(tensors, keras.Model(tensors if len(tensors) > 1 else tensors[0], model.output), saves)


def compute(
    model: keras.Model, tensors: Sequence[keras.KerasTensor], images: np.ndarray, preprocess: Callable, batch_size: int
) -> list[np.ndarray]:
    """Run photos through the frozen part of a network.

    Parameters
    ----------
    model : keras.Model
    tensors : sequence of KerasTensor
        What is wanted of it: tensors between its input and its output.
    images : ndarray of uint8, (n, size, size, 3)
    preprocess : callable
        The backbone's.
    batch_size : int

    Returns
    -------
    list of ndarray
        For each tensor, its values for every photo, (n, ...).
    """
    prefix = keras.Model(model.input, list(tensors))

    @tf.function(reduce_retracing=True, autograph=False)
    def run(batch):
        return prefix(preprocess(tf.cast(batch, tf.float32)), training=False)

    results = [
        np.empty((len(images), *tensor.shape[1:]), tf.as_dtype(tensor.dtype).as_numpy_dtype) for tensor in tensors
    ]
    for start in range(0, len(images), batch_size):
        for result, values in zip(results, tf.nest.flatten(run(images[start : start + batch_size]))):
            result[start : start + batch_size] = values
    return results


def _producer(tensor: keras.KerasTensor) -> keras.layers.Layer:
    """The layer that a tensor comes from."""
    return tensor._keras_history.operation
