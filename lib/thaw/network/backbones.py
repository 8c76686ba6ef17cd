"""The pre-trained networks: how to build them, and where their blocks are.

Any network of `keras.applications` has its name in lower case; a ``.keras``
file is a network by its path (`thaw.network.own`). `REGISTRY` holds those that
a study of ours has described.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from thaw.errors import InvalidParameter, UnknownBackbone, did_you_mean
from thaw.experiment import is_file

if TYPE_CHECKING:  # Keras takes seconds to import, and a parameter can be checked without it
    import keras

# The modules of keras.applications, and the networks of each. A test compares it with what Keras has.
MODULES = {
    "convnext": "ConvNeXtBase ConvNeXtLarge ConvNeXtSmall ConvNeXtTiny ConvNeXtXLarge",
    "densenet": "DenseNet121 DenseNet169 DenseNet201",
    "efficientnet": (
        "EfficientNetB0 EfficientNetB1 EfficientNetB2 EfficientNetB3 "
        "EfficientNetB4 EfficientNetB5 EfficientNetB6 EfficientNetB7"
    ),
    "efficientnet_v2": (
        "EfficientNetV2B0 EfficientNetV2B1 EfficientNetV2B2 EfficientNetV2B3 "
        "EfficientNetV2L EfficientNetV2M EfficientNetV2S"
    ),
    "inception_resnet_v2": "InceptionResNetV2",
    "inception_v3": "InceptionV3",
    "mobilenet": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3": "MobileNetV3Large MobileNetV3Small",
    "nasnet": "NASNetLarge NASNetMobile",
    "resnet": "ResNet101 ResNet152 ResNet50",
    "resnet_v2": "ResNet101V2 ResNet152V2 ResNet50V2",
    "vgg16": "VGG16",
    "vgg19": "VGG19",
    "xception": "Xception",
}
LEAST = {"inception_v3": 75, "inception_resnet_v2": 75, "xception": 71}  # pixels, where it is not 32
# Each cell of NASNet reads the two before it, so that no single tensor divides them. Names end in the cell.
BLOCK = {"nasnet": r"(?:.*?_)?(stem(?=_(?:conv|bn)1$)|(?:stem|reduce)_\d+$|\d+$)"}


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
        The module that holds the network's ``preprocess_input``, and the
        builder's name, there or in `keras.applications`.
    block : str or None
        A regular expression; where it matches at the start of a layer's name,
        its first group names the block that the layer belongs to. None: the
        blocks are found in the graph.
    about : str or None
        A sentence on the architecture, for the report. None: `describe`
        writes it.
    least : int
        The smallest photos that it takes: their side in pixels.
    preprocessing : {'network', 'tf', 'torch', 'caffe', '0-1', 'none'}
        How photos are prepared: see `preprocess`.
    """

    name: str
    title: str
    module: str
    builder: str
    block: str | None = None
    about: str | None = None
    least: int = 32
    preprocessing: str = "network"

    def build(self, image_size: int, weights: str | None = None) -> keras.Model:
        """Build Keras' own network for photos of (image_size, image_size, 3), with Keras' own or random weights.

        Raises
        ------
        InvalidParameter
            If the network cannot take photos so small.
        """
        self.check_size(image_size)
        module = importlib.import_module(self.module)
        if not hasattr(module, self.builder):  # MobileNetV3's builders are one module up
            module = importlib.import_module("keras.applications")
        return getattr(module, self.builder)(
            weights=weights, include_top=False, input_shape=(image_size, image_size, 3)
        )

    @property
    def is_file(self) -> bool:
        """Whether it comes from a ``.keras`` file."""
        return False

    @property
    def identity(self) -> dict:
        """What names the network in a record besides its name: nothing, if it is Keras' own."""
        return {}

    @property
    def only_size(self) -> int | None:
        """The side of the photos, in pixels, of a network that is made for one size; None for all others."""
        return None

    def settle(self, base: keras.Model) -> None:
        """Finish a network that was given its ImageNet weights, as Keras' builder would have."""
        if self.module == "keras.applications.efficientnet":
            # Keras divides by the root of the deviations once more where it loads these weights: (x - mean) / variance
            # was their training's formula. The layer without that division has the same effect with other variances.
            deviations = (0.229, 0.224, 0.225)
            for layer in base.layers:
                if type(layer).__name__ == "Normalization":
                    mean, variance, count = layer.get_weights()
                    layer.set_weights([mean, variance * deviations, count])
                    layer.finalize_state()

    def check_size(self, image_size: int) -> None:
        """Refuse photos that are too small."""
        if image_size < self.least:
            raise InvalidParameter(
                f"image_size = {image_size}: {self.title} needs {self.least} pixels at least. "
                f"Set image_size to {self.least} or more, or choose another backbone."
            )

    @property
    def preprocess(self) -> Callable:
        """From photos, float32 (..., 3) of 0 to 255, to what the network's pre-training saw.

        'network' is the network's own way; networks that prepare photos
        themselves take them as they are. `prepared` has the others.
        """
        if self.preprocessing == "network":
            return importlib.import_module(self.module).preprocess_input
        return prepared(self.preprocessing)

    def blocks(self, base: keras.Model) -> dict[str, list[keras.layers.Layer]]:
        """Find the layers of each block, from the input to the output."""
        if self.block is None:
            from thaw.network import blocks

            return blocks.find(base)
        found: dict[str, list[keras.layers.Layer]] = {}
        for layer in base.layers:
            if match := re.match(self.block, layer.name):
                found.setdefault(match[1], []).append(layer)
        return found

    def describe(self, base: keras.Model) -> str:
        """Say what kind of network it is, in a sentence without a capital and a full stop."""
        if self.about is not None:
            return self.about
        from thaw.network import blocks

        return blocks.describe(base, len(self.blocks(base)))


