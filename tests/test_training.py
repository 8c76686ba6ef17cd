"""The phases of training; and the cached frozen part, which must not change a number."""

import dataclasses
import errno
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import enliven, made_up_data
from small_network import SMALL, setup

from thaw.data import batches
from thaw.data.photos import load_photos
from thaw.disk import places
from thaw.experiment import Experiment
from thaw.network import backbones, graph, unfreezing
from thaw.network.head import add_head
from thaw.records import runs
from thaw.training import checkpoint, evaluation, phases
from thaw.training.optimizer import FusedAdam
from thaw.training.setup import Setup

MEASURED = ["seconds"]
LOSSES = ["train_loss", "validation_loss"]


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    """Nothing kept from an earlier test; and one more network, added as anyone adds one."""
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(backbones.REGISTRY, "small", SMALL)


def trained(data, log=lambda line: None, **parameters):
    lines = []
    made = setup(data, lambda line: (log(line), lines.append(line)), **parameters)
    return phases.train(made), lines


def test_two_phases_with_their_own_learning_rates(tiny):
    result, lines = trained(tiny, strategy="blocks", amount=1)
    history = result.history
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert history["phase"].tolist() == ["head", "head", "finetune", "finetune"]
    assert history["learning_rate"].tolist() == [1e-2, 1e-2, 1e-3, 1e-3]
    assert history.notna().all().all()
    assert (history["seconds"] > 0).all()
    assert "epoch 3 of 4 (fine-tuning): training" in lines[-2]
    assert result.seconds["finetune"] == pytest.approx(history["seconds"][2:].sum())


def test_the_control_trains_its_head_as_long_and_without_a_second_phase(tiny):
    result, _ = trained(tiny)
    assert result.history["phase"].tolist() == ["head"] * 4
    assert result.history["learning_rate"].tolist() == [1e-2] * 4
    assert result.seconds["finetune"] == 0


def test_the_same_seed_gives_the_same_run_and_another_does_not(tiny, tmp_path, monkeypatch):
    histories = []
    for number, seed in enumerate((1, 1, 2)):
        monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / str(number)))  # nothing to go on from
        histories.append(trained(tiny, seed=seed)[0].history.drop(columns=MEASURED))
    first, again, other = histories
    assert first.equals(again)
    assert not first.equals(other)


def test_every_epoch_has_its_own_order_and_every_photo_once():
    rows = np.arange(5, 15)
    whole = [order.tolist() for order in batches.shuffled(rows[None], 4, seed=0, epochs=range(3)).as_numpy_iterator()]
    epochs = [sum(whole[i : i + 3], []) for i in (0, 3, 6)]
    assert all(sorted(epoch) == rows.tolist() for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    later = [
        order.tolist() for order in batches.shuffled(rows[None], 4, seed=0, epochs=range(2, 3)).as_numpy_iterator()
    ]
    assert later == whole[6:], "an epoch's order does not depend on where training began"


def test_any_photos_may_train_whatever_their_positions(tiny):
    """The same photos at other positions, with the split following them: the same numbers."""
    order = np.random.default_rng(3).permutation(len(tiny))
    position = np.argsort(order)
    moved = dataclasses.replace(
        tiny,
        **{name: getattr(tiny, name)[order] for name in ("images", "labels", "keys")},
        **{name: position[getattr(tiny, name)] for name in ("train", "validation", "test")},
        provenance=tiny.provenance | {"sha256": "in another order"},
    )
    runs = [trained(data, strategy="blocks", amount=1, activations="keep")[0] for data in (tiny, moved)]
    first, second = (run.history[LOSSES] for run in runs)
    np.testing.assert_allclose(first["validation_loss"][:1], second["validation_loss"][:1], rtol=0.2)
    photos = [evaluation.predict(run.network, run.test, data) for run, data in zip(runs, (tiny, moved), strict=True)]
    assert photos[0]["key"].tolist() == photos[1]["key"].tolist()
    assert photos[0]["label"].tolist() == photos[1]["label"].tolist()


@pytest.mark.parametrize(
    "name, strategy, amount, size, frontier",
    [
        ("mobilenet", "frozen", 0, 32, 1),
        ("mobilenet", "layers", 3, 64, 1),  # inside a block
        ("mobilenet", "blocks", 2, 64, 1),  # at a block's edge; at 32 pixels BatchNorm would train on four values
        ("resnet50", "blocks", 1, 32, 1),  # at a block's edge; main path and shortcut both start from it
        ("resnet50", "layers", 5, 32, 2),  # inside a residual block: main path and shortcut
    ],
)
def test_the_cached_frozen_part_gives_the_losses_of_the_whole_network(
    name, strategy, amount, size, frontier, tmp_path, monkeypatch
):
    # Adam turns rounding errors of a gradient that should be zero into steps of the learning rate's size: a small one.
    parameters = {"backbone": name, "strategy": strategy, "amount": amount, "image_size": size}
    parameters |= {"head_epochs": 1, "finetune_learning_rate": 1e-5}
    results = []
    for how in ("keep", "compute"):
        monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / how))  # no head from the other
        results.append(trained(made_up_data(size), activations=how, **parameters)[0])
    cached, plain = results
    assert all(phase["cached"] for phase in cached.activations.values())
    assert not any(phase["cached"] for phase in plain.activations.values())
    assert len(list(cached.activations.values())[-1]["frontier"]) == frontier
    np.testing.assert_allclose(cached.history[LOSSES], plain.history[LOSSES], rtol=2e-4)
    assert (plain.history["train_loss"].pct_change().abs()[1:] > 1e-3).all(), "every epoch changes what it should"


