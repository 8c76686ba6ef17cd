"""Folds: how photos are divided, that training them in turn changes no number, and what they leave."""

import dataclasses

import keras
import numpy as np
import pytest
from conftest import made_up_data
from small_network import SMALL, setup

from thaw.data.augmentation import with_copies
from thaw.data.splits import by_position
from thaw.disk import places, status
from thaw.errors import Diverged
from thaw.network import backbones
from thaw.records import runs
from thaw.report import figures, tables, words
from thaw.study import plan, run
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
    about = {"title": "random weights", "description": "", "official": False, "tensors_sha256": "random"}
    return dataclasses.replace(made, data=data, pretrained=about)


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
        phases.forget(trial)
        losses.append(training.history["validation_loss"].tolist())
        networks.append(training.network)
        counts.append(len(traces))
    assert networks[0] is networks[1] is networks[2]
    assert counts[0] > 0 and len(set(counts)) == 1
    assert losses[0] == losses[2] != losses[1]
    assert losses[0][:2] == losses[1][:2], "one head for both"


# ---- what a run leaves --------------------------------------------------------------------------

LAST_THREE = {"strategy": "blocks", "amount": 1, "choosing_folds": 7}


class Stopped(Exception):
    """A run that is killed, as far as training can tell."""


def test_folds_are_saved_one_by_one_and_gathered_to_the_byte(forty, tmp_path, monkeypatch):
    made = of_folds(forty, **LAST_THREE)
    there = {}
    monkeypatch.setattr(runs, "gather", lambda directory, *_: there.update(_files(directory)))
    run.run_all(made, tmp_path / "run")
    monkeypatch.undo()
    assert list(there) == [
        f"folds/{n}/{name}" for n in (7, 8, 9) for name in ("history.csv", "predictions.csv", "record.json")
    ]
    apart = runs.read(tmp_path / "run", made.experiment)
    runs.gather(tmp_path / "run", made.experiment)
    whole = _files(tmp_path / "run")
    assert list(whole) == ["history.csv", "predictions.csv", "record.json"]
    for name in ("history.csv", "predictions.csv"):
        parts = [there[f"folds/{fold}/{name}"].splitlines(keepends=True) for fold in (7, 8, 9)]
        assert whole[name] == b"".join([parts[0][0], *(line for part in parts for line in part[1:])])
    again = runs.read(tmp_path / "run", made.experiment)
    for one, other, fold in zip(apart, again, (7, 8, 9), strict=True):
        assert one.record == other.record and one.record.experiment.fold == fold
        assert one.history.equals(other.history) and one.predictions.equals(other.predictions)
    assert not set(places.cache("checkpoints").glob("*.npz")) - _heads(made), "only the heads may serve others"


def _heads(made) -> set:
    heads = [made.of_fold(experiment) for experiment in made.experiment.in_turn()]
    return {phases.Checkpoint(phases._key(head, phases.phases(head)[:1])).path for head in heads}


def _files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _numbers(found):
    return [(each.history.drop(columns=MEASURED).to_csv(), each.predictions.to_csv()) for each in found]


def test_a_stop_in_the_third_fold_goes_on_there(forty, tmp_path, monkeypatch):
    expected = run.run_all(of_folds(forty, **LAST_THREE), tmp_path / "whole")
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "another"))
    lines = []

    def log(line):
        lines.append(line)
        if line.startswith("fold 9: epoch 3 of 4"):
            raise Stopped

    made = of_folds(forty, log, **LAST_THREE)
    with pytest.raises(Stopped):
        run.run_all(made, tmp_path / "run")
    assert [each.record.experiment.fold for each in runs.read(tmp_path / "run", made.experiment)] == [7, 8]
    del lines[:]
    found = run.run_all(of_folds(forty, lines.append, **LAST_THREE), tmp_path / "run")
    assert _numbers(found) == _numbers(expected)
    assert not any(line.startswith(("fold 7", "fold 8")) for line in lines), "done, and read"
    assert [line.split(":")[1][:13] for line in lines if ": epoch " in line] == [" epoch 3 of 4", " epoch 4 of 4"]
    del lines[:]
    assert _numbers(run.run_all(of_folds(forty, lines.append, **LAST_THREE), tmp_path / "run")) == _numbers(found)
    assert lines == [], "all is done"


@pytest.mark.parametrize("harm", ["damaged", "of other parameters", "of other photos"])
def test_a_fold_that_cannot_be_taken_over_is_trained_again(forty, tmp_path, monkeypatch, harm):
    made = of_folds(forty, **LAST_THREE)
    monkeypatch.setattr(runs, "gather", lambda *_: None)
    expected = _numbers(run.run_all(made, tmp_path))
    seventh, eighth = (runs.of_fold(tmp_path, fold) for fold in (7, 8))
    if harm == "damaged":
        (eighth / "predictions.csv").write_text("half")
    elif harm == "of other parameters":
        for path in seventh.iterdir():
            (eighth / path.name).write_bytes(path.read_bytes())
    else:
        text = (eighth / "record.json").read_text()
        (eighth / "record.json").write_text(text.replace('"forty"', '"fifty"'))
    lines = []
    found = run.run_all(dataclasses.replace(made, log=lines.append), tmp_path)
    assert _numbers(found) == expected
    assert {line.split(":")[0] for line in lines} == {"fold 8"}


