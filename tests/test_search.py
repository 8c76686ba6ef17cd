"""Searches for learning rates: what they try, what they choose, and where that is told."""

import html

import pytest
import yaml
from conftest import ROOT
from invented import flat, invented
from test_record import made_up_run

from thaw.__main__ import main
from thaw.disk import places
from thaw.errors import InvalidParameter, UnknownProfile
from thaw.records import record, runs
from thaw.report import tables
from thaw.report.answer import Answer
from thaw.study import search
from thaw.study.profile import read_parameters
from thaw.study.study import Study

TRIES = {
    "mobilenet-blocks-2": {"finetune_learning_rate": [1e-2, 1e-3, 1e-4]},
    "mobilenet-frozen": {"head_learning_rate": [1e-1, 1e-2]},
}


def load(folder, **extent) -> Study:
    path = folder / "mine.yaml"
    parameters = read_parameters(ROOT / "tests" / "tiny.yaml") | {"study": extent}
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    return Study.load(str(path), folder / "outputs", ROOT)


def finish(study: Study, accuracies, losses) -> None:
    """Leave records with these validation figures; no accuracy: diverged."""
    for job, accuracy, loss in zip(study.jobs, accuracies, losses, strict=True):
        made, history, predictions = made_up_run(**job.experiment.model_dump())
        last = {"validation_accuracy": accuracy or 0.0, "validation_loss": loss}
        history.loc[history.index[-1], list(last)] = list(last.values())
        if accuracy is None:
            nothing = dict.fromkeys((*record.LAST, "test_accuracy", "test_loss", "inference_ms_per_image"), None)
            made = made.model_copy(update={**nothing, "diverged": 1})
        else:
            made = made.model_copy(update=last)
        runs.save(job.directory, made, history, predictions)


def test_one_value_at_a_time_and_the_rest_as_the_profile_has_it(tmp_path):
    study = load(tmp_path, tries=TRIES, seeds=[0, 1])
    assert study.is_search
    assert len(study.jobs) == len({job.name for job in study.jobs}) == 10
    rates = [(job.experiment.head_learning_rate, job.experiment.finetune_learning_rate) for job in study.jobs]
    frozen, blocks = rates[:4], rates[4:]
    assert sorted(set(frozen)) == [(1e-2, 1e-3), (1e-1, 1e-3)]
    assert sorted(set(blocks)) == [(1e-3, 1e-4), (1e-3, 1e-3), (1e-3, 1e-2)]
    assert "mobilenet-blocks-2, finetune_learning_rate 0.01, seed 1" in [job.label for job in study.jobs]


def test_values_of_a_backbone(tmp_path):
    several = load(tmp_path, backbones={"mobilenet": {"finetune_learning_rate": 1e-4}})
    rates = {job.experiment.backbone: job.experiment.finetune_learning_rate for job in several.jobs}
    assert rates == {"mobilenet": 1e-4, "resnet50": 1e-3}


