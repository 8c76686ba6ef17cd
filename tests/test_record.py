"""What a run leaves on disk."""

import json
import os

import numpy as np
import pandas as pd
import pytest

from thaw import files, record
from thaw.errors import InvalidRecord, OutputNotWritable
from thaw.experiment import Experiment
from thaw.record import Record, Run
from thaw.training import Training


def made_up_run(seed: int = 0, correct=(1, 1, 0, 1), **parameters) -> tuple[Record, pd.DataFrame, pd.DataFrame]:
    """A record with its history and predictions; `correct` says which test photos are named rightly."""
    experiment = Experiment.of({"backbone": "mobilenet", "strategy": "blocks", "amount": 2, "seed": seed} | parameters)
    history = pd.DataFrame(
        {
            "epoch": [1, 2],
            "phase": ["head", "finetune"],
            "learning_rate": [1e-3, 1e-5],
            "train_accuracy": [0.5, 0.75],
            "train_loss": [1.0, 0.6],
            "validation_accuracy": [0.4, 0.7],
            "validation_loss": [1.1, 0.7],
            "seconds": [2.0, 3.0],
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
        Training(
            history,
            {"activations": 1.0, "head": 2.0, "finetune": 3.0},
            {"head": {"frontier": ["pooled"], "cached": True, "why": "few photos", "megabytes": 1.0}},
            network=None,
            test=None,
        ),
        trainable_parameters=10,
        total_parameters=100,
        test_accuracy=float(right.mean()),
        test_loss=0.5,
        inference_ms_per_image={"median": 5.0, "q1": 4.0, "q3": 6.0},
        peak_memory_mb=1000.0,
        data={"dataset": "drawn_flowers", "title": "Drawn Flowers", "sha256": "0"},
        weights={"title": "none", "tensors_sha256": "0"},
        device={"name": "abacus", "cores": 1, "gpus": 0},
    )
    return made, history, predictions


def test_a_run_comes_back_as_it_was_saved(tmp_path):
    made, history, predictions = made_up_run()
    record.save(tmp_path, made, history, predictions)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.csv", "predictions.csv", "record.json"]
    run = Run.read(tmp_path)
    assert run.record == made
    pd.testing.assert_frame_equal(run.history, history)
    pd.testing.assert_frame_equal(run.predictions, predictions)


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


def test_a_file_that_fails_half_way_leaves_nothing(tmp_path):
    def half(path):
        path.write_text("half")
        raise RuntimeError("power cut")

    (tmp_path / "old.csv").write_text("old")
    for name in ("new.csv", "old.csv"):
        with pytest.raises(RuntimeError):
            files.write_whole(tmp_path / name, half)
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
    assert (tmp_path / "old.csv").read_text() == "old"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "record.json").unlink(),
        lambda folder: (folder / "record.json").write_bytes((folder / "record.json").read_bytes()[:100]),
        lambda folder: (folder / "record.json").write_text('{"schema_version": 2}'),
        lambda folder: (folder / "predictions.csv").unlink(),
        lambda folder: (folder / "history.csv").write_bytes(b"\x00\xff" * 50),
    ],
    ids=["missing", "truncated", "another schema", "no predictions", "binary"],
)
def test_a_damaged_run_is_named(tmp_path, damage):
    record.save(tmp_path, *made_up_run())
    damage(tmp_path)
    with pytest.raises(InvalidRecord, match="not a run's record.*Delete the folder"):
        Run.read(tmp_path)


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputNotWritable, match="cannot be written to.*Give another"):
        files.check_writable(tmp_path / "file" / "below")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputNotWritable):
        files.check_writable(tmp_path)


def test_many_runs_make_a_table():
    rows = record.table(
        Run(record=made, history=history, predictions=predictions)
        for made, history, predictions in (made_up_run(0), made_up_run(1, (0, 0, 0, 1)))
    )
    assert rows["seed"].tolist() == [0, 1]
    assert rows["test_correct"].tolist() == [3, 1] and rows["test_photos"].tolist() == [4, 4]
    assert rows["training_seconds"].tolist() == [6.0, 6.0] and rows["inference_ms_per_image"].tolist() == [5.0, 5.0]
