"""Where a network looks: Grad-CAM (Selvaraju et al., 2017)."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from thaw.errors import UnsupportedNetwork


def look(network: keras.Model, photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the parts of a photo that speak for the class that a network predicts.

    The last feature maps before the head are added up, each weighted by how
    much the class's score grows with it. What speaks against the class counts
    as nothing.

    Parameters
    ----------
    network : keras.Model
        From photos (n, height, width, 3) to probabilities, which its last
        layer computes from features.
    photo : array of uint8, (height, width, 3)

    Returns
    -------
    probabilities : array, (classes,)
    heat : array, (rows, columns)
        Of each part of the photo that the maps tell apart, from 0 to 1: the
        largest is 1, unless nothing speaks for the class.

    Raises
    ------
    UnsupportedNetwork
        If the network has no feature maps, or does not end in a dense layer.
    """
    head = network.layers[-1]
    maps = [layer.output for layer in network.layers if len(getattr(layer.output, "shape", ())) == 4]
    if not isinstance(head, keras.layers.Dense) or not maps:
        raise UnsupportedNetwork("It has no feature maps before a dense layer: Grad-CAM needs both.")
    inside = keras.Model(network.inputs, [maps[-1], head.input, head.output])
    with tf.GradientTape() as tape:
        features, entering, probabilities = inside(tf.cast(photo[None], tf.float32), training=False)
        scores = tf.linalg.matmul(entering, head.kernel.value) + head.bias.value  # before the softmax
        score = scores[0, int(tf.argmax(probabilities[0]))]
    weights = tf.reduce_mean(tape.gradient(score, features), axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))[0].numpy()
    return probabilities[0].numpy(), heat / (heat.max() or 1)
