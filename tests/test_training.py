"""The two phases; and the cached prefix, which must not change a number."""

import dataclasses
import errno

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import enliven, has_flowers, has_weights, made_up_data
from small_network import SMALL
from thaw.data import photos as data
from thaw.disk import places
from thaw.experiment import Experiment
from thaw.network import backbones
from thaw.network import unfreezing as unfreeze
from thaw.network.pretrained import load_pretrained
from thaw.training import activations, evaluation
from thaw.training import phases as training


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    """Nothing kept from an earlier test; and a network more, as one adds it."""
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(backbones.REGISTRY, "small", SMALL)


def trained(data, log=lambda line: None, **parameters):
    experiment = Experiment.of(
        {
            "strategy": "frozen",
            "image_size": 32,
            "batch_size": 4,
            "head_epochs": 2,
            "finetune_epochs": 2,
            "weights": "none",
        }
        | {"head_learning_rate": 1e-2, "finetune_learning_rate": 1e-3}
        | parameters
    )
    training.set_up(experiment)
    base, _ = load_pretrained(experiment.backbone, experiment.image_size, "none")
    enliven(base)
    model = training.add_head(base, 3, experiment.seed)
    lines = []

    def tell(line):
        log(line)
        lines.append(line)

    return training.train(model, base, data, "random", experiment, tell), lines


def test_two_phases_with_their_own_learning_rates(tiny):
    result, lines = trained(tiny, backbone="small", strategy="blocks", amount=1)
    history = result.history
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert history["phase"].tolist() == ["head", "head", "finetune", "finetune"]
    assert history["learning_rate"].tolist() == [1e-2, 1e-2, 1e-3, 1e-3]
    assert history.notna().all().all() and (history["seconds"] > 0).all()
    assert "epoch 3 of 4 (fine-tuning): training" in lines[-2]
    assert result.seconds["finetune"] == pytest.approx(history["seconds"][2:].sum())


def test_the_control_trains_its_head_as_long_and_without_a_second_phase(tiny):
    result, _ = trained(tiny, backbone="small")
    assert result.history["phase"].tolist() == ["head"] * 4
    assert result.history["learning_rate"].tolist() == [1e-2] * 4
    assert result.seconds["finetune"] == 0


def test_the_same_seed_gives_the_same_run_and_another_does_not(tiny, tmp_path, monkeypatch):
    histories = []
    for number, seed in enumerate((1, 1, 2)):
        monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / str(number)))  # nothing to go on from
        histories.append(trained(tiny, backbone="small", seed=seed)[0].history.drop(columns="seconds"))
    first, again, other = histories
    assert first.equals(again) and not first.equals(other)


