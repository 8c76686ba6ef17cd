"""What is frozen is in inference mode; what trains draws the same random numbers wherever the network is cut."""

import os
import sys

import keras
import numpy as np
import pytest
from conftest import made_up_data
from keras import layers
from small_network import setup

from thaw.network import backbones, frozen, graph, unfreezing
from thaw.network.backbones import Backbone
from thaw.network.head import add_head
from thaw.network.pretrained import load_pretrained
from thaw.training import phases

RANDOM = Backbone("random", "Random", "test_frozen", "Random", about="two residual blocks with stochastic depth")
LOSSES = ["train_loss", "validation_loss"]


def Random(weights, include_top, input_shape):
    """Dropout between blocks, stochastic depth in them, squeeze-and-excite, layer normalization, a sum with ``+``."""
    photos = layers.Input(input_shape)
    features = layers.Rescaling(1 / 127.5, -1)(photos)
    features = layers.Conv2D(8, 3, 4, "same", name="stem_conv")(features)
    for number in (1, 2):
        name = f"block{number}"
        features = layers.Dropout(0.2, name=f"{name}_drop")(features)
        inside = layers.LayerNormalization(name=f"{name}_norm")(features)
        inside = layers.Conv2D(8, 3, 1, "same", activation="gelu", name=f"{name}_conv")(inside)
        gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(inside)
        gate = layers.Conv2D(8, 1, activation="sigmoid", name=f"{name}_excite")(gate)
        inside = layers.Multiply(name=f"{name}_scale")([inside, gate])
        inside = layers.Dropout(0.3, noise_shape=(None, 1, 1, 1), name=f"{name}_depth")(inside)
        features = features + inside
    return keras.Model(photos, features)


def preprocess_input(photos):
    return photos


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    monkeypatch.setitem(backbones.REGISTRY, "random", RANDOM)
    monkeypatch.setitem(sys.modules, "test_frozen", sys.modules[__name__])
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))


def network(name="random", size=32):
    base, _ = load_pretrained(name, size, "none")
    return base


def test_a_frozen_layer_is_in_inference_mode_and_an_unfrozen_one_is_not():
    base = network()
    photos = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    unfreezing.unfreeze(base, [])
    np.testing.assert_array_equal(base(photos, training=True), base(photos, training=False))
    unfreezing.unfreeze(base, [base.get_layer(name) for name in ("block2_drop", "block2_depth")])
    first, second = (base(photos, training=True).numpy() for _ in range(2))
    assert not np.allclose(first, base(photos, training=False))
    assert not np.allclose(first, second)
    frozen.reseed(base, 1, 7)
    third = base(photos, training=True).numpy()
    frozen.reseed(base, 1, 7)
    np.testing.assert_array_equal(third, base(photos, training=True))
    frozen.reseed(base, 1, 8)
    assert not np.allclose(third, base(photos, training=True)), "another epoch draws other numbers"


def test_the_cut_is_before_an_unfrozen_layer_that_is_random_and_has_no_weights():
    base = network()
    model = add_head(base, 3)
    unfreezing.unfreeze(base, [base.get_layer("block2_drop")])
    (before,) = graph.cut(model).frontier
    assert before.startswith("add_op")
    unfreezing.unfreeze(base, [])
    assert list(graph.cut(model).frontier) == ["pooled"]


def test_names_are_the_same_however_often_a_network_was_built():
    first, second = network(), network()
    assert [operation.name for operation in first.operations] == [operation.name for operation in second.operations]
    assert "add_op10" in graph.tensors(first)


def trained(name, size, activations, **parameters):
    said = []
    made = setup(made_up_data(size), said.append, backbone=name, image_size=size, activations=activations, **parameters)
    frozen.hold(made.base)
    graph.name_operations(made.base)
    return phases.train(made)


@pytest.mark.parametrize(
    "name, size, amount",
    [("random", 32, 1), ("random", 32, 2), pytest.param("efficientnetv2b0", 64, 2, marks=pytest.mark.long)],
)
def test_kept_computed_repeated_and_resumed_runs_are_alike(name, size, amount, monkeypatch, tmp_path):
    parameters = {"strategy": "blocks", "amount": amount, "finetune_learning_rate": 1e-4}
    runs = {}
    for run, activations in (("kept", "keep"), ("computed", "compute"), ("repeated", "compute")):
        monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / run))
        runs[run] = trained(name, size, activations, **parameters)
    kept, computed, repeated = (runs[run].history[LOSSES] for run in ("kept", "computed", "repeated"))
    assert all(note["cached"] for note in runs["kept"].activations.values())
    assert not any(note["cached"] for note in runs["computed"].activations.values())
    np.testing.assert_allclose(kept, computed, rtol=2e-5)
    assert repeated.equals(computed)

    assert resumed(name, size, **parameters).equals(computed)


def resumed(name, size, **parameters):
    """Stop a run before its last epoch, and go on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THAW_CACHE_DIR", os.environ["THAW_CACHE_DIR"] + "-resumed")
        with pytest.MonkeyPatch.context() as stop:
            stop.setattr(phases._AfterEachEpoch, "on_epoch_begin", stop_at(3))
            with pytest.raises(KeyboardInterrupt):
                trained(name, size, "compute", **parameters)
        return trained(name, size, "compute", **parameters).history[LOSSES]


def stop_at(last: int):
    original = phases._AfterEachEpoch.on_epoch_begin

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == last:
            raise KeyboardInterrupt
        original(self, epoch, logs)

    return on_epoch_begin


def test_without_their_seeds_of_each_epoch_a_resumed_run_would_differ(monkeypatch):
    monkeypatch.setattr(frozen, "reseed", lambda *_: None)
    parameters = {"strategy": "blocks", "amount": 2, "finetune_learning_rate": 1e-2}
    whole = trained("random", 32, "compute", **parameters).history[LOSSES]
    assert not np.allclose(whole, resumed("random", 32, **parameters), rtol=1e-4)
