"""The pre-trained networks: how to build them, and where their blocks are.

To add one, add an entry to `REGISTRY`; nothing else names a network.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.disk import atomic as files
from thaw.disk import places
from thaw.errors import UnknownBackbone, WeightsMismatch, WeightsNotFound, did_you_mean, first_line

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
        """The network for photos of (image_size, image_size, 3), with Keras' own or random weights."""
        from thaw.network.normalization import fuse

        builder = getattr(importlib.import_module(self.module), self.builder)
        network = builder(weights=weights, include_top=False, input_shape=(image_size, image_size, 3))
        fuse(network)
        return network

    @property
    def preprocess(self) -> Callable:
        """From photos, float32 (..., 3) of 0 to 255, to what the network's pre-training saw."""
        return importlib.import_module(self.module).preprocess_input

    def blocks(self, base: keras.Model) -> dict[str, list[keras.layers.Layer]]:
        """The layers of each block, from the input to the output."""
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
    """The backbone of that name.

    Raises
    ------
    UnknownBackbone
        If the registry has none.
    """
    if name not in REGISTRY:
        raise UnknownBackbone(f"backbone = {name!r}: not in the registry. {did_you_mean(name, REGISTRY)}")
    return REGISTRY[name]


def load(name: str, image_size: int, weights: str) -> tuple[keras.Model, dict]:
    """Build a backbone and give it its weights.

    Parameters
    ----------
    name : str
        A name in the registry.
    image_size : int
        Side of the square photos, in pixels.
    weights : str
        ``imagenet``, ``drawn``, ``none`` or the path of a weights file. For
        ``imagenet``, ``$THAW_WEIGHTS_DIR/<name>.h5`` comes before Keras' own
        download.

    Returns
    -------
    base : keras.Model
        From photos (n, image_size, image_size, 3) to features (n, h, w, c).
    provenance : dict
        Where the weights come from: the description beside the file where
        there is one, and a hash over all the tensors.

    Raises
    ------
    WeightsNotFound, WeightsMismatch
        If there are none, or they are not this network's.
    """
    backbone = get(name)
    base = backbone.build(image_size)
    path, about = find_weights(name, weights)
    if path is not None:
        try:
            base.load_weights(path)
        except Exception as error:  # h5py and Keras raise many kinds for one cause: not this network's file
            raise WeightsMismatch(
                f"weights = {weights!r}: {path} does not fit {backbone.title} ({first_line(error)}). "
                "Give weights of keras.applications' network, include_top=False."
            ) from None
    elif weights == "imagenet":
        # The 224-pixel weights at every size: MobileNet has others for 128, 160 and 192.
        base.set_weights(_download(backbone).get_weights())
    digest = hashlib.sha256()
    for tensor in base.get_weights():
        digest.update(tensor.tobytes())
    return base, {"weights": weights, **about, "tensors_sha256": digest.hexdigest()}


def find_weights(name: str, weights: str) -> tuple[Path | None, dict]:
    """The file that holds a backbone's weights, and what is said of it.

    Makes nothing but ``drawn`` weights, which are pre-trained at first use.

    Returns
    -------
    path : Path or None
        None if the weights are random or Keras' own download.
    about : dict
        At least a title, whether they are the official ones, and a description.

    Raises
    ------
    WeightsNotFound
        If a path was given and there is no such file.
    WeightsMismatch
        If the file is not the one its description is about.
    """
    backbone = get(name)
    if weights == "none":
        return None, {"title": "random weights", "official": False, "description": "Not pre-trained at all."}
    if weights == "drawn":
        path = drawn_weights(name)
    elif weights == "imagenet":
        folder = os.environ.get("THAW_WEIGHTS_DIR")
        path = Path(folder or "", f"{name}.h5").expanduser()
        if not folder or not path.is_file():
            return None, {
                "title": f"{backbone.title}, ImageNet",
                "official": True,
                "description": "Keras' own ImageNet weights, fetched by keras.applications.",
            }
    else:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise WeightsNotFound(
                f"weights = {weights!r}: there is no such file. Give the path of a weights file, or one of drawn, imagenet, none."
            )
    about = {"title": path.name, "official": False, "description": "No description beside the file."}
    beside = path.with_name(path.name.split(".")[0] + ".json")
    if beside.exists():
        try:
            about |= dict(json.loads(beside.read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise WeightsMismatch(f"{beside}: not a JSON description ({error}). Mend it or remove it.") from None
        for key, kind in ("title", str), ("description", str), ("official", bool):
            if not isinstance(about[key], kind):
                raise WeightsMismatch(
                    f"{beside}: {key} = {about[key]!r}: not {'text' if kind is str else 'true or false'}. Mend it or remove it."
                )
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if about.get("sha256", found) != found:
            raise WeightsMismatch(
                f"{path}: {beside.name} describes another file (its sha256 differs). Replace the one or the other."
            )
    return path, about


def drawn_weights(name: str) -> Path:
    """The file of weights pre-trained on drawn pictures, made if need be."""
    path = places.drawn_weights(name)
    if not path.exists():
        from thaw.demo import drawn, pretraining  # TFDS and all: only where something is to be drawn

        backbone = get(name)
        with files.locked([path]):
            if not path.exists():  # else another process has made it meanwhile
                pretraining.pretrain(backbone.title, backbone.build(drawn.SIDE), backbone.preprocess, path)
    return path


def _download(backbone: Backbone) -> keras.Model:
    try:
        return backbone.build(224, weights="imagenet")
    except Exception as error:  # urllib, http and Keras' checksum test each raise their own
        raise WeightsNotFound(
            f"weights = 'imagenet': Keras could not fetch those of {backbone.title} ({error}). "
            f"Connect to the internet, or put {backbone.name}.h5 in a folder and set THAW_WEIGHTS_DIR to it."
        ) from None
