"""Folds: how photos are divided, that training them in turn changes no number, and what they leave."""

import dataclasses

import keras
import numpy as np
import pytest
from conftest import made_up_data
from small_network import SMALL, setup

from thaw.data.augmentation import with_copies
from thaw.data.splits import by_position
from thaw.disk import places
from thaw.network import backbones
from thaw.training import evaluation, phases

MEASURED = ["seconds"]


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(backbones.REGISTRY, "small", SMALL)


@pytest.fixture(scope="module")
def forty():
    """Forty random photos of two classes, divided by position."""
    rng = np.random.default_rng(1)
    train, validation, test = by_position(40)
    counts = {"train": 30, "validation": 6, "test": 4, "available": 40}
    about = {"dataset": "made up", "version": "1", "title": "Made up", "description": "", "sha256": "forty"}
    return dataclasses.replace(
        made_up_data(32),
        images=rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8),
        labels=np.arange(40) % 2,
        keys=np.array([f"photo-{i}" for i in range(40)]),
        train=train,
        validation=validation,
        test=test,
        classes=("daisy", "rose"),
        provenance={**about, "photos": counts, "splits": "by position"},
    )


def of_folds(data, log=lambda line: None, **parameters):
    """Set up an experiment with folds, as `Setup.of` does."""
    parameters = {"batch_size": 8, "folds": 10, "strategy": "blocks", "amount": 1} | parameters
    made = setup(data, log, **parameters)
    e = made.experiment
    data = data.in_fold(e.folds, e.tested_folds[0]) if e.folds else data
    if e.copies:
        data = with_copies(data, e.augmentation, e.copies)
    return dataclasses.replace(made, data=data)


@pytest.fixture
def traces(monkeypatch):
    """The steps that are traced: Python runs them then, and never again."""
    seen = []
    for name in ("train_step", "test_step", "predict_step"):
        original = getattr(keras.Model, name)

        def step(self, data, name=name, original=original):
            seen.append(name)
            return original(self, data)

        monkeypatch.setattr(keras.Model, name, step)
    return seen


def results(made):
    """Train and test; what came out, without what was measured."""
    training = phases.train(made)
    predictions = evaluation.predict(training.network, training.test, made.data)
    weights = [w.numpy() for w in training.network.weights if "seed" not in w.path]
    return training.history.drop(columns=MEASURED), predictions, weights


WAYS = {
    "frozen": {"strategy": "frozen", "amount": 0},
    "layers": {"strategy": "layers", "amount": 4},
    "blocks": {"strategy": "blocks", "amount": 2, "activations": "keep"},
    "gradual": {"strategy": "blocks", "amount": 2, "gradual": True},
    "best": {"strategy": "blocks", "amount": 1, "keep": "best", "finetune_learning_rate": 0.1},
    "rate_decay": {"strategy": "all", "amount": 0, "rate_decay": 0.5},
    "statistics": {"strategy": "blocks", "amount": 2, "batchnorm": "frozen", "trains": "norm"},
    "fresh": {"strategy": "blocks", "amount": 1, "augmentation": "standard", "class_weight": "balanced"},
    "copies": {"strategy": "blocks", "amount": 1, "augmentation": "flip", "copies": 2, "activations": "keep"},
    "bfloat16": {"strategy": "blocks", "amount": 1, "precision": "mixed_bfloat16"},
    "float16": {"strategy": "blocks", "amount": 1, "precision": "mixed_float16"},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_fold_in_turn_is_the_same_fold_alone(forty, way, traces, tmp_path, monkeypatch):
    """To the last digit; and only the first is traced."""
    made = of_folds(forty, choosing_folds=7, seed=2, **WAYS[way])
    in_turn, counts = [], []
    for experiment in made.experiment.in_turn():
        in_turn.append(results(made.of_fold(experiment)))
        counts.append(len(traces))
    assert [experiment.seed for experiment in made.experiment.in_turn()] == [27, 28, 29]
    assert counts[0] > 0 and len(set(counts)) == 1, "the later folds trace nothing"
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "alone"))
    for number in (1, 2):
        alone = of_folds(forty, seed=27 + number, fold=7 + number, **WAYS[way])
        expected = results(alone)
        history, predictions, weights = in_turn[number]
        assert history.equals(expected[0])
        assert predictions.equals(expected[1])
        for ours, theirs in zip(weights, expected[2], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert way == "float16" or not in_turn[0][0].equals(in_turn[1][0])
    assert not in_turn[0][1]["key"].equals(in_turn[1][1]["key"])


@pytest.mark.parametrize("way", ["frozen", "blocks"])
def test_the_last_of_ten_folds_is_the_division_by_position(forty, way):
    fold = results(of_folds(forty, fold=9, seed=3, **WAYS[way]))
    kept = set(places.cache("checkpoints").glob("*.npz"))
    plain = results(of_folds(forty, folds=None, seed=3, **WAYS[way]))
    assert fold[0].equals(plain[0]) and fold[1].equals(plain[1])
    assert set(places.cache("checkpoints").glob("*.npz")) == kept, "their checkpoints are the same files"


def test_another_rate_is_not_traced_anew_and_changes_the_numbers(forty, traces):
    made = of_folds(forty, choosing_folds=2)
    losses, networks, counts = [], [], []
    for rate in (1e-2, 1e-3, 1e-2):
        experiment = made.experiment.model_copy(update={"finetune_learning_rate": rate})
        trial = made.for_choosing(10, 2, experiment)
        assert trial.data.validation.tolist() == list(range(8)) and len(trial.data.train) == 32
        training = phases.train(trial)
        training.forget()
        losses.append(training.history["validation_loss"].tolist())
        networks.append(training.network)
        counts.append(len(traces))
    assert networks[0] is networks[1] is networks[2]
    assert counts[0] > 0 and len(set(counts)) == 1
    assert losses[0] == losses[2] != losses[1]
    assert losses[0][:2] == losses[1][:2], "one head for both"
