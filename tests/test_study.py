"""The experiments of a profile, and where they leave their files."""

import json

import pytest
import yaml
from conftest import ROOT
from test_record import made_up_run

from thaw.disk.locks import locked
from thaw.errors import InvalidParameter, InvalidRecord, UnknownBackbone, UnknownProfile
from thaw.experiment import Experiment
from thaw.records import runs
from thaw.study import study as study_module
from thaw.study.profile import read_parameters
from thaw.study.study import NOT_RUN, Job, Study

PROFILES = ("demo", "paper", "quick", "catalogue", "solar-cells")  # a user may have made others


def profile(folder, **parameters):
    path = folder / "mine.yaml"
    path.write_text(
        yaml.safe_dump({"dataset": "demo_flowers", "weights": "none", "image_size": 32} | parameters), encoding="utf-8"
    )
    return str(path)


def executed_notebook(job: str, outputs=("a figure",)) -> str:
    """What papermill leaves of a job, as far as it is looked at."""
    papermill = {"parameters": {"output_dir": f"outputs/mine/runs/{job}"}}
    return json.dumps({"cells": [{"outputs": list(outputs)}], "metadata": {"papermill": papermill}})


@pytest.mark.parametrize("name", ["quick", "paper"])
def test_every_profile_holds_the_fourteen_configurations_and_two_controls(name):
    study = Study.load(name)
    configurations = {job.configuration for job in study.jobs if not job.twin_of}
    assert len(configurations) == 16
    controls = {job.configuration for job in study.jobs if job.experiment.control}
    assert controls == {"resnet50-frozen-long", "mobilenet-frozen-long"}
    by_name = {job.configuration: job.experiment for job in study.jobs}
    for backbone in ("resnet50", "mobilenet"):
        assert by_name[f"{backbone}-frozen"].epochs == by_name[f"{backbone}-blocks-2"].head_epochs
        assert by_name[f"{backbone}-frozen-long"].epochs == by_name[f"{backbone}-blocks-2"].epochs


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_opens_with_what_it_is_for_what_it_costs_and_what_to_expect(name):
    text = (ROOT / "params" / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
    head = text.split("\ndataset:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"make report PROFILE={name}" in head
    assert "Cost:" in head
    assert "Expect:" in head


def test_paper_is_the_original_s_schedule():
    parameters = read_parameters(ROOT / "params" / "profiles" / "paper.yaml")
    assert (
        parameters["image_size"],
        parameters["head_epochs"],
        parameters["finetune_epochs"],
        parameters["max_examples"],
    ) == (224, 5, 15, None)


def test_jobs_come_in_the_order_of_the_original_s_table():
    names = [job.configuration for job in Study.load("paper").jobs]
    assert names[:5] == [
        "resnet50-frozen",
        "resnet50-frozen-long",
        "resnet50-layers-5",
        "resnet50-layers-10",
        "resnet50-layers-40",
    ]
    assert names[8] == "mobilenet-frozen"


def test_other_parameters_are_other_jobs_and_the_same_ones_the_same(tmp_path):
    only = {"study": {"configurations": ["mobilenet-frozen", "mobilenet-blocks-2"]}}
    first, again, longer = (
        Study.load(profile(tmp_path, **only, **extra), tmp_path) for extra in ({}, {}, {"finetune_epochs": 3})
    )
    assert [job.name for job in first.jobs] == [job.name for job in again.jobs]
    frozen, blocks = zip([job.name for job in first.jobs], [job.name for job in longer.jobs])
    assert frozen[0] == frozen[1], "the frozen base does not depend on the epochs of fine-tuning"
    assert blocks[0] != blocks[1]


def test_seeds_for_all_or_by_backbone(tmp_path):
    study = Study.load(profile(tmp_path, study={"seeds": {"resnet50": [7], "mobilenet": [0, 1, 2]}}), tmp_path)
    assert len(study.jobs) == 8 * 1 + 8 * 3
    assert {job.experiment.seed for job in study.jobs if job.experiment.backbone == "resnet50"} == {7}
    with pytest.raises(InvalidParameter, match="none for the backbone 'mobilenet'"):
        Study.load(profile(tmp_path, study={"seeds": {"resnet50": [7]}}), tmp_path)


def test_values_of_a_backbone(tmp_path):
    settings = {"backbones": {"mobilenet": {"finetune_learning_rate": 1e-4}}}
    study = Study.load(profile(tmp_path, finetune_learning_rate=1e-3, study=settings), tmp_path)
    rates = {job.experiment.backbone: job.experiment.finetune_learning_rate for job in study.jobs}
    assert rates == {"mobilenet": 1e-4, "resnet50": 1e-3}


def test_finished_jobs_are_those_with_a_record(tmp_path):
    study = Study.load(
        profile(tmp_path, study={"configurations": ["mobilenet-frozen", "mobilenet-blocks-2"]}), tmp_path
    )
    assert study.finished() == []
    runs.save(study.jobs[0].directory, *made_up_run(**study.jobs[0].experiment.model_dump()))
    assert study.finished() == [study.jobs[0]]
    assert study.jobs[0].directory.parent == tmp_path / "mine" / "runs"


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"image_sise": 64}, "image_sise: no such parameter. Did you mean 'image_size'?"),
        ({"study": {"seed": [0]}}, "study.seed: no such entry. Did you mean 'seeds'?"),
        ({"study": {"seeds": []}}, "study.seeds"),
        ({"study": {"seeds": ["one"]}}, "study.seeds"),
        ({"study": [1]}, "study"),
        ({"study": {"backbones": {"mobilenet": {"epochs": 8}}}}, "study.backbones = 'epochs': not allowed"),
        ({"study": {"backbones": {"mobilenet": {"batch_size": 0}}}}, "batch_size = 0"),
        ({"batch_size": 0}, "configuration mobilenet-blocks-10:\nbatch_size = 0"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_profile_is_said(tmp_path, parameters, words):
    with pytest.raises(InvalidParameter) as caught:
        Study.load(profile(tmp_path, **parameters), tmp_path)
    assert words in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize("where", ["backbone", "study"])
def test_an_unknown_backbone_is_said_before_anything_is_run(tmp_path, monkeypatch, where):
    for folder in ("profiles", "configurations"):
        (tmp_path / "params" / folder).mkdir(parents=True)
    backbone = "mobilnet" if where == "backbone" else "mobilenet"
    text = f"backbone: {backbone}\nstrategy: frozen\n"
    (tmp_path / "params" / "configurations" / "one.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    study = {"backbones": {"mobilnet": {"batch_size": 8}}} if where == "study" else {}
    with pytest.raises(UnknownBackbone, match="backbone = 'mobilnet'.*Did you mean 'mobilenet'"):
        Study.load(profile(tmp_path, study=study), tmp_path)


def test_unknown_profiles_and_configurations(tmp_path):
    with pytest.raises(UnknownProfile, match="PROFILE = 'qick'.*Did you mean 'quick'"):
        Study.load("qick")
    with pytest.raises(UnknownProfile, match="'mobilenet-block-2'.*Did you mean 'mobilenet-blocks-2'"):
        Study.load(profile(tmp_path, study={"configurations": ["mobilenet-block-2"]}), tmp_path)


@pytest.mark.parametrize(
    "text, complete",
    [
        (None, False),
        ("", False),
        ("{}", False),
        (executed_notebook("mobilenet-blocks-2-seed-0-12345678"), False),
        (executed_notebook("{name}", outputs=[]), False),
        (executed_notebook("{name}"), True),
    ],
    ids=["none", "emptied", "no notebook", "of another", "never run", "its own"],
)
def test_an_experiment_without_its_notebook_is_not_done_and_keeps_its_record(tmp_path, text, complete):
    study = Study.load(profile(tmp_path, study={"configurations": ["mobilenet-frozen"]}), tmp_path)
    (job,) = study.jobs
    runs.save(job.directory, *made_up_run(**job.experiment.model_dump()))
    if text is not None:
        job.notebook.write_text(text.replace("{name}", job.name), encoding="utf-8")
    with locked([job.directory / "experiment"]):
        assert study.set_aside_damaged() == []
        assert job.notebook.exists() == (text is not None), "another process is at it"
    assert study.set_aside_damaged() == []
    assert study.ready() == ([] if complete else [job])
    assert study.reasons() == ({} if complete else {job: NOT_RUN})
    assert study.finished() == [job] and job.is_finished() == complete


def test_a_record_that_cannot_be_read_is_put_aside_and_named(tmp_path):
    study = Study.load(profile(tmp_path, study={"configurations": ["mobilenet-frozen"]}), tmp_path)
    (job,) = study.jobs
    runs.save(job.directory, *made_up_run(**job.experiment.model_dump()))
    (job.directory / "history.csv").write_text("half")
    (wrong,) = study.set_aside_damaged()
    assert str(job.directory) in wrong
    assert study.finished() == []
    assert (job.directory / "record.damaged.json").exists()


@pytest.mark.parametrize(
    "error, words",
    [
        (InvalidRecord("no such thing"), "no such thing"),
        (MemoryError(), "not enough memory"),
        (OSError(28, "No space left on device"), "the disk is full"),
        (KeyboardInterrupt(), "stopped from outside"),
    ],
)
def test_why_a_job_is_not_finished_is_noted(tmp_path, error, words):
    study = Study.load(profile(tmp_path), tmp_path)
    with pytest.raises(type(error)), study.noting_failure("latency"):
        raise error
    assert words in study.failures()["latency"]
    with study.noting_failure("latency"):
        pass
    assert study.failures() == {}


@pytest.mark.parametrize("text", ["", "- a list", "a: [unclosed", "\x00"])
def test_files_that_are_no_mapping(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidParameter, match=r"bad\.yaml"):
        Study.load(str(path), tmp_path)


def test_the_original_s_table_is_the_configurations():
    names = {job.configuration for job in Study.load("paper").jobs if not job.experiment.control and not job.twin_of}
    rows = [
        line.split(",")[:3]
        for line in (ROOT / "params" / "original" / "results.csv").read_text(encoding="utf-8").split()[1:]
    ]
    assert names == {
        f"{backbone}-{strategy}" + (f"-{amount}" if strategy != "frozen" else "") for backbone, strategy, amount in rows
    }
    assert len(rows) == 14


def test_the_same_row_twice_is_refused(tmp_path, monkeypatch):
    project = tmp_path / "project"
    (project / "params" / "profiles").mkdir(parents=True)
    (project / "params" / "configurations").mkdir()
    (project / "params" / "profiles" / "p.yaml").write_text("image_size: 64\n", encoding="utf-8")
    for name, rate in ("usual", 1.0e-5), ("again", 1.0e-5):
        text = f"backbone: mobilenet\nstrategy: blocks\namount: 2\nfinetune_learning_rate: {rate}\n"
        (project / "params" / "configurations" / f"{name}.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(project)
    with pytest.raises(InvalidParameter, match="again and usual.*the same parameters twice"):
        Study.load("p")
    path = project / "params" / "configurations" / "again.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "trains: norm\n", encoding="utf-8")
    assert [job.experiment.short for job in Study.load("p").jobs] == ["B-2", "B-2 norm"]


def test_rows_are_in_the_order_of_what_they_train():
    ways = [{"strategy": "all"}, {"strategy": "frozen"}, {"strategy": "pattern", "pattern": "x"}]
    ways += [{"strategy": "blocks", "amount": amount} for amount in (10, 2)]
    ways += [{"strategy": "blocks", "amount": 2, "skip": 4}, {"strategy": "blocks", "amount": 2, "trains": "bias"}]
    ways += [{"strategy": "layers", "amount": 5}, {"strategy": "frozen", "finetune_epochs": 0}]
    made = [Experiment.of({"backbone": name} | way) for name in ("/photos/own.keras", "mobilenet") for way in ways]
    jobs = sorted((Job(str(n), str(n), e, ROOT) for n, e in enumerate(made)), key=study_module._order)
    named = [job.experiment.short for job in jobs]
    assert named[:9] == named[9:] == ["frozen 5", "frozen 20", "A-5", "B-2", "B-2 bias", "B-2/4", "B-10", "x", "all"]
    assert jobs[0].experiment.backbone == "mobilenet", "those of a file come last"


def test_a_profile_has_seeds_and_no_seed(tmp_path):
    with pytest.raises(InvalidParameter, match="seed = 5: the whole study sets it. Give study"):
        Study.load(profile(tmp_path, seed=5), tmp_path)


def test_runs_of_other_data_or_weights_are_not_mixed(tmp_path):
    study = Study.load(
        profile(tmp_path, study={"configurations": ["mobilenet-frozen", "mobilenet-blocks-2"]}), tmp_path
    )
    with pytest.raises(InvalidRecord, match="(?s)none of its 2 experiments has results.*Run make report"):
        study.outcomes()
    for job, digest in zip(study.jobs, ("a", "b")):
        made, history, predictions = made_up_run(**job.experiment.model_dump())
        other = made.model_copy(update={"data": {**made.data, "sha256": digest}})
        runs.save(job.directory, other, history, predictions)
    with pytest.raises(InvalidRecord, match="not the data of"):
        study.outcomes()


@pytest.mark.parametrize("weights", ["none", "imagenet"])
def test_random_weights_may_differ_from_seed_to_seed_and_no_others(tmp_path, weights):
    settings = {"seeds": [0, 1], "configurations": ["mobilenet-frozen", "mobilenet-blocks-2"]}
    study = Study.load(profile(tmp_path, weights=weights, study=settings), tmp_path)
    for job in study.jobs:
        made, history, predictions = made_up_run(**job.experiment.model_dump())
        drawn = {**made.weights, "tensors_sha256": str(job.experiment.seed)}
        runs.save(job.directory, made.model_copy(update={"weights": drawn}), history, predictions)
    if weights == "none":
        assert len(study.outcomes()[0]) == 4
    else:
        with pytest.raises(InvalidRecord, match="not the weights of mobilenet of"):
            study.outcomes()
