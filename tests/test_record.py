"""What a run leaves on disk."""

import csv
import io
import json
import subprocess

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thaw.errors import InvalidRecord
from thaw.experiment import Experiment
from thaw.records import record, runs
from thaw.records.record import Record
from thaw.records.runs import Run
from thaw.study.study import Study

NETWORKS = {
    "mobilenet": {"title": "MobileNet", "about": "a chain of depthwise-separable blocks"},
    "resnet50": {"title": "ResNet50", "about": "a chain of residual blocks"},
}


def made_up_run(seed: int = 0, correct=(1, 1, 0, 1), **parameters) -> tuple[Record, pd.DataFrame, pd.DataFrame]:
    """A record with its history and predictions; `correct` says which test photos are named rightly."""
    experiment = Experiment.of({"backbone": "mobilenet", "strategy": "blocks", "amount": 2, "seed": seed} | parameters)
    epochs, tuned = experiment.epochs, experiment.strategy != "frozen" and experiment.finetune_epochs
    history = pd.DataFrame(
        {
            "epoch": range(1, epochs + 1),
            "phase": ["head"] * (epochs - tuned) + ["finetune"] * tuned,
            "learning_rate": [1e-3] * (epochs - tuned) + [1e-5] * tuned,
            "train_accuracy": np.linspace(0.5, 0.75, epochs),
            "train_loss": np.linspace(1.0, 0.6, epochs),
            "validation_accuracy": np.linspace(0.4, 0.7, epochs),
            "validation_loss": np.linspace(1.1, 0.7, epochs),
            "seconds": [2.0 / (epochs - tuned)] * (epochs - tuned) + [3.0 / max(tuned, 1)] * tuned,
        }
    )
    right = np.array(correct, bool)
    predictions = pd.DataFrame(
        {
            "key": [f"photo-{i}" for i in range(len(right))],
            "label": "rose",
            "predicted": np.where(right, "rose", "tulip"),
            "p_rose": np.where(right, 0.9, 0.2),
            "p_tulip": np.where(right, 0.1, 0.8),
        }
    )
    made = Record.of(
        experiment,
        history,
        training_seconds={"activations": 1.0, "head": 2.0, "finetune": 3.0 if tuned else 0.0},
        activations={"head": {"frontier": ["pooled"], "cached": True, "why": "few photos", "megabytes": 1.0}},
        network=NETWORKS.get(experiment.backbone, {"title": "own", "about": "a network of somebody's own"}),
        trainable_parameters=10,
        total_parameters=100,
        **runs.scores(predictions),
        inference_ms_per_image={"median": 5.0, "q1": 4.0, "q3": 6.0},
        peak_memory_mb=1000.0,
        data={
            "dataset": "demo_flowers",
            "version": "1.0.0",
            "title": "Drawn Flowers",
            "description": "",
            "sha256": "0",
            "photos": {"train": 30, "validation": 6, "test": len(right), "available": 40},
        },
        weights={"title": "none", "description": "", "official": False, "tensors_sha256": "0"},
        device={"name": "abacus", "cores": 1, "gpus": 0},
    )
    return made, history, predictions


def test_a_run_comes_back_as_it_was_saved(tmp_path):
    made, history, predictions = made_up_run()
    runs.save(tmp_path, made, history, predictions)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.csv", "predictions.csv", "record.json"]
    run = Run.read(tmp_path)
    assert run.record.model_copy(update={"files": {}}) == made
    pd.testing.assert_frame_equal(run.history, history)
    pd.testing.assert_frame_equal(run.predictions, predictions)


@pytest.mark.parametrize("sure", [1, 1 - 1e-7, 0.999])
def test_a_run_that_is_sure_of_nearly_all_photos_comes_back(tmp_path, sure):
    """The loss is then less than what 32 bits round off, and the table is read with 64."""
    made, history, predictions = made_up_run(correct=[1] * 50)
    predictions[["p_rose", "p_tulip"]] = np.array([[sure, 1 - sure]] + [[1, 0]] * 49, np.float32)
    runs.save(tmp_path, made.model_copy(update=runs.scores(predictions)), history, predictions)
    assert Run.read(tmp_path).record.test_accuracy == 1