def test_a_cut_divides_the_network_without_a_rest():
    base = backbones.get("resnet50").build(32)
    enliven(base)
    model = add_head(base, 3)
    photos = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    whole = model(photos, training=False)
    for amount in (0, 1, 5, 40, 100, 175):
        unfreezing.unfreeze(base, base.layers[len(base.layers) - amount :])
        divided = graph.cut(model)
        prefix = keras.Model(model.input, list(divided.frontier.values()))
        entering = graph.one_or_all(prefix(photos, training=False))
        np.testing.assert_allclose(divided.tail(entering, training=False), whole, rtol=1e-4, atol=1e-6)
        assert divided.has_frozen_part == (amount < 175)
        trains = {weight.path for weight in model.trainable_weights}
        assert {weight.path for weight in divided.tail.trainable_weights} == trains


def test_real_weights_on_real_photos_learn_the_flowers():
    """A frozen MobileNet, 300 small photos, a few epochs of the head: far above the 20 % of guessing."""
    made = Setup.of(
        Experiment.of(
            {"backbone": "mobilenet", "strategy": "frozen", "dataset": "demo_flowers", "weights": "demo"}
            | {"image_size": 96, "head_epochs": 8, "finetune_epochs": 0, "head_learning_rate": 3e-3}
        ),
        log=lambda line: None,
    )
    history = phases.train(made).history
    order = batches.in_order(made.data.validation, 32)
    inputs = batches.batches([made.data.images], made.data.labels, order, made.backbone.preprocess)
    data = dataclasses.replace(made.data, test=made.data.validation)
    scores = runs.scores(evaluation.predict(made.model, inputs, data))
    assert scores["test_accuracy"] > 0.5
    assert scores["test_accuracy"] == pytest.approx(history["validation_accuracy"].iloc[-1]), (
        "training and evaluation see the same network"
    )
    assert scores["test_loss"] == pytest.approx(history["validation_loss"].iloc[-1], rel=1e-3)


class Stopped(Exception):
    """A run that is killed, as far as training can tell."""


