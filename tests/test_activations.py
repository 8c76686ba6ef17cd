"""What is kept of the frozen part: when, for whom, and what is done when it is damaged."""

import dataclasses
import math
import os

import keras
import numpy as np
import pytest
from conftest import made_up_data
from small_network import SMALL, setup

from thaw.disk import arrays
from thaw.experiment import Experiment
from thaw.network import backbones, graph, unfreezing
from thaw.network.head import add_head
from thaw.training import activations, phases


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    """Nothing kept from an earlier test, eight batches to a pass, and one more network."""
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(activations, "BATCH", 2)
    monkeypatch.setitem(backbones.REGISTRY, "small", SMALL)


def cached(*frontiers, said=None, **parameters):
    """Ask for layers' outputs; kept, and why."""
    parameters = {"activations": "keep"} | parameters
    made = setup(
        made_up_data(parameters.get("image_size", 32)), (said if said is not None else []).append, **parameters
    )
    unfreezing.unfreeze(made.base, [])
    return made, *activations.cached(made, [list(frontier) for frontier in frontiers or [["block_2_relu"]]])


@pytest.mark.parametrize(
    "name, shares",
    [
        ("resnet50", {"A5": 0.013, "A10": 0.057, "B2": 0.113, "A40": 0.233, "B4": 0.246, "B10": 0.605}),
        ("mobilenet", {"A5": 0.090, "A10": 0.136, "B2": 0.137, "A40": 0.595, "B4": 0.321, "B10": 0.784}),
    ],
)
def test_the_share_of_the_work_that_each_strategy_trains(name, shares):
    base = backbones.get(name).build(224)
    model = add_head(base, 5)
    whole = graph.multiply_adds(model, ["head"])
    for strategy, share in shares.items():
        kind = {"A": "layers", "B": "blocks"}[strategy[0]]
        unfreezing.unfreeze(
            base,
            unfreezing.unfrozen(
                base,
                backbones.get(name),
                Experiment.of({"backbone": name, "strategy": kind, "amount": int(strategy[1:])}),
            ),
        )
        frontier = graph.cut(model).frontier
        trained = graph.multiply_adds(model, ["head"], frontier)
        assert trained / whole == pytest.approx(share, abs=0.0015), strategy
        assert trained + graph.multiply_adds(model, frontier) == whole


def test_what_to_start_from_on_every_path():
    model = add_head(backbones.get("resnet50").build(32), 3)
    first = model.layers[0].name
    kept = ["conv2_block3_out", "conv4_block6_out", "conv5_block2_out", "conv5_block3_2_relu"]
    assert graph.sources(model, ["pooled"], kept) == ["conv5_block2_out", "conv5_block3_2_relu"]
    assert graph.sources(model, ["conv5_block3_2_relu"], kept[:3]) == ["conv5_block2_out"]
    assert graph.sources(model, ["conv4_block1_out"], kept) == ["conv2_block3_out"]
    assert graph.sources(model, ["conv1_relu"], kept) == [first]
    # The shortcut needs the block's input, which is not kept: so its main path starts from there as well.
    assert graph.sources(model, ["conv5_block3_out"], ["conv5_block3_2_relu"]) == [first, "conv5_block3_2_relu"]


def test_computed_once_and_then_read():
    said = []
    _, first, _ = cached(said=said)
    assert "has seen all 16 photos once" in said[0]
    _, again, _ = cached(said=(more := []))
    assert more == []
    np.testing.assert_array_equal(first["block_2_relu"][:], again["block_2_relu"][:])
    assert again["block_2_relu"].about["seconds"] > 0


def test_a_deeper_one_is_computed_from_a_shallower_one():
    _, shallow, _ = cached(["block_1_relu"])
    made, deep, _ = cached(["block_2_relu", "pooled"], said=(said := []))
    assert "from block_1_relu" in said[0]
    prefix = keras.Model(made.model.input, made.model.get_layer("block_2_relu").output)
    whole = prefix(made.backbone.preprocess(made.data.images.astype(np.float32)), training=False)
    np.testing.assert_allclose(deep["block_2_relu"][:], whole, rtol=1e-4, atol=1e-5)
    assert deep["pooled"].about["seconds"] > shallow["block_1_relu"].about["seconds"], "counted from the photos on"


