"""A network of the user's own, from a ``.keras`` file.

The file is taken apart and put together again: a model within the model
becomes part of one graph, a classifier on top is left out, and the input gets
the study's image size.

Others may have made the file. `check_file` and `load` refuse one that holds
code, reads other files, or would fill the memory, and say what is wrong.
"""

from __future__ import annotations

import copy
import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.disk import places
from thaw.disk.hashes import sha256_of
from thaw.errors import InvalidParameter, UnknownBackbone, UnsupportedNetwork, first_line
from thaw.experiment import shown
from thaw.network.backbones import Backbone, prepared

if TYPE_CHECKING:  # Keras takes seconds to import
    import keras

# What may stand between the last feature map and the output, in a chain.
CLASSIFIER = (
    *("Dense", "Dropout", "Flatten", "Reshape", "Activation", "Softmax", "ReLU", "BatchNormalization"),
    *("LayerNormalization", "Conv2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D"),
)
POOLING = ("GlobalAveragePooling2D", "GlobalMaxPooling2D")
# What prepares photos, at a network's beginning.
PREPARES = ("Rescaling", "Normalization", "Multiply", "Divide", "TrueDivide", "Subtract")
# Classes of keras.applications that are not in Keras' public interface, so that Keras does not find them by itself.
OF_APPLICATIONS = {
    "LayerScale": "keras.src.applications.convnext",
    "StochasticDepth": "keras.src.applications.convnext",
    "CustomScaleLayer": "keras.src.applications.inception_resnet_v2",
}
# Where Keras keeps what networks are made of. Its other modules read files, fetch addresses and change settings.
MODELLING = re.compile(
    r"keras(\.src)?(\.(activations|applications|constraints|dtype_policies|initializers|layers|models|ops|quantizers|"
    r"random|regularizers)(\..+)?)?"
)
# Layers that run code which comes with them, or read other files.
CODE = (
    *("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__lambda__", "__typespec__"),
    *("StringLookup", "IntegerLookup", "TextVectorization"),
)
CONFIG, WEIGHTS = "config.json", "model.weights.h5"  # in a .keras file
SMALL = 2**26  # bytes that every text in an archive stays below
EXPANDS = 20  # times: weights that were saved compress to half, at the very best


