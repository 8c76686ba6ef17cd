"""What every network has to keep: `check_backbone`."""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from conftest import enliven

from thaw.data.photos import load_photos
from thaw.experiment import Experiment
from thaw.network import backbones, blocks, frozen, graph, saved, unfreezing
from thaw.network.head import add_head
from thaw.network.pretrained import load_pretrained

PHOTOS = 8


def check_backbone(name: str, preprocessing: str = "network") -> dict:
    """Check that a network builds, that its blocks cover it, that it trains the same wherever it is cut, and its file.

    With random weights, at its smallest size, on photos of the demo's data
    set. The losses are those before and after a training step at three depths:
    the head alone, the last block, half of the blocks.

    Returns
    -------
    dict
        A row of the table in docs/networks.md: network, pixels, blocks, parameters, difference (the largest, of
        losses).
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    backbone = backbones.get(name, preprocessing)
    size = max(backbone.least, 32)
    base, _ = load_pretrained(name, size, "none", preprocessing)
    names = [operation.name for operation in base.operations]
    assert len(set(names)) == len(names), "each tensor has a name of its own"
    enliven(base)
    found = backbone.blocks(base)
    check_cover(base, found, whole=backbone.block is None)
    assert backbone.describe(base)
    data = load_photos("demo_flowers", size, 40)
    chosen = np.linspace(0, len(data.images) - 1, PHOTOS).astype(int)
    photos = np.asarray(backbone.preprocess(data.images[chosen].astype(np.float32)))
    model = add_head(base, len(data.classes))
    difference = 0.0
    for amount in (0, 1, -(-len(found) // 2)):
        strategy = "blocks" if amount else "frozen"
        experiment = Experiment.of({"backbone": name, "strategy": strategy, "amount": amount})
        unfreezing.unfreeze(base, unfreezing.unfrozen(base, backbone, experiment))
        cut, whole = losses(model, photos, data.labels[chosen])
        np.testing.assert_allclose(cut, whole, rtol=1e-4, err_msg=f"{name}, the last {amount} blocks")
        assert abs(whole[1] - whole[0]) > 1e-4 * whole[0], "a step changes the loss"
        difference = max(difference, float(np.abs(np.subtract(cut, whole) / whole).max()))
    check_file(model, backbone, size)
    return {
        "network": backbone.title,
        "pixels": size,
        "blocks": len(found),
        "parameters": base.count_params(),
        "difference": difference,
    }


def check_file(model: keras.Model, backbone: backbones.Backbone, size: int) -> None:
    """Its file is of Keras' own layers, takes photos of any size, and predicts the same."""
    rng = np.random.default_rng(0)
    photo = np.kron(rng.integers(0, 256, (7, 5, 3)), np.ones((21, 17, 1))).astype(np.uint8)
    squeezed = tf.round(tf.image.resize(photo[None], (size, size), antialias=True))
    expected = model(backbone.preprocess(squeezed), training=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, saved.KERAS)
        saved.save_keras(saved.plain(model, backbone.preprocess, size), ["a"], path)
        found = keras.saving.load_model(path, custom_objects={})(photo[None])
    np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=f"{backbone.title}, its file")


def check_cover(base: keras.Model, found: dict, whole: bool = True) -> None:
    """Every layer that can train is in one block, and no layer in two."""
    inside = [layer.name for layers in found.values() for layer in layers]
    assert len(inside) == len(set(inside))
    weighted = [layer.name for layer in base.layers if blocks.can_train(layer)]
    missing = [name for name in weighted if name not in inside]
    if whole:
        assert not missing
    assert not set(missing) - set(weighted[: len(missing)]), "a typed expression may leave out the stem, and no more"


def losses(model: keras.Model, photos: np.ndarray, labels: np.ndarray) -> list[list[float]]:
    """Take a training step from the frontier, and one on the whole network: both losses before and after it."""
    divided = graph.cut(model)
    entering = keras.Model(model.input, list(divided.frontier.values()))(photos, training=False)
    if isinstance(entering, list | tuple):
        entering = graph.one_or_all(list(entering))
    start = model.get_weights()
    found = []
    for network, inputs in ((divided.tail, entering), (model, photos)):
        model.set_weights(start)
        network.compile(
            keras.optimizers.SGD(0.1, clipnorm=1.0), loss="sparse_categorical_crossentropy", run_eagerly=True
        )
        frozen.reseed(network, seed=0, epoch=0)
        before = network.train_on_batch(inputs, labels)
        after = network.test_on_batch(inputs, labels)
        found.append([float(np.ravel(before)[0]), float(np.ravel(after)[0])])
    model.set_weights(start)
    return found
