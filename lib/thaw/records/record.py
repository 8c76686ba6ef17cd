"""What a run leaves on disk, and many runs as one table."""

import hashlib
import importlib.metadata
import io
import json
import platform
import subprocess
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from thaw.disk import places
from thaw.disk.atomic import check_writable, write_atomic
from thaw.errors import Diverged, InvalidParameter, InvalidRecord
from thaw.experiment import Experiment
from thaw.network import backbones

if TYPE_CHECKING:  # records are read without Keras
    from thaw.training.phases import Training

SCHEMA_VERSION = 3
TABLES = ("history.csv", "predictions.csv")
LAST = ("train_accuracy", "train_loss", "validation_accuracy", "validation_loss")  # of the last epoch
FIGURES = ("trainable_parameters", "total_parameters", *LAST, "test_accuracy", "test_loss", "peak_memory_mb")

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Quartiles(BaseModel):
    """A measured quantity over repeats."""

    model_config = _STRICT
    median: Positive
    q1: Positive
    q3: Positive


class PhaseSeconds(BaseModel):
    """Training time by phase, in seconds: the frozen part's one pass, the head alone, after unfreezing."""

    model_config = _STRICT
    activations: Positive
    head: Positive
    finetune: Positive

    @property
    def total(self) -> float:
        """All of it."""
        return self.activations + self.head + self.finetune


class Activations(BaseModel):
    """What a phase was trained on: see `thaw.training.activations`."""

    model_config = _STRICT
    frontier: list[str]
    cached: bool
    why: str = ""
    megabytes: Positive


class PhotoCounts(TypedDict):
    """How many photos are in each part, and in all of the data set."""

    train: Count
    validation: Count
    test: Count
    available: Count


class DataProvenance(TypedDict):
    """What the photos are, with a hash: see `thaw.data.photos.Data`."""

    __pydantic_config__ = ConfigDict(extra="allow")
    dataset: str
    version: str
    title: str
    description: str
    photos: PhotoCounts
    sha256: str


class WeightsProvenance(TypedDict):
    """What the pre-trained weights are, with a hash: see `thaw.network.backbones.load`."""

    __pydantic_config__ = ConfigDict(extra="allow")
    title: str
    description: str
    official: bool
    tensors_sha256: str


class Network(TypedDict):
    """What a report calls the network, and a sentence about it."""

    title: str
    about: str


class Device(TypedDict):
    """The machine: see `thaw.training.evaluation.device`."""

    __pydantic_config__ = ConfigDict(extra="allow")
    name: str
    cores: Count
    gpus: Count


class Record(BaseModel):
    """One finished run; ``record.json``.

    Attributes
    ----------
    parameters : dict
        Every field of the `Experiment`.
    files : dict of str to str
        The sha256 of each of the run's tables.
    diverged : int or None
        The epoch after which the loss was no finite number any more. Such a
        run was ended there, and has neither figures nor predictions.
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
    network : dict
        The network's title, and a sentence about it.
    versions : dict of str to str
        Of the libraries that a result depends on.
    commit : str or None
        The git commit of the code that made the run, with ``-dirty`` behind it
        if the code had changed since; None where the code is not in git.
    """

    model_config = _STRICT

    schema_version: Literal[3] = SCHEMA_VERSION
    parameters: dict[str, Any]
    files: dict[str, str] = {}
    diverged: Count | None = None
    trainable_parameters: Count
    total_parameters: Count
    train_accuracy: Share | None = None
    train_loss: Positive | None = None
    validation_accuracy: Share | None = None
    validation_loss: Positive | None = None
    test_accuracy: Share | None = None
    test_loss: Positive | None = None
    inference_ms_per_image: Quartiles | None = None
    training_seconds: PhaseSeconds
    activations: dict[str, Activations]
    peak_memory_mb: Positive
    peak_device_memory_mb: Positive | None = None
    data: DataProvenance
    weights: WeightsProvenance
    network: Network
    versions: dict[str, str]
    commit: str | None = None
    device: Device

    @model_validator(mode="after")
    def _has_figures_unless_diverged(self) -> "Record":
        figures = [getattr(self, name) for name in (*LAST, "test_accuracy", "test_loss", "inference_ms_per_image")]
        if any((figure is None) != (self.diverged is not None) for figure in figures):
            raise ValueError("has figures if and only if it has not diverged")
        if self.trainable_parameters > self.total_parameters:
            raise ValueError("more parameters train than there are")
        return self

    @classmethod
    def of(cls, experiment: Experiment, training: "Training", **measured: Any) -> "Record":
        """Build the record of a run: the last epoch's figures, and what was measured after it."""
        last = training.history.iloc[-1]
        backbone = backbones.get(experiment.backbone)
        return cls(
            parameters=experiment.model_dump(mode="json"),
            diverged=training.diverged,
            **({} if training.diverged else {name: float(last[name]) for name in LAST}),
            training_seconds=training.seconds,
            activations=training.activations,
            network={"title": backbone.title, "about": backbone.about},
            versions=versions(),
            commit=commit(),
            **measured,
        )

    @cached_property
    def experiment(self) -> Experiment:
        """The parameters, validated again."""
        return Experiment.of(self.parameters)