def test_a_run_without_folds_is_saved_and_read_as_it_is(forty, tmp_path):
    made = of_folds(forty, folds=None)
    (one,) = run.run_all(made, tmp_path)
    assert len(one.predictions) == 4 and "fold" not in one.history
    saved = _files(tmp_path)
    assert {"history.csv", "predictions.csv", "record.json"} <= saved.keys()
    (again,) = run.run_all(dataclasses.replace(made, log=pytest.fail), tmp_path)
    assert again.record == one.record
    assert _files(tmp_path) == saved


def test_a_fold_that_diverges_is_recorded_and_the_others_go_on(forty, tmp_path, monkeypatch):
    made = of_folds(forty, **LAST_THREE)
    train = phases.train

    def diverging(setup):
        training = train(setup)
        if setup.experiment.fold in at:
            training.history.loc[2:, "train_loss"] = np.nan
        return training

    monkeypatch.setattr(phases, "train", diverging)
    at = {7}
    found = run.run_all(made, tmp_path / "one")
    assert [each.record.diverged for each in found] == [3, None, None]
    tested = [each for each in found if not each.record.diverged]
    history, predictions = runs.together(tested)
    assert history["fold"].unique().tolist() == predictions["fold"].unique().tolist() == [8, 9]
    assert len(predictions) == 8 and predictions.filter(like="p_").notna().all(axis=None)
    assert _numbers(runs.read(tmp_path / "one", made.experiment)) == _numbers(found)
    assert "Fold 7 has diverged: after epoch 3" in words.write("training", runs=found)
    at = {7, 8, 9}
    with pytest.raises(Diverged, match="after epoch 3 .* in all 3 folds"):
        run.run_all(made, tmp_path / "all")
    assert (tmp_path / "all" / "record.json").is_file(), "it is finished, too"
    assert [each.record.diverged for each in runs.read(tmp_path / "all", made.experiment)] == [3, 3, 3]


def test_a_fold_alone_leaves_what_the_others_find(forty, tmp_path, monkeypatch):
    made = of_folds(forty, **LAST_THREE)
    monkeypatch.setattr(run.Setup, "of", lambda *_: of_folds(forty, **LAST_THREE))
    alone = run.only_fold(made.experiment, tmp_path, 8)
    assert alone.record.experiment.fold == 8 and (runs.of_fold(tmp_path, 8) / "record.json").is_file()
    lines = []
    found = run.run_all(dataclasses.replace(made, log=lines.append), tmp_path)
    assert _numbers(found)[1] == _numbers([alone])[0]
    assert not any(line.startswith("fold 8") for line in lines)


def test_a_watcher_is_told_the_fold(forty, tmp_path, monkeypatch):
    told, write = [], status._write
    monkeypatch.setattr(status, "_write", lambda path, facts: (told.append(facts), write(path, facts)))
    with status.telling(tmp_path / "a.json", "a"):
        run.run_all(of_folds(forty, **LAST_THREE), tmp_path / "run")
    seen = list(dict.fromkeys((facts["fold"], facts["epoch"]) for facts in told if "fold" in facts))
    assert seen == [(fold, epoch) for fold in (7, 8, 9) for epoch in range(5)]


def test_the_notebook_shows_folds_together(forty, tmp_path):
    found = run.run_all(of_folds(forty, **LAST_THREE), tmp_path)
    history, predictions = runs.together(found)
    lines = figures.curves(history).axes[0].lines
    assert len(lines) == 2 * (3 + 1)
    mean = history.groupby("epoch")["validation_accuracy"].mean().to_numpy()
    np.testing.assert_allclose(lines[-1].get_ydata(), mean)
    assert len(figures.curves(found[0].history.drop(columns="fold")).axes[0].lines) == 2
    said = words.test_result(found)
    correct = (predictions["label"] == predictions["predicted"]).sum()
    assert said.startswith("Each of 3 folds") and f"{correct / 12:.1%}" in said and f"({correct} of 12 in all)" in said
    shown = dict(tables.run(found).to_numpy())
    assert shown["Test accuracy, loss"].startswith(f"{correct / 12:.2%}, ")
    seconds = sum(each.record.training_seconds.finetune for each in found)
    assert f"{seconds:.1f} s after unfreezing" in shown["Training time"]
    mistakes = evaluation.confident_mistakes(predictions, most=10)
    assert forty.keys[forty.positions(mistakes["key"])].tolist() == mistakes["key"].tolist()


# ---- shared parts -------------------------------------------------------------------------------


def test_the_heads_of_all_folds_are_trained_in_the_shared_part(forty):
    made = of_folds(forty, **LAST_THREE)
    jobs = [
        plan.Job(name, name, made.experiment.model_copy(update={"amount": n}), None) for n, name in ((1, "a"), (2, "b"))
    ]
    heads = plan.Part("shared", "small, shared part", jobs).heads()
    assert [(head.fold, head.seed, head.strategy) for head in heads] == [
        (7, 7, "frozen"),
        (8, 8, "frozen"),
        (9, 9, "frozen"),
    ]
    for head in heads:
        phases.train_head(made.of_fold(head))
    lines = []
    for experiment in made.experiment.in_turn():
        phases.train(dataclasses.replace(made, log=lines.append).of_fold(experiment))
    assert sum("head alone: epochs to 2 of 2 were trained before" in line for line in lines) == 3
    assert not any("(head alone)" in line for line in lines)