@pytest.mark.parametrize(
    "extent, words",
    [
        ({"tries": {"mobilenet-frozen": {"seed": [1]}}}, "tries = 'seed': not allowed.*head_learning_rate"),
        ({"tries": {"mobilenet-frozen": {"preprocessing": ["tf"]}}}, "tries = 'preprocessing': not allowed"),
        ({"tries": {"mobilenet-frozen": {"batch_size": []}}}, "at least 1 item"),
        ({"tries": {"mobilenet-frozen": {"batch_size": ["many"]}}}, "batch_size = 'many'"),
        ({"tries": {"mobilenet-frozen": {"batch_size": [8, 8]}}}, "twice"),
        ({"tries": {"mobilenet-frozen": {}}}, "at least 1 item"),
        ({"tries": TRIES, "configurations": ["mobilenet-frozen"]}, "both tries and configurations"),
        ({"backbones": {"mobilnet": {"batch_size": 8}}}, "Did you mean 'mobilenet'"),
        ({"backbones": {"mobilenet": {"epochs": 8}}}, "backbones = 'epochs': not allowed"),
        ({"backbones": {"mobilenet": {"batch_size": 0}}}, "batch_size = 0"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(tmp_path, extent, words):
    with pytest.raises(InvalidParameter, match=f"(?s){words}"):
        load(tmp_path, **extent)


def test_a_search_that_does_not_exist(tmp_path):
    with pytest.raises(UnknownProfile, match="study.search = 'serch'.*Did you mean 'search'"):
        load(tmp_path, search="serch")


def test_a_search_that_cannot_be_read_is_said_before_anything_is_run(tmp_path, capfd, monkeypatch):
    for folder in ("profiles", "configurations"):
        (tmp_path / "params" / folder).mkdir(parents=True)
    configuration = "backbone: mobilenet\nstrategy: frozen\nfinetune_epochs: 0\n"
    (tmp_path / "params" / "configurations" / "frozen.yaml").write_text(configuration, encoding="utf-8")
    profiles = {"mine": {"study": {"search": "other"}}, "other": {"study": {"tries": {"frzen": {"batch_size": [8]}}}}}
    for name, parameters in profiles.items():
        path = tmp_path / "params" / "profiles" / f"{name}.yaml"
        path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["report", "mine"]) == 1
    assert "study.tries: 'frzen': no such configuration. Did you mean 'frozen'?" in capfd.readouterr().err


@pytest.mark.parametrize(
    "name, parameters, words",
    [
        ("quick", {"dataset": "tf_flowers"}, "no search, for it has no study.tries"),
        ("search", {"dataset": "tf_flowers", "max_examples": 100}, "its max_examples is None, the study's 100"),
        ("search", {"dataset": "tf_flowers", "splits": "position"}, "its splits is official, the study's position"),
        ("search", {}, "its dataset is tf_flowers, the study's demo_flowers"),
    ],
)
def test_a_search_on_other_photos_is_refused(tmp_path, name, parameters, words):
    """Their test photos may be among those that it chooses by."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"dataset": "demo_flowers"} | parameters | {"study": {"search": name}}))
    with pytest.raises(InvalidParameter, match=words):
        search.of(Study.load(str(path), tmp_path, ROOT))


@pytest.mark.parametrize(
    "accuracies, losses, chosen",
    [
        ((0.7, 0.8, 0.6), (0.5, 0.9, 0.4), [1e-3]),
        ((0.7, 0.7, 0.6), (0.5, 0.4, 0.1), [1e-3]),
        ((None, 0.3, None), (0.1, 0.9, 0.1), [1e-3]),
        ((0.9, 0.8, None), (0.5, 0.9, 0.1), [1e-2]),
    ],
)
def test_the_most_accurate_on_validation_is_chosen_and_of_equal_ones_that_with_the_lower_loss(
    tmp_path, accuracies, losses, chosen
):
    study = load(tmp_path, tries={"mobilenet-blocks-2": TRIES["mobilenet-blocks-2"]})
    finish(study, accuracies, losses)
    found = search.table(study)
    assert found["value"].tolist() == [1e-2, 1e-3, 1e-4]
    assert found["at_edge"].tolist() == [True, False, True]
    assert found[found["chosen"]]["value"].tolist() == chosen
    assert found["validation_accuracy"].isna().tolist() == [accuracy is None for accuracy in accuracies]


def test_a_value_that_diverged_with_one_seed_is_not_chosen(tmp_path):
    study = load(tmp_path, tries={"mobilenet-frozen": TRIES["mobilenet-frozen"]}, seeds=[0, 1])
    values = [job.experiment.head_learning_rate for job in study.jobs]
    finish(study, [0.5 if value == 1e-2 else None if i < 2 else 0.9 for i, value in enumerate(values)], [0.5] * 4)
    found = search.table(study)
    assert found[found["chosen"]]["value"].tolist() == [1e-2]


def test_the_graph_accepts_records_that_are_there_and_says_what_they_favour(tmp_path, capfd, monkeypatch):
    """Whatever the times of the files, and without notebooks, activations and weights."""
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "cache"))
    study = load(tmp_path, tries=TRIES)
    finish(study, [0.5, 0.6, 0.7, 0.8, 0.9], [0.5] * 5)
    assert main(["report", str(study.path), "--outputs", str(tmp_path / "outputs")]) == 0
    shown = capfd.readouterr().out
    assert "5 of them finished already" in shown
    assert "What the validation photos favour:" in shown
    assert not list(places.cache().rglob("*.h5")), "nothing was made"


def test_the_report_says_what_was_tried_and_what_it_does_with_it(tmp_path):
    study = load(tmp_path, tries={"mobilenet-blocks-2": TRIES["mobilenet-blocks-2"]})
    finish(study, [0.9, 0.8, None], [0.5] * 3)
    results = invented(flat, backbones=("mobilenet",))
    assert "No finished search for them is recorded" in Answer(results).write("learning_rates")
    answer = Answer(type(results)(results.runs, search=search.table(study)))
    words, table = html.unescape(answer.write("learning_rates")), tables.searched(answer)
    assert "0.01 is best: 90.0% of the 6 validation photos" in words
    assert "a value beyond it may be better" in words
    assert "This study was run with 0.00001." in words
    assert "1 of its 3 values has no result" in words
    assert table["Value"].tolist() == ["0.01", "0.001", "0.0001"]
    assert table["Valid. acc."].tolist()[-1] == "–"