def versions() -> dict[str, str]:
    """Versions of the libraries that a result depends on."""
    names = ("thaw", "tensorflow", "keras", "tensorflow-datasets", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def commit() -> str | None:
    """The git commit of this code, ``-dirty`` behind it if the code has changed since; None where git does not track it."""
    here = Path(__file__)

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", "-C", str(here.parent), *arguments], capture_output=True, text=True)

    try:
        if git("ls-files", "--error-unmatch", here.name).returncode:
            return None  # installed as a package, perhaps inside another project's repository
        changed = git("diff", "--quiet", "HEAD", "--", ":/lib", ":/notebooks").returncode
        return git("rev-parse", "HEAD").stdout.strip() + "-dirty" * bool(changed)
    except OSError:  # there is no git
        return None


# ---- older schemas ------------------------------------------------------------------------------


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 added hashes of the tables, runs that diverged, and the frozen part's one pass."""
    seconds = {"activations": 0.0} | content["training_seconds"]
    return {"activations": {}} | content | {"training_seconds": seconds, "schema_version": 2}


def _from_2(content: dict[str, Any]) -> dict[str, Any]:
    """Schema 3 added the commit, and the network's title and description."""
    name = content["parameters"]["backbone"]
    title, about = _NETWORKS_OF_2.get(name, (name, "a network"))
    return content | {"network": {"title": title, "about": about}, "schema_version": 3}


_NETWORKS_OF_2 = {
    "resnet50": (
        "ResNet50",
        "a chain of residual blocks in four groups (conv2 to conv5): each block adds what its three convolutions compute to "
        "what came in, so that the signal and its gradient also have a direct way",
    ),
    "mobilenet": (
        "MobileNet",
        "a chain of depthwise-separable blocks: each filters every channel on its own (depthwise) and then mixes the "
        "channels at each pixel (pointwise), at a fraction of a full convolution's cost",
    ),
}
MIGRATIONS = {1: _from_1, 2: _from_2}


def migrated(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a ``record.json`` of any schema version, in the present one."""
    while type(version := content.get("schema_version")) is int and version in MIGRATIONS:
        content = MIGRATIONS[version](content)
    return content


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
    write_atomic(path, lambda partial: partial.write_bytes(as_csv(table)))


def save(directory: Path, record: Record, history: pd.DataFrame, predictions: pd.DataFrame) -> None:
    """Write a run's files; ``record.json`` last, so that it vouches for the others."""
    tables = dict(zip(TABLES, (as_csv(history), as_csv(predictions))))
    record = record.model_copy(update={"files": {name: hashlib.sha256(tables[name]).hexdigest() for name in tables}})
    contents = tables | {"record.json": record.model_dump_json(indent=2).encode() + b"\n"}
    (directory / "record.json").unlink(missing_ok=True)  # that of an earlier run
    for name, content in contents.items():
        write_atomic(directory / name, lambda partial, content=content: partial.write_bytes(content))


def end_if_diverged(directory: Path, experiment: Experiment, training: "Training", **measured: Any) -> None:
    """End a run here whose loss is no finite number, with a record of that.

    Raises
    ------
    Diverged
        After the record was written.
    """
    if training.diverged:
        save(directory, Record.of(experiment, training, **measured), training.history, pd.DataFrame({"key": []}))
        raise Diverged(
            f"diverged: after epoch {training.diverged} the loss is no finite number. The run ends here, and is recorded as that. "
            "Give a smaller learning rate, or the precision float32."
        )


def as_csv(table: pd.DataFrame) -> bytes:
    """A table as a CSV file's content."""
    return table.to_csv(index=False, lineterminator="\n").encode()


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
            If one is missing, damaged, or of a newer schema version.
        """
        try:
            contents = {name: (directory / name).read_bytes() for name in ("record.json", *TABLES)}
            written = dict(json.loads(contents["record.json"]))
            record = Record.model_validate_json(json.dumps(migrated(written)), strict=True)
            for name in TABLES:
                digest = hashlib.sha256(contents[name]).hexdigest()
                unhashed = digest if written["schema_version"] == 1 else None  # tables had no hashes then
                if record.files.get(name, unhashed) != digest:
                    raise ValueError(f"{name} is not the one that was written")
            text = dict.fromkeys(("key", "label", "predicted"), str)
            history, predictions = (pd.read_csv(io.BytesIO(contents[name]), converters=text) for name in TABLES)
            _agree(record, history, predictions)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidParameter) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise InvalidRecord(
                f"{directory}: not a run's record ({'; '.join(reason[:3])}). Delete the folder to run it again."
            ) from None
        return cls(record=record, history=history, predictions=predictions)


def _agree(record: Record, history: pd.DataFrame, predictions: pd.DataFrame) -> None:
    """See that a record says what its tables say."""
    experiment = record.experiment
    if record.diverged:
        return
    last = {name: getattr(record, name) for name in LAST}
    right = (predictions["label"] == predictions["predicted"]).mean()
    if (
        history["epoch"].tolist() != list(range(1, experiment.epochs + 1))
        or history.iloc[-1][list(last)].to_dict() != last
        or len(predictions) != record.data["photos"]["test"]
        or right != record.test_accuracy
    ):
        raise ValueError("record.json and its tables say different things")


def runs_table(runs: Iterable[Run]) -> pd.DataFrame:
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
        row |= record.model_dump(include=set(FIGURES))
        row |= {f"{phase}_seconds": seconds for phase, seconds in record.training_seconds.model_dump().items()}
        row["peak_device_memory_mb"] = record.peak_device_memory_mb or float("nan")
        row["inference_ms_per_image"] = record.inference_ms_per_image.median
        row["training_seconds"] = record.training_seconds.total
        row["test_photos"] = len(run.predictions)
        row["test_correct"] = int((run.predictions["label"] == run.predictions["predicted"]).sum())
        rows.append(row)
    return pd.DataFrame(rows)