@pytest.mark.parametrize("which", ["block_1_relu", "block_2_relu"])
def test_a_damaged_one_is_said_and_computed_again(which):
    made, _, _ = cached(["block_1_relu"])
    expected = cached()[1]["block_2_relu"][:]
    path = activations.folder(made) / f"{which}.npy"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    if which == "block_1_relu":  # what it would start from
        for beside in (".npy", ".json"):
            (activations.folder(made) / f"block_2_relu{beside}").unlink()
    _, again, _ = cached(said=(said := []))
    assert "damaged" in said[0]
    assert "has seen all 16 photos once" in said[-1]
    np.testing.assert_allclose(again["block_2_relu"][:], expected, rtol=1e-5)


def test_other_photos_weights_and_settings_are_other_files():
    data = made_up_data(32)
    base = activations.folder(setup(data))
    others = [
        setup(dataclasses.replace(data, provenance={"sha256": "other"})),
        setup(data, weights="others"),
        setup(data, precision="mixed_bfloat16"),
        setup(made_up_data(64), image_size=64),
    ]
    keras.config.set_dtype_policy("float32")
    assert len({base, *map(activations.folder, others)}) == 5
    assert activations.folder(setup(data, strategy="layers", amount=3, seed=7)) == base, "strategies and seeds share"


@pytest.mark.parametrize(
    "name, strategy, amount, kept",
    [
        ("resnet50", "layers", 5, True),
        ("resnet50", "blocks", 10, True),
        ("mobilenet", "layers", 40, True),
        ("mobilenet", "blocks", 10, False),  # the first quarter of the work, and the largest tensors
        ("mobilenet", "frozen", 0, True),
    ],
)
def test_what_is_worth_keeping_is_decided_by_bytes_and_work(name, strategy, amount, kept):
    made = setup(made_up_data(64), backbone=name, strategy=strategy, amount=amount, image_size=64)
    unfreezing.unfreeze(made.base, made.unfrozen)
    reason = activations._reason_against(made, list(graph.cut(made.model).frontier))
    assert (reason is None) == kept
    assert kept or "computing is faster than reading" in reason


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"activations": "compute"}, "as asked"),
        ({"augmentation": "flip"}, "differ in every epoch"),
        ({"activations": "auto"}, "computing is faster"),
    ],
    ids=str,
)
def test_what_is_not_to_be_kept_is_not_computed(monkeypatch, parameters, words):
    monkeypatch.setattr(activations, "_run", None)
    _, kept, why = cached(["block_1_relu"], **parameters)
    assert kept == {}
    assert words in why[0]


def test_without_room_every_epoch_runs_the_whole_network_to_the_same_losses(monkeypatch, tmp_path):
    losses = {}
    for budget in ("0", "1"):
        monkeypatch.setenv("THAW_DISK_GB", budget)
        monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / budget))
        result = phases.train(setup(made_up_data(32), strategy="blocks", amount=1, activations="keep"))
        losses[budget] = result.history[["train_loss", "validation_loss"]]
        for note in result.activations.values():
            assert note["cached"] == (budget == "1")
            assert ("no room" in note["why"]) == (budget == "0")
    np.testing.assert_allclose(losses["0"], losses["1"], rtol=2e-3)


def test_of_several_frontiers_those_that_save_most_are_kept_and_each_whole_or_not_at_all(monkeypatch):
    frontiers = [["block_1_pw", "block_1_pw_bn"], ["block_1_relu", "pooled"], ["block_2_relu"]]
    monkeypatch.setenv("THAW_DISK_GB", str(2.2e5 / 1e9))
    _made, kept, why = cached(*frontiers)
    assert set(kept) == {"block_1_relu", "pooled", "block_2_relu"} or set(kept) == {"block_2_relu"}
    assert "no room" in why[0]
    assert "saves" in why[2]
    written = {path.stem for path in activations.root().rglob("*.npy")}
    assert written == set(kept), "what does not fit was never written"


