"""Ways to unfreeze, as axes that combine: where, what, how."""

import numpy as np
import pytest
from conftest import made_up_data
from small_network import SMALL, setup

from thaw.data.augmentation import augment, with_copies
from thaw.errors import InvalidParameter
from thaw.experiment import Experiment
from thaw.network import backbones, unfreezing
from thaw.network.normalization import FusedBatchNormalization
from thaw.study import plan
from thaw.training import activations, phases
from thaw.training.optimizer import adam

LOSSES = ["train_loss", "validation_loss"]


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(backbones.REGISTRY, "small", SMALL)


@pytest.fixture(scope="module")
def base():
    return SMALL.build(32)


def of(**parameters):
    return Experiment.of({"backbone": "small", "strategy": "blocks", "amount": 1} | parameters)


def names(base, **parameters):
    return [layer.name for layer in unfreezing.unfrozen(base, SMALL, of(**parameters))]


def trained(data, **parameters):
    made = setup(data, lambda line: None, **{"strategy": "blocks", "amount": 1} | parameters)
    return made, phases.train(made)


# ---- where ------------------------------------------------------------------------------------


def test_a_window_leaves_the_last_blocks_out(base):
    blocks = [[layer.name for layer in layers] for layers in SMALL.blocks(base).values()]
    assert names(base, skip=1) == blocks[1]
    assert names(base, amount=2, skip=1) == blocks[0] + blocks[1]
    assert names(base, skip=2) == blocks[0], "the first"
    assert names(base, strategy="layers", amount=2, skip=3) == [layer.name for layer in base.layers[-5:-3]]


def test_a_pattern_finds_layers_by_their_names_and_all_is_all(base):
    assert names(base, strategy="pattern", amount=0, pattern="_pw$") == ["block_1_pw", "block_2_pw", "block_3_pw"]
    assert names(base, strategy="all", amount=0) == [layer.name for layer in base.layers]


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"strategy": "pattern", "amount": 0, "pattern": "blok_1_pw"}, "no layer of Small.*Did you mean 'block_1_pw'"),
        ({"amount": 3, "skip": 1}, "amount = 3 and skip = 1: Small has 3 blocks. Give an amount from 1 to 2"),
        ({"skip": 3}, "a skip of at most 2"),
        ({"strategy": "layers", "amount": 1, "trains": "norm"}, "trains = 'norm'.*without any normalization"),
    ],
    ids=str,
)
def test_what_a_network_has_not_got_is_refused(base, parameters, words):
    with pytest.raises(InvalidParameter, match=words):
        unfreezing.unfrozen(base, SMALL, of(**parameters))


def test_what_stays_frozen_behind_or_trains_nothing_is_said(base):
    assert unfreezing.remarks(base, SMALL, of(amount=2)) == []
    assert unfreezing.remarks(base, SMALL, of(strategy="frozen", amount=0)) == []
    assert (
        "4 layers with weights after the unfrozen ones stay frozen (block_3_dw"
        in (unfreezing.remarks(base, SMALL, of(skip=1))[0])
    )
    assert unfreezing.remarks(base, SMALL, of(batchnorm="frozen")) == []
    none = unfreezing.remarks(base, SMALL, of(strategy="pattern", amount=0, pattern="3_pw$", batchnorm="frozen"))
    assert "no BatchNorm is in it, so that batchnorm = 'frozen' changes nothing" in none[-1]
    between = unfreezing.remarks(base, SMALL, of(strategy="pattern", amount=0, pattern="_dw$"))
    assert "between or after" in between[0]
    assert "nothing but the head trains" in unfreezing.remarks(base, SMALL, of(strategy="layers", amount=1))[0]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"amount": 2, "skip": 1, "trains": "norm", "batchnorm": "frozen"},
        {"strategy": "all", "amount": 0, "rate_decay": 0.5, "gradual": True, "keep": "best"},
        {
            "strategy": "pattern",
            "amount": 0,
            "pattern": "_pw",
            "finetune_learning_rate": 0.1,
            "class_weight": "balanced",
        },
        {"strategy": "frozen", "amount": 0, "keep": "best"},
        {"augmentation": "flip", "trains": "bias"},
        {"augmentation": "flip", "copies": 2, "seed": 3, "preprocessing": "tf"},
    ],
    ids=str,
)
def test_a_head_that_is_trained_for_all_is_found_by_each(tiny, parameters):
    """What the plan takes for one head has the checkpoint that the experiment itself looks for."""
    own = setup(tiny, **{"strategy": "blocks", "amount": 1} | parameters)
    shared = own.begin(plan.head_alone(own.experiment))
    keys = [phases._key(made, phases.phases(made)[:1]) for made in (own, shared)]
    assert keys[0] == keys[1]


