"""Learning rates that each configuration chooses for itself: what is tried, what wins, and who uses it."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, made_up_data
from small_network import SMALL, setup

from thaw.data.splits import by_position
from thaw.errors import Diverged, InvalidParameter
from thaw.experiment import Experiment
from thaw.network import backbones
from thaw.study import freshness, rates
from thaw.study.graph import Graph
from thaw.study.profile import read_parameters
from thaw.study.study import Study
from thaw.training import phases
from thaw.training.setup import Setup

GRIDS = {"head": [1e-1, 1e-2], "finetune": [1e-2, 1e-3, 1e-4]}
TINY = read_parameters(ROOT / "tests" / "tiny.yaml")
GIVEN = {name: TINY.pop(name) for name in ("head_learning_rate", "finetune_learning_rate")}


def load(folder, given=(), **settings) -> Study:
    path = folder / "mine.yaml"
    study = {"folds": 5, "choosing_folds": 2, "learning_rates": GRIDS} | settings
    study = {"configurations": ["mobilenet-frozen", "mobilenet-blocks-2"]} | study
    parameters = TINY | {name: GIVEN[name] for name in given} | {"study": study}
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    return Study.load(str(path), folder / "outputs", ROOT)


def write(choice: rates.Choice, files="photos", **chosen) -> None:
    """Write a choice down, as if it had been made."""
    rows = [
        dict.fromkeys(rates.COLUMNS, 0)
        | {"configuration": choice.configuration, "parameter": name, "value": rate, "files_sha256": files}
        | {"loss": 0.5, "diverged": False, "extended": False, "chosen": rate == chosen.get(name, grid[0])}
        for name, grid in choice.grids.items()
        for rate in grid
    ]
    choice.folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows)[rates.COLUMNS].to_csv(choice.path, index=False)


@pytest.mark.parametrize(
    "grid, losses, best, tried",
    [
        ([1e-4, 1e-3, 1e-2], {1e-4: 3, 1e-3: 1, 1e-2: 2}, 1e-3, 3),
        ([1e-2, 1e-3, 1e-4], {1e-4: 3, 1e-3: 1, 1e-2: math.inf}, 1e-3, 3),
        ([1e-3, 1e-4], {1e-4: 1, 1e-3: 2, 1e-5: 3}, 1e-4, 3),
        ([1e-3, 3e-4], {1e-3: 1, 3e-4: 2, 3.33e-3: 0.5, 1.11e-2: 0.7}, 3.33e-3, 4),
        ([1e-3, 1e-4], {1e-3: 1, 1e-4: 2, 1e-2: math.inf}, 1e-3, 3),
        ([1e-3, 1e-4], {1e-3: 9, 1e-4: 8, 1e-5: 7, 1e-6: 6, 1e-7: 5}, 1e-7, 5),
        ([0.5, 0.1], {0.5: 1, 0.1: 2}, 0.5, 2),
        ([1e-3, 1e-2], {1e-3: 1, 1e-2: 1, 1e-4: 1, 1e-5: 1, 1e-6: 1}, 1e-6, 5),
        ([1e-3], {1e-3: 1}, 1e-3, 1),
        ([1e-3, 1e-2], {1e-3: math.inf, 1e-2: math.inf}, 1e-3, 2),
    ],
    ids=["inside", "diverged", "low", "high", "diverges beyond", "stays", "no rate above 1", "ties", "one", "none"],
)
def test_the_lowest_loss_wins_and_a_winner_at_the_edge_extends_the_grid(grid, losses, best, tried):
    asked = []

    def loss(rate):
        asked.append(rate)
        return losses[rate]

    assert rates.lowest(grid, loss) == best
    assert len(asked) == len(set(asked)) == tried


@pytest.fixture
def choice(tmp_path, monkeypatch):
    """A choice for the small network on forty random photos, and what setting it up gives."""
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(backbones.REGISTRY, "small", SMALL)
    rng = np.random.default_rng(1)
    about = {"dataset": "made up", "sha256": "forty", "files_sha256": "files", "photos": {"available": 40}}
    train, validation, test = by_position(40)
    photos = {
        "images": rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8),
        "labels": np.arange(40) % 2,
        "keys": np.array([f"photo-{i}" for i in range(40)]),
        "classes": ("daisy", "rose"),
        "provenance": about,
    }
    data = dataclasses.replace(made_up_data(32), train=train, validation=validation, test=test, **photos)

    def of(experiment, log):
        parameters = experiment.model_dump(exclude={"output_dir"})
        return setup(data.in_fold(experiment.folds, experiment.tested_folds[0]), log, **parameters)

    monkeypatch.setattr(Setup, "of", of)
    parameters = {"backbone": "small", "strategy": "blocks", "amount": 1, "image_size": 32, "batch_size": 8}
    parameters |= {"weights": "none", "head_epochs": 2, "finetune_epochs": 2, "folds": 5, "choosing_folds": 2}

    def make(grids=None, **more):
        grids = grids or {rates.HEAD: [1e-1, 1e-2], rates.FINETUNE: [1e-2, 1e-3]}
        return rates.of("small-blocks", Experiment.of(parameters | more), grids, tmp_path / "rates")

    return make


def test_heads_first_and_then_what_is_unfrozen_with_the_best_head(choice, monkeypatch):
    made, trained, train = choice(), [], phases.train
    monkeypatch.setattr(phases, "train", lambda setup: (trained.append(setup), train(setup))[1])
    rates.choose(made)
    found = made.read()
    assert found["parameter"].tolist() == sorted(found["parameter"], reverse=True), "heads first"
    for _, tried in found.groupby("parameter"):
        assert tried.loc[tried["chosen"], "loss"].item() == tried["loss"].min()
    assert (found["photos"] == 16).all() and not found["diverged"].any()
    assert found["extended"].tolist() == [
        value not in made.grids[parameter] for parameter, value in zip(found["parameter"], found["value"])
    ]
    for each in trained:
        assert each.data.validation.tolist() == list(range(16)), "the first two of five folds"
        assert each.data.train.tolist() == list(range(16, 40))
    heads = [each for each in trained if each.experiment.strategy == "frozen"]
    assert len(heads) == (found["parameter"] == rates.HEAD).sum()
    chosen = made.chosen()
    assert {each.experiment.head_learning_rate for each in trained if each not in heads} == {chosen[rates.HEAD]}
    assert made.read()["files_sha256"].unique() == ["files"]


def test_configurations_share_heads_and_what_was_stopped_goes_on(choice, monkeypatch):
    said = []
    rates.choose(choice(), said.append)
    epochs = sum("(head alone)" in line for line in said)
    assert epochs == 2 * (choice().read()["parameter"] == rates.HEAD).sum()
    more, steps = [], []
    other = choice(amount=2)

    def stop(setup, train=phases.train):
        steps.append(setup)
        if setup.experiment.strategy != "frozen" and len(steps) > len(heads) + 1:
            raise KeyboardInterrupt
        return train(setup)

    heads = choice().read().query("parameter == @rates.HEAD")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(phases, "train", stop)
        rates.choose(other, more.append)
    assert not [line for line in more if line.startswith("epoch") and "(head alone)" in line], "they are there"
    assert sum("(fine-tuning): training" in line for line in more) == 2
    assert not other.path.exists(), "no half of a choice"
    again = []
    rates.choose(other, again.append)
    tried = (other.read()["parameter"] == rates.FINETUNE).sum()
    assert sum("(fine-tuning): training" in line for line in again) == 2 * (tried - 1)


def test_what_diverges_is_not_chosen_and_said_where_all_do(choice, monkeypatch):
    train = phases.train

    def diverging(setup):
        training = train(setup)
        if setup.experiment.strategy != "frozen" and setup.experiment.finetune_learning_rate > limit:
            training.history.loc[3, "validation_loss"] = math.nan
        return training

    limit = 5e-3
    monkeypatch.setattr(phases, "train", diverging)
    made = choice({rates.FINETUNE: [1e-3, 1e-2]})
    rates.choose(made)
    found = made.read().set_index("value")
    assert found.loc[1e-2, "diverged"]
    assert not (found["chosen"] & found["diverged"]).any()
    limit, other = 0, choice({rates.FINETUNE: [1e-3, 2e-3]})
    with pytest.raises(Diverged, match="small-blocks: diverged at every finetune_learning_rate of 0.001, 0.002. Give"):
        rates.choose(other)
    assert not other.path.exists()


def test_a_frozen_base_chooses_its_head_alone_for_all_its_epochs(choice):
    made = choice(strategy="frozen", amount=0)
    rates.choose(made)
    assert set(made.read()["parameter"]) == {rates.HEAD}
    assert (made.read()["epochs"] == 4).all()
    assert rates.of("x", made.experiment, {rates.FINETUNE: [1e-3]}, made.folder) is None


def test_experiments_wait_for_their_rates_and_are_named_by_them(tmp_path):
    study = load(tmp_path)
    assert [job.awaits_rates for job in study.jobs] == [True, True]
    assert study.ready() == [] and study.unfinished() == list(study.jobs)
    assert all("not chosen" in reason for reason in study.reasons().values())
    frozen, blocks = study.choices
    assert rates.table(study) is None
    before = freshness.made_from(study)
    write(blocks, finetune_learning_rate=1e-3, head_learning_rate=1e-1)
    study = load(tmp_path)
    (job,) = study.ready()
    assert (job.experiment.head_learning_rate, job.experiment.finetune_learning_rate) == (1e-1, 1e-3)
    assert study.to_choose() == [frozen]
    assert freshness.made_from(study) != before
    assert len(rates.table(study)) == 5
    write(blocks, finetune_learning_rate=1e-4, head_learning_rate=1e-1)
    (other,) = load(tmp_path).ready()
    assert other.name != job.name, "another rate is another experiment"


def test_the_graph_chooses_first_and_then_runs_what_has_its_rates(tmp_path, monkeypatch):
    study, stages = load(tmp_path), []
    frozen, blocks = study.choices

    def run(graph, stage, shared=True):
        stages.append((stage, shared, [job.configuration for job in graph.study.ready()]))
        if stages == [("rates", True, [])]:
            with pytest.raises(MemoryError), graph.study.noting_failure("shared-1"):
                raise MemoryError
        elif stage == "rates":
            write(blocks)
            with pytest.raises(Diverged), graph.study.noting_failure(frozen.name):
                raise Diverged("diverged at every rate")

    monkeypatch.setattr(Graph, "run", run)
    missing = Graph(study, str(tmp_path / "outputs")).make()
    assert stages[:2] == [("rates", True, []), ("rates", False, [])], "without the part that failed"
    assert [stage[::2] for stage in stages[2:]] == [("experiments", ["mobilenet-blocks-2"])] * 2
    assert missing[study.jobs[0].label] == "its learning rates are not chosen: diverged at every rate"


@pytest.mark.parametrize(
    "change",
    [{"folds": 6}, {"choosing_folds": 1}, {"learning_rates": {**GRIDS, "finetune": [1e-2, 1e-3]}}, {"seeds": [1]}],
    ids=str,
)
def test_a_choice_of_other_settings_is_not_used(tmp_path, change):
    for choice in load(tmp_path).choices:
        write(choice)
    assert load(tmp_path).to_choose() == []
    assert load(tmp_path, seeds=[0, 1]).to_choose() == [], "it is of the first seed"
    assert load(tmp_path, learning_rates={name: grid[::-1] for name, grid in GRIDS.items()}).to_choose() == []
    other = load(tmp_path, **change)
    assert any(job.experiment.strategy != "frozen" for job in other.jobs if job.awaits_rates)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text.replace("True", "False"),
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("loss", "lost"),
        lambda text: text.replace("finetune_learning_rate,0.01", "finetune_learning_rate,7"),
    ],
    ids=["empty", "none chosen", "half", "columns", "no rate"],
)
def test_a_choice_that_cannot_be_read_is_made_again(tmp_path, damage):
    study = load(tmp_path)
    for choice in study.choices:
        write(choice, finetune_learning_rate=1e-2)
    blocks = study.choices[1]
    assert blocks.chosen() is not None
    blocks.path.write_text(damage(blocks.path.read_text()))
    study = load(tmp_path)
    assert study.to_choose() == [blocks]
    study.set_aside_damaged()
    assert not blocks.path.exists(), "or its job would not run"
    assert study.choices[0].path.exists()


@pytest.mark.parametrize(
    "given, settings, words",
    [
        ((), {"folds": None}, "study.choosing_folds = 2: there are no folds"),
        ((), {"choosing_folds": 0}, "study.learning_rates: no photos to choose on"),
        ((), {"choosing_folds": 3}, "choosing_folds = 3: 3 of the 5 folds or more have to be left to test on"),
        ((), {"learning_rates": {"head": []}}, "study.learning_rates"),
        ((), {"learning_rates": {}}, "study.learning_rates"),
        ((), {"learning_rates": {"heads": [1e-3]}}, "heads'?: not allowed. Did you mean 'head'"),
        ((), {"learning_rates": {"head": [-1e-3]}}, "greater than 0"),
        ((), {"spread": "fold"}, "study.spread = 'fold': not allowed. Did you mean 'folds'"),
        ((), {"spread": "folds", "folds": None, "choosing_folds": 0, "learning_rates": None}, "study.spread = 'folds'"),
        (("head_learning_rate",), {}, "mine.yaml: head_learning_rate = 0.001: the study chooses it"),
        ((), {"backbones": {"mobilenet": {"finetune_learning_rate": 1e-3}}}, "finetune_learning_rate = 0.001: the stu"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(tmp_path, given, settings, words):
    with pytest.raises(InvalidParameter, match=f"(?s){words}"):
        load(tmp_path, given, **settings)


def test_a_rate_that_is_not_chosen_may_be_given(tmp_path):
    study = load(tmp_path, ["finetune_learning_rate"], learning_rates={"head": GRIDS["head"]})
    assert {job.experiment.finetune_learning_rate for job in study.jobs} == {1e-3}
    assert [list(choice.grids) for choice in study.choices] == [[rates.HEAD]] * 2


def test_folds_belong_in_the_study_section(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(TINY | {"folds": 5}))
    with pytest.raises(InvalidParameter, match="folds = 5: the whole study sets it. Give study: {folds"):
        Study.load(str(path), tmp_path, ROOT)
