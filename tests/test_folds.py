"""Folds: how photos are divided, that training them in turn changes no number, and what they leave."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import made_up_data
from hypothesis import given, settings
from hypothesis import strategies as st
from small_network import SMALL, setup

from thaw.data import splits
from thaw.data.augmentation import with_copies
from thaw.data.splits import by_position
from thaw.disk import places, status
from thaw.errors import Diverged, InvalidParameter
from thaw.experiment import Experiment
from thaw.network import backbones
from thaw.network.pretrained import load_pretrained
from thaw.records import runs
from thaw.report import figures, tables, words
from thaw.study import plan, run
from thaw.training import evaluation, phases
from thaw.training.setup import set_keras

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
    expected = results(of_folds(forty, seed=29, fold=9, **WAYS[way]))
    history, predictions, weights = in_turn[2]
    assert history.equals(expected[0])
    assert predictions.equals(expected[1])
    for ours, theirs in zip(weights, expected[2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert np.isfinite(in_turn[0][0][["train_loss", "validation_loss"]]).all(axis=None)
    assert not in_turn[0][0].equals(in_turn[1][0])
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


def test_all_folds_share_random_weights_and_another_seed_has_others():
    whole = Experiment.of({"backbone": "small", "strategy": "frozen", "weights": "none", "folds": 5, "seed": 3})
    drawn = []
    for experiment in [whole, *whole.in_turn(), whole.model_copy(update={"seed": 4})]:
        set_keras(experiment)
        drawn.append(load_pretrained("small", 32, "none")[1]["tensors_sha256"])
    assert len(set(drawn[:-1])) == 1 and drawn[-1] != drawn[0]


# ---- what a run leaves --------------------------------------------------------------------------

LAST_THREE = {"strategy": "blocks", "amount": 1, "choosing_folds": 7}


class Stopped(Exception):
    """A run that is killed, as far as training can tell."""


def test_folds_are_saved_one_by_one_and_gathered_to_the_byte(forty, tmp_path):
    made = of_folds(forty, **LAST_THREE)
    there = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "gather", lambda directory, *_: there.update(_files(directory)))
        run.run_all(made, tmp_path / "run")
    names = ["history.csv", "predictions.csv", "record.json"]
    assert list(there) == [f"folds/{fold}/{name}" for fold in (7, 8, 9) for name in names]
    apart = runs.read(tmp_path / "run", made.experiment)
    runs.gather(tmp_path / "run", made.experiment)
    whole = _files(tmp_path / "run")
    assert list(whole) == names
    for name in names[:2]:
        parts = [there[f"folds/{fold}/{name}"].splitlines(keepends=True) for fold in (7, 8, 9)]
        assert whole[name] == b"".join([parts[0][0], *(line for part in parts for line in part[1:])])
    again = runs.read(tmp_path / "run", made.experiment)
    for one, other, fold in zip(apart, again, (7, 8, 9), strict=True):
        assert one.record == other.record and one.record.experiment.fold == fold
        assert one.history.equals(other.history) and one.predictions.equals(other.predictions)
    assert set(places.cache("checkpoints").glob("*.npz")) == _heads(made), "only the heads may serve others"


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


def test_the_heads_of_all_folds_are_trained_in_the_shared_part(forty, tmp_path):
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


# ---- how photos are divided ---------------------------------------------------------------------


some = settings(deadline=None, max_examples=40)


@st.composite
def labelled(draw, most: int = 60):
    """Names and labels of some photos, each class with at least so many photos as there are folds."""
    folds = draw(st.integers(3, 10))
    sizes = draw(st.lists(st.integers(folds, most), min_size=1, max_size=5))
    labels = [f"class {number}" for number, size in enumerate(sizes) for _ in range(size)]
    salt = draw(st.integers(0, 10**6))
    return folds, [f"{salt}-{number}" for number in range(len(labels))], labels


def _of_all(place, folds):
    return [splits.in_fold(place, folds, fold) for fold in range(folds)]


def _whole(parts, count):
    return sorted(np.concatenate(parts).tolist()) == list(range(count))


@some
@given(labelled())
def test_every_photo_is_tested_once_and_the_parts_are_all_photos(photos):
    folds, names, labels = photos
    for place in splits.places_by_class(names, labels), splits.places_by_position(len(names)):
        divided = _of_all(place, folds)
        assert _whole([test for _, _, test in divided], len(names))
        assert all(_whole(parts, len(names)) for parts in divided)
        assert all(len(part) for parts in divided for part in parts[::2])


@some
@given(labelled())
def test_each_class_is_spread_evenly_over_the_folds(photos):
    folds, names, labels = photos
    fold_of = np.floor(splits.places_by_class(names, labels) * folds + 1e-9).astype(int)
    counts = pd.crosstab(pd.Series(labels), pd.Categorical(fold_of, range(folds)), dropna=False)
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
    tested = [splits.in_fold(splits.places_by_class(names, labels), folds, fold)[2] for fold in range(folds)]
    assert all((fold_of[test] == fold).all() for fold, test in enumerate(tested)), "the fold that is written is tested"


@some
@given(labelled(), st.integers(2, 4))
def test_photos_of_a_group_stay_together(photos, size):
    folds, names, labels = photos
    groups = [f"{label} {number // size}" for number, label in enumerate(labels)]
    place = splits.places_by_class(groups, labels)
    assert pd.Series(place).groupby(groups).nunique().max() == 1
    divided = _of_all(place, folds)
    assert _whole([test for _, _, test in divided], len(names))
    for parts in divided:
        part_of = pd.Series(np.repeat(range(3), [len(part) for part in parts]), np.concatenate(parts)).sort_index()
        assert part_of.groupby(groups).nunique().max() == 1


@some
@given(labelled(), st.randoms(use_true_random=False))
def test_a_photo_s_place_does_not_depend_on_the_order_of_all(photos, random):
    _, names, labels = photos
    order = random.sample(range(len(names)), len(names))
    place = splits.places_by_class(names, labels)
    moved = splits.places_by_class([names[i] for i in order], [labels[i] for i in order])
    assert moved.tolist() == place[order].tolist()


@some
@given(st.integers(1, 200).map(lambda twenties: 20 * twenties))
def test_fold_9_of_10_is_the_division_by_position(count):
    divided = splits.in_fold(splits.places_by_position(count), 10, 9)
    assert all(ours.tolist() == theirs.tolist() for ours, theirs in zip(divided, by_position(count), strict=True))


@some
@given(labelled(), st.data())
def test_the_folds_for_choosing_are_those_that_are_not_tested(photos, data):
    folds, names, labels = photos
    choosing = data.draw(st.integers(1, folds - 1))
    place = splits.places_by_class(names, labels)
    train, validation = splits.for_choosing(place, folds, choosing)
    assert _whole([train, validation], len(names))
    left_out = np.concatenate([splits.in_fold(place, folds, fold)[2] for fold in range(choosing)])
    assert sorted(left_out.tolist()) == validation.tolist()


@pytest.mark.parametrize(
    "parameters, said",
    [
        ({"fold": 3}, "there are no folds"),
        ({"choosing_folds": 1}, "there are no folds. Set folds"),
        ({"folds": 10, "fold": 10}, "folds count from 0, up to 9 of 10"),
        ({"folds": 10, "fold": 1, "choosing_folds": 2}, "one fold alone is tested"),
        ({"folds": 5, "choosing_folds": 3}, "3 of the 5 folds or more have to be left .* Give 2 or fewer"),
        ({"test_folds": 3}, "there are no folds. Set folds"),
        ({"folds": 10, "fold": 1, "test_folds": 3}, "one fold alone is tested"),
        ({"folds": 5, "choosing_folds": 1, "test_folds": 5}, "there are 4 to test on. Give 4 or fewer"),
        ({"folds": 2}, "folds = 2"),
        ({"folds": 101}, "folds = 101"),
        ({"folds": 10, "fold": -1}, "fold = -1"),
    ],
    ids=str,
)
def test_folds_that_make_no_sense_are_refused(parameters, said):
    with pytest.raises(InvalidParameter, match=said):
        Experiment.of({"backbone": "small", "strategy": "frozen"} | parameters)


@some
@given(st.integers(3, 20), st.data(), st.integers(0, 1000))
def test_the_folds_of_an_experiment_in_turn(folds, data, seed):
    choosing = data.draw(st.integers(0, folds - 3))
    parameters = {"backbone": "small", "strategy": "frozen", "folds": folds, "choosing_folds": choosing, "seed": seed}
    whole = Experiment.of(parameters)
    in_turn = whole.in_turn()
    assert [each.fold for each in in_turn] == list(whole.tested_folds) == list(range(choosing, folds))
    assert {each.configuration for each in in_turn} == {whole.configuration}
    assert len({each.digest for each in in_turn}) == len({each.seed for each in in_turn}) == folds - choosing
    other = Experiment.of(parameters | {"seed": seed + 1}).in_turn()
    assert not {each.seed for each in in_turn} & {each.seed for each in other}, "no seed is used twice"
    assert all(each.in_turn() == [each] for each in in_turn)


def test_a_class_with_fewer_photos_than_folds_is_refused():
    def check(labels, names=None):
        place = splits.places_by_class(names or [f"photo {n}" for n in range(len(labels))], labels)
        splits.check_folds(place, labels, 5, "mine")

    check(["a"] * 5 + ["b"] * 5)
    with pytest.raises(InvalidParameter, match="class 'b' of 'mine' has 4 photos"):
        check(["a"] * 5 + ["b"] * 4)
    with pytest.raises(InvalidParameter, match="class 'a' of 'mine' has 4 groups of photos"):
        check(["a"] * 20 + ["b"] * 20, [f"{label} {n % 4}" for label in "ab" for n in range(20)])
    sizes = [50, 1, 1, 1, 1]
    with pytest.raises(InvalidParameter, match="fold . of 'mine' would have no photos"):
        check(["a"] * 54 + ["b"] * 54, [f"{label} {n}" for label in "ab" for n in np.repeat(range(5), sizes)])
