"""What a trained network does: its predictions, its latency, its memory."""

import os
import platform
import time
from collections.abc import Callable

import keras
import numpy as np
import pandas as pd
import psutil
import tensorflow as tf

from thaw.data.photos import Photos


def compiled(model: keras.Model, preprocess: Callable) -> Callable:
    """The network as one graph, from photos of 0 to 255 (n, size, size, 3) to probabilities (n, classes)."""
    signature = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)

    @tf.function(input_signature=[signature], autograph=False)
    def graph(photos):
        return model(preprocess(tf.cast(photos, tf.float32)), training=False)

    return graph


def predict(network: keras.Model, inputs: tf.data.Dataset, photos: Photos, classes: tuple[str, ...]) -> pd.DataFrame:
    """Predict the class of each photo.

    Parameters
    ----------
    network : keras.Model
        To probabilities: the whole network, or what training left of it to train.
    inputs : Dataset
        The photos as they enter it, in order, in batches.
    photos : Photos
    classes : tuple of str

    Returns
    -------
    DataFrame
        A photo a row: key, label, predicted (names of classes), and the
        probability of each class in a column ``p_<class>``.
    """
    probabilities = network.predict(inputs, verbose=0)
    names = np.array(classes)
    table = pd.DataFrame(
        {"key": photos.keys, "label": names[photos.labels], "predicted": names[probabilities.argmax(axis=1)]}
    )
    return table.join(pd.DataFrame(probabilities, columns=[f"p_{name}" for name in classes]))


def scores(predictions: pd.DataFrame) -> dict[str, float]:
    """The share of right predictions, and the mean cross-entropy in nats.

    Returns
    -------
    dict
        ``test_accuracy`` and ``test_loss``.
    """
    right = (predictions["label"] == predictions["predicted"]).mean()
    floor = keras.config.epsilon()  # as Keras' own loss has it
    loss = -np.log(np.clip(_probability_of(predictions, "label"), floor, 1 - floor)).mean()
    return {"test_accuracy": float(right), "test_loss": float(loss)}


def confident_mistakes(predictions: pd.DataFrame, most: int) -> pd.DataFrame:
    """The wrong predictions with the highest probability, and that in a column ``probability``."""
    table = predictions.assign(probability=_probability_of(predictions, "predicted"))
    return table[table["label"] != table["predicted"]].nlargest(most, "probability")


def _probability_of(predictions: pd.DataFrame, column: str) -> np.ndarray:
    """The probability given to the class that `column` names in each row, (n,)."""
    classes = [name.removeprefix("p_") for name in predictions.columns if name.startswith("p_")]
    position = {name: i for i, name in enumerate(classes)}
    table = predictions[[f"p_{name}" for name in classes]].to_numpy()
    return table[np.arange(len(table)), [position[name] for name in predictions[column]]]


def latency(graph: Callable, photos: Photos, repeats: int = 50) -> dict[str, float]:
    """Time the compiled graph on one photo at a time, preprocessing included.

    Parameters
    ----------
    graph : callable
        The `compiled` network.
    photos : Photos
        Taken in turn.
    repeats : int
        Timed calls, after three to warm up.

    Returns
    -------
    dict
        ``median``, ``q1`` and ``q3`` in milliseconds a photo.
    """
    times = []
    for i in range(3 + repeats):
        photo = photos.images[[i % len(photos)]]
        began = time.perf_counter()
        graph(photo).numpy()
        times.append(1000 * (time.perf_counter() - began))
    q1, median, q3 = np.percentile(times[3:], [25, 50, 75])
    return {"median": float(median), "q1": float(q1), "q3": float(q3)}


def peak_memory_mb() -> float:
    """The most memory this process has had resident so far, in MB (1e6 bytes)."""
    if platform.system() == "Windows":
        return psutil.Process().memory_info().peak_wset / 1e6
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if platform.system() == "Darwin" else peak * 1024 / 1e6


def peak_device_memory_mb() -> float | None:
    """The most memory of the first GPU that TensorFlow has had in use, in MB (1e6 bytes); None without a GPU."""
    if not tf.config.list_physical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 1e6


def device() -> dict[str, str | int]:
    """The machine: its processor or GPU, and the cores that training may use."""
    gpus = tf.config.list_physical_devices("GPU")
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else _processor()
    process = psutil.Process()
    available = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count()
    cores = int(os.environ.get("TF_NUM_INTRAOP_THREADS", available))
    return {"name": name, "cores": min(cores, available), "gpus": len(gpus), "system": platform.system()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
