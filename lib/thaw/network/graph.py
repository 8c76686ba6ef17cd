"""The graph of a network's layers: where to cut it, and what its parts cost."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import keras
import numpy as np


@dataclass(frozen=True)
class Cut:
    """A network cut in two where its frozen part ends.

    Attributes
    ----------
    frontier : dict of str to KerasTensor
        What flows from the frozen part to the rest, by the layer it comes
        from: one tensor at a block's edge, more where the cut is inside a
        residual block.
    tail : keras.Model
        From the frontier to the output. It shares the network's weights.
    has_frozen_part : bool
        Whether there are weights before the frontier.
    """

    frontier: dict[str, keras.KerasTensor]
    tail: keras.Model
    has_frozen_part: bool

    @property
    def bytes_a_photo(self) -> int:
        """How much of the frontier belongs to one photo."""
        return sum(numbers_a_photo(tensor) * itemsize(tensor) for tensor in self.frontier.values())


def cut(model: keras.Model) -> Cut:
    """Cut a network where its frozen part ends, as its layers are frozen now.

    The rest is every layer with trainable weights, and every layer that
    depends on one of them.
    """
    live: set[str] = set()
    frontier: dict[str, keras.KerasTensor] = {}
    for layer in model.layers:  # Keras keeps them in topological order
        inputs = _inputs(layer)
        if layer.trainable_weights or any(_producer(tensor).name in live for tensor in inputs):
            live.add(layer.name)
            frontier |= {_producer(tensor).name: tensor for tensor in inputs if _producer(tensor).name not in live}
    has_frozen_part = any(layer.weights for layer in model.layers if layer.name not in live)
    return Cut(frontier, keras.Model(one_or_all(list(frontier.values())), model.output), has_frozen_part)


def numbers_a_photo(tensor: keras.KerasTensor) -> int:
    """How many numbers of a tensor (n, ...) belong to one photo."""
    return math.prod(tensor.shape[1:])


def itemsize(tensor: keras.KerasTensor) -> int:
    """Bytes of one number of a tensor."""
    return np.dtype(tensor.dtype).itemsize


def sources(model: keras.Model, wanted: Collection[str], at_hand: Collection[str]) -> list[str]:
    """Find what to start from in order to compute some layers' outputs.

    Parameters
    ----------
    model : keras.Model
    wanted : collection of str
        The layers whose outputs are to be computed.
    at_hand : collection of str
        Layers whose outputs are known.

    Returns
    -------
    list of str
        On every path to what is wanted the last layer whose output is known,
        or the network's input layer.
    """
    found: set[str] = set()
    seen: set[str] = set()
    left = list(wanted)
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        inputs = _inputs(model.get_layer(name))
        if name in at_hand or not inputs:
            found.add(name)
        else:
            left += [_producer(tensor).name for tensor in inputs]
    return [layer.name for layer in model.layers if layer.name in found]


def multiply_adds(model: keras.Model, wanted: Collection[str], start: Collection[str] = ()) -> int:
    """Count the multiplications, each with its addition, from some layers' outputs to others', for one photo.

    Those of convolutions and dense layers count. The rest is about a hundredth.
    """
    seen: set[str] = set(start)
    left, total = list(wanted), 0
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        layer = model.get_layer(name)
        left += [_producer(tensor).name for tensor in _inputs(layer)]
        if hasattr(layer, "kernel"):
            total += math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    return total


def one_or_all(tensors: list):
    """Return the only element of a list, or the list if it has more: what Keras takes as a model's inputs."""
    return tensors if len(tensors) > 1 else tensors[0]


def _inputs(layer: keras.layers.Layer) -> list[keras.KerasTensor]:
    return [] if isinstance(layer, keras.layers.InputLayer) else layer._inbound_nodes[0].input_tensors


def _producer(tensor: keras.KerasTensor) -> keras.layers.Layer:
    """Find the layer that a tensor comes from."""
    return tensor._keras_history.operation
