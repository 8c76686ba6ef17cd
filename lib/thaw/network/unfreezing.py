"""What a strategy trains: which layers, which of their weights, in which steps and at which rates."""

import math
import re
from collections import Counter

import keras
import numpy as np
import pandas as pd

from thaw.errors import InvalidParameter, did_you_mean
from thaw.experiment import Experiment
from thaw.network.backbones import Backbone
from thaw.network.normalization import NORMALIZATIONS, keep_statistics

BIASES = ("bias", "beta")  # what Keras calls the weights that are added


def unfrozen(base: keras.Model, backbone: Backbone, experiment: Experiment) -> list[keras.layers.Layer]:
    """Find the layers that an experiment unfreezes, from the input to the output.

    Parameters
    ----------
    base : keras.Model
        The backbone as built. Which of its weights train now is left as it is.
    backbone : Backbone
        Its entry in the registry, which knows the blocks.
    experiment : Experiment
        Its ``strategy``, ``amount``, ``skip``, ``pattern`` and ``trains``
        count. Layers are counted in Keras' own order, and are of any kind.

    Raises
    ------
    InvalidParameter
        If the network has fewer layers or blocks, none that match, or nothing
        in them that would train.
    """
    if experiment.strategy == "frozen":
        return []
    if experiment.strategy == "pattern":
        found = [layer for layer in base.layers if re.search(experiment.pattern or "", layer.name)]
        if not found:
            raise InvalidParameter(
                f"pattern = {experiment.pattern!r}: no layer of {backbone.title} has such a name. "
                + did_you_mean(experiment.pattern, [layer.name for layer in base.layers])
            )
    elif experiment.strategy == "all":
        found = base.layers
    else:
        found = _counted(base, backbone, experiment)
    if experiment.trains != "everything" and not _trains_anything(found, experiment):
        raise InvalidParameter(
            f"trains = {experiment.trains!r}: {experiment.phrase} of {backbone.title} "
            f"{'is' if len(found) == 1 else 'are'} {len(found)} layer{'s' * (len(found) > 1)} without any "
            f"{'normalization' if experiment.trains == 'norm' else 'bias'}. "
            "Unfreeze more, or set trains to everything."
        )
    return found


def _trains_anything(layers: list[keras.layers.Layer], experiment: Experiment) -> bool:
    return any(_weights_that_train(layer, experiment.trains) for layer in layers)


def _counted(base: keras.Model, backbone: Backbone, experiment: Experiment) -> list[keras.layers.Layer]:
    """Find the layers of the last `amount` layers or blocks before the last `skip`."""
    unit, amount, skip = experiment.strategy, experiment.amount, experiment.skip
    units = [[layer] for layer in base.layers] if unit == "layers" else list(backbone.blocks(base).values())
    if amount + skip > len(units):
        raise InvalidParameter(
            f"amount = {amount}" + f" and skip = {skip}" * bool(skip) + f": {backbone.title} has {len(units)} {unit}. "
            f"Give an amount from 1 to {max(len(units) - skip, 1)}"
            + (f" and a skip of at most {len(units) - 1}" if skip >= len(units) else "")
            + ", or the strategy 'frozen'."
        )
    end = len(units) - skip
    chosen = {layer.name for unit in units[end - amount : end] for layer in unit}
    return [layer for layer in base.layers if layer.name in chosen]


def unfreeze(
    base: keras.Model, layers: list[keras.layers.Layer], trains: str = "everything", batchnorm: str = "train"
) -> None:
    """Make just these layers of a backbone trainable, and freeze the rest.

    In Keras a frozen BatchNorm layer runs in inference mode: it neither uses
    nor updates a batch's statistics.

    Parameters
    ----------
    base : keras.Model
    layers : list of Layer
        Layers of `base`.
    trains : {'everything', 'norm', 'bias'}
        Which of their weights train.
    batchnorm : {'train', 'frozen'}
        Whether BatchNorm layers among them use and average each batch's
        statistics, or keep those of the pre-training. Their scale and offset
        train either way.
    """
    base.trainable = True
    chosen = {layer.name for layer in layers}
    for layer in base.layers:
        weights = _weights_that_train(layer, trains)
        layer.trainable = layer.name in chosen and bool(weights or not layer.weights)
        keep_statistics(layer, batchnorm == "frozen")
        if layer.trainable:
            for weight in layer.trainable_weights:
                weight.trainable = any(weight is one for one in weights)


def _weights_that_train(layer: keras.layers.Layer, trains: str) -> list[keras.Variable]:
    """List the weights of a layer that train once it is unfrozen."""
    if trains == "norm" and not isinstance(layer, NORMALIZATIONS):
        return []
    return [weight for weight in _trainable(layer) if trains != "bias" or weight.name in BIASES]


