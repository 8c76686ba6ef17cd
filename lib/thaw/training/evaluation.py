"""What a trained network predicts."""

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


def confident_mistakes(predictions: pd.DataFrame, most: int) -> pd.DataFrame:
    """List the wrong predictions of the highest probability, which is in a column ``probability``."""
    table = predictions.assign(probability=predictions.filter(regex="^p_").max(axis=1))
    return table[table["label"] != table["predicted"]].nlargest(most, "probability")