# ---- what -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trains, changed", [("norm", {"gamma", "beta"}), ("bias", {"beta"}), ("everything", {"gamma", "beta", "kernel"})]
)
def test_only_what_should_train_does(tiny, trains, changed):
    made = setup(tiny, strategy="blocks", amount=2, trains=trains, batchnorm="frozen", finetune_learning_rate=0.1)
    before = {weight.path: weight.numpy() for weight in made.base.weights}
    phases.train(made)
    differ = {w.path for w in made.base.weights if not np.array_equal(before[w.path], w.numpy())}
    unfrozen = {weight.path for layer in made.unfrozen for weight in layer.weights}
    assert differ <= unfrozen
    assert {path.split("/")[-1] for path in differ} == changed
    assert not any("moving" in path for path in differ), "the statistics are frozen"
    recorded = sum(made.network["trains"].values())
    assert recorded == sum(w.numpy().size for w in made.base.weights if w.path in differ)


def test_frozen_statistics_are_those_that_normalise(tiny):
    made, _ = trained(tiny, batchnorm="frozen", finetune_learning_rate=1e-6)
    norm = next(layer for layer in made.unfrozen if isinstance(layer, FusedBatchNormalization))
    inputs = np.random.default_rng(0).normal(3, 2, (4, *norm.input.shape[1:])).astype("float32")
    np.testing.assert_allclose(norm(inputs, training=True), norm(inputs, training=False), rtol=1e-6)
    made, _ = trained(tiny, batchnorm="train", finetune_learning_rate=1e-6)
    made.unfreeze([layer.name for layer in made.unfrozen])
    norm = next(layer for layer in made.unfrozen if "_bn" in layer.name)
    assert not np.allclose(norm(inputs, training=True), norm(inputs, training=False), rtol=1e-2)


# ---- how --------------------------------------------------------------------------------------


def test_each_block_learns_at_a_share_of_the_next_one_s_rate(tiny):
    made = setup(tiny, strategy="blocks", amount=2, rate_decay=0.1)
    factors = unfreezing.rate_factors(made.base, made.backbone, 0.1)
    assert factors["block_3_pw"] == pytest.approx(0.1)
    assert factors["block_2_dw"] == pytest.approx(0.01)
    made.unfreeze([layer.name for layer in made.unfrozen])
    optimizer = adam(made.model, 1.0, factors)
    weights = made.model.trainable_variables
    before = [weight.numpy() for weight in weights]
    optimizer.apply_gradients([(np.ones(weight.shape, "float32"), weight) for weight in weights])
    for weight, old in zip(weights, before, strict=True):
        step = (old - weight.numpy()).mean()
        layer = weight.path.split("/")[0]
        assert step == pytest.approx(factors.get(layer, 1.0), rel=1e-3), "Adam's first step is the rate itself"


