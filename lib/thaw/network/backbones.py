"""The pre-trained networks: how to build them, and where their blocks are.

To add one, add an entry to `REGISTRY`; nothing else names a network.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thaw.errors import UnknownBackbone, did_you_mean

if TYPE_CHECKING:  # Keras takes seconds to import, and a parameter can be checked without it
    import keras


@dataclass(frozen=True)
class Backbone:
    """A convolutional network without its classifier.

    Attributes
    ----------
    name : str
        What parameters and files call it.
    title : str
        What the report calls it.
    module, builder : str
        The module that holds the network's builder and its
        ``preprocess_input``, and the builder's name.
    block : str
        A regular expression; where it matches at the start of a layer's name,
        its first group names the block that the layer belongs to.
    about : str
        A sentence on the architecture, for the report.
    """

    name: str
    title: str
    module: str
    builder: str
    block: str
    about: str

    def build(self, image_size: int, weights: str | None = None) -> keras.Model:
        """Build Keras' own network for photos of (image_size, image_size, 3), with Keras' own or random weights."""
        builder = getattr(importlib.import_module(self.module), self.builder)
        return builder(weights=weights, include_top=False, input_shape=(image_size, image_size, 3))

    @property
    def preprocess(self) -> Callable:
        """From photos, float32 (..., 3) of 0 to 255, to what the network's pre-training saw."""
        return importlib.import_module(self.module).preprocess_input

    def blocks(self, base: keras.Model) -> dict[str, list[keras.layers.Layer]]:
        """Find the layers of each block, from the input to the output."""
        found: dict[str, list[keras.layers.Layer]] = {}
        for layer in base.layers:
            if match := re.match(self.block, layer.name):
                found.setdefault(match[1], []).append(layer)
        return found


REGISTRY = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            name="resnet50",
            title="ResNet50",
            module="keras.applications.resnet",
            builder="ResNet50",
            block=r"(conv[2-5]_block\d+)_",
            about=(
                "a chain of residual blocks in four groups (conv2 to conv5): each block adds what its three "
                "convolutions compute to what came in, so that the signal and its gradient also have a direct way"
            ),
        ),
        Backbone(
            name="mobilenet",
            title="MobileNet",
            module="keras.applications.mobilenet",
            builder="MobileNet",
            block=r"conv_(?:pad|dw|pw)_(\d+)",
            about=(
                "a chain of depthwise-separable blocks: each filters every channel on its own (depthwise) and then "
                "mixes the channels at each pixel (pointwise), at a fraction of a full convolution's cost"
            ),
        ),
    )
}


def get(name: str) -> Backbone:
    """Look up the backbone of that name.

    Raises
    ------
    UnknownBackbone
        If the registry has none.
    """
    if name not in REGISTRY:
        raise UnknownBackbone(f"backbone = {name!r}: not in the registry. {did_you_mean(name, REGISTRY)}")
    return REGISTRY[name]
