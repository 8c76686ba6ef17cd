"""What is kept of the frozen part: when, for whom, and what is done when it is no good."""

import dataclasses
import math
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import enliven, made_up_data
from small_network import SMALL
from thaw.disk import arrays as store
from thaw.disk import places
from thaw.experiment import Experiment
from thaw.network import backbones
from thaw.network import unfreezing as unfreeze
from thaw.training import activations
from thaw.training import phases as training


@pytest.fixture(autouse=True, scope="module")
def small():
    """A network more, as one adds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.REGISTRY, "small", SMALL)
        yield


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    """Nothing kept from an earlier test, and eight batches to a pass."""
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(activations, "BATCH", 2)
    # Files this small are not worth a clock's while.
    monkeypatch.setattr(store.Writer, "seconds_to_read", lambda *_, **__: 0.0)


@pytest.fixture(scope="module")
def network():
    """A network of random weights with a head; whoever takes it freezes what it wants."""
    base = backbones.get("small").build(32)
    enliven(base)
    return base, training.add_head(base, 3)


def experiment(**parameters) -> Experiment:
    return Experiment.of(
        {"backbone": "small", "strategy": "blocks", "amount": 1, "dataset": "made_up", "weights": "none"}
        | {"image_size": 32, "batch_size": 4, "head_epochs": 1, "finetune_epochs": 1}
        | parameters
    )


def provide(network, wanted=("block_2_relu",), weights="these", **parameters):
    said = []
    unfreeze.unfreeze(network[0], [])
    frontiers = [[layers] if isinstance(layers, str) else layers for layers in wanted]
    kept = activations.provide(network[1], frontiers, made_up_data(32), weights, experiment(**parameters), said.append)
    return kept, said


def train(network, start, **parameters):
    """A run from the same weights each time, and what it says."""
    base, model = network
    model.set_weights(start)
    shutil.rmtree(places.cache("backups"))  # nothing to go on from
    lines = []
    return training.train(model, base, made_up_data(32), "these", experiment(**parameters), lines.append), lines


@pytest.fixture(scope="module")
def start(network):
    return network[1].get_weights()


@pytest.mark.parametrize(
    "name, shares",
    [
        ("resnet50", {"A5": 0.013, "A10": 0.057, "B2": 0.113, "A40": 0.233, "B4": 0.246, "B10": 0.605}),
        ("mobilenet", {"A5": 0.090, "A10": 0.136, "B2": 0.137, "A40": 0.595, "B4": 0.321, "B10": 0.784}),
    ],
)
def test_the_share_of_the_work_that_each_strategy_trains(name, shares):
    base = backbones.get(name).build(224)
    model = training.add_head(base, 5)
    whole = activations.multiply_adds(model, ["head"])
    for strategy, share in shares.items():
        kind = {"A": "layers", "B": "blocks"}[strategy[0]]
        unfreeze.unfreeze(base, unfreeze.unfrozen(base, backbones.get(name), kind, int(strategy[1:])))
        frontier = activations.cut(model).frontier
        trained = activations.multiply_adds(model, ["head"], frontier)
        assert trained / whole == pytest.approx(share, abs=0.0015), strategy
        assert trained + activations.multiply_adds(model, frontier) == whole


def test_the_nearest_of_what_is_kept_on_every_way():
    model = training.add_head(backbones.get("resnet50").build(32), 3)
    first = model.layers[0].name
    kept = ["conv2_block3_out", "conv4_block6_out", "conv5_block2_out", "conv5_block3_2_relu"]
    assert activations.nearest(model, ["pooled"], kept) == ["conv5_block2_out", "conv5_block3_2_relu"]
    assert activations.nearest(model, ["conv5_block3_2_relu"], kept[:3]) == ["conv5_block2_out"]
    assert activations.nearest(model, ["conv4_block1_out"], kept) == ["conv2_block3_out"]
    assert activations.nearest(model, ["conv1_relu"], kept) == [first]
    # The shortcut would need the block's input, which is not kept: so its main path starts from there as well.
    assert activations.nearest(model, ["conv5_block3_out"], ["conv5_block3_2_relu"]) == [first, "conv5_block3_2_relu"]


def test_computed_once_and_then_read(network):
    first, said = provide(network)
    assert "has seen all 16 photos once" in said[0]
    again, said = provide(network)
    assert said == []
    np.testing.assert_array_equal(first["block_2_relu"][:], again["block_2_relu"][:])
    about = again["block_2_relu"].about
    assert about["seconds"] > 0 and "reading takes 0.00 ms a photo, computing" in about["why"]


def test_a_deeper_one_is_computed_from_a_shallower_one(network):
    shallow, _ = provide(network, ["block_1_relu"])
    deep, said = provide(network, ["block_2_relu", "pooled"])
    assert "from block_1_relu" in said[0]
    prefix = keras.Model(network[1].input, network[1].get_layer("block_2_relu").output)
    photos = np.concatenate([part.images for part in made_up_data(32).parts]).astype(np.float32)
    whole = prefix(backbones.get("small").preprocess(photos), training=False)
    np.testing.assert_allclose(deep["block_2_relu"][:], whole, rtol=1e-4, atol=1e-5)
    assert deep["pooled"].about["seconds"] > shallow["block_1_relu"].about["seconds"], "counted from the photos on"


def test_a_damaged_one_is_said_and_computed_again(network):
    first, _ = provide(network)
    expected = first["block_2_relu"][:]
    path = activations.folder(experiment()) / "block_2_relu.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again, said = provide(network)
    assert "damaged" in said[0] and "has seen all" in said[1]
    np.testing.assert_array_equal(again["block_2_relu"][:], expected)


def test_that_of_other_weights_is_not_used(network):
    provide(network)
    _, said = provide(network, weights="others")
    assert "other data, weights or settings" in said[0] and "has seen all" in said[1]


@pytest.mark.parametrize(
    "parameters", [{"precision": "mixed_bfloat16"}, {"image_size": 64}, {"max_examples": 20}], ids=str
)
def test_other_settings_are_other_files(parameters):
    assert activations.folder(experiment(**parameters)) != activations.folder(experiment())


def test_strategies_and_seeds_share(network):
    assert activations.folder(experiment(strategy="layers", amount=3, seed=7)) == activations.folder(experiment())


@pytest.mark.parametrize("reason", ["slow", "large"])
def test_not_kept_where_that_does_not_pay(network, start, monkeypatch, reason):
    if reason == "slow":
        monkeypatch.setattr(store.Writer, "seconds_to_read", lambda *_, **__: 1e9)
    else:
        monkeypatch.setenv("THAW_DISK_GB", "0")
    result, _ = train(network, start)
    words = "reading takes" if reason == "slow" else "would not fit"
    for note in result.activations.values():
        assert not note["cached"] and words in note["why"]
    assert sum(path.stat().st_size for path in activations.root().rglob("*.h5")) < 50_000, "but a note of each"
    forced, _ = train(network, start, activations="keep")
    assert all(note["cached"] and note["why"] == "as asked" for note in forced.activations.values())
    losses = ["train_loss", "validation_loss"]
    np.testing.assert_allclose(result.history[losses], forced.history[losses], rtol=2e-3)


def test_augmented_photos_are_computed_anew_every_epoch(network, start, monkeypatch):
    parameters = {"strategy": "frozen", "amount": 0, "head_epochs": 3, "finetune_epochs": 0}
    seen = []

    def all_mirrored(dataset, seed, first):
        seen.append(first)
        return dataset.map(lambda photos, labels: (photos[:, :, ::-1], labels))

    monkeypatch.setattr(training, "mirrored", all_mirrored)
    flipped, _ = train(network, start, augmentation="flip", **parameters)
    assert not flipped.activations["head"]["cached"] and "augmented" in flipped.activations["head"]["why"]
    assert seen == [0], "from the first batch on"
    data = made_up_data(32)
    before = dataclasses.replace(data.train, images=data.train.images[:, :, ::-1])
    monkeypatch.setitem(globals(), "made_up_data", lambda size: dataclasses.replace(data, train=before))
    expected, _ = train(network, start, activations="compute", **parameters)
    losses = ["train_loss", "validation_loss"]
    np.testing.assert_allclose(flipped.history[losses], expected.history[losses], rtol=1e-4)


def test_each_photo_is_mirrored_or_not_and_otherwise_in_each_epoch():
    photos = tf.reshape(tf.range(6 * 4, dtype=tf.float32), (6, 1, 4, 1))
    batches = tf.data.Dataset.from_tensors((photos, tf.range(6))).repeat(4)
    seen = [part.numpy() for part, _ in training.mirrored(batches, seed=0, first=0)]
    for batch in seen:
        for photo, original in zip(batch, photos.numpy()):
            assert np.array_equal(photo, original) or np.array_equal(photo, original[:, ::-1])
    assert len({batch.tobytes() for batch in seen}) > 1
    later = [part.numpy() for part, _ in training.mirrored(batches, seed=0, first=2)]
    np.testing.assert_array_equal(later[0], seen[2], "a batch's number decides, not where training began")


def test_a_head_is_trained_once_for_all_strategies_of_a_seed(network, start):
    first, _ = train(network, start)
    other, lines = train(network, start, strategy="layers", amount=2)
    assert any("the head was trained before, 1 epoch:" in line for line in lines)
    assert other.history.iloc[0].equals(first.history.iloc[0])
    again, _ = train(network, start)
    np.testing.assert_allclose(again.history["train_loss"], first.history["train_loss"], rtol=1e-6)
    _, lines = train(network, start, seed=1)
    assert not any("trained before" in line for line in lines)


@pytest.mark.parametrize("harm", ["damaged", "of other data or weights"])
def test_a_head_that_is_no_good_is_said_and_trained_anew(network, start, harm):
    first, _ = train(network, start)
    path = training.head_path(experiment())
    if harm == "damaged":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        with np.load(path) as kept:
            arrays = dict(kept)
        arrays["about"] = str(arrays["about"]).replace('"these"', '"others"')
        np.savez(path, **arrays)
    again, lines = train(network, start)
    assert any(harm in line for line in lines)
    np.testing.assert_allclose(again.history["train_loss"], first.history["train_loss"], rtol=1e-6)


def test_reduced_precision_keeps_half_the_bytes_and_the_softmax_in_float32():
    made = experiment(precision="mixed_bfloat16", image_size=64)
    training.set_up(made)
    try:
        base = backbones.get("small").build(64)
        enliven(base)
        model = training.add_head(base, 3)
        result = training.train(model, base, made_up_data(64), "these", made, lambda line: None)
        assert result.network.input.dtype == "bfloat16" and model.output.dtype == "float32"
        assert result.activations["finetune"]["cached"]
        (layer,) = result.activations["finetune"]["frontier"]
        megabytes = 16 * math.prod(model.get_layer(layer).output.shape[1:]) * 2 / 1e6
        assert result.activations["finetune"]["megabytes"] == pytest.approx(megabytes)
        assert all(weight.dtype == "float32" for weight in model.weights)
        assert np.isfinite(result.history["train_loss"]).all()
    finally:
        keras.config.set_dtype_policy("float32")


def test_what_has_served_longest_ago_makes_room(network, monkeypatch):
    """Disk for one and a half sets of activations, asked for two: the one not used for longest goes."""
    provide(network, ["block_1_relu"], max_examples=20)
    old = next(activations.root().rglob("*.h5"))
    os.utime(old, (0, 0))
    monkeypatch.setenv("THAW_DISK_GB", str(1.5 * old.stat().st_size / 1e9))
    kept, _ = provide(network, ["block_1_relu"])
    assert kept and not old.exists()


def test_a_raised_budget_is_a_new_chance(network, monkeypatch):
    monkeypatch.setenv("THAW_DISK_GB", "0")
    assert provide(network) == ({}, [])
    runs = []
    compute = activations._compute
    monkeypatch.setattr(activations, "_compute", lambda *arguments: runs.append(1) or compute(*arguments))
    assert provide(network) == ({}, []) and not runs, "decided before"
    monkeypatch.setenv("THAW_DISK_GB", "1")
    kept, _ = provide(network)
    assert kept.keys() == {"block_2_relu"} and runs


def test_for_what_cannot_fit_no_photo_is_run_and_nothing_deleted(network, monkeypatch):
    other, _ = provide(network, max_examples=20)
    monkeypatch.setenv("THAW_DISK_GB", "0.0001")
    monkeypatch.setattr(activations, "_in_batches", None)
    assert provide(network, ["block_1_relu"]) == ({}, [])
    files = [path for path in activations.root().rglob("*.h5") if path.stat().st_size > store.SMALL]
    assert [path.stem for path in files] == list(other)


def test_what_only_has_no_room_for_now_is_tried_again(network, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store, "make_room", lambda *_: False)
        assert provide(network)[0] == {}
    assert provide(network)[0].keys() == {"block_2_relu"}


def test_a_frontier_is_kept_whole_or_not_at_all(network, monkeypatch):
    """Of three frontiers one is too large, and one too slow to read: only what is kept is written to the end."""
    frontiers = [["block_1_pw", "block_1_pw_bn"], ["block_1_relu", "pooled"], ["block_2_relu"]]
    monkeypatch.setenv("THAW_DISK_GB", str(2.2e5 / 1e9))
    slow = lambda writer, *_, **__: 1e9 if writer.path.stem == "pooled" else 0.0
    monkeypatch.setattr(store.Writer, "seconds_to_read", slow)
    finished, finish = [], store.Writer.finish
    written, append = set(), store.Writer.append
    monkeypatch.setattr(store.Writer, "finish", lambda w, **about: finished.append(w.path.stem) or finish(w, **about))
    monkeypatch.setattr(store.Writer, "append", lambda w, rows: written.add(w.path.stem) or append(w, rows))
    kept, _ = provide(network, frontiers)
    assert kept.keys() == {"block_2_relu"} and finished == ["block_2_relu"]
    assert written == {"block_1_relu", "pooled", "block_2_relu"}, "the one that could not fit never was"
    data = made_up_data(32)
    reasons = [activations.why_not(experiment(), data, "these", frontier) for frontier in frontiers]
    assert "would not fit" in reasons[0] and "reading takes" in reasons[1] and reasons[2] == "not kept"
    again, said = provide(network, frontiers)
    assert again.keys() == kept.keys() and said == [], "decided before"
    assert list(activations.root().rglob(".*.part*")) == []