def stopped_after(data, line: str, **parameters):
    """Train up to a line that the run says."""

    def log(said):
        if line in said:
            raise Stopped

    with pytest.raises(Stopped):
        trained(data, log, **parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"backbone": "mobilenet", "strategy": "blocks", "amount": 2},
        {"strategy": "layers", "amount": 4, "augmentation": "flip"},
        {"strategy": "blocks", "amount": 1, "precision": "mixed_bfloat16"},
        {"strategy": "blocks", "amount": 1, "precision": "mixed_float16"},
    ],
    ids=str,
)
def test_a_stopped_run_goes_on_after_its_last_epoch_to_the_same_numbers(tiny, tmp_path, monkeypatch, parameters):
    """Stopped in the head's second epoch and in the last but one, each time as if in a new process."""
    parameters |= {"finetune_epochs": 3}
    expected, _ = trained(tiny, **parameters)
    weights = expected.network.get_weights()
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "another"))
    stopped_after(tiny, "epoch 2 of 5", **parameters)
    stopped_after(tiny, "epoch 4 of 5", **parameters)
    result, lines = trained(tiny, **parameters)
    name = result.checkpoints[0].path.name
    assert any("epochs to 3 of 5 were trained before (validation" in line and name in line for line in lines)
    assert sum("(fine-tuning)" in line for line in lines) == 2, "no finished epoch is trained again"
    assert result.history.drop(columns=MEASURED).equals(expected.history.drop(columns=MEASURED))
    for ours, theirs in zip(result.network.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert result.peak_memory_mb > 100


def test_the_head_is_trained_once_for_all_strategies_of_a_seed(tiny):
    first, _ = trained(tiny, strategy="blocks", amount=1)
    other, lines = trained(tiny, strategy="layers", amount=2)
    assert any("head alone: epochs to 2 of 2 were trained before" in line for line in lines)
    assert other.history[:2].equals(first.history[:2])
    _, lines = trained(tiny, strategy="blocks", amount=1, seed=1)
    assert not any("trained before" in line for line in lines)


def test_the_heads_of_all_seeds_are_trained_on_one_network(tiny, tmp_path, monkeypatch):
    made = setup(tiny, seed=0, finetune_epochs=0)
    seeds = [made.experiment.model_copy(update={"seed": seed}) for seed in (0, 1)]
    for experiment in seeds:
        phases.train_head(made.begin(experiment))
    for seed in (0, 1):
        monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))
        given, lines = trained(tiny, strategy="blocks", amount=1, seed=seed)
        assert any("head alone: epochs to 2 of 2 were trained before" in line for line in lines)
        monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / str(seed)))
        own, _ = trained(tiny, strategy="blocks", amount=1, seed=seed)
        assert given.history.drop(columns=MEASURED).equals(own.history.drop(columns=MEASURED))


def test_a_finished_run_leaves_nothing_behind_but_its_head(tiny):
    made = setup(tiny, strategy="blocks", amount=1)
    phases.train(made)
    assert len(list(places.cache("checkpoints").glob("*.npz"))) == 2
    phases.forget(made)
    assert len(list(places.cache("checkpoints").glob("*.npz"))) == 1
    phases.train(made := setup(tiny))
    phases.forget(made)
    assert len(list(places.cache("checkpoints").glob("*.npz"))) == 2, "the control's head, too, may serve other runs"


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory):
    """A run's history, and the cache of the same run when it was stopped in its last epoch."""
    whole, cache = (tmp_path_factory.mktemp(name) for name in ("whole", "stopped"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.REGISTRY, "small", SMALL)
        patch.setenv("THAW_CACHE_DIR", str(whole))
        expected, _ = trained(made_up_data(32), strategy="blocks", amount=1)
        patch.setenv("THAW_CACHE_DIR", str(cache))
        stopped_after(made_up_data(32), "epoch 4 of 4", strategy="blocks", amount=1)
    return expected.history, cache


@pytest.mark.parametrize("harm", ["empty", "truncated", "rubbish", "a bit", "without a variable", "of another shape"])
@pytest.mark.parametrize("which", ["head", "last"])
def test_a_checkpoint_that_is_damaged_is_said_and_changes_nothing(
    tiny, tmp_path, monkeypatch, stopped_run, which, harm
):
    expected, cache = stopped_run
    shutil.copytree(cache, tmp_path / "another")
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "another"))
    paths = {json.loads(str(np.load(path)["about"]))["progress"]["complete"]: path for path in
             places.cache("checkpoints").glob("*.npz")}  # fmt: skip
    path = paths[which == "head"]
    content = bytearray(path.read_bytes())
    with np.load(path) as file:
        values = dict(file)
    name = next(name for name in values if name != "about" and values[name].size > 1)
    if harm == "empty":
        path.write_bytes(b"")
    elif harm == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "rubbish":
        path.write_bytes(b"\x00\xff" * 1000)
    elif harm == "a bit":
        content[content.index(values[name].tobytes())] ^= 1
        path.write_bytes(content)
    else:  # by a script, and vouched for
        values = {n: v for n, v in values.items() if n != name} | ({name: np.zeros(7)} if "shape" in harm else {})
        about = json.loads(str(values.pop("about")))
        about["sha256"] = checkpoint._hash(values)
        np.savez(path, about=json.dumps(about), **values)
    result, lines = trained(tiny, strategy="blocks", amount=1)
    assert any("is damaged: trained again" in line and str(path) in line for line in lines)
    assert result.history.drop(columns=MEASURED).equals(expected.drop(columns=MEASURED))


