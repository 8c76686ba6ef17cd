"""A trained network as a file that needs nothing of Thaw: ``model.keras`` and ``model.tflite``.

Both take photos of any size, numbers from 0 to 255, and prepare them as in
training. Both are also zip archives that hold ``labels.txt``, a class a line:
a ``.keras`` file is one anyway, and to a ``.tflite`` file one is appended, as
TensorFlow Lite does it.
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from thaw.errors import UnsupportedNetwork, first_line
from thaw.network import graph, own

KERAS, TFLITE, LABELS = "model.keras", "model.tflite", "labels.txt"


def plain(model: keras.Model, preprocess: Callable, image_size: int) -> keras.Model:
    """Rebuild a trained network of Keras' own layers alone, in float32, with all that happens to a photo before it.

    Parameters
    ----------
    model : keras.Model
        From prepared photos (n, image_size, image_size, 3) to probabilities.
    preprocess : callable
        From photos (..., 3) of 0 to 255 to prepared ones:
        `thaw.network.backbones.Backbone.preprocess`.
    image_size : int

    Returns
    -------
    keras.Model
        From photos (n, height, width, 3) of any size, 0 to 255, to
        probabilities (n, classes).
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        photos = keras.Input((None, None, 3), name="photo")
        # As the training photos: see `thaw.data.photos`. They were whole numbers. Not by Keras' layer: see `_renewed`.
        resized = keras.ops.round(keras.ops.image.resize(photos, (image_size, image_size), antialias=True))
        whole = keras.Model(photos, graph.rebuilt(model, _prepared(resized, preprocess), _renewed))
    finally:
        keras.config.set_dtype_policy(policy)
    # So that it can be evaluated at once. SGD has no state to be saved. On a GPU, XLA could not compile the resizing.
    whole.compile("sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return whole


def _prepared(photos: keras.KerasTensor, preprocess: Callable) -> keras.KerasTensor:
    """Write a preprocessing as layers. All of Keras' take each channel by itself, in order or in reverse."""
    black, *primaries = (np.asarray(preprocess(tf.constant([[[color]]])))[0, 0, 0] for color in 255 * np.eye(4, 3, -1))
    change = (np.array(primaries, float) - black) / 255  # (channels in, channels out)
    if not np.diag(change).all():
        photos, change = keras.ops.flip(photos, axis=-1), change[::-1]
    scale, offset = np.diag(change), black.astype(float)
    if np.allclose(scale, 1) and not offset.any():
        return photos
    return keras.layers.Rescaling(scale.tolist(), offset.tolist())(photos)


def _renewed(layer: keras.layers.Layer, name: str) -> Callable:
    """Make a layer of Keras' public ones that computes what this one does."""
    about = layer.get_config() | {"name": name, "dtype": "float32", "trainable": True}
    match type(layer).__name__:
        case "LayerScale":  # ConvNeXt's: a factor a channel
            return keras.layers.DepthwiseConv2D(1, use_bias=False, name=name)
        case "StochasticDepth":
            return keras.layers.Dropout(layer.drop_path_rate, (None, 1, 1, 1), name=name)
        case "CustomScaleLayer":  # InceptionResNetV2's
            return partial(_sum_of, layer.scale, name)
    kind = graph.class_of_others(layer)
    renewed = kind.from_config(about)
    mode = signature(kind.call).parameters.get("training")
    if mode and mode.default is True:
        # It flips or crops photos. Where nobody says otherwise, it is in training mode, and all layers after it.
        return lambda *tensors, **keywords: renewed(*tensors, **keywords | {"training": False})
    return renewed


def _sum_of(scale: float, name: str, tensors: list) -> keras.KerasTensor:
    scaled = keras.layers.Rescaling(scale, name=f"{name}_scaled")(tensors[1])
    return keras.layers.Add(name=name)([tensors[0], scaled])


def save_keras(network: keras.Model, classes: Sequence[str], path: Path) -> None:
    """Save what `plain` has made, with the names of its classes."""
    network.save(path)
    _add_labels(path, classes)


def save_tflite(network: keras.Model, classes: Sequence[str], path: Path) -> None:
    """Convert what `plain` has made to TensorFlow Lite, with weights of 16 bits.

    It takes one photo at a time, uint8 (1, height, width, 3). It is made of
    TensorFlow Lite's own operations. Resizing with antialiasing is none of
    them; here it is two products of matrices.
    """
    resized = network.operations[2].output  # after the photo, and its resizing
    after = keras.Model(resized, network.output)
    size = resized.shape[1]

    @tf.function(input_signature=[tf.TensorSpec((1, None, None, 3), tf.uint8, "photo")], autograph=False)
    def probabilities(photo):
        height, width = tf.unstack(tf.shape(photo))[1:3]
        rows = tf.einsum("ih,nhwc->niwc", _triangles(height, size), tf.cast(photo, tf.float32))
        resized = tf.einsum("jw,niwc->nijc", _triangles(width, size), rows)
        return after(tf.reshape(tf.round(resized), (1, size, size, 3)), training=False)

    variables = tf.Module()
    variables.all = [variable.value for variable in network.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([probabilities.get_concrete_function()], variables)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        path.write_bytes(converter.convert())
    _add_labels(path, classes)


def _triangles(pixels: tf.Tensor, size: int) -> tf.Tensor:
    """Give the weights of bilinear resizing with antialiasing, (size, pixels): what `tf.image.resize` takes."""
    scale = tf.cast(pixels, tf.float32) / size
    centers = (tf.range(size, dtype=tf.float32) + 0.5) * scale
    distances = tf.abs(centers[:, None] - (tf.cast(tf.range(pixels), tf.float32) + 0.5))
    weights = tf.nn.relu(1 - distances / tf.maximum(scale, 1.0))
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def _add_labels(path: Path, classes: Sequence[str]) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(LABELS, labels_text(classes))


def labels_text(classes: Sequence[str]) -> str:
    """Write the names of classes, one a line."""
    return "".join(f"{' '.join(name.splitlines())}\n" for name in classes)


@dataclass(frozen=True)
class Saved:
    """A network from a file.

    Attributes
    ----------
    path : Path
    classes : tuple of str
    probabilities : callable
        From a photo, uint8 (height, width, 3), to probabilities (classes,).
    model : keras.Model or None
        The network itself; None of a ``.tflite`` file.
    """

    path: Path
    classes: tuple[str, ...]
    probabilities: Callable[[np.ndarray], np.ndarray]
    model: keras.Model | None = None

    @classmethod
    def load(cls, given: str) -> Saved:
        """Load a network for prediction.

        Parameters
        ----------
        given : str
            A ``.keras`` or ``.tflite`` file that Thaw has made, or the folder
            in which ``model.keras`` is.

        Raises
        ------
        UnsupportedNetwork
            If it is none.
        """
        path = Path(given).expanduser()
        if path.is_dir():
            path /= KERAS
        loaders = {".keras": _keras, ".tflite": _tflite}
        if not path.is_file() or path.suffix.lower() not in loaders:
            what = "no .keras or .tflite file" if path.is_file() else "no such file"
            raise UnsupportedNetwork(
                f"MODEL = {given!r}: {what}{f' ({KERAS}) in it' * (path != Path(given))}. Give the folder 'model' that "
                f"'thaw report' leaves in outputs/<profile>, or {KERAS} or {TFLITE} in it."
            )
        try:
            with zipfile.ZipFile(path) as archive:
                classes = tuple(own.text_in(archive, LABELS).decode().removesuffix("\n").split("\n"))
        except Exception as error:  # an archive can be damaged in many ways
            raise UnsupportedNetwork(
                f"MODEL = {given!r}: holds no {LABELS} with the names of its classes ({first_line(error)}). Give a "
                f"{path.suffix} file that Thaw has made."
            ) from None
        try:
            probabilities, model = loaders[path.suffix.lower()](path)
            tried = probabilities(np.zeros((32, 48, 3), np.uint8))
        except UnsupportedNetwork:
            raise
        except Exception as error:  # every layer and reader raises its own
            raise UnsupportedNetwork(f"MODEL = {given!r}: cannot be loaded ({first_line(error)}).") from None
        if tried.shape != (len(classes),):
            raise UnsupportedNetwork(
                f"MODEL = {given!r}: its {LABELS} names {len(classes)} classes, and the network has {tried.size}."
            )
        return cls(path, classes, probabilities, model)


def _keras(path: Path) -> tuple[Callable, keras.Model]:
    model = own.load(f"MODEL = {str(path)!r}", path)
    if model.input_shape != (None, None, None, 3):
        raise ValueError(f"it takes {model.input_shape}, not photos of any size")
    takes = tf.TensorSpec((None, None, None, 3), tf.float32)
    compiled = tf.function(partial(model, training=False), input_signature=[takes], autograph=False)
    return lambda photo: compiled(tf.cast(photo[None], tf.float32)).numpy()[0], model


def _tflite(path: Path) -> tuple[Callable, None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own deprecation
        interpreter = tf.lite.Interpreter(str(path), num_threads=os.cpu_count())
    # Other operations are whatever an interpreter is linked with, such as TensorFlow's own that write files.
    network = schema.Model.GetRootAs(path.read_bytes())
    codes = [network.OperatorCodes(number).CustomCode() for number in range(network.OperatorCodesLength())]
    if others := [code.decode(errors="replace") for code in codes if code]:
        raise ValueError(f"it has operations that are not TensorFlow Lite's own: {', '.join(others)}")
    (takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    if takes["shape_signature"].tolist() != [1, -1, -1, 3] or takes["dtype"] is not np.uint8:
        raise ValueError(f"it takes {takes['shape_signature'].tolist()}, not photos of any size")

    def probabilities(photo: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(takes["index"], (1, *photo.shape))
        interpreter.allocate_tensors()
        interpreter.set_tensor(takes["index"], photo[None])
        interpreter.invoke()
        return interpreter.get_tensor(gives["index"])[0]

    return probabilities, None
