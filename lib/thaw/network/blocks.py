"""The blocks of a network, found in its graph.

Where all that flows from the input to the output is one tensor, a network can
be taken apart. What lies between two such places and branches is a block: a
residual block, an Inception module. What lies between them in a plain chain is
grouped by the names of its layers, or else one layer with weights is a block.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

import pandas as pd

from thaw.network import graph

if TYPE_CHECKING:
    import keras

    from thaw.network.backbones import Backbone

_UP_TO_FIRST_NUMBER = re.compile(r".*?\d+[a-z]?(?![a-zA-Z0-9])")  # block_1_expand: block_1; block2a_dwconv: block2a
_NORMALIZATIONS = ("BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization")


@dataclass
class _Unit:
    """What lies between two places that one tensor passes: one operation of a chain, or several that branch."""

    steps: list[graph.Step] = field(default_factory=list)

    @property
    def weighted(self) -> list[keras.Operation]:
        return [step.operation for step in self.steps if can_train(step.operation)]

    @property
    def is_normalization(self) -> bool:
        return all(type(operation).__name__.endswith(_NORMALIZATIONS) for operation in self.weighted)

    @property
    def branches(self) -> bool:
        """Whether it is a block by its graph. A product ends a gate, such as squeeze-and-excite: part of a block."""
        return len(self.steps) > 1 and type(self.steps[-1].operation).__name__ != "Multiply"

    @property
    def prefix(self) -> str:
        """What the names of its operations have in common, up to a ``_``."""
        return _common_prefix([step.name for step in self.steps if not graph.has_automatic_name(step.operation)])

    @property
    def label(self) -> str:
        """What names its block in a chain: its names up to the first number, or else the first word; or nothing."""
        if found := _UP_TO_FIRST_NUMBER.match(self.prefix):
            return found[0]
        return self.prefix.split("_")[0]


def find(base: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    """Find the layers of each block of a backbone, from the input to the output.

    Every layer with weights that can train is in one block.

    Returns
    -------
    dict of str to list of Layer
        Each block's name and its layers, in Keras' order.
    """
    blocks: list[list[_Unit]] = []
    pending: list[_Unit] = []  # without weights of their own, or normalization: of the block before or of the next
    for unit in _units(base):
        if not unit.weighted or (unit.is_normalization and not unit.branches):
            pending.append(unit)
            continue
        leading = _of_next(pending, unit, blocks)
        if blocks:
            blocks[-1] += pending[: len(pending) - len(leading)]
        if leading or not blocks or not _continues(blocks[-1], unit):
            blocks.append([*leading, unit])
        else:
            blocks[-1].append(unit)
        pending = []
    if blocks:
        blocks[-1] += pending
    return _named(base, blocks)


def can_train(operation: keras.Operation) -> bool:
    """Whether an operation has weights that training may change, frozen or not."""
    layers = operation._flatten_layers() if hasattr(operation, "_flatten_layers") else ()
    return any(layer._trainable_variables for layer in layers)


def _units(base: keras.Model) -> list[_Unit]:
    """Take a network apart wherever a single tensor is all that flows on."""
    steps = graph.steps(base)
    last_use = {name: place for place, step in enumerate(steps) for name in step.inputs}
    units, unit = [], _Unit()
    flowing: set[str] = set()
    for place, step in enumerate(steps):
        flowing = {name for name in flowing if last_use.get(name, -1) > place} | step.outputs.keys()
        unit.steps.append(step)
        if len(flowing) == 1:
            units.append(unit)
            unit = _Unit()
    return units + [unit] * bool(unit.steps)


def _of_next(pending: list[_Unit], unit: _Unit, blocks: list[list[_Unit]]) -> list[_Unit]:
    """Find those pending units with which the block of `unit` begins: named like it, or with weights at the start."""
    for place, candidate in enumerate(pending):
        if not blocks:
            if candidate.weighted:
                return pending[place:]
        elif _same_block(candidate, unit) and not any(_same_block(candidate, before) for before in blocks[-1]):
            return pending[place:]
    return []


def _continues(block: list[_Unit], unit: _Unit) -> bool:
    """Whether a unit belongs to the block before it, by its name. Two units that branch are two blocks."""
    if unit.branches and any(other.branches for other in block):
        return False
    return any(_same_block(unit, other) for other in block if other.weighted)


def _same_block(one: _Unit, other: _Unit) -> bool:
    if not (one.prefix and other.prefix):
        return False
    if one.branches or other.branches:
        branching, single = (one, other) if one.branches else (other, one)
        return single.prefix.startswith(branching.prefix + "_")
    return one.label == other.label


def _named(base: keras.Model, blocks: list[list[_Unit]]) -> dict[str, list[keras.layers.Layer]]:
    """Name each block by what its layers' names have in common, or by its first layer with weights."""
    found: dict[str, list[keras.layers.Layer]] = {}
    for units in blocks:
        names = {step.name for unit in units for step in unit.steps}
        weighted = [operation for unit in units for operation in unit.weighted]
        own = [operation.name for operation in weighted if not graph.has_automatic_name(operation)]
        branching = next((unit.prefix or _last_own_name(unit) for unit in units if unit.branches), "")
        name = branching or _common_prefix(own) or (own or [weighted[0].name])[0]
        if name in found:
            name = f"{name} ({len(found) + 1})"
        found[name] = [layer for layer in base.layers if layer.name in names]
    return found


