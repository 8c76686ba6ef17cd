"""Frozen layers in inference mode, and the random numbers of those that train.

Keras runs a frozen BatchNorm layer in inference mode, and no other frozen
layer: a frozen Dropout layer still drops in training. Here everything frozen
is in inference mode, so that the frozen part can be computed once. What trains
draws the same random numbers in an epoch wherever the network is cut, and
whether or not the run was stopped before.
"""

import functools
import hashlib

import keras

from thaw.network import graph


def hold(network: keras.Model) -> None:
    """Let each layer of a network run in inference mode as long as it is frozen."""
    for layer in random_layers(network):
        layer.call = functools.partial(_call, layer, layer.call)


def random_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Find the layers that Keras runs in training mode even where they are frozen, such as Dropout."""
    return [
        layer
        for layer in network._flatten_layers(include_self=False)
        if graph.acts_otherwise_in_training(layer)
        and not isinstance(layer, keras.Model | keras.layers.BatchNormalization)
    ]


def _call(layer: keras.layers.Layer, call, *arguments, training=None, **keywords):
    return call(*arguments, training=training and layer.trainable, **keywords)


def reseed(network: keras.Model, seed: int, epoch: int) -> None:
    """Set what the random layers of a network draw in an epoch.

    The numbers depend on the seed, the epoch and the layer's name alone: not
    on where the network is cut, and not on the epochs before.

    Parameters
    ----------
    network : keras.Model
        A whole network or the rest of one, with names by `graph.name_operations`.
    seed : int
        The experiment's.
    epoch : int
        Counted from 0 over all phases.
    """
    for layer in network.layers:
        for number, generator in enumerate(_generators(layer)):
            digest = hashlib.sha256(f"{seed} {epoch} {layer.name} {number}".encode()).digest()
            generator.state.assign([int.from_bytes(digest[:4], "little"), 0])


def _generators(layer: keras.layers.Layer) -> list[keras.random.SeedGenerator]:
    return [
        value
        for inner in layer._flatten_layers()
        for value in vars(inner).values()
        if isinstance(value, keras.random.SeedGenerator)
    ]
