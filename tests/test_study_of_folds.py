"""Studies on folds: what is finished, what is missing, and what becomes of a fold that is damaged or stopped."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from conftest import ROOT
from test_freshness import write_report
from test_record import made_up_run

from thaw.__main__ import main
from thaw.data import checks, source
from thaw.disk.locks import locked
from thaw.errors import DataDamaged, InvalidParameter, InvalidRecord
from thaw.records import record, runs
from thaw.report.answer import Answer
from thaw.report.results import Results
from thaw.report.verdicts import MISSING
from thaw.study import check, freshness
from thaw.study.graph import Graph
from thaw.study.study import NOT_RUN, Job, Study, fold_name
from thaw.study.watch import Clock


@pytest.fixture
def study(tmp_path) -> Study:
    return load(tmp_path)


def load(folder, precision="float32", **settings) -> Study:
    path = folder / "mine.yaml"
    parameters = {"dataset": "demo_flowers", "weights": "none", "image_size": 32, "head_epochs": 2}
    parameters["precision"] = precision
    settings = {
        "folds": 5,
        "choosing_folds": 1,
        "configurations": ["mobilenet-frozen", "mobilenet-blocks-2"],
    } | settings
    path.write_text(yaml.safe_dump(parameters | {"finetune_epochs": 3, "study": settings}), encoding="utf-8")
    return Study.load(str(path), folder / "outputs", ROOT)


def finish(job: Job, folds, diverged=(), correct=(1, 1, 0, 1), times=1.0) -> None:
    """Leave records of folds; each has photos of its own, and takes so many times as long."""
    for experiment in job.experiment.in_turn():
        if experiment.fold not in folds:
            continue
        made, history, predictions = made_up_run(correct=correct, **experiment.model_dump())
        history["seconds"] *= times
        seconds = {phase: times * value for phase, value in made.training_seconds.model_dump().items()}
        made = made.model_copy(update={"training_seconds": made.training_seconds.model_copy(update=seconds)})
        predictions["key"] = [f"fold-{experiment.fold}-{key}" for key in predictions["key"]]
        if experiment.fold in diverged:
            nothing = dict.fromkeys((*record.LAST, "test_accuracy", "test_loss", "inference_ms_per_image"), None)
            history, predictions = history[:1].assign(train_loss=float("nan")), predictions[["key"]][:0]
            seconds = made.training_seconds.model_copy(update={"head": history["seconds"].sum(), "finetune": 0.0})
            made = made.model_copy(update={**nothing, "diverged": 1, "training_seconds": seconds})
        runs.save(runs.of_fold(job.directory, experiment.fold), made, history, predictions)


def gather(job: Job, diverged=()) -> None:
    finish(job, job.experiment.tested_folds, diverged)
    runs.gather(job.directory, job.experiment)


def test_a_job_has_all_folds_of_a_configuration_and_a_seed(tmp_path, study):
    assert [job.label for job in study.jobs] == [
        "mobilenet-frozen, seed 0, 4 folds",
        "mobilenet-blocks-2, seed 0, 4 folds",
    ]
    assert len(load(tmp_path, seeds=[0, 1]).jobs) == 4
    spread = load(tmp_path, spread="folds")
    assert [job.name for job in spread.jobs] == [job.name for job in study.jobs], "how they are run changes no result"


def test_folds_are_read_as_they_come(study):
    frozen, blocks = study.jobs
    assert frozen.unfinished_folds() == [1, 2, 3, 4]
    assert study.reportable() == []
    finish(frozen, [1, 3])
    finish(blocks, [1, 2, 3])
    assert (frozen.unfinished_folds(), blocks.unfinished_folds()) == ([2, 4], [4])
    assert study.finished() == [] and study.reportable() == [blocks]
    finished, missing = study.outcomes()
    assert missing == {}
    assert [run.record.experiment.fold for run in finished[frozen]] == [1, 3]
    assert study.reasons() == {frozen: NOT_RUN, blocks: NOT_RUN}
    gather(frozen)
    assert frozen.unfinished_folds() == [] and study.finished() == [frozen]
    assert len(study.outcomes()[0][frozen]) == 4
    assert not frozen.is_finished(), "its notebook is not there"


def test_one_fold_that_diverged_leaves_the_others(study):
    frozen, blocks = study.jobs
    gather(frozen, diverged=[1])
    gather(blocks, diverged=[1, 2, 3, 4])
    finished, missing = study.outcomes()
    assert [run.record.diverged for run in finished[frozen]] == [1, None, None, None]
    assert len(finished[frozen][1].predictions.columns) > 2, "the columns are those of folds that did not diverge"
    assert missing[blocks].startswith("diverged: after epoch 1")


def test_a_fold_s_failure_is_its_experiment_s(study):
    frozen, blocks = study.jobs
    with pytest.raises(MemoryError), study.noting_failure(fold_name(frozen, 2)):
        raise MemoryError
    assert study.reasons()[frozen].startswith("fold 2: ")
    assert "not enough memory" in study.reasons()[frozen]
    assert study.waiting() == [blocks]


@pytest.mark.parametrize("gathered", [False, True])
def test_damage_costs_what_is_damaged(study, gathered):
    frozen, blocks = study.jobs
    finish(frozen, [1, 2, 3])
    finish(blocks, [1, 2])
    if gathered:
        gather(frozen)
        (frozen.directory / "history.csv").write_text("half")
        assert "history.csv is not the one" in study.outcomes()[1][frozen]
    else:
        (runs.of_fold(frozen.directory, 2) / "predictions.csv").write_text("half")
    (wrong,) = study.set_aside_damaged()
    assert str(frozen.directory) in wrong
    assert frozen.unfinished_folds() == ([1, 2, 3, 4] if gathered else [2, 4])
    assert blocks.unfinished_folds() == [3, 4]
    assert list(frozen.directory.rglob("record.damaged.json"))
    assert study.set_aside_damaged() == []


def test_a_fold_of_other_parameters_is_set_aside(study):
    frozen, blocks = study.jobs
    finish(blocks, [1])
    shutil.copytree(runs.of_fold(blocks.directory, 1), runs.of_fold(frozen.directory, 1))
    (wrong,) = study.set_aside_damaged()
    assert "other parameters" in wrong
    assert frozen.unfinished_folds() == [1, 2, 3, 4]


def test_a_notebook_that_was_stopped_at_its_end_is_all_that_is_missing(study):
    _, blocks = study.jobs
    gather(blocks)
    with pytest.raises(KeyboardInterrupt), study.noting_failure(blocks.name):
        raise KeyboardInterrupt
    assert study.set_aside_damaged() == []
    assert blocks.record.exists() and blocks.unfinished_folds() == [] and blocks in study.ready()


def test_the_report_is_of_the_folds_that_are_there(study):
    _, blocks = study.jobs
    seen = {freshness.made_from(study)}
    for folds in ([1], [2], [3, 4]):
        finish(blocks, folds)
        seen.add(freshness.made_from(study))
    path = runs.of_fold(blocks.directory, 2) / "predictions.csv"
    path.write_text(path.read_text() + "\n")
    seen.add(freshness.made_from(study))
    assert len(seen) == 5


def test_runs_of_other_photos_in_one_fold_are_not_mixed(study):
    _, blocks = study.jobs
    finish(blocks, [1, 2])
    made, history, predictions = made_up_run(**blocks.experiment.in_turn()[2].model_dump())
    made = made.model_copy(update={"data": made.data | {"sha256": "other"}})
    runs.save(runs.of_fold(blocks.directory, 3), made, history, predictions)
    with pytest.raises(InvalidRecord, match="not the data of"):
        study.outcomes()


def test_a_study_with_more_folds_than_before_goes_on(tmp_path, study):
    fewer = load(tmp_path, test_folds=3)
    frozen, _ = fewer.jobs
    assert [job.name for job in fewer.jobs] == [job.name for job in study.jobs], "how many are tested changes no result"
    assert frozen.experiment.tested_folds == (1, 2, 3)
    gather(frozen)
    before = frozen.read()
    more, _ = study.jobs
    frozen.notebook.touch()
    assert frozen.is_finished() and not more.is_finished()
    assert fewer.finished() == [frozen] and more not in study.finished() and more in study.unfinished()
    assert study.reasons()[more] == NOT_RUN
    assert study.set_aside_damaged() == []
    assert study.unfinished() == [more, study.jobs[1]] and more.unfinished_folds() == [4]
    for old, new in zip(before, more.read(), strict=True):
        assert old.record.model_copy(update={"files": new.record.files}) == new.record
        assert old.history.equals(new.history) and old.predictions.equals(new.predictions)
    finish(more, [4])
    runs.gather(more.directory, more.experiment)
    assert [run.record.experiment.fold for run in more.read()] == [1, 2, 3, 4]
    assert [run.record.experiment.fold for run in frozen.read()] == [1, 2, 3], "with fewer, the others are left out"
    assert fewer.set_aside_damaged() == study.set_aside_damaged() == []
    assert load(tmp_path, test_folds={"resnet50": 3}).jobs[0].experiment.tested_folds == (1, 2, 3, 4)


def in_float32(tmp_path, blocks=(1, 1, 1, 1), again=(1, 1, 1, 1), folds=2, **settings) -> Study:
    """A study with a configuration that was trained once more; which of four photos of a fold are right in each."""
    study = load(tmp_path, also_float32={"mobilenet-blocks-2": folds}, precision="mixed_bfloat16", **settings)
    for job, right in zip(study.jobs, ((1, 1, 0, 0), blocks, again), strict=True):
        finish(job, job.experiment.tested_folds, correct=right, times=2 if job.twin_of else 1)
        runs.gather(job.directory, job.experiment)
    return study


def test_what_is_trained_once_more_in_float32_is_compared_with_itself_alone(tmp_path):
    study = in_float32(tmp_path, again=(1, 1, 1, 0))
    _, blocks, again = study.jobs
    assert again.twin_of == blocks.configuration and again.label == "mobilenet-blocks-2-float32, seed 0, 2 folds"
    assert [network.precision for network in study.networks()] == ["mixed_bfloat16"]
    results = Results.of(study)
    assert results.planned == 2 and len(results.rows) == 2
    (found,) = results.in_float32
    assert (found.phrases, found.folds, found.longer) == (["the last 2 blocks"], 2, 2)
    assert found.effect.mean == 0.25 and found.differ == 0.25, "its accuracy less that in float32"
    assert found.effect.these_runs and found.effect.photos == 8
    said = Answer(results).write("method")
    assert "the last 2 blocks, 2 folds with 8 test photos in all. Computing in 16 bits is not clearly more" in said
    assert "accurate than computing in 32: +25.0 points" in said
    assert "classify 25.0% of the photos differently" in said and "took 2.0 times as long" in said
    assert "and 1 of them once more in float32" in Answer(results).facts("mine")["Experiments"]


def test_three_folds_in_float32_are_compared_as_folds(tmp_path):
    (found,) = Results.of(in_float32(tmp_path, folds=3)).in_float32
    assert (found.folds, found.effect.folds, found.effect.these_runs) == (3, 3, False)


def test_a_single_fold_in_float32_is_finished_when_it_is_gathered(tmp_path):
    study = in_float32(tmp_path, folds=1)
    assert study.jobs[-1].label == "mobilenet-blocks-2-float32, seed 0, 1 fold" and not study.unfinished()
    (found,) = Results.of(study).in_float32
    assert found.folds == 1 and found.effect.photos == 4


def test_configurations_are_compared_with_float32_on_the_folds_that_all_of_them_have(tmp_path):
    twins = {"mobilenet-blocks-2": 1, "mobilenet-blocks-4": 3}
    names = ["mobilenet-frozen", *twins]
    study = load(tmp_path, also_float32=twins, precision="mixed_bfloat16", configurations=names)
    for job in study.jobs:
        gather(job)
    (found,) = Results.of(study).in_float32
    assert (found.folds, found.effect.photos, found.phrases) == (1, 4, ["the last 2 blocks", "the last 4 blocks"])


def test_what_diverged_in_either_precision_is_not_compared(tmp_path):
    study = load(tmp_path, also_float32={"mobilenet-blocks-2": 2}, precision="mixed_bfloat16")
    frozen, blocks, again = study.jobs
    for job in (frozen, again):
        gather(job)
    assert study.reportable() == [frozen], "what was trained once more makes no report"
    gather(blocks, diverged=[3])
    assert Results.of(study).in_float32 == []
    gather(blocks)
    runs.take_apart(again.directory, again.experiment.model_copy(update={"test_folds": 4}))
    gather(again, diverged=[2])
    lost = Results.of(study)
    assert lost.in_float32 == [] and lost.lost_twins == {again.label: "diverged in fold 2"}
    said = Answer(lost).write("method")
    assert "Some configurations were to be trained again in 32 bits" in said
    assert "is not compared: diverged in fold 2." in said


def test_the_hours_of_a_study_hold_what_was_trained_once_more(tmp_path):
    results = Results.of(in_float32(tmp_path))
    again = [run.record.training_seconds for _, run in results.twins]
    without = Answer(replace(results, twins=[])).core_hours
    seconds = again[0].activations + sum(each.head + each.finetune for each in again)  # the frozen part counts once
    hours = seconds * results.twins[0][1].record.device["cores"] / 3600
    assert hours > 0 and Answer(results).core_hours == pytest.approx(without + hours)


def test_every_claim_of_the_catalogue_is_judged(tmp_path):
    """By the configurations of its profile, and by no others."""
    parameters = yaml.safe_load((ROOT / "params" / "profiles" / "catalogue.yaml").read_text(encoding="utf-8"))
    del parameters["study"]["learning_rates"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(parameters), encoding="utf-8")
    whole = Study.load(str(tmp_path / "mine.yaml"), tmp_path / "outputs", ROOT)
    for job in whole.jobs:
        gather(job)
    verdicts = Results.of(whole).replication.verdicts
    assert len(verdicts) == 10
    assert not [id for id, verdict in verdicts.items() if verdict.word == MISSING]


def test_what_is_trained_once_more_waits_for_the_same_learning_rates(tmp_path):
    study = load(
        tmp_path, also_float32={"mobilenet-blocks-2": 2}, precision="mixed_bfloat16", learning_rates={"head": [1e-3]}
    )
    assert set(study.reasons().values()) == {"its learning rates are not chosen: this has not been run"}
    assert len(study.choices) == 2 and study.ready() == []


def test_finished_folds_outlive_a_study_with_fewer(tmp_path, study):
    frozen, _ = study.jobs
    finish(frozen, [1, 2, 3, 4])
    fewer = load(tmp_path, test_folds=3).jobs[0]
    runs.gather(fewer.directory, fewer.experiment)
    assert [run.record.experiment.fold for run in fewer.read()] == [1, 2, 3]
    study.set_aside_damaged()
    assert frozen.unfinished_folds() == []


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"also_float32": {"mobilenet-blocks-4": 2}}, "also_float32: 'mobilenet-blocks-4': no configuration of this"),
        ({"also_float32": {"mobilenet-blocks-2": 2}}, "its precision is float32 already"),
        ({"also_float32": {"mobilenet-blocks-2": 9}, "precision": "mixed_bfloat16"}, "also_float32 = 9: there are 4"),
        ({"test_folds": {"resnet5O": 3}}, "Did you mean 'resnet50'"),
        ({"test_folds": 2}, "test_folds = 2"),
        ({"folds": None, "choosing_folds": 0, "test_folds": 3}, "study.test_folds = 3: there are no folds"),
    ],
    ids=str,
)
def test_folds_of_a_study_that_make_no_sense_are_refused(tmp_path, settings, said):
    with pytest.raises(InvalidParameter, match=said):
        load(tmp_path, **settings)


def test_the_time_left_counts_the_epochs_of_all_folds(tmp_path, study):
    frozen, blocks = study.jobs
    clock = Clock(study)
    clock.note({frozen.name: {"epoch": 1, "seconds": 1.0, "fold": 1}})
    assert clock.seconds_left() is None, "no fine-tuning epoch yet"
    gather(blocks)
    content = json.loads(blocks.record.read_text())
    for each in content["folds"]:
        each["training_seconds"] = {"activations": 0, "head": 2.0, "finetune": 60.0}  # a second, and 20, an epoch
    blocks.record.write_text(json.dumps(content))
    clock.note({frozen.name: {"epoch": 1, "seconds": 1.0, "fold": 1}})
    assert clock.seconds_left() == pytest.approx(4 * 2 - 1, abs=0.1)
    finish(frozen, [1])
    clock.note({frozen.name: {"epoch": 0, "seconds": 1.0, "fold": 2}})
    assert clock.seconds_left() == pytest.approx(3 * 2, abs=0.1)
    clock = Clock(load(tmp_path, spread="folds"))
    clock.note({fold_name(frozen, fold): {"epoch": 1, "seconds": 1.0} for fold in (2, 3)})
    assert clock.seconds_left() == pytest.approx((3 * 2 - 2) / 2), "two folds at once"


@pytest.mark.process
@pytest.mark.parametrize("stage, rule", [("rates", "choice"), ("experiments", "fold")])
def test_on_a_cluster_folds_and_choices_get_what_experiments_get(tmp_path, stage, rule):
    more = {"spread": "folds"} if rule == "fold" else {"learning_rates": {"head": [1e-3]}}
    study = load(tmp_path, **more)
    settings = {"cores": 4, "set-threads": {"experiment": 3}, "set-resources": {"experiment": {"mem_mb": 5432}}}
    for name, content in (
        ("cluster/config.yaml", settings),
        ("config.json", {"profile": str(study.path), "outputs": str(study.outputs.parent), "shared": True}),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    command = [sys.executable, "-m", "snakemake", stage, "--snakefile", "Snakefile", "--directory", tmp_path]
    command += ["--configfile", tmp_path / "config.json", "--profile", tmp_path / "cluster", "--dry-run"]
    said = subprocess.run(command, capture_output=True, text=True)
    jobs = [text for text in (said.stdout + said.stderr).split("rule ") if text.startswith(f"{rule}:")]
    assert len(jobs) == (2 if rule == "choice" else 2 * 4), said.stderr
    assert all("threads: 3" in job and "mem_mb=5432" in job for job in jobs)


def test_a_class_with_fewer_photos_than_folds_is_said_before_anything_runs(tmp_path):
    found = source.find_source("demo_flowers").first(40)
    assert len(found.labels()) == 40 and set(found.labels()) <= set(found.classes)
    study = load(tmp_path, folds=100, choosing_folds=0)
    with pytest.raises(InvalidParameter, match=r"folds = 100: class '.*' of 'demo_flowers' has 80 photos"):
        check._check_photos(study, "demo_flowers", "official", "refuse", None, 100)


def test_photos_that_changed_since_one_fold_are_refused(study):
    frozen, _ = study.jobs
    finish(frozen, [3])
    for experiment in frozen.experiment.in_turn()[2:3]:
        made, history, predictions = made_up_run(**experiment.model_dump())
        made = made.model_copy(update={"data": made.data | {"files_sha256": "before"}})
        runs.save(runs.of_fold(frozen.directory, 3), made, history, predictions)
    check._check_unchanged(frozen, "before", None)
    with pytest.raises(DataDamaged, match=r"since mobilenet-frozen, seed 0, 4 folds was run.* delete .*mine to run"):
        check._check_unchanged(frozen, "now", None)


def test_photos_listed_with_their_folds_can_be_compared():
    listed = pd.DataFrame({"path": ["a", "b"], "label": "x", "fold": [0, 1], "part": "train", "sha256": ["1", "2"]})
    now = listed.drop(columns="fold").assign(label=["x", "y"])
    assert checks.changes(listed, now) == "Since then, 1 photo was relabelled (b)."


def test_a_report_of_what_is_finished_can_be_had_at_any_time(tmp_path, study, monkeypatch, capfd):
    """Also while the study runs: nothing else is run, and its own lock is not needed."""
    stages = []

    def make(graph, stage, **_):
        stages.append(stage)
        write_report(graph.study)

    monkeypatch.setattr(Graph, "run", make)
    command = ["report", str(study.path), "--outputs", str(study.outputs.parent), "--now"]
    study.outputs.mkdir(parents=True, exist_ok=True)
    with locked([study.outputs / "study"]):
        assert main(command) == 1
        assert "nothing to report yet" in capfd.readouterr().err
        finish(study.jobs[0], study.jobs[0].experiment.tested_folds[:3])
        assert main(command) == 0
        assert main(command) == 0, "it is there already"
    assert stages == ["report"]
    assert "report.html" in capfd.readouterr().out