@dataclass(frozen=True)
class Own(Backbone):
    """A network from a ``.keras`` file.

    Attributes
    ----------
    path : Path
    sha256 : str
        Of the file's content.
    """

    path: Path = Path()
    sha256: str = ""

    @classmethod
    def of(cls, path: str, preprocessing: str = "network") -> Own:
        """Look at a file, without building its network.

        Raises
        ------
        UnknownBackbone
            If there is no such file, or it is no ``.keras`` file.
        UnsupportedNetwork
            If it holds custom layers or code.
        """
        file = places.in_project(path)
        if not file.is_file():
            raise UnknownBackbone(
                f"backbone = {path!r}: there is no such file. Give the path of a .keras file, or the name of a network "
                "of keras.applications, such as efficientnetv2b0."
            )
        check_file(f"backbone = {path!r}", file)
        (digest,) = sha256_of([file])
        name = re.sub(r"[^\w.-]", "_", file.stem)
        return cls(name, file.stem, "", "", preprocessing=preprocessing, path=file, sha256=digest)

    @property
    def is_file(self) -> bool:
        """True."""
        return True

    @property
    def identity(self) -> dict:
        """The file's name and the hash of its content: the same in whatever folder it is."""
        return {"network_file": self.path.name, "network_sha256": self.sha256}

    @property
    def only_size(self) -> int | None:
        """As in `Backbone`: found by building the network for another size."""
        side, _, _ = _image(self.path, self._loaded())
        if side is None:
            return None
        try:
            self.build(side + 32)
        except UnsupportedNetwork:
            return side
        return None

    def settle(self, base: keras.Model) -> None:
        """Nothing to do: the file holds a finished network."""

    def build(self, image_size: int, weights: str | None = None) -> keras.Model:
        """Rebuild the network for photos of (image_size, image_size, 3), without a classifier, with its own weights.

        Raises
        ------
        UnsupportedNetwork
            If the network cannot be taken apart, or not be built for this
            size.
        InvalidParameter
            If the file does not tell how photos are to be prepared.
        """
        model = self._loaded()
        height, width, _ = _image(self.path, model)
        self._check_preprocessing(model)
        # The classifier is cut off before the size changes: it may be made for one size alone.
        features = self._copy(model, (height or image_size, width or image_size, 3))
        if features.input_shape[1:3] != (image_size, image_size):
            features = self._copy(features, (image_size, image_size, 3))
        if not features.trainable_weights:
            raise UnsupportedNetwork(
                f"backbone = {str(self.path)!r}: has no weights before its features: there is nothing to train. "
                "Save a network of convolutions."
            )
        return features

    def _loaded(self) -> keras.Model:
        where = f"backbone = {str(self.path)!r}"
        model = load(where, self.path)
        if not getattr(model, "operations", None) or not getattr(model, "inputs", None):
            raise UnsupportedNetwork(
                f"{where}: a {type(model).__name__} whose graph is not known. Build it as a Functional "
                "model, or as a Sequential one with an Input, and save it again."
            )
        return model

    def _copy(self, model: keras.Model, shape: tuple[int, int, int]) -> keras.Model:
        try:
            return _without_classifier(_copy(model, shape))
        except UnsupportedNetwork as error:
            raise UnsupportedNetwork(f"backbone = {str(self.path)!r}: {error}") from None
        except Exception as error:  # each layer refuses a size in its own way
            own = " x ".join(str(side) for side in model.input_shape[1:3])
            raise UnsupportedNetwork(
                f"backbone = {str(self.path)!r}: cannot be built for image_size = {shape[0]} ({first_line(error)}). "
                f"The file's own size is {own} pixels. Give that as image_size."
            ) from None

    def _check_preprocessing(self, model: keras.Model) -> None:
        """Refuse a network of which nobody knows what photos it expects."""
        if self.preprocessing == "network" and not _prepares_photos(model):
            raise InvalidParameter(
                f"backbone = {str(self.path)!r}: the file has no Rescaling or Normalization layer at its beginning, so "
                "it does not say how photos were prepared in its training. Set preprocessing: 'tf' (-1 to 1), 'torch' "
                "(0 to 1, then ImageNet's mean and deviation), 'caffe' (BGR without ImageNet's mean), '0-1', or 'none' "
                "(0 to 255)."
            )

    @property
    def preprocess(self):
        """As in `Backbone`; 'network' means that the network prepares photos itself."""
        return prepared("none" if self.preprocessing == "network" else self.preprocessing)


def check_file(where: str, file: Path) -> None:
    """Refuse a file that is no network, or one that holds custom classes or code. It takes no Keras.

    Parameters
    ----------
    where : str
        Names the file in the message.
    file : Path

    Raises
    ------
    UnknownBackbone, UnsupportedNetwork
    """
    _configuration(where, file)