def test_the_record_holds_the_contract_s_fields(tmp_path):
    made, *_ = made_up_run()
    fields = json.loads(made.model_dump_json())
    assert {
        "schema_version",
        "parameters",
        "trainable_parameters",
        "total_parameters",
        "versions",
        "device",
        "data",
        "weights",
    } <= set(fields)
    assert {f"{part}_{figure}" for part in ("train", "validation", "test") for figure in ("accuracy", "loss")} <= set(
        fields
    )
    assert fields["train_accuracy"] == 0.75 and fields["validation_loss"] == 0.7, "of the last epoch"
    assert fields["training_seconds"] == {"activations": 1.0, "head": 2.0, "finetune": 3.0}
    assert set(fields["parameters"]) == set(Experiment.model_fields)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "record.json").unlink(),
        lambda folder: (folder / "record.json").write_bytes((folder / "record.json").read_bytes()[:100]),
        lambda folder: (folder / "record.json").write_text('{"schema_version": 1}'),
        lambda folder: (folder / "predictions.csv").unlink(),
        lambda folder: (folder / "history.csv").write_bytes(b"\x00\xff" * 50),
    ],
    ids=["missing", "truncated", "another schema", "no predictions", "binary"],
)
def test_a_damaged_run_is_named(tmp_path, damage):
    runs.save(tmp_path, *made_up_run())
    damage(tmp_path)
    with pytest.raises(InvalidRecord, match="not a run's record.*Delete the folder"):
        Run.read(tmp_path)