def _last_own_name(unit: _Unit) -> str:
    names = [step.name for step in unit.steps if not graph.has_automatic_name(step.operation)]
    return names[-1] if names else ""


def _common_prefix(names: list[str]) -> str:
    """Find what names have in common, up to a ``_`` or an end."""
    words = zip(*(name.split("_") for name in names), strict=False)
    return "_".join(word[0] for word in takewhile(lambda word: len(set(word)) == 1, words))


def table(base: keras.Model, backbone: Backbone) -> pd.DataFrame:
    """List a network's blocks, and what training the last of them takes.

    Returns
    -------
    DataFrame
        A block a row, from the input to the output: ``last`` (which block it
        is from the end: what the strategy 'blocks' counts), ``block``,
        ``layers``, ``parameters``, ``multiply_adds`` (of one photo) and
        ``parameters_from_here`` (of this block and all after it, without the
        head). Layers before the first block are in no row.
    """
    blocks = backbone.blocks(base)
    costs = {step.name: graph.cost(step) for step in graph.steps(base)}
    rows = pd.DataFrame(
        {
            "last": range(len(blocks), 0, -1),
            "block": list(blocks),
            "layers": [len(layers) for layers in blocks.values()],
            "parameters": [sum(layer.count_params() for layer in layers) for layers in blocks.values()],
            "multiply_adds": [sum(costs[layer.name] for layer in layers) for layers in blocks.values()],
        }
    )
    return rows.assign(parameters_from_here=rows["parameters"][::-1].cumsum()[::-1])


def describe(base: keras.Model, count: int) -> str:
    """Say in a sentence what a network consists of, from its graph."""
    operations = [step.operation for step in graph.steps(base)]
    kinds = {graph.class_of_others(operation).__name__ for operation in operations}
    by_channel = any(1 < getattr(operation, "groups", 1) == operation.kernel.shape[-1] for operation in operations)
    weighted = sum(map(can_train, operations))
    traits = [
        text
        for text, holds in {
            "depthwise convolutions": by_channel or bool(kinds & {"DepthwiseConv2D", "SeparableConv2D"}),
            "residual additions": bool(kinds & {"Add", "CustomScaleLayer"}),
            "concatenated branches": "Concatenate" in kinds,
            "squeeze-and-excite gates": {"Multiply", "GlobalAveragePooling2D"} <= kinds,
            "batch normalization": "BatchNormalization" in kinds,
            "layer normalization": "LayerNormalization" in kinds,
            "dropout": "Dropout" in kinds,
        }.items()
        if holds
    ]
    with_traits = f", with {', '.join(traits[:-1])}{' and ' * (len(traits) > 1)}{traits[-1]}" if traits else ""
    return (
        f"{count} block{'s' * (count != 1)} of {weighted} layers with weights, "
        f"{base.count_params() / 1e6:.3g} million parameters{with_traits}"
    )


def named(backbone: Backbone, image_size: int) -> keras.Model:
    """Build a network, with whatever weights, to look at its blocks."""
    base = backbone.build(image_size)
    graph.name_operations(base)
    return base


def as_text(base: keras.Model, backbone: Backbone) -> str:
    """Write `table` for a terminal, and say what the last blocks are."""
    rows = table(base, backbone)
    before = sum(can_train(layer) for layer in base.layers) - sum(
        can_train(layer) for layers in backbone.blocks(base).values() for layer in layers
    )
    last = rows.iloc[-1]
    some = rows.iloc[-min(4, len(rows))]
    text = rows.rename(columns={name: name.replace("_", " ") for name in rows}).to_string(
        index=False, formatters={name.replace("_", " "): "{:,}".format for name in rows.columns[3:]}
    )
    sentences = [
        f"{backbone.title} at {base.input_shape[1]} pixels: {backbone.describe(base)}.",
        text,
        f"strategy: blocks with amount: 1 trains {last['block']} ({last['parameters']:,} parameters) and the head; "
        f"amount: {some['last']} trains {some['block']} and all after it ({some['parameters_from_here']:,}).",
    ]
    if before:
        sentences.append(
            f"{before} layers with weights come before the first block. Strategies all, layers and pattern reach them."
        )
    return "\n\n".join(sentences)