def _trainable(layer: keras.layers.Layer) -> list[keras.Variable]:
    """List the weights of a layer that can train, whether it is frozen now or not."""
    return [weight for part in layer._flatten_layers() for weight in part._trainable_variables]


def steps(base: keras.Model, backbone: Backbone, experiment: Experiment) -> list[list[keras.layers.Layer]]:
    """List what each step of fine-tuning unfreezes: one step; or block after block, from the last.

    With fewer epochs than blocks, several blocks go in one step (gradual
    unfreezing: Howard and Ruder, 2018).

    Returns
    -------
    list of list of Layer
        Each step's layers hold those of the step before it.
    """
    chosen = unfrozen(base, backbone, experiment)
    if not experiment.gradual:
        return [chosen]
    block_of = block_numbers(base, backbone)
    numbers = sorted({block_of[layer.name] for layer in chosen if layer.weights}, reverse=True) or [0]
    groups = np.array_split(numbers, min(len(numbers), experiment.finetune_epochs))
    return [[layer for layer in chosen if block_of[layer.name] >= group[-1]] for group in groups[:-1]] + [chosen]


def rate_factors(base: keras.Model, backbone: Backbone, decay: float) -> dict[str, float]:
    """Give each layer's share of the learning rate, by its name.

    The head learns at the full rate, the last block at `decay` times that, the
    block before it at `decay` times the last one's, and so on (discriminative
    rates: Howard and Ruder, 2018).
    """
    numbers = block_numbers(base, backbone)
    last = max(numbers.values())
    return {name: decay ** (last - number + 1) for name, number in numbers.items()}


def block_numbers(base: keras.Model, backbone: Backbone) -> dict[str, int]:
    """Give the number of each layer's block, from 0, by the layer's name.

    A layer in no block counts to the block before it, those before the first
    block to the first.
    """
    own = {layer.name: number for number, layers in enumerate(backbone.blocks(base).values()) for layer in layers}
    numbers, number = {}, 0
    for layer in base.layers:
        number = own.get(layer.name, number)
        numbers[layer.name] = number
    return numbers


def remarks(base: keras.Model, backbone: Backbone, experiment: Experiment) -> list[str]:
    """Say what a reader might not expect of a strategy.

    It trains nothing but the head; or layers with weights stay frozen between
    or after those that it unfreezes; or no BatchNorm is there to be frozen.

    Returns
    -------
    list of str
        A sentence each; usually none.
    """
    found = unfrozen(base, backbone, experiment)
    if found and not _trains_anything(found, experiment):
        return [f"{experiment.phrase}: no weights are in it, so that nothing but the head trains."]
    chosen = {layer.name for layer in found}
    weighted = [layer.name for layer in base.layers if _trainable(layer)]
    first = next((number for number, name in enumerate(weighted) if name in chosen), len(weighted))
    left = [name for name in weighted[first:] if name not in chosen]
    batchnorms = [layer for layer in found if isinstance(layer, keras.layers.BatchNormalization)]
    nothing = f"{experiment.phrase}: no BatchNorm is in it, so that batchnorm = 'frozen' changes nothing."
    said = [nothing] if experiment.batchnorm == "frozen" and not batchnorms else []
    if not left:
        return said
    where = "between or after" if set(weighted[weighted.index(left[0]) :]) & chosen else "after"
    names = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
    return [
        f"{experiment.phrase}: {len(left)} layer{'s' * (len(left) > 1)} with weights {where} the unfrozen ones "
        f"stay{'s' * (len(left) == 1)} frozen ({names}).",
        *said,
    ]


def count_parameters(model: keras.Model) -> dict[str, int]:
    """Count a model's parameters: ``trainable_parameters`` and ``total_parameters``."""
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    return {"trainable_parameters": trainable, "total_parameters": model.count_params()}


def by_block(base: keras.Model, backbone: Backbone, layers: list[keras.layers.Layer], trains: str) -> dict:
    """Count the parameters of each block, from the input to the output, and those of them that train.

    Returns
    -------
    dict
        ``blocks``, those that can train by the block's name, and ``trains``,
        those that do. Layers with weights in no block are the ``stem``.
    """
    block_of = {layer.name: block for block, members in backbone.blocks(base).items() for layer in members}
    chosen = {layer.name for layer in layers}
    found: dict[str, Counter[str]] = {"blocks": Counter(), "trains": Counter()}
    for layer in base.layers:
        train = _weights_that_train(layer, trains) if layer.name in chosen else []
        for of, weights in ("blocks", _trainable(layer)), ("trains", train):
            if weights:
                found[of][block_of.get(layer.name, "stem")] += sum(math.prod(weight.shape) for weight in weights)
    return {of: dict(counts) for of, counts in found.items()}


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
