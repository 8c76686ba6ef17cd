"""What a trained network predicts, and how well."""

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from thaw.data.photos import Data


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
    """Look up the probability given to the class that `column` names in each row, (n,)."""
    classes = [name.removeprefix("p_") for name in predictions.columns if name.startswith("p_")]
    position = {name: i for i, name in enumerate(classes)}
    table = predictions[[f"p_{name}" for name in classes]].to_numpy()
    return table[np.arange(len(table)), [position[name] for name in predictions[column]]]
