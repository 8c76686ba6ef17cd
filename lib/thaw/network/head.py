"""The head: what turns a backbone's features into probabilities of our classes."""

import keras

HEAD = "head"  # the name of its softmax layer


def add_head(base: keras.Model, classes: int, seed: int = 0) -> keras.Model:
    """Put global average pooling and one softmax layer on a backbone.

    Parameters
    ----------
    base : keras.Model
        From preprocessed photos (n, size, size, 3) to features (n, h, w, c).
    classes : int
    seed : int
        Of the softmax layer's initial weights.

    Returns
    -------
    keras.Model
        From preprocessed photos to probabilities (n, classes), in float32
        whatever the precision.
    """
    features = keras.layers.GlobalAveragePooling2D(name="pooled")(base.output)
    head = keras.layers.Dense(classes, activation="softmax", dtype="float32", name=HEAD)
    model = keras.Model(base.input, head(features), name=f"{base.name}_with_head")
    start_head(model, seed)
    return model


def start_head(model: keras.Model, seed: int) -> None:
    """Give a network's head the initial weights that a seed draws."""
    head = model.get_layer(HEAD)
    head.kernel.assign(keras.initializers.GlorotUniform(seed)(head.kernel.shape, head.kernel.dtype))
    head.bias.assign(keras.ops.zeros_like(head.bias))