@pytest.mark.parametrize("other", ["data", "weights"])
def test_a_checkpoint_of_other_photos_or_weights_is_not_taken(tiny, other):
    trained(tiny, strategy="blocks", amount=1)
    changed = dataclasses.replace(tiny, provenance=tiny.provenance | {"sha256": "other"}) if other == "data" else tiny
    _, lines = trained(changed, weights="others" if other == "weights" else "random", strategy="blocks", amount=1)
    assert not any("trained before" in line for line in lines)


@pytest.mark.parametrize("phase, epoch", [("head", 1), ("finetune", 3)])
def test_a_loss_that_is_not_a_number_ends_the_run(tiny, monkeypatch, phase, epoch):
    rate = {f"{phase}_learning_rate": 1.0}
    update = FusedAdam.update_step

    def diverging(self, gradient, variable, learning_rate):
        update(self, gradient * tf.where(learning_rate == 1.0, np.nan, 1.0), variable, learning_rate)

    monkeypatch.setattr(FusedAdam, "update_step", diverging)
    result, lines = trained(tiny, strategy="blocks", amount=1, **rate)
    assert result.diverged == epoch == len(result.history), "no epoch after it"
    assert any("diverged" in line for line in lines)
    again, lines = trained(tiny, strategy="blocks", amount=1, **rate)
    assert again.diverged == epoch and not any(f"epoch {epoch} of 4 (" in line for line in lines), "known from the file"


def test_a_full_disk_costs_the_checkpoints_and_not_the_run(tiny, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.atomic, "allocate", full)
    result, lines = trained(tiny, strategy="blocks", amount=1)
    assert len(result.history) == 4
    assert sum(".npz is not kept" in line for line in lines) == 4


def test_a_budget_of_nothing_costs_the_checkpoints_and_not_the_run(tiny, monkeypatch):
    monkeypatch.setenv("THAW_DISK_GB", "0")
    result, _ = trained(tiny, strategy="blocks", amount=1)
    assert len(result.history) == 4
    assert not list(places.cache("checkpoints").glob("*.npz"))


def test_a_cache_that_is_deleted_at_any_moment_changes_nothing(tmp_path, monkeypatch):
    def run(name: str) -> tuple:
        monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / name))
        data = load_photos("demo_flowers", 32, 40)
        result, lines = trained(data, strategy="blocks", amount=1, activations="keep")
        assert not any("damaged" in line for line in lines), lines
        notes = {phase: note["cached"] for phase, note in result.activations.items()}
        return result.history.drop(columns=MEASURED).to_csv(), notes, data.provenance

    expected, stop, rng, times = run("whole"), threading.Event(), random.Random(0), []

    def delete():
        while not stop.wait(rng.choice([0, 0.001, 0.02, 0.3])):
            shutil.rmtree(tmp_path / "deleted", ignore_errors=True)
            times.append(time.monotonic())

    thread = threading.Thread(target=delete)
    thread.start()
    try:
        for _ in range(2):
            assert run("deleted") == expected
    finally:
        stop.set()
        thread.join()
    assert len(times) > 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only the C library of Linux is told")
def test_a_job_keeps_the_memory_that_a_step_frees_for_the_next_one():
    code = "import numpy, psutil; block = numpy.ones(2**24); del block; print(psutil.Process().memory_info().rss)"

    def resident(environment):
        return int(subprocess.check_output([sys.executable, "-c", code], env=environment))

    without = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    assert resident(os.environ) > resident(without) + 100e6  # of 134 MB


@pytest.mark.parametrize("yours", [None, "0"])
def test_the_faster_kernels_are_asked_for_unless_you_say_otherwise(yours):
    variables = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    variables |= {"TF_ENABLE_ONEDNN_OPTS": yours} if yours else {}
    code = "import thaw, os; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    assert subprocess.check_output([sys.executable, "-c", code], env=variables, text=True).strip() == (yours or "1")
