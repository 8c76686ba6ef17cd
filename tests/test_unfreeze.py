"""Which layers train: the original's counts, and the laws that any choice must obey."""

import csv
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import setup

from thaw.errors import InvalidParameter
from thaw.experiment import Experiment
from thaw.network import backbones, unfreezing
from thaw.network.head import add_head
from thaw.records.record import _NETWORKS_OF_2
from thaw.study.study import read_parameters
from thaw.training import phases


def of(strategy, amount=0, **parameters):
    return Experiment.of({"backbone": "mobilenet", "strategy": strategy, "amount": amount} | parameters)


@functools.cache
def network(name):
    backbone = backbones.get(name)
    base = backbone.build(32)
    return backbone, base, add_head(base, 5)


with open(ROOT / "params" / "original" / "results.csv", encoding="utf-8") as file:
    ORIGINAL = list(csv.DictReader(file))


@pytest.mark.parametrize("row", ORIGINAL, ids=lambda row: f"{row['backbone']}-{row['strategy']}-{row['amount']}")
def test_trainable_parameters_are_the_original_s(row):
    name = f"{row['backbone']}-{row['strategy']}" + (f"-{row['amount']}" if row["amount"] != "0" else "")
    parameters = read_parameters(ROOT / "params" / "configurations" / f"{name}.yaml")
    backbone, base, model = network(parameters["backbone"])
    chosen = unfreezing.unfrozen(base, backbone, Experiment.of(parameters))
    unfreezing.unfreeze(base, chosen)
    assert unfreezing.count_parameters(model)["trainable_parameters"] == int(row["trainable_parameters"])
    found, head = unfreezing.by_block(base, backbone, chosen, "everything"), model.count_params() - base.count_params()
    assert sum(found["trains"].values()) + head == int(row["trainable_parameters"])
    *_, parameters_of_base, sizes = _NETWORKS_OF_2[row["backbone"]]
    assert (base.count_params(), list(found["blocks"].values())) == (parameters_of_base, sizes)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(backbones.REGISTRY)), st.sampled_from(["layers", "blocks"]), st.data())
def test_unfreezing_more_is_a_superset_and_a_suffix(name, strategy, draw):
    backbone, base, _ = network(name)
    most = len(base.layers) if strategy == "layers" else len(backbone.blocks(base))
    fewer = draw.draw(st.integers(1, most))
    more = draw.draw(st.integers(fewer, most))
    few, many = (unfreezing.unfrozen(base, backbone, of(strategy, amount)) for amount in (fewer, more))
    assert {layer.name for layer in few} <= {layer.name for layer in many}
    assert few == base.layers[-len(few) :], "what is unfrozen ends the network"
    assert (len(few) == len(many)) == (fewer == more)


@pytest.mark.parametrize("name", sorted(backbones.REGISTRY))
def test_blocks_hold_every_layer_of_theirs_and_follow_each_other(name):
    backbone, base, _ = network(name)
    blocks = backbone.blocks(base)
    assert len(blocks) == {"resnet50": 16, "mobilenet": 13}[name]
    inside = [layer.name for layers in blocks.values() for layer in layers]
    start = base.layers.index(base.get_layer(inside[0]))
    assert inside == [layer.name for layer in base.layers[start:]]


@pytest.mark.parametrize("strategy, amount", [("layers", 87), ("blocks", 14)])
def test_an_amount_that_the_network_has_not_got(strategy, amount):
    backbone, base, _ = network("mobilenet")
    with pytest.raises(InvalidParameter, match=rf"amount = {amount}: MobileNet has \d+ {strategy}.*from 1 to"):
        unfreezing.unfrozen(base, backbone, of(strategy, amount))


@pytest.mark.parametrize(
    "name, strategy, amount",
    [
        ("mobilenet", "frozen", 0),
        ("mobilenet", "layers", 5),
        ("mobilenet", "blocks", 2),
        ("resnet50", "layers", 10),
        ("resnet50", "blocks", 1),
    ],
)
def test_training_changes_the_unfrozen_weights_and_no_others(tiny, monkeypatch, tmp_path, name, strategy, amount):
    """In the fine-tuning phase; BatchNorm's statistics included."""
    made = setup(
        tiny,
        backbone=name,
        strategy=strategy,
        amount=amount,
        batch_size=8,
        activations="compute",
        head_epochs=1,
        finetune_epochs=0 if strategy == "frozen" else 1,
        finetune_learning_rate=0.1,
    )
    model = made.model
    before = {weight.path: weight.numpy() for weight in model.weights}
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))  # no head from another test
    tf.config.run_functions_eagerly(True)  # one step of each phase: not worth a graph
    try:
        phases.train(made)
    finally:
        tf.config.run_functions_eagerly(False)
    changed = {weight.path for weight in model.weights if not np.array_equal(before[weight.path], weight.numpy())}
    unfrozen = made.unfrozen
    expected = {weight.path for layer in unfrozen for weight in layer.weights} | {
        weight.path for weight in model.get_layer("head").weights
    }
    assert changed == expected
    if any(isinstance(layer, keras.layers.BatchNormalization) for layer in unfrozen):
        assert any("moving_mean" in path for path in changed)
