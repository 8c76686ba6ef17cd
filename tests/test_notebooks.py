"""The notebooks and the whole graph, run from end to end at a size of seconds."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pandas as pd
import pypdfium2
import pytest
from browser import assert_clean, chromium, has_chromium
from bs4 import BeautifulSoup
from conftest import ROOT, TINY
from test_committed import dead_links

from thaw.records.record import Record
from thaw.records.runs import Run
from thaw.report import words
from thaw.study.latency import ROUNDS
from thaw.study.study import Study

NOTEBOOKS = {name: ROOT / "notebooks" / f"{name}.ipynb" for name in ("experiment", "summary", "explore")}


def thaw(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "thaw", *map(str, arguments)], capture_output=True, text=True, cwd=ROOT
    )


def record_times(study: Study) -> dict[str, int]:
    return {
        job.configuration: (job.directory / "record.json").stat().st_mtime_ns
        for job in study.jobs
        if (job.directory / "record.json").exists()
    }


@pytest.fixture(scope="module")
def outputs(first_study) -> Path:
    return first_study / "outputs"


@pytest.fixture(scope="module")
def study(outputs) -> Study:
    return Study.load(str(TINY), outputs, ROOT)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_notebooks_hold_no_outputs(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.cell_type != "code" or (cell.outputs == [] and cell.execution_count is None)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells) == 1


def test_the_parameters_cell_is_the_contract():
    from thaw.experiment import Experiment

    cells = nbformat.read(NOTEBOOKS["experiment"], as_version=4).cells
    source = next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
    namespace: dict = {}
    exec(source, {}, namespace)
    assert set(namespace) - {"study"} == set(Experiment.model_fields)
    Experiment.of(namespace)


def test_the_first_cells_can_be_run_again(tmp_path):
    """After a change of parameters, in the same kernel: nothing defined since is taken for a parameter."""
    cells = [
        cell.source for cell in nbformat.read(NOTEBOOKS["experiment"], as_version=4).cells if cell.cell_type == "code"
    ]
    namespace: dict = {}
    for _ in range(2):
        exec(cells[0].replace("output_dir = None", f"output_dir = {str(tmp_path)!r}"), namespace)
        exec(cells[1], namespace)
        exec(cells[2], namespace)


def lesson_cells() -> list[str]:
    cells = nbformat.read(NOTEBOOKS["experiment"], as_version=4).cells
    (start,) = (number for number, cell in enumerate(cells) if cell.source.startswith("## The same in plain Keras"))
    return [cell.source for cell in cells[start:] if cell.cell_type == "code"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"strategy": "frozen"},
        {"strategy": "all", "precision": "mixed_bfloat16"},
        {"strategy": "blocks", "amount": 1, "skip": 1, "trains": "bias", "rate_decay": 0.5, "gradual": True},
    ],
    ids=lambda parameters: parameters["strategy"],
)
def test_the_lesson_in_plain_keras_comes_to_the_same_as_the_frozen_part_computed_once(parameters, tiny, monkeypatch):
    from small_network import SMALL, setup

    from thaw.experiment import Experiment, parameters_in
    from thaw.network import backbones

    monkeypatch.setitem(backbones.REGISTRY, "small", SMALL)
    ready = setup(tiny, **parameters)
    trained = [weight + 1 for weight in ready.model.get_weights()]
    ready.unfreeze([layer.name for layer in ready.base.layers])
    ready.model.set_weights(trained)
    space = {"setup": ready, "experiment": ready.experiment, "photos": tiny, "words": words}
    exec("import pandas as pd\nfrom IPython.display import Markdown\nfrom thaw.report.display import Table", space)
    for cell in lesson_cells():
        exec(cell, space)
    exact = ready.experiment.precision == "float32"
    assert space["losses"] == pytest.approx(space["again"], rel=1e-4 if exact else 0.1)
    assert space["losses"][0] != space["losses"][1]
    frozen, trains = space["frame"].iloc[:, 1:].astype(float).to_numpy()
    assert (frozen == 0).all()
    assert (trains > 0).all()
    assert not parameters_in(space).keys() - Experiment.model_fields, "the first cells can be run again"


def test_every_experiment_leaves_a_whole_record(study):
    for job in study.jobs:
        assert sorted(path.name for path in job.directory.glob("[!.]*")) == [
            "experiment.ipynb",
            "history.csv",
            "predictions.csv",
            "record.json",
        ]
        cells = nbformat.read(job.directory / "experiment.ipynb", as_version=4).cells
        assert not [output for cell in cells for output in cell.get("outputs", []) if output.get("name") == "stderr"]
        run = Run.read(job.directory)
        record, experiment = run.record, job.experiment
        assert record.experiment == experiment
        assert (
            record.trainable_parameters
            == {"mobilenet-frozen": 5_125, "mobilenet-blocks-2": 1_598_981, "resnet50-frozen": 10_245}[
                job.configuration
            ]
        )
        assert record.total_parameters == {"mobilenet": 3_233_989, "resnet50": 23_597_957}[experiment.backbone]
        assert len(run.history) == experiment.epochs
        assert len(run.predictions) == 8
        assert run.history["phase"].tolist() == ["head", "finetune"][: experiment.epochs]
        last = run.history.iloc[-1]
        assert (record.train_accuracy, record.validation_loss) == (last["train_accuracy"], last["validation_loss"])
        assert record.test_accuracy == (run.predictions["label"] == run.predictions["predicted"]).mean()
        probabilities = run.predictions.filter(regex="^p_")
        assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
        assert (probabilities.idxmax(axis=1) == "p_" + run.predictions["predicted"]).all()
        assert record.peak_memory_mb > 100
        assert record.training_seconds.head > 0


def test_the_executed_notebook_shows_it_all_without_a_warning(study):
    (job,) = (job for job in study.jobs if job.configuration == "mobilenet-blocks-2")
    notebook = nbformat.read(job.directory / "experiment.ipynb", as_version=4)
    assert notebook.metadata.papermill["input_path"] == notebook.metadata.papermill["output_path"] == "experiment.ipynb"
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    bars = [
        output.data["text/html"] for output in outputs if "<progress" in output.get("data", {}).get("text/html", "")
    ]
    assert [re.search("fine-tuning: 100%, epoch 2 of 2, validation", bar) is not None for bar in bars] == [True]
    assert "widgets" not in notebook.metadata, "bars need no script"
    shown = " ".join(
        "".join(output.get("data", {}).get("text/html", "")) + output.get("data", {}).get("text/markdown", "")
        for output in outputs
    )
    for caption in (
        "what trains",
        "first ten training photos",
        "Accuracy and loss",
        "by their class",
        "The run in figures",
        "The loss of the eight photos, both ways",
    ):
        assert caption in shown


def test_progress_is_shown(first_study):
    lines = (first_study / "said").read_text(encoding="utf-8")
    assert "3 experiments, 0 of them finished already." in lines
    assert re.search(r"mobilenet-blocks-2, seed 0: epoch 2 of 2 \(fine-tuning\): training \d", lines)
    assert "Experiment 3 of 3 is finished" in lines
    assert "Traceback" not in lines
    assert "WARNING" not in lines
    assert "0000" not in lines
    assert lines.index("report.pdf") < lines.index("The network, to use:")
    assert lines.rstrip().endswith(os.path.join("tiny", "model"))


def test_the_table_of_results_is_that_of_the_records(study):
    rows = pd.read_csv(study.outputs / "results.csv")
    records = [json.loads((job.directory / "record.json").read_text()) for job in study.jobs]
    assert rows["test_accuracy"].tolist() == [record["test_accuracy"] for record in records]
    assert rows["dataset"].unique().tolist() == ["demo_flowers"]


def test_what_is_left_for_people_who_write_their_own(study):
    latency = pd.read_csv(study.outputs / "latency.csv")
    assert len(latency) == 2 * 2 * sum(ROUNDS.values())
    assert (latency["milliseconds"] > 0).all()
    assert {"results.csv", "results.md", "results.tex"} <= {path.name for path in study.outputs.iterdir()}
    for (run,) in study.outcomes()[0].values():
        assert f"{run.record.test_accuracy:.1%}" in (study.outputs / "results.md").read_text(encoding="utf-8")


def test_the_reports_show_every_row_and_say_how_small_the_study_is(study):
    html = BeautifulSoup((study.outputs / "report.html").read_text(encoding="utf-8"), "html.parser")
    document = pypdfium2.PdfDocument(study.outputs / "report.pdf")
    pages = [page.get_textpage().get_text_range() for page in document]
    pdf = re.sub(r"\s+", " ", " ".join(pages))
    for text in (html.get_text(" "), pdf):
        text = re.sub(r"\s+", " ", text)
        assert "How much of a pre-trained network should one unfreeze?" in text
        for run in (Run.read(job.directory) for job in study.jobs):
            assert f"{run.record.trainable_parameters:,}" in text
            assert f"{run.record.test_accuracy:.1%}" in text
        for section in (
            "The answer",
            "The best guess",
            "Results",
            "What was found",
            "What it costs",
            "Inference speed",
            "Too little, too much",
            "Which photos and classes are hard",
            "Limits",
            "On your own photos",
            "How it was measured",
            "The networks",
            "What these photos can show",
            "How to make it again",
            "References",
            "How to cite",
            "How the cheapest choice is found",
        ):
            assert section in text
        assert "Traceback" not in text
        assert "Warning" not in text
        assert "import " not in text
    assert re.search(r"Only \d+ test photos", pages[0]), "on the title page"
    captions = [caption.get_text(" ") for caption in html.find_all("figcaption")]
    assert len(captions) >= 10
    assert all(captions)
    assert len(re.findall(r"Table \d", pdf)) >= 3
    assert len(re.findall(r"Figure \d+\.", pdf)) >= 7


def test_one_quantity_has_one_number_everywhere(study):
    """Of the advised configuration: in the page, on paper, and in both files."""
    answer = json.loads((study.outputs / "answer.json").read_text(encoding="utf-8"))
    network = next(each for each in answer["networks"] if each["network"] == answer["advice"]["network"])
    row = network["recommended"]
    job = next(job for job in study.jobs if job.configuration == answer["advice"]["configuration"])
    rows = pd.read_csv(study.outputs / "results.csv")
    mine = rows[rows["configuration"] == job.experiment.configuration]
    assert row["accuracy"] == pytest.approx(mine["test_accuracy"].mean())
    assert row["training_seconds"] == pytest.approx(mine["training_seconds"].mean())
    assert network["milliseconds_a_photo"] == pytest.approx(mine["latency"].iloc[0])
    html = BeautifulSoup((study.outputs / "report.html").read_text(encoding="utf-8"), "html.parser").get_text(" ")
    document = pypdfium2.PdfDocument(study.outputs / "report.pdf")
    pages = [page.get_textpage().get_text_range() for page in document]
    accuracy, low, high = (f"{row[name]:.1%}" for name in ("accuracy", "low", "high"))
    said = [
        f"{accuracy} of the photos that it was not trained on are classified correctly "
        f"(95% interval, where the true value probably is: {low} to {high})"
    ]
    said += [
        f"{words.duration(row['training_seconds'])} to train",
        f"{network['milliseconds_a_photo']:.1f} ms for a photo",
    ]
    for text in (html, pages[0]):
        assert all(each in " ".join(text.split()) for each in said)
    for text in (html, "".join(pages), (study.outputs / "results.md").read_text(encoding="utf-8")):
        assert f"{accuracy} ({100 * row['low']:.1f} to {100 * row['high']:.1f})" in " ".join(text.split())


def test_the_model_card_says_what_the_answer_says(study):
    answer = json.loads((study.outputs / "answer.json").read_text(encoding="utf-8"))
    about = json.loads((study.outputs / "model" / "model.json").read_text(encoding="utf-8"))
    card = " ".join((study.outputs / "model" / "README.md").read_text(encoding="utf-8").split())
    network = next(each for each in answer["networks"] if each["network"] == answer["advice"]["network"])
    row = network["recommended"]
    assert about["configuration"] == answer["advice"]["configuration"]
    assert about["experiment"]["backbone"] == network["network"]
    assert {name: about["tested"][name] for name in ("accuracy", "low", "high", "training_seconds")} == {
        name: pytest.approx(row[name]) for name in ("accuracy", "low", "high", "training_seconds")
    }
    assert about["tested"]["photos"] == answer["data"]["tested"]
    assert about["network"]["classes"] == answer["data"]["classes"]
    accuracy, low, high = (words.percent(row[name]) for name in ("accuracy", "low", "high"))
    assert f"**{accuracy}** of {answer['data']['tested']} photos correctly (95% interval: {low} to {high};" in card
    assert f"{row['trainable_parameters']:,} parameters" in card


def test_the_html_report_leads_to_the_files_of_every_run(study):
    html = BeautifulSoup((study.outputs / "report.html").read_text(encoding="utf-8"), "html.parser")
    assert len(html.select(".report-folded a")) == 4 * len(study.jobs)
    notebooks = {(job.directory / "experiment.ipynb").relative_to(study.outputs).as_posix() for job in study.jobs}
    assert {unquote(link["href"]) for link in html.select(".report-table td a")} == notebooks, "of each configuration"
    beside = {unquote(link["href"]) for link in html.select("main p a")}
    assert {"results.csv", "answer.json", "latency.csv"} <= beside
    assert dead_links(study.outputs / "report.html") == []


@has_chromium
def test_the_html_report_in_a_browser(study):
    with chromium() as browser:
        assert_clean(browser, study.outputs / "report.html")


def test_nothing_finished_is_run_again(study, outputs):
    before = record_times(study)
    again = thaw("report", TINY, "--outputs", outputs)
    assert again.returncode == 0, again.stderr
    assert "3 of them finished already" in again.stdout
    assert "epoch" not in again.stdout + again.stderr
    assert record_times(study) == before


def cloned(study: Study, folder: Path) -> list[Path]:
    """The files of a study as a clone has them: without caches, and the report older than its records."""
    shutil.copytree(study.outputs, folder / "tiny", ignore=shutil.ignore_patterns(".*", "summary.ipynb"))
    files = sorted(path for path in (folder / "tiny").rglob("*") if path.is_file())
    for age, path in enumerate(files):
        os.utime(path, (1e9 - age * (-1 if "runs" in path.parts else 1),) * 2)
    return files


def test_a_clone_accepts_what_was_committed_whatever_its_times(study, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setenv("THAW_CACHE_DIR", str(cache))
    before = {path: path.read_bytes() for path in cloned(study, tmp_path)}
    again = thaw("report", TINY, "--outputs", tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "3 of them finished already" in again.stdout
    assert "Now the summary" not in again.stdout
    assert {path: path.read_bytes() for path in before} == before
    assert not [path for path in cache.rglob("[!.]*") if path.is_file()], "no data was asked for"


def changed(folder: Path, old: str, new: str) -> Path:
    """A profile of the same name with other words."""
    text = TINY.read_text(encoding="utf-8")
    assert old in text
    (folder / "tiny.yaml").write_text(text.replace(old, new), encoding="utf-8")
    return folder / "tiny.yaml"


def test_a_configuration_less_makes_the_report_anew_and_no_experiment(study, first_study, tmp_path, monkeypatch):
    monkeypatch.setenv("THAW_CACHE_DIR", str(first_study / "cache"))
    cloned(study, tmp_path)
    profile = changed(tmp_path, ", resnet50-frozen]", "]")
    again = thaw("report", profile, "--outputs", tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 experiments, 2 of them finished already" in again.stdout
    assert "Now the summary" in again.stdout
    assert "latency:" not in again.stdout + again.stderr
    for path in study.outputs.glob("runs/*/record.json"):
        assert (tmp_path / "tiny" / path.relative_to(study.outputs)).read_bytes() == path.read_bytes()
    first, now = (folder.joinpath("results.csv").read_text() for folder in (study.outputs, tmp_path / "tiny"))
    assert len(now.splitlines()) == 3
    assert set(now.splitlines()) < set(first.splitlines()), "the two rows as they were"


def test_a_change_runs_only_what_depends_on_it(study, outputs, tmp_path):
    """One more epoch after unfreezing: the frozen bases stand."""
    after = Study.load(str(changed(tmp_path, "finetune_epochs: 1", "finetune_epochs: 2")), outputs, ROOT)
    assert {job.configuration for job in after.finished()} == {"mobilenet-frozen", "resnet50-frozen"}
    assert all(job.is_finished() for job in after.finished())
    (job,) = after.unfinished()
    assert job.experiment.epochs == 3
    graph = ["snakemake", "experiments", "--snakefile", ROOT / "Snakefile", "--directory", tmp_path, "--dry-run"]
    config = json.dumps({"profile": str(after.path), "outputs": str(outputs), "shared": True})
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    command = [sys.executable, "-m", *graph, "--configfile", tmp_path / "config.json", "--rerun-triggers", "mtime"]
    planned = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr
    assert re.findall(r"^rule (\w+):", planned.stdout + planned.stderr, re.MULTILINE) == ["experiment", "experiments"]
    assert job.name in planned.stdout + planned.stderr


@pytest.mark.process
def test_papermill_alone_is_enough(tmp_path):
    command = [sys.executable, "-m", "papermill", NOTEBOOKS["experiment"], tmp_path / "run.ipynb", "--no-progress-bar"]
    command += [
        "-f",
        TINY,
        "-f",
        ROOT / "params" / "configurations" / "mobilenet-layers-5.yaml",
        "-p",
        "output_dir",
        tmp_path,
        "-p",
        "seed",
        "3",
    ]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, env=os.environ)
    assert result.returncode == 0, result.stderr
    record = Record.model_validate_json((tmp_path / "record.json").read_text())
    assert record.trainable_parameters == 1_057_797
    assert record.parameters["seed"] == 3
    assert "unknown parameter" not in result.stderr


@pytest.mark.process
def test_papermill_refuses_a_misspelt_parameter(tmp_path):
    command = [sys.executable, "-m", "papermill", NOTEBOOKS["experiment"], tmp_path / "run.ipynb", "--no-progress-bar"]
    result = subprocess.run(
        list(map(str, [*command, "-p", "finetune_epoch", "3"])), capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode != 0
    assert "finetune_epoch: no such parameter. Did you mean 'finetune_epochs'?" in result.stderr
    assert not (tmp_path / "record.json").exists()