def test_many_runs_make_a_table():
    rows = runs.runs_table(
        Run(record=made, history=history, predictions=predictions)
        for made, history, predictions in (made_up_run(0), made_up_run(1, (0, 0, 0, 1)))
    )
    assert rows["seed"].tolist() == [0, 1]
    assert rows["test_correct"].tolist() == [3, 1]
    assert rows["test_photos"].tolist() == [4, 4]
    assert rows["training_seconds"].tolist() == [6.0, 6.0]
    assert rows["inference_ms_per_image"].tolist() == [5.0, 5.0]


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([-1, 1e400, "0.5", "NaN", 2]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
fuzzed = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def read_or_refused(folder) -> Run | None:
    """A run read back, or None after a message that a person can use."""
    try:
        return Run.read(folder)
    except InvalidRecord as error:
        assert "Delete the folder to run it again" in str(error)
        assert str(folder) in str(error)
        assert "Traceback" not in str(error)
        assert len(str(error)) < 2000
        return None


def assert_sound(run: Run) -> None:
    """What a table says of a run cannot be but what its predictions and epochs say."""
    (row,) = runs.runs_table([run]).to_dict("records")
    assert row["test_correct"] == row["test_accuracy"] * row["test_photos"] == 3
    assert 0 <= row["train_accuracy"] <= 1
    assert row["train_loss"] >= 0
    assert np.isfinite(row["train_loss"])
    assert row["validation_loss"] == run.history["validation_loss"].iloc[-1]
    assert np.isfinite([row[name] for name in record.FIGURES]).all()
    assert row["training_seconds"] >= 0


@fuzzed
@given(data=st.data())
def test_a_record_with_anything_in_it_is_refused_or_sound(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    runs.save(folder, *made_up_run())
    content = json.loads((folder / "record.json").read_text())
    where, path = content, []
    while True:
        name = data.draw(st.sampled_from([*sorted(where), "another"]))
        path.append(name)
        if not isinstance(where.get(name), dict) or not where[name] or data.draw(st.booleans()):
            break
        where = where[name]
    if data.draw(st.booleans()):
        where.pop(name, None)
    else:
        where[name] = data.draw(anything)
    (folder / "record.json").write_text(json.dumps(content))
    run = read_or_refused(folder)
    if run is not None:
        assert_sound(run)


@fuzzed
@given(
    name=st.sampled_from(["record.json", "history.csv", "predictions.csv"]),
    start=st.floats(0, 1),
    length=st.integers(0, 40) | st.just(10**6),
    instead=st.binary(max_size=30) | st.sampled_from([b"0", b",", b"\n", b'"', b"NaN", b"inf", b"1e999", b"\xff\xfe"]),
)
def test_other_bytes_anywhere_are_refused_or_change_nothing_that_counts(name, start, length, instead, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    runs.save(folder, *made_up_run())
    content = (folder / name).read_bytes()
    position = int(start * len(content))
    changed = content[:position] + instead + content[position + length :]
    (folder / name).write_bytes(changed)
    run = read_or_refused(folder)
    if run is not None:
        assert_sound(run)
        assert name == "record.json" or changed == content


def test_rows_that_are_missing_are_noticed_though_the_file_is_whole(tmp_path):
    """A table that was cut and then vouched for: not by accident, but by a script of somebody's."""
    made, history, predictions = made_up_run()
    for words, *tables in ("epochs", history.iloc[:-1], predictions), ("photos.test", history, predictions.iloc[:-1]):
        runs.save(tmp_path, made, *tables)
        with pytest.raises(InvalidRecord, match=f"say different things: .*{words}"):
            Run.read(tmp_path)


EDITED = {
    "test_accuracy": (0.99, "test_accuracy is 0.99, by the tables 0.75"),
    "test_loss": (0.1, "test_loss is 0.1, by the tables 0.4813"),
    "validation_loss": (0.1, "validation_loss is 0.1, by the tables 0.7"),
    "kept_epoch": (3, "kept_epoch is 3, by the tables 20"),
    "diverged": (3, "diverged is 3, by the tables None|has not diverged"),
    "training_seconds": (
        {"activations": 1, "head": 2, "finetune": 1},
        "training_seconds.finetune is 1.0, by the tables 3",
    ),
    "trainable_parameters": (11, "record.json is not the one that was written"),
    "device": ({"name": "another", "cores": 1, "gpus": 0}, "record.json is not the one that was written"),
}


@pytest.mark.parametrize("name", EDITED)
@pytest.mark.parametrize("folds", [None, 4])
def test_a_record_that_was_edited_is_refused_with_what_disagrees(tmp_path, name, folds):
    value, words = EDITED[name]
    if folds:
        experiment = made_up_run(folds=folds)[0].experiment
        for each in experiment.in_turn():
            made, *tables = made_up_run(each.seed, folds=folds, fold=each.fold)
            made = made.model_copy(update={"kept_epoch": 20})
            runs.save(runs.of_fold(tmp_path, each.fold), made, *tables)
        runs.gather(tmp_path, experiment)
        words = words.replace("things:", "things of fold 2:")
    else:
        made, *tables = made_up_run()
        runs.save(tmp_path, made.model_copy(update={"kept_epoch": 20}), *tables)
    assert Run.read_all(tmp_path)
    content = json.loads((tmp_path / "record.json").read_text())
    (content["folds"][2] if folds else content)[name] = value
    (tmp_path / "record.json").write_text(json.dumps(content))
    with pytest.raises(InvalidRecord, match=words):
        Run.read_all(tmp_path)


def test_the_epoch_that_was_kept_is_the_best_of_its_phase(tmp_path):
    made, history, predictions = made_up_run(keep="best")
    history.loc[[2, 8, 12], "validation_loss"] = 0.01, 0.05, 0.05  # the first is of the head's phase
    runs.save(tmp_path, made.model_copy(update={"kept_epoch": 9}), history, predictions)
    assert Run.read(tmp_path).record.kept_epoch == 9
    runs.save(tmp_path, made.model_copy(update={"kept_epoch": 13}), history, predictions)
    with pytest.raises(InvalidRecord, match="kept_epoch is 13, by the tables 9"):
        Run.read(tmp_path)


def test_the_committed_records_say_what_their_tables_say():
    jobs = Study.load("paper", root=ROOT).jobs
    assert len(jobs) == 16 + 4, "each configuration, and four once more in float32"
    assert sum(len(job.read()) for job in jobs) == 8 * 8 + 8 * 3 + 4 * 2


@pytest.mark.parametrize("version", [0, 4, "3", None, True])
def test_a_record_of_an_unknown_schema_version(tmp_path, version):
    runs.save(tmp_path, *made_up_run())
    content = json.loads((tmp_path / "record.json").read_text()) | {"schema_version": version}
    (tmp_path / "record.json").write_text(json.dumps(content))
    with pytest.raises(InvalidRecord, match="schema_version"):
        Run.read(tmp_path)


def as_schema_2(content: dict) -> dict:
    """The content of a record as schema 2 had it."""
    left = {name: value for name, value in content.items() if name not in ("network", "commit")}
    tables = {name: left["files"][name] for name in runs.TABLES}  # it had no hash of its own
    return left | {"schema_version": 2, "files": tables}


def as_schema_1(content: dict) -> dict:
    """The content of a record as schema 1 had it."""
    left = {
        name: value for name, value in as_schema_2(content).items() if name not in ("files", "diverged", "activations")
    }
    left["training_seconds"] = {phase: left["training_seconds"][phase] for phase in ("head", "finetune")}
    return left | {"schema_version": 1}


def test_what_the_committed_runs_train_is_known_by_block():
    jobs = Study.load("paper", root=ROOT).jobs
    for name, trains in (
        (
            "resnet50-blocks-4",
            {"conv5_block3": 4465664, "conv5_block2": 4465664, "conv5_block1": 6044672, "conv4_block6": 1118720},
        ),
        ("mobilenet-layers-5", {"13": 1052672}),
        ("mobilenet-frozen", {}),
    ):
        (found,) = (job for job in jobs if job.configuration == name)
        network = found.read()[0].record.network
        assert network["trains"] == trains
        assert next(iter(network["blocks"])) == "stem" and set(trains) <= set(network["blocks"])


@pytest.mark.parametrize("older", [as_schema_1, as_schema_2])
def test_a_record_of_an_older_schema_is_read(tmp_path, older):
    made, history, predictions = made_up_run()
    runs.save(tmp_path, made, history, predictions)
    content = json.loads((tmp_path / "record.json").read_text())
    (tmp_path / "record.json").write_text(json.dumps(older(content)))
    run = Run.read(tmp_path)
    assert run.record.schema_version == record.SCHEMA_VERSION
    assert run.record.experiment == made.experiment
    assert run.record.network["title"] == "MobileNet"
    assert run.record.commit is None
    assert run.record.test_accuracy == made.test_accuracy
    pd.testing.assert_frame_equal(run.predictions, predictions)


def test_a_record_names_the_commit_of_its_code(tmp_path, monkeypatch):
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    made, *_ = made_up_run()
    assert made.commit in (head, f"{head}-dirty")
    monkeypatch.setattr(record, "__file__", str(tmp_path / "record.py"))  # installed, and in no repository
    assert record.commit.__wrapped__() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record.commit.__wrapped__() is None


def test_a_run_that_diverged_has_no_figures(tmp_path):
    made, history, predictions = made_up_run()
    history.loc[history.index[-1], ["train_loss", "validation_loss"]] = np.nan, np.inf
    measured = {name: getattr(made, name) for name in ("data", "weights", "device", "network", "training_seconds")}
    measured |= {"trainable_parameters": 10, "total_parameters": 100, "peak_memory_mb": 1.0, "activations": {}}
    diverged = Record.of(made.experiment, history, **measured, diverged=20)
    runs.save(tmp_path, diverged, history, predictions[:0])
    run = Run.read(tmp_path)
    assert run.record.diverged == 20
    assert run.record.test_accuracy is None
    assert run.record.train_loss is None
    assert len(run.history) == 20
    assert run.predictions.empty
    with pytest.raises(ValueError, match="if and only if"):
        Record.model_validate(run.record.model_dump() | {"diverged": None})


def test_a_network_s_file_names_the_folder_by_its_stem(tmp_path, monkeypatch):
    monkeypatch.setattr("thaw.disk.places.project", lambda: tmp_path)
    folder = runs.output_directory(Experiment.of({"backbone": "/photos/own.keras", "strategy": "all"}))
    assert folder == tmp_path / "outputs" / "lab" / "own-all-0"


FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@x",
    "'=1",
    "''=1",
    "'a",
    "＝1",
    "\t=1",
    "a=1",
    "",
    "NA",
    "007",
    "=cmd|' /C x'!A0",
]


def test_no_cell_is_a_formula_and_each_reads_back():
    table = pd.DataFrame({"key": FORMULAS, "=header": FORMULAS, "number": -1.5})
    content = runs.as_csv(table).decode()
    cells = list(csv.reader(io.StringIO(content, newline="")))
    assert not [cell for row in cells for cell in row[:2] if cell.startswith(tuple("=+-@＝\t\r"))]
    assert {row[2] for row in cells[1:]} == {"-1.5"}, "numbers are no formulas"
    read = pd.read_csv(io.StringIO(content), dtype=str, keep_default_na=False).map(runs.as_it_was)
    assert read["key"].tolist() == FORMULAS


@given(st.text(alphabet="'=+-@\t\r＝ab,\"", max_size=6))
def test_any_cell_reads_back(cell):
    assert runs.as_it_was(runs.inert(cell)) == cell
    assert not runs.inert(cell).startswith(tuple("=+-@＝\t\r"))


@pytest.mark.parametrize("value", [10**30, -1, "1", None, 0.5, float("nan")])
def test_a_count_that_no_table_could_hold_is_refused(tmp_path, value):
    runs.save(tmp_path, *made_up_run())
    content = json.loads((tmp_path / "record.json").read_text())
    (tmp_path / "record.json").write_text(json.dumps(content | {"total_parameters": value}))
    with pytest.raises(InvalidRecord, match="total_parameters"):
        Run.read(tmp_path)