def prepared(way: str) -> Callable:
    """Give a function that prepares photos, float32 (..., 3) of 0 to 255.

    Parameters
    ----------
    way : {'tf', 'torch', 'caffe', '0-1', 'none'}
        'tf' scales to -1 to 1; 'torch' to 0 to 1, then by ImageNet's mean and
        deviation of each channel; 'caffe' subtracts ImageNet's mean from blue,
        green and red; '0-1' divides by 255; 'none' changes nothing.
    """
    if way == "none":
        return lambda photos: photos
    if way == "0-1":
        return lambda photos: photos / 255.0
    from keras.applications import imagenet_utils

    return lambda photos: imagenet_utils.preprocess_input(photos, mode=way)


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


def names() -> list[str]:
    """List the names of all networks: those of the registry, then the others of `keras.applications`."""
    builders = [name.lower() for names in MODULES.values() for name in names.split()]
    return [*REGISTRY, *sorted(set(builders) - REGISTRY.keys())]


def get(name: str, preprocessing: str = "network") -> Backbone:
    """Look up the backbone of that name. It imports no TensorFlow.

    Parameters
    ----------
    name : str
        Of a network of `keras.applications`, in lower case, or the path of a
        ``.keras`` file.
    preprocessing : str
        See `Backbone.preprocess`.

    Raises
    ------
    UnknownBackbone
        If there is none, or no such file.
    """
    if is_file(name):
        from thaw.network.own import Own

        return Own.of(name, preprocessing)
    if name in REGISTRY:
        return replace(REGISTRY[name], preprocessing=preprocessing)
    for module, builders in MODULES.items():
        for builder in builders.split():
            if builder.lower() == name:
                return Backbone(
                    name,
                    builder,
                    f"keras.applications.{module}",
                    builder,
                    BLOCK.get(module),
                    least=LEAST.get(module, 32),
                    preprocessing=preprocessing,
                )
    raise UnknownBackbone(
        f"backbone = {name!r}: no network of keras.applications, and no path of a .keras file. "
        f"{did_you_mean(name, names())}"
    )


def order(name: str) -> tuple:
    """Give a key that sorts networks: the registry's, then the others by name."""
    known = list(REGISTRY)
    return (known.index(name), "") if name in known else (len(known), name)