def test_gradual_unfreezing_goes_block_after_block_from_the_last(tiny):
    parameters = {"amount": 3, "gradual": True, "finetune_epochs": 4}
    made, result = trained(tiny, **parameters)
    steps = phases.phases(made)[1:]
    assert [len(step.epochs) for step in steps] == [1, 2, 1]
    blocks = [[layer.name for layer in layers] for layers in made.backbone.blocks(made.base).values()]
    assert [list(step.layers) for step in steps] == [blocks[2], blocks[1] + blocks[2], sum(blocks, [])]
    assert result.history["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert list(result.activations) == ["head", "finetune 1", "finetune 2", "finetune 3"]
    assert len(result.checkpoints) == 3
    two = phases.phases(setup(tiny, **{"strategy": "blocks"} | parameters | {"finetune_epochs": 2}))[1:]
    assert [list(step.layers) for step in two] == [blocks[1] + blocks[2], sum(blocks, [])], "no more steps than epochs"


def test_gradual_unfreezing_ends_with_all_that_is_chosen_be_it_without_weights(base):
    for parameters in ({"strategy": "layers", "amount": 6}, {"strategy": "layers", "amount": 1}):
        experiment = of(gradual=True, **parameters)
        assert unfreezing.steps(base, SMALL, experiment)[-1] == unfreezing.unfrozen(base, SMALL, experiment)


@pytest.mark.parametrize("of_library", ["tensorflow", "keras"])
def test_nothing_is_taken_over_from_another_version_of_a_library(tiny, monkeypatch, of_library):
    made = setup(tiny)

    def keys():
        return [phases._key(made, phases.phases(made)), activations._key(made)]

    before = keys()
    monkeypatch.setattr(f"{of_library}.__version__", "0.0")
    assert all(key != old for key, old in zip(keys(), before, strict=True))


@pytest.mark.parametrize(
    "parameters",
    [
        {"gradual": True, "amount": 2, "rate_decay": 0.5},
        {"trains": "norm", "batchnorm": "frozen", "skip": 1},
        {"augmentation": "standard", "copies": 2, "class_weight": "balanced"},
    ],
    ids=str,
)
def test_the_cached_frozen_part_gives_the_losses_of_the_whole_network(tmp_path, monkeypatch, parameters):
    histories = []
    for how in ("keep", "compute"):
        monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / how))
        _, result = trained(made_up_data(32), activations=how, **parameters)
        assert result.activations["head"]["cached"] == (how == "keep")
        histories.append(result.history[LOSSES])
    np.testing.assert_allclose(*histories, rtol=1e-3)


def test_copies_are_made_once_and_take_turns(tiny):
    data = with_copies(tiny, "standard", 3)
    count, train = len(tiny), len(tiny.train)
    assert len(data) == count + 3 * train
    assert data.epochs.shape == (3, train)
    np.testing.assert_array_equal(data.images[0:count], tiny.images)
    np.testing.assert_array_equal(data.labels[data.epochs[1]], tiny.labels[tiny.train])
    first, second = (data.images[data.epochs[number]] for number in (0, 1))
    assert not np.array_equal(first, second)
    again = with_copies(tiny, "standard", 3)
    np.testing.assert_array_equal(again.images[data.epochs[1]], second)
    assert len({tiny.digest, data.digest, with_copies(tiny, "standard", 2).digest}) == 3


@pytest.mark.parametrize("kind", ["flip", "standard"])
def test_augmented_photos_stay_photos_and_depend_on_the_batch_s_number_alone(kind):
    photos = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("float32")
    first, other, again = (augment(photos, number, kind, 3).numpy() for number in (0, 1, 0))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == photos.shape
    assert first.min() >= 0 and first.max() <= 255
    if kind == "flip":
        for photo, original in zip(first, photos, strict=True):
            assert np.array_equal(photo, original) or np.array_equal(photo, original[:, ::-1])


def test_classes_weigh_alike_whatever_their_sizes():
    data = made_up_data(32)
    weights = phases.class_weights(data)
    labels = data.labels[data.train]
    sums = {label: weights[label] * (labels == label).sum() for label in set(labels.tolist())}
    assert len({round(total, 6) for total in sums.values()}) == 1
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1)


class Stopped(Exception):
    """A run that is killed, as far as training can tell."""


def test_the_best_epoch_is_kept_and_found_again_after_a_stop(tiny, tmp_path, monkeypatch):
    """A rate that is too large: the validation loss is lowest early."""
    parameters = {"finetune_learning_rate": 0.3, "finetune_epochs": 5, "keep": "best"}
    made, result = trained(tiny, **parameters)
    losses = result.history["validation_loss"][2:]
    assert result.kept_epoch == losses.idxmin() + 1
    assert result.kept_epoch < 7, "otherwise this test shows nothing"
    photos = made.backbone.preprocess(tiny.images[tiny.validation].astype("float32"))
    probabilities = made.model.predict(photos, verbose=0)
    right = np.take_along_axis(probabilities, tiny.labels[tiny.validation][:, None], axis=1)
    assert -np.log(right).mean() == pytest.approx(losses.min(), rel=1e-4)

    def log(line):
        if "epoch 6 of 7" in line:
            raise Stopped

    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "another"))
    with pytest.raises(Stopped):
        phases.train(setup(tiny, log, strategy="blocks", amount=1, **parameters))
    _, again = trained(tiny, **parameters)
    assert again.kept_epoch == result.kept_epoch
    for ours, theirs in zip(again.network.get_weights(), result.network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
