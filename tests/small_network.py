"""A network of three small blocks, for tests of what does not depend on the network: a second where MobileNet takes four."""

import keras
from keras import layers
from thaw.network.backbones import Backbone

SMALL = Backbone("small", "Small", "small_network", "Small", r"block_(\d+)_", "three depthwise-separable blocks")


def Small(weights, include_top, input_shape):
    """As `keras.applications` has its own."""
    photos = features = layers.Input(input_shape)
    for number in (1, 2, 3):
        name = f"block_{number}"
        features = layers.DepthwiseConv2D(3, 2, "same", use_bias=False, name=f"{name}_dw")(features)
        features = layers.BatchNormalization(name=f"{name}_dw_bn")(features)
        features = layers.Conv2D(8 * number, 1, use_bias=False, name=f"{name}_pw")(features)
        features = layers.BatchNormalization(name=f"{name}_pw_bn")(features)
        features = layers.ReLU(name=f"{name}_relu")(features)
    return keras.Model(photos, features)


def preprocess_input(photos):
    return photos / 127.5 - 1
