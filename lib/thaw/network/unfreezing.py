"""Which layers a strategy trains."""

import math

import keras
import pandas as pd

from thaw.errors import InvalidParameter
from thaw.network.backbones import Backbone


def unfrozen(base: keras.Model, backbone: Backbone, strategy: str, amount: int) -> list[keras.layers.Layer]:
    """The layers that a strategy trains, from the input to the output.

    Parameters
    ----------
    base : keras.Model
        The backbone as built.
    backbone : Backbone
        Its entry in the registry, which knows the blocks.
    strategy : {'frozen', 'layers', 'blocks'}
        None; the last `amount` layers, in Keras' own order and of any kind
        (strategy A); or the layers of the last `amount` blocks (strategy B).
    amount : int
        How many.

    Raises
    ------
    InvalidParameter
        If the network has not got so many.
    """
    if strategy == "frozen":
        return []
    units = [[layer] for layer in base.layers] if strategy == "layers" else list(backbone.blocks(base).values())
    if not 1 <= amount <= len(units):
        raise InvalidParameter(
            f"amount = {amount}: {backbone.title} has {len(units)} {strategy}. "
            f"Give an amount from 1 to {len(units)}, or the strategy 'frozen'."
        )
    chosen = {layer.name for unit in units[-amount:] for layer in unit}
    return [layer for layer in base.layers if layer.name in chosen]


def unfreeze(base: keras.Model, layers: list[keras.layers.Layer]) -> None:
    """Make just these layers of a backbone trainable, and freeze the rest.

    In Keras a frozen BatchNorm layer runs in inference mode: it neither uses
    nor updates a batch's statistics. One that is unfrozen trains like any
    other layer.
    """
    base.trainable = True
    chosen = {layer.name for layer in layers}
    for layer in base.layers:
        layer.trainable = layer.name in chosen


def count(model: keras.Model) -> dict[str, int]:
    """Count a model's parameters: ``trainable_parameters`` and ``total_parameters``."""
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return {"trainable_parameters": trainable, "total_parameters": model.count_params()}


def layer_table(base: keras.Model, backbone: Backbone, layers: list[keras.layers.Layer]) -> pd.DataFrame:
    """List a backbone's layers, and which of them train.

    Returns
    -------
    DataFrame
        A layer a row, from the input to the output: layer, parameters, block
        (its name, or empty) and trains.
    """
    block_of = {layer.name: block for block, members in backbone.blocks(base).items() for layer in members}
    chosen = {layer.name for layer in layers}
    return pd.DataFrame(
        {
            "layer": [layer.name for layer in base.layers],
            "parameters": [layer.count_params() for layer in base.layers],
            "block": [block_of.get(layer.name, "") for layer in base.layers],
            "trains": [layer.name in chosen for layer in base.layers],
        }
    )