def test_every_epoch_has_its_own_order_and_every_photo_once():
    whole = [order.tolist() for order in training.shuffled(10, 4, seed=0, epochs=range(3)).as_numpy_iterator()]
    epochs = [sum(whole[i : i + 3], []) for i in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and len({tuple(epoch) for epoch in epochs}) == 3
    later = [order.tolist() for order in training.shuffled(10, 4, seed=0, epochs=range(2, 3)).as_numpy_iterator()]
    assert later == whole[6:], "an epoch's order does not depend on where training began"


@pytest.mark.parametrize(
    "name, strategy, amount, size, frontier",
    [
        ("mobilenet", "frozen", 0, 32, 1),
        ("mobilenet", "layers", 3, 64, 1),  # inside a block
        (
            "mobilenet",
            "blocks",
            2,
            64,
            1,
        ),  # at a block's edge; at 32 pixels BatchNorm would have but four values to train on
        ("resnet50", "frozen", 0, 32, 1),
        ("resnet50", "blocks", 1, 32, 1),  # at a block's edge; main path and shortcut both start from it
        ("resnet50", "layers", 5, 32, 2),  # inside a residual block: main path and shortcut
    ],
)
def test_the_cached_prefix_gives_the_losses_of_the_whole_network(name, strategy, amount, size, frontier):
    # Adam turns rounding errors of a gradient that should be zero into steps of the learning rate's size: a realistic, small one.
    parameters = {
        "backbone": name,
        "strategy": strategy,
        "amount": amount,
        "image_size": size,
        "head_epochs": 1,
        "finetune_learning_rate": 1e-5,
    }
    cached, plain = (trained(made_up_data(size), activations=how, **parameters)[0] for how in ("keep", "compute"))
    assert all(phase["cached"] for phase in cached.activations.values())
    assert not any(phase["cached"] for phase in plain.activations.values())
    assert len(list(cached.activations.values())[-1]["frontier"]) == frontier
    losses = ["train_loss", "validation_loss"]
    np.testing.assert_allclose(cached.history[losses], plain.history[losses], rtol=2e-4)
    assert (plain.history["train_loss"].pct_change().abs()[1:] > 1e-3).all(), "every epoch changes what it should"


def test_a_cut_divides_the_network_without_a_rest():
    base = backbones.get("resnet50").build(32)
    enliven(base)
    model = training.add_head(base, 3)
    photos = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    whole = model(photos, training=False)
    for amount in (0, 1, 5, 40, 100, 175):
        unfreeze.unfreeze(base, base.layers[len(base.layers) - amount :])
        divided = activations.cut(model)
        prefix = keras.Model(model.input, list(divided.frontier.values()))
        entering = prefix(photos, training=False)
        np.testing.assert_allclose(
            divided.tail(entering if len(entering) > 1 else entering[0], training=False), whole, rtol=1e-4, atol=1e-6
        )
        assert divided.saves == (amount < 175)
        assert {weight.path for weight in divided.tail.trainable_weights} == {
            weight.path for weight in model.trainable_weights
        }


@has_flowers
@has_weights
def test_real_weights_on_real_photos_learn_the_flowers():
    """A frozen MobileNet, 300 small photos, a few epochs of the head: far above the 24 % of always naming one class."""
    photos = data.load("tf_flowers", 96, 300)
    experiment = Experiment.of(
        {
            "backbone": "mobilenet",
            "strategy": "frozen",
            "image_size": 96,
            "head_epochs": 8,
            "finetune_epochs": 0,
            "head_learning_rate": 3e-3,
        }
    )
    training.set_up(experiment)
    base, _ = load_pretrained("mobilenet", 96, "imagenet")
    model = training.add_head(base, len(photos.classes))
    history = training.train(model, base, photos, "imagenet", experiment, log=lambda line: None).history
    order = tf.data.Dataset.range(len(photos.validation)).batch(32)
    prepare = backbones.get("mobilenet").preprocess
    inputs = training.batches([photos.validation.images], photos.validation.labels, order, prepare)
    scores = evaluation.scores(evaluation.predict(model, inputs, photos.validation, photos.classes))
    assert scores["test_accuracy"] > 0.5
    assert scores["test_accuracy"] == pytest.approx(history["validation_accuracy"].iloc[-1]), (
        "training and evaluation see the same network"
    )
    assert scores["test_loss"] == pytest.approx(history["validation_loss"].iloc[-1], rel=1e-3)


class Stopped(Exception):
    """A run that is killed, as far as training can tell."""


def stopped_after(data, line: str, **parameters):
    """A run up to a line that it says."""

    def log(said):
        if line in said:
            raise Stopped

    with pytest.raises(Stopped):
        trained(data, log, **parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"backbone": "mobilenet", "strategy": "blocks", "amount": 2},
        {"backbone": "small", "strategy": "layers", "amount": 4, "augmentation": "flip"},
        {"backbone": "small", "strategy": "blocks", "amount": 1, "precision": "mixed_bfloat16"},
    ],
    ids=str,
)
def test_a_run_that_was_stopped_goes_on_from_its_last_epoch_to_the_same_numbers(
    tiny, tmp_path, monkeypatch, parameters
):
    """Stopped in the head's second epoch and in the one before last, each time in a process of its own as far as Keras knows."""
    parameters |= {"finetune_epochs": 3}
    expected, _ = trained(tiny, **parameters)
    weights = expected.network.get_weights()
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "another"))
    stopped_after(tiny, "epoch 2 of 5", **parameters)
    stopped_after(tiny, "epoch 4 of 5", **parameters)
    result, lines = trained(tiny, **parameters)
    (path,) = places.cache("backups").glob("*.h5")
    assert f"epochs to 3 of 5 were trained before: going on from there (backups/{path.name} in the cache)" in lines
    assert sum("fine-tuning" in line for line in lines) == 2, "no finished epoch is trained again"
    measured = ["seconds"]
    assert result.history.drop(columns=measured).equals(expected.history.drop(columns=measured))
    for ours, theirs in zip(result.network.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert result.peak_memory_mb > 100


def test_backups_that_are_no_good_are_said_and_leave_no_trace(tiny, tmp_path, monkeypatch):
    parameters = {"backbone": "small", "strategy": "blocks", "amount": 1}
    expected, _ = trained(tiny, **parameters)
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "another"))
    stopped_after(tiny, "epoch 4 of 4", **parameters)
    (path,) = places.cache("backups").glob("*.h5")
    content = path.read_bytes()

    def with_another_variable(shape=None):
        path.write_bytes(content)
        with h5py.File(path, "a") as file:
            del file["optimizer/vars/9"]  # what is before it has been loaded by the time that this is missed
            if shape:
                file["optimizer/vars/9"] = np.zeros(shape)

    def goes_as_if_there_were_none(data=tiny):
        result, lines = trained(data, **parameters)
        assert any("trained anew" in line and str(path) in line for line in lines)
        assert any("epoch 3 of 4 (fine-tuning)" in line for line in lines)
        assert result.history.drop(columns="seconds").equals(expected.history.drop(columns="seconds"))

    path.write_bytes(content[: len(content) // 2])
    goes_as_if_there_were_none()
    path.write_bytes(b"\x00\xff" * 1000)
    goes_as_if_there_were_none()
    with_another_variable()
    goes_as_if_there_were_none()
    with_another_variable(shape=7)
    goes_as_if_there_were_none()
    path.write_bytes(content)
    goes_as_if_there_were_none(dataclasses.replace(tiny, provenance=tiny.provenance | {"sha256": "other"}))


@pytest.mark.parametrize("phase, epoch", [("head", 1), ("finetune", 3)])
def test_a_loss_that_is_no_number_ends_the_run(tiny, monkeypatch, phase, epoch):
    rate = {f"{phase}_learning_rate": 1.0}
    monkeypatch.setattr(keras.optimizers, "Adam", lambda rate: keras.optimizers.SGD(np.nan if rate == 1.0 else rate))
    result, lines = trained(tiny, backbone="small", strategy="blocks", amount=1, **rate)
    assert result.diverged == epoch == len(result.history), "no epoch after it"
    assert any("diverged" in line for line in lines)
    again, lines = trained(tiny, backbone="small", strategy="blocks", amount=1, **rate)
    assert again.diverged == epoch and not any(f"epoch {epoch} of 4" in line for line in lines), (
        "known from what is kept"
    )


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed (errno = 28, x)")]
)
def test_a_full_disk_costs_the_backup_and_not_the_run(tiny, monkeypatch, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr(keras.Model, "save_weights", full)
    result, lines = trained(tiny, backbone="small", strategy="blocks", amount=1)
    assert len(result.history) == 4 and sum("the disk is full" in line for line in lines) == 4
