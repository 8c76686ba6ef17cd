"""What a trained network does: its predictions and its latency."""

import time
from collections.abc import Callable

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from thaw.data.photos import Data


def compiled(model: keras.Model, preprocess: Callable) -> Callable:
    """Compile a network into one graph, from photos of 0 to 255 (n, size, size, 3) to probabilities (n, classes)."""
    signature = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)

    @tf.function(input_signature=[signature], autograph=False)
    def graph(photos):
        return model(preprocess(tf.cast(photos, tf.float32)), training=False)

    return graph


def predict(network: keras.Model, inputs: tf.data.Dataset, data: Data) -> pd.DataFrame:
    """Predict the class of each test photo.

    Parameters
    ----------
    network : keras.Model
        To probabilities: the whole network, or the rest of it that was trained.
    inputs : Dataset
        The test photos as they enter it, in order, in batches.
    data : Data

    Returns
    -------
    DataFrame
        A photo a row: key, label, predicted (names of classes), and the
        probability of each class in a column ``p_<class>``.
    """
    probabilities = network.predict(inputs, verbose=0)
    names = np.array(data.classes)
    table = pd.DataFrame(
        {
            "key": data.keys[data.test],
            "label": names[data.labels[data.test]],
            "predicted": names[probabilities.argmax(axis=1)],
        }
    )
    return table.join(pd.DataFrame(probabilities, columns=[f"p_{name}" for name in data.classes]))


def scores(predictions: pd.DataFrame) -> dict[str, float]:
    """Compute the share of correct predictions, and the mean cross-entropy in nats.

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
    """List the wrong predictions of the highest probability, which is in a column ``probability``."""
    table = predictions.assign(probability=_probability_of(predictions, "predicted"))
    return table[table["label"] != table["predicted"]].nlargest(most, "probability")


def _probability_of(predictions: pd.DataFrame, column: str) -> np.ndarray:
    """The probability given to the class that `column` names in each row, (n,)."""
    classes = [name.removeprefix("p_") for name in predictions.columns if name.startswith("p_")]
    position = {name: i for i, name in enumerate(classes)}
    table = predictions[[f"p_{name}" for name in classes]].to_numpy()
    return table[np.arange(len(table)), [position[name] for name in predictions[column]]]


def latency(graph: Callable, photos: np.ndarray, repeats: int = 50) -> dict[str, float]:
    """Time the compiled graph on one photo at a time, preprocessing included.

    Parameters
    ----------
    graph : callable
        The `compiled` network.
    photos : array of uint8, (n, size, size, 3)
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
        photo = photos[[i % len(photos)]]
        began = time.perf_counter()
        graph(photo).numpy()
        times.append(1000 * (time.perf_counter() - began))
    q1, median, q3 = np.percentile(times[3:], [25, 50, 75])
    return {"median": float(median), "q1": float(q1), "q3": float(q3)}