def text_in(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a text in an archive.

    Raises
    ------
    KeyError, ValueError
        If it is not there, or too large for a text.
    """
    if (size := archive.getinfo(name).file_size) > SMALL:
        raise ValueError(f"{name} has {size:,} bytes")
    return archive.read(name)


def _configuration(where: str, file: Path) -> dict:
    try:
        with zipfile.ZipFile(file) as archive:
            # Without what compiles it and its parts: a loss may be anybody's code, and no optimizer is needed.
            configuration = json.loads(text_in(archive, CONFIG), object_hook=_without_compiling)
            swollen = [each for each in archive.infolist() if each.file_size > max(SMALL, EXPANDS * each.compress_size)]
        if not isinstance(configuration, dict):
            raise TypeError(f"{CONFIG} is no mapping")
        _check_classes(where, configuration)
    except UnsupportedNetwork:
        raise
    except Exception as error:  # an archive or a JSON text can be damaged in many ways
        raise UnknownBackbone(
            f"{where}: not a .keras file ({first_line(error)}). Save the network with model.save('x.keras') in Keras 3."
        ) from None
    if swollen:
        raise UnsupportedNetwork(
            f"{where}: {swollen[0].filename} is {swollen[0].compress_size:,} bytes in the file, and {EXPANDS} times as "
            "many or more when it is unpacked. No network is. Save the network again with model.save('x.keras')."
        )
    return configuration


def _without_compiling(part: dict) -> dict:
    part.pop("compile_config", None)
    return part


def _check_classes(where: str, configuration: dict) -> None:
    """Refuse custom classes, and layers that hold code or read other files; and name them."""
    custom: dict[str, None] = {}
    for part in _parts(configuration):
        name, module = str(part["class_name"]), part.get("module")
        if name in CODE:
            settings = part.get("config")
            named = f" ({settings.get('name')!r})" if isinstance(settings, dict) else ""
            raise UnsupportedNetwork(
                f"{where}: has a {name} layer{named}. Its code would be run or another file read, so it is not loaded. "
                "Write it with Keras' own layers or keras.ops, and save the network again."
            )
        own = MODELLING.fullmatch(str(module)) or (module == "builtins" and name == "function")
        if name not in OF_APPLICATIONS and not own and (part.get("registered_name") or module):
            custom[str(part.get("config")) if name == "function" else name] = None
    if custom:
        raise UnsupportedNetwork(
            f"{where}: has classes that are not Keras' own: {', '.join(custom)}. A file does not hold "
            "their code. Rebuild the network with Keras' own layers, and save it again."
        )


def _parts(configuration: Any) -> Iterator[dict]:
    """Find everything in a configuration that is built from a class."""
    if isinstance(configuration, dict):
        if "class_name" in configuration:
            yield configuration
        for value in configuration.values():
            yield from _parts(value)
    elif isinstance(configuration, list):
        for value in configuration:
            yield from _parts(value)


def load(where: str, file: Path) -> keras.Model:
    """Load a file's network, with its weights.

    Parameters
    ----------
    where : str
        Names the file in messages.
    file : Path

    Raises
    ------
    UnknownBackbone, UnsupportedNetwork
        If it is no network; holds code, or refers to other files; has more weights than the file has room for; or
        weights that are no numbers.
    """
    import importlib

    import keras

    configuration = _configuration(where, file)
    classes = {name: getattr(importlib.import_module(module), name) for name, module in OF_APPLICATIONS.items()}

    def built() -> keras.Model:
        own = copy.deepcopy(configuration)  # Keras changes what it reads
        with keras.src.saving.serialization_lib.ObjectSharingScope():
            return keras.saving.deserialize_keras_object(own, custom_objects=classes, safe_mode=True)

    try:
        # First without weights: what is built in such a scope has shapes and no values.
        with keras.StatelessScope(initialize_variables=False):
            weights = sum(math.prod(variable.shape) for variable in built().variables)
    except Exception as error:  # every layer raises its own
        raise _not_loaded(where, error) from None
    finally:
        # Or Keras would give them values after all, at the next occasion.
        keras.src.backend.common.global_state.set_global_attribute("uninitialized_variables", [])
    if weights > (size := file.stat().st_size):
        raise UnsupportedNetwork(
            f"{where}: its layers have {shown(weights)} weights, and the file has {size:,} bytes. Save the whole "
            "network again with model.save('x.keras')."
        )
    try:
        with zipfile.ZipFile(file) as archive:
            check_weights(where, io.BytesIO(archive.read(WEIGHTS)), size)
        model = built()
        model.load_weights(file)
    except UnsupportedNetwork:
        raise
    except Exception as error:  # and so does every reader
        raise _not_loaded(where, error) from None
    check_numbers(where, model)
    return model._functional if isinstance(model, keras.Sequential) and model.built else model


def _not_loaded(where: str, error: Exception) -> UnsupportedNetwork:
    import keras

    return UnsupportedNetwork(
        f"{where}: Keras cannot load it ({first_line(error)}). Save it with model.save('x.keras') in "
        f"Keras {keras.__version__}, from Keras' own layers."
    )


def check_weights(where: str, file: Path | io.BytesIO, size: int) -> None:
    """Refuse an HDF5 file that refers to other files, or would take far more memory than it has bytes.

    Parameters
    ----------
    where : str
        Names the file in the message.
    file : Path or BytesIO
    size : int
        The file's bytes.

    Raises
    ------
    UnsupportedNetwork
    """
    import h5py

    found = {"": 0}  # bytes by what is wrong with them

    def count(name: str, part: h5py.Group | h5py.Dataset) -> None:
        if isinstance(part, h5py.Dataset):
            elsewhere = part.external or part.is_virtual
            found[""] += math.prod(part.shape or ()) * part.dtype.itemsize
            if elsewhere:
                found[f"{name!r} is read from another file"] = 0

    def follow(name: str, link: object) -> None:
        if not isinstance(link, h5py.HardLink):
            found[f"{name!r} leads elsewhere"] = 0

    try:
        with h5py.File(file, "r") as weights:
            weights.visititems_links(follow)
            weights.visititems(count)
    except Exception as error:  # h5py raises many kinds for a file that is damaged
        raise UnsupportedNetwork(f"{where}: not weights of Keras ({first_line(error)}). Save them again.") from None
    declared = found.pop("")
    wrong = [
        *found,
        *[f"{declared:,} bytes of weights in a file of {size:,}"] * (declared > max(SMALL, EXPANDS * size)),
    ]
    if wrong:
        raise UnsupportedNetwork(f"{where}: its weights are not in it ({wrong[0]}). Save them again with Keras.")


def check_numbers(where: str, model: keras.Model) -> None:
    """Refuse a network with a weight that is infinite or no number.

    Raises
    ------
    UnsupportedNetwork
    """
    import numpy as np

    for variable in model.weights:
        if not np.isfinite(np.asarray(variable, np.float32)).all():
            raise UnsupportedNetwork(
                f"{where}: the weight {variable.path!r} has values that are infinite or no numbers: its training "
                "diverged. Save it from an earlier epoch."
            )


def _image(path: Path, model: keras.Model) -> tuple[int | None, int | None, int]:
    shape = model.inputs[0].shape[1:]
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(shape) != 3 or shape[-1] != 3:
        raise UnsupportedNetwork(
            f"backbone = {str(path)!r}: its input is {[tuple(tensor.shape) for tensor in model.inputs]} and it has "
            f"{len(model.outputs)} outputs. Thaw needs one input of RGB photos (n, height, width, 3) and one output."
        )
    return shape


def _prepares_photos(model: keras.Model) -> bool:
    """Whether a network begins with something that scales photos, before its first weights."""
    from thaw.network.blocks import can_train

    for operation in _flat(model):
        if type(operation).__name__ in PREPARES:
            return True
        if can_train(operation):
            return False
    return False


def _flat(model: keras.Model) -> Iterator[keras.Operation]:
    import keras

    from thaw.network.graph import graph_of

    for operation in model.operations:
        if isinstance(operation, keras.Model):
            yield from _flat(graph_of(operation))
        else:
            yield operation


def _copy(model: keras.Model, shape: tuple[int, ...]) -> keras.Model:
    """Build a network's layers anew for photos of a shape, as one graph, with the network's weights."""
    import keras

    from thaw.network import graph

    photos = keras.Input(shape, name="photos")
    return keras.Model(photos, graph.rebuilt(model, photos, _renewed))


def _renewed(layer: keras.layers.Layer, name: str) -> keras.layers.Layer:
    return type(layer).from_config(layer.get_config() | {"name": name, "dtype": _policy(layer), "trainable": True})


def _policy(layer: keras.layers.Layer) -> Any:
    """Give the precision that a layer is built with: the study's, unless the file says float32 for good reason."""
    import keras

    return (
        keras.config.dtype_policy() if layer.dtype_policy.name.startswith(("float32", "mixed")) else layer.dtype_policy
    )


def _without_classifier(model: keras.Model) -> keras.Model:
    """Cut off what follows the last feature map, if anything does."""
    import keras

    from thaw.network import graph

    steps = {name: step for step in graph.steps(model) for name in step.outputs}
    tensors = graph.tensors(model)
    name = next(name for name, tensor in tensors.items() if tensor is model.outputs[0])
    if len(model.outputs[0].shape) == 4:
        return model
    features = None
    while (kind := type(steps[name].operation).__name__) in CLASSIFIER and len(steps[name].inputs) == 1:
        name = steps[name].inputs[0]
        if len(tensors[name].shape) == 4 and (features is None or kind in POOLING):
            features = name
        if kind in POOLING:  # what pools the whole map begins the classifier, be it of Dense layers or of Conv2D
            break
    if features is None:
        raise UnsupportedNetwork(
            "it does not end in a feature map (n, height, width, channels), with or without "
            f"a classifier on top: the search from its end came to {name!r} of shape {tuple(tensors[name].shape)}. "
            "Save the convolutional part alone."
        )
    return keras.Model(model.inputs[0], tensors[features])
