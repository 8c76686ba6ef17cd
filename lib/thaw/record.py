"""What a run leaves on disk, and many runs as one table."""

import importlib.metadata
import platform
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from thaw import places
from thaw.errors import InvalidRecord
from thaw.experiment import Experiment
from thaw.files import check_writable, write_whole

if TYPE_CHECKING:  # records are read without Keras
    from thaw.training import Training

SCHEMA_VERSION = 1


class Quartiles(BaseModel):
    """A measured quantity over repeats."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    median: float
    q1: float
    q3: float


class PhaseSeconds(BaseModel):
    """Training time by phase, in seconds: the frozen part's one pass, the head alone, after unfreezing."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    activations: float
    head: float
    finetune: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.activations + self.head + self.finetune


class Activations(BaseModel):
    """What a phase was trained on: see `thaw.activations`."""

    model_config = ConfigDict(extra="forbid")
    frontier: list[str]
    cached: bool
    why: str = ""
    megabytes: float


class Record(BaseModel):
    """One finished run; ``record.json``.

    Attributes
    ----------
    parameters : dict
        Every field of the `Experiment`.
    train_accuracy, train_loss, validation_accuracy, validation_loss : float
        Of the last epoch. Training figures are Keras' running means over it.
    test_accuracy, test_loss : float
        Of the network as it is after the last epoch.
    inference_ms_per_image : Quartiles
        The compiled graph on a single photo.
    activations : dict
        For each phase, whether it was trained on stored activations.
    peak_memory_mb : float
        Peak resident memory of the process, in 1e6 bytes.
    peak_device_memory_mb : float or None
        Peak memory of the first GPU, in 1e6 bytes; None without one.
    data, weights : dict
        Where they come from, with a hash.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    parameters: dict[str, Any]
    trainable_parameters: int
    total_parameters: int
    train_accuracy: float
    train_loss: float
    validation_accuracy: float
    validation_loss: float
    test_accuracy: float
    test_loss: float
    inference_ms_per_image: Quartiles
    training_seconds: PhaseSeconds
    activations: dict[str, Activations]
    peak_memory_mb: float
    peak_device_memory_mb: float | None = None
    data: dict[str, Any]
    weights: dict[str, Any]
    versions: dict[str, str]
    device: dict[str, Any]

    @classmethod
    def of(cls, experiment: Experiment, training: "Training", **measured: Any) -> "Record":
        """Build the record of a run: the last epoch's figures, and what was measured after it."""
        last = training.history.iloc[-1]
        return cls(
            parameters=experiment.model_dump(mode="json"),
            **{
                name: float(last[name])
                for name in ("train_accuracy", "train_loss", "validation_accuracy", "validation_loss")
            },
            training_seconds=training.seconds,
            activations=training.activations,
            versions=versions(),
            **measured,
        )

    @property
    def experiment(self) -> Experiment:
        """The parameters, validated again."""
        return Experiment.of(self.parameters)


def versions() -> dict[str, str]:
    """Versions of the libraries that a result depends on."""
    names = ("thaw", "tensorflow", "keras", "tensorflow-datasets", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def output_directory(experiment: Experiment) -> Path:
    """An experiment's folder, made and found writable.

    Without an ``output_dir`` it is one below the project's ``outputs/lab``.

    Raises
    ------
    OutputNotWritable
    """
    name = f"{experiment.backbone}-{experiment.strategy}-{experiment.amount}"
    directory = experiment.output_dir or places.project() / "outputs" / "lab" / name
    check_writable(directory)
    return directory


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, whole or not at all."""
    write_whole(path, lambda partial: table.to_csv(partial, index=False))


def save(directory: Path, record: Record, history: pd.DataFrame, predictions: pd.DataFrame) -> None:
    """Write a run's files; ``record.json`` last, so that it vouches for the others."""
    write_csv(history, directory / "history.csv")
    write_csv(predictions, directory / "predictions.csv")
    text = record.model_dump_json(indent=2) + "\n"
    write_whole(directory / "record.json", lambda partial: partial.write_text(text, encoding="utf-8"))


class Run(BaseModel):
    """A finished run, read back."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    record: Record
    history: pd.DataFrame
    predictions: pd.DataFrame

    @cached_property
    def right(self) -> pd.Series:
        """Whether each test photo is named rightly, by its key, in the keys' order."""
        photos = self.predictions.set_index("key").sort_index()
        return photos["label"] == photos["predicted"]

    @classmethod
    def read(cls, directory: Path) -> "Run":
        """Read a run's files.

        Raises
        ------
        InvalidRecord
            If one is missing, damaged, or of another schema version.
        """
        try:
            record = Record.model_validate_json((directory / "record.json").read_text(encoding="utf-8"))
            history = pd.read_csv(directory / "history.csv")
            predictions = pd.read_csv(
                directory / "predictions.csv", converters=dict.fromkeys(("key", "label", "predicted"), str)
            )
        except (OSError, ValueError, ValidationError, pd.errors.ParserError) as error:
            reason = str(error).strip().splitlines()
            raise InvalidRecord(
                f"{directory}: not a run's record ({'; '.join(reason[:3])}). Delete the folder to run it again."
            ) from None
        return cls(record=record, history=history, predictions=predictions)


def table(runs: Iterable[Run]) -> pd.DataFrame:
    """Many runs as one table.

    Returns
    -------
    DataFrame
        A run a row: backbone, strategy, amount, label, seed, epochs, control
        (a frozen base whose head trains as long as a fine-tuned run), the
        record's figures, ``inference_ms_per_image`` as its median, and
        ``training_seconds`` of all
        phases together beside ``activations_seconds``, ``head_seconds`` and
        ``finetune_seconds``.
    """
    rows = []
    for run in runs:
        record, experiment = run.record, run.record.experiment
        row = {
            name: getattr(experiment, name)
            for name in ("backbone", "strategy", "amount", "label", "seed", "epochs", "control")
        }
        row |= record.model_dump(
            include={name for name, field in Record.model_fields.items() if field.annotation in (int, float)}
        )
        row |= {f"{phase}_seconds": seconds for phase, seconds in record.training_seconds.model_dump().items()}
        row["peak_device_memory_mb"] = record.peak_device_memory_mb or float("nan")
        row["inference_ms_per_image"] = record.inference_ms_per_image.median
        row["training_seconds"] = record.training_seconds.total
        row["test_photos"] = len(run.predictions)
        row["test_correct"] = int((run.predictions["label"] == run.predictions["predicted"]).sum())
        rows.append(row)
    return pd.DataFrame(rows)


def in_original(row: pd.Series, original: pd.DataFrame | None) -> pd.Series | None:
    """The original's row of a configuration, if it has one."""
    if original is None or row["control"]:
        return None
    match = original[
        (original[["backbone", "strategy", "amount"]] == row[["backbone", "strategy", "amount"]].to_list()).all(axis=1)
    ]
    return match.iloc[0] if len(match) else None