def test_nothing_is_deleted_for_what_cannot_fit(monkeypatch):
    _, other, _ = cached(["block_2_relu"], weights="others")
    monkeypatch.setenv("THAW_DISK_GB", "0.00008")
    _, kept, _ = cached(["block_1_relu"])
    assert kept == {}
    assert [path.stem for path in activations.root().rglob("*.npy")] == list(other)


def test_what_was_not_used_for_longest_makes_room(monkeypatch):
    """Disk for one and a half sets of activations, asked for two."""
    cached(["block_1_relu"], weights="others")
    old = next(activations.root().rglob("*.npy"))
    os.utime(old, (0, 0))
    monkeypatch.setenv("THAW_DISK_GB", str(1.5 * old.stat().st_size / 1e9))
    _, kept, _ = cached(["block_1_relu"])
    assert kept
    assert not old.exists()


def test_a_full_disk_is_said_and_what_there_is_is_used(monkeypatch):
    cached(["block_1_relu"])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays.Writer, "append", full)
    _, kept, why = cached(["block_1_relu"], ["block_2_relu"], said=(said := []))
    assert list(kept) == ["block_1_relu"]
    assert "the disk is full" in said[0]
    assert "no room" in why[1]


def test_one_pass_provides_for_all_experiments_of_a_network():
    said = []
    made = setup(made_up_data(32), said.append, activations="keep")
    others = [
        setup(made_up_data(32), activations="keep", strategy=strategy, amount=amount).experiment
        for strategy, amount in (("blocks", 1), ("blocks", 2), ("layers", 2))
    ]
    phases.provide_activations(made, [made.experiment, *others])
    assert len(said) == 1
    assert "has seen all" in said[0]
    for experiment in others:
        result = phases.train(dataclasses.replace(made, experiment=experiment))
        assert all(note["cached"] for note in result.activations.values())
    assert sum("has seen all" in line for line in said) == 1, "no other pass"


def test_augmented_photos_are_computed_anew_every_epoch(monkeypatch):
    parameters = {"head_epochs": 3, "finetune_epochs": 0}
    monkeypatch.setattr(phases, "augment", lambda photos, number, kind, seed: photos[:, :, ::-1])
    data = made_up_data(32)
    flipped = phases.train(setup(data, augmentation="flip", **parameters))
    assert not flipped.activations["head"]["cached"]
    assert "differ in every epoch" in flipped.activations["head"]["why"]
    images = data.images.copy()
    images[data.train] = images[data.train][:, :, ::-1]
    before = dataclasses.replace(data, images=images, provenance={"sha256": "mirrored before"})
    expected = phases.train(setup(before, activations="compute", **parameters))
    losses = ["train_loss", "validation_loss"]
    np.testing.assert_allclose(flipped.history[losses], expected.history[losses], rtol=1e-4)


def test_reduced_precision_keeps_half_the_bytes_and_the_softmax_in_float32():
    try:
        made = setup(
            made_up_data(64), precision="mixed_bfloat16", image_size=64, strategy="blocks", amount=1, activations="keep"
        )
        result = phases.train(made)
        assert result.network.input.dtype == "bfloat16"
        assert made.model.output.dtype == "float32"
        assert result.activations["finetune"]["cached"]
        (layer,) = result.activations["finetune"]["frontier"]
        megabytes = 16 * math.prod(made.model.get_layer(layer).output.shape[1:]) * 2 / 1e6
        assert result.activations["finetune"]["megabytes"] == pytest.approx(megabytes)
        assert all(weight.dtype == "float32" for weight in made.model.weights)
        assert np.isfinite(result.history["train_loss"]).all()
    finally:
        keras.config.set_dtype_policy("float32")
