"""A report is shown only if it is of the present records, whatever the times of files."""

import json
import os
import shutil

import pandas as pd
import pytest
import yaml
from conftest import ROOT
from test_record import made_up_run
from test_study import executed_notebook

from thaw.__main__ import main
from thaw.errors import InvalidRecord
from thaw.records import runs
from thaw.report.results import Results
from thaw.study import freshness
from thaw.study.graph import Graph
from thaw.study.profile import read_parameters
from thaw.study.study import Study

TINY = read_parameters(ROOT / "tests" / "tiny.yaml") | {"weights": "none"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a study whose three experiments have finished."""
    shutil.copytree(ROOT / "params", tmp_path / "params")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    write_profile(tmp_path)
    for job in load().jobs:
        runs.save(job.directory, *made_up_run(**job.experiment.model_dump()))
        job.notebook.write_text(executed_notebook(job.name))
    return tmp_path


def write_profile(project, **settings) -> None:
    text = yaml.safe_dump(TINY | {"study": TINY["study"] | {"claims": "original", "deliver": "none"} | settings})
    (project / "params" / "profiles" / "mine.yaml").write_text(text, encoding="utf-8")


def load() -> Study:
    return Study.load("mine")


def write_latency(study: Study, backbones=("mobilenet", "resnet50"), **columns) -> None:
    calls = {"call": "graph", "photos": 1, "round": 0, "milliseconds": 1.5, "device": "abacus", "cores": 1} | columns
    pd.DataFrame([{"backbone": name} | calls for name in backbones]).to_csv(study.outputs / "latency.csv", index=False)


def write_report(study: Study) -> None:
    for name in freshness.NAMING:
        (study.outputs / name).write_text(f"made from {freshness.made_from(study)}", encoding="utf-8")
    for name in freshness.TABLES:
        (study.outputs / name).touch()


class Fake(Graph):
    """A graph that writes down its stages, and does what a test says."""

    def __init__(self, study, does=None):
        super().__init__(study, "outputs")
        self.__dict__.update(stages=[], does=does or {})

    def run(self, stage, shared=True):
        self.stages.append(stage if shared else f"{stage} alone")
        return bool(self.does.get(stage, lambda study: None)(self.study))


MAKES = {"latency": write_latency, "report": write_report}


def test_a_finished_study_is_left_alone(project):
    study = load()
    write_latency(study)
    write_report(study)
    for path in study.outputs.rglob("*"):
        os.utime(path, (0, 0))
    graph = Fake(study)
    assert graph.make() == {}
    assert graph.stages == []


def change_record(project):
    path = load().jobs[0].record
    path.write_text(path.read_text().replace("test_accuracy", "test_accuracy "))


def change_notebook(project):
    path = project / "notebooks" / "summary.ipynb"
    path.write_text(path.read_text().replace("## The answer", "## An answer"))


def change_templates(project):
    (project / "templates").mkdir()
    (project / "templates" / "limits.md.j2").write_text("another word")


@pytest.mark.parametrize(
    "change",
    [
        change_record,
        change_notebook,
        lambda project: write_profile(project, margin=0.05),
        lambda project: write_profile(project, configurations=["mobilenet-frozen", "resnet50-frozen"]),
        lambda project: write_latency(load(), milliseconds=2.5),
        lambda project: (project / "params" / "original" / "claims.yaml").open("a").write("\n# more\n"),
        lambda project: (load().outputs / "report.pdf").unlink(),
        *(lambda project, name=name: (load().outputs / name).write_text("of another") for name in freshness.NAMING),
        lambda project: (load().outputs / "results.csv").unlink(),
        change_templates,
    ],
    ids=[
        *("record", "notebook", "margin", "one less", "latency", "original", "no pdf"),
        *freshness.NAMING,
        *("no table", "templates"),
    ],
)
def test_a_report_of_something_else_is_made_anew(project, monkeypatch, change):
    monkeypatch.setattr(freshness, "REPORTING", project / "templates")
    study = load()
    write_latency(study)
    write_report(study)
    change(project)
    graph = Fake(load(), MAKES)
    graph.make()
    assert graph.stages == ["report"]
    assert freshness.report_is_current(load())


def test_after_a_failed_summary_no_command_shows_the_old_report(project, capsys, monkeypatch):
    study = load()
    write_latency(study)
    write_report(study)
    write_profile(project, margin=0.05)
    monkeypatch.setattr(Graph, "run", lambda *_, **__: False)
    for _ in range(2):
        assert main(["report", "mine"]) == 1
        said = capsys.readouterr()
        assert "The report:" not in said.out
        assert "3 of 3 experiments are finished. Missing:\n  report:" in said.err
        assert not (study.outputs / "report.html").exists()
        assert not (study.outputs / "report.pdf").exists()


def test_what_has_failed_is_named_and_the_rest_is_reported(project):
    study = load()
    failing = study.jobs[0]
    shutil.rmtree(failing.directory)

    def fail(study):
        with pytest.raises(InvalidRecord), study.noting_failure(failing.name):
            raise InvalidRecord("no luck today")

    graph = Fake(study, MAKES | {"experiments": fail})
    assert graph.make() == {failing.label: "no luck today"}
    assert graph.stages == ["experiments", "latency", "report"]
    assert freshness.report_is_current(study)


def test_the_network_follows_the_report(project):
    write_profile(project, deliver="recommended")
    study = load()

    def write_model(study):
        folder = study.outputs / "model"
        folder.mkdir()
        about = {"made_from": freshness.model_made_from(study), "files": {}}
        (folder / "model.json").write_text(json.dumps(about), encoding="utf-8")
        (folder / "README.md").write_text("", encoding="utf-8")

    graph = Fake(study, MAKES)
    assert graph.make() == {"model": "see the messages above"}
    assert graph.stages == ["latency", "report", "model"]
    graph = Fake(study, MAKES | {"model": write_model})
    assert graph.make() == {}
    assert graph.stages == ["model"]
    write_latency(study, milliseconds=2.5)
    graph = Fake(study, MAKES)
    assert "model" in graph.make(), "its card may say something else now"
    assert graph.stages == ["report", "model"]


def test_what_waited_for_a_shared_part_that_failed_is_run_without_it(project):
    study = load()
    waiting = study.jobs[0]
    kept = project / "kept"
    waiting.directory.rename(kept)

    def fail_once(study):
        if graph.stages[-1] == "experiments":
            with pytest.raises(MemoryError), study.noting_failure("shared-mobilenet-0"):
                raise MemoryError
        else:
            kept.rename(waiting.directory)

    graph = Fake(study, MAKES | {"experiments": fail_once})
    assert graph.make() == {}, "nothing is missing in the end"
    assert graph.stages == ["experiments", "experiments alone", "latency", "report"]


@pytest.mark.parametrize(
    "write, current",
    [
        (lambda study: None, False),
        (write_latency, True),
        (lambda study: write_latency(study, ["mobilenet"]), False),
        (lambda study: write_latency(study, image_size=32, precision="float32"), True),
        (lambda study: write_latency(study, image_size=32, precision="mixed_bfloat16"), False),
        (lambda study: write_latency(study, image_size=64), False),
        (lambda study: write_latency(study, milliseconds="fast"), False),
        (lambda study: (study.outputs / "latency.csv").write_text("a,b\n1,2\n"), False),
        (lambda study: (study.outputs / "latency.csv").write_bytes(b"\xff\x00"), False),
    ],
    ids=[
        "none",
        "both",
        "one network",
        "size",
        "another precision",
        "another size",
        "no numbers",
        "no columns",
        "binary",
    ],
)
def test_latency_is_taken_as_it_is_if_it_covers_the_networks(project, write, current):
    study = load()
    write(study)
    assert freshness.latency_is_current(study) == current


def test_a_report_of_a_damaged_latency_is_refused_with_what_to_do(project):
    study = load()
    write_latency(study)
    assert len(Results.of(study).latency) == 2
    (study.outputs / "latency.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InvalidRecord, match=r"latency.csv is damaged \(without the columns backbone.*Delete it"):
        Results.of(study)


def test_the_committed_study_needs_no_experiment_and_no_latency():
    study = Study.load("paper", root=ROOT)
    assert study.unfinished() == []
    assert freshness.latency_is_current(study)
    assert all(json.loads(job.record.read_text())["schema_version"] < 3 or job.read() for job in study.jobs)
