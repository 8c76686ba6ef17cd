"""A network of three small blocks, for what does not depend on the network: a second where MobileNet takes four."""

import keras
from keras import layers

from thaw.network.backbones import Backbone

SMALL = Backbone("small", "Small", "small_network", "Small", r"block_(\d+)_", "three depthwise-separable blocks")


def Small(weights, include_top, input_shape):
    """Build it as `keras.applications` builds its own."""
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


def setup(data, log=lambda line: None, weights="random", **parameters):
    """Set up an experiment on made-up photos, with random weights that a signal survives."""
    from conftest import enliven

    from thaw.experiment import Experiment
    from thaw.network import backbones
    from thaw.network.head import add_head
    from thaw.training.setup import Setup, set_keras

    experiment = Experiment.of(
        {"backbone": "small", "strategy": "frozen", "dataset": "made_up", "weights": "none", "image_size": 32}
        | {"batch_size": 4, "head_epochs": 2, "finetune_epochs": 2}
        | {"head_learning_rate": 1e-2, "finetune_learning_rate": 1e-3}
        | parameters
    )
    set_keras(experiment)
    backbone = backbones.get(experiment.backbone)
    base = backbone.build(experiment.image_size)
    enliven(base)
    model = add_head(base, len(data.classes), experiment.seed)
    return Setup(experiment, backbone, base, {"tensors_sha256": weights}, data, model, log)
