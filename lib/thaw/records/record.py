"""The record of one run: its schema, and how older schemas are read."""

import importlib.metadata
import platform
import subprocess
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator, with_config
from typing_extensions import TypedDict

from thaw.experiment import Experiment

SCHEMA_VERSION: Literal[3] = 3
LAST = ("train_accuracy", "train_loss", "validation_accuracy", "validation_loss")  # of the last epoch
FIGURES = ("trainable_parameters", "total_parameters", *LAST, "test_accuracy", "test_loss", "peak_memory_mb")

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0, lt=2**53)]  # what JSON and tables hold as whole numbers
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)
_OPEN = with_config(ConfigDict(extra="allow"))  # whoever describes data, weights or a machine may say more


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
    """What a phase was trained on: see `thaw.training.phases`."""

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


@_OPEN
class DataProvenance(TypedDict):
    """What the photos are, with a hash: see `thaw.data.photos`."""

    dataset: str
    version: str
    title: str
    description: str
    photos: PhotoCounts
    sha256: str


@_OPEN
class WeightsProvenance(TypedDict):
    """What the pre-trained weights are, with a hash: see `thaw.network.pretrained`."""

    title: str
    description: str
    official: bool
    tensors_sha256: str


class Network(TypedDict):
    """What a report calls the network, and a sentence about it.

    ``blocks`` has the parameters of each block that can train, from the photo
    to the features, and ``trains`` those that were trained; not in records of
    schema 3 that are older than they.
    """

    title: str
    about: str
    blocks: NotRequired[dict[str, Count]]
    trains: NotRequired[dict[str, Count]]


@_OPEN
class Device(TypedDict):
    """The machine: see `thaw.training.machine`."""

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
    kept_epoch : int or None
        The epoch whose weights were tested. None in older records: the last.
    train_accuracy, train_loss, validation_accuracy, validation_loss : float
        Of the last epoch. Training figures are Keras' running means over it.
    test_accuracy, test_loss : float
        Of the network with the weights of the epoch that was kept.
    inference_ms_per_image : Quartiles or None
        Of older records. Latency is now measured once a network, by the study.
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
    kept_epoch: Count | None = None
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
        figures = [getattr(self, name) for name in (*LAST, "test_accuracy", "test_loss")]
        if any((figure is None) != (self.diverged is not None) for figure in figures):
            raise ValueError("has figures if and only if it has not diverged")
        if self.trainable_parameters > self.total_parameters:
            raise ValueError("more parameters train than there are")
        return self

    @classmethod
    def of(cls, experiment: Experiment, history: pd.DataFrame, **measured: Any) -> "Record":
        """Build the record of a run.

        Parameters
        ----------
        experiment : Experiment
        history : DataFrame
            An epoch a row; the record takes the last epoch's figures.
        **measured
            The other fields.
        """
        if not measured.get("diverged"):
            measured |= {name: float(history[name].iloc[-1]) for name in LAST}
        return cls(parameters=experiment.model_dump(mode="json"), versions=versions(), commit=commit(), **measured)

    @cached_property
    def experiment(self) -> Experiment:
        """The parameters, validated again."""
        return Experiment.of(self.parameters)


class FoldsRecord(BaseModel):
    """The ``record.json`` of an experiment that was tested on several folds: a `Record` for each.

    Attributes
    ----------
    parameters : dict
        Every field of the `Experiment`; its ``fold`` is None.
    files : dict of str to str
        The sha256 of each of the tables, which hold the rows of all folds.
    folds : list of Record
        In the order of the folds.
    """

    model_config = _STRICT

    schema_version: Literal[3] = SCHEMA_VERSION
    parameters: dict[str, Any]
    files: dict[str, str] = {}
    folds: list[Record]


@cache
def versions() -> dict[str, str]:
    """List the versions of the libraries that a result depends on."""
    names = ("thaw", "tensorflow", "keras", "tensorflow-datasets", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


@cache
def commit() -> str | None:
    """Find the git commit of this code, once in a process: the code was loaded when it began.

    ``-dirty`` follows if the code has changed since. None where git does not
    track the code.
    """
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
    """Bring schema 1 to 2, which added hashes of the tables, runs that diverged, and the frozen part's one pass."""
    seconds = {"activations": 0.0} | content["training_seconds"]
    return {"activations": {}} | content | {"training_seconds": seconds, "schema_version": 2}


def _from_2(content: dict[str, Any]) -> dict[str, Any]:
    """Bring schema 2 to 3, which added the commit, and the network's title, description and blocks."""
    name = content["parameters"]["backbone"]
    title, about, base, sizes = _NETWORKS_OF_2.get(name, (name, "a network", 0, []))
    network = {"title": title, "about": about}
    if sizes:  # all that could be unfrozen were the last layers, or the last blocks
        left = content["trainable_parameters"] - (content["total_parameters"] - base)  # without the head
        network["blocks"] = {f"block {number}" if number else "stem": size for number, size in enumerate(sizes)}
        network["trains"] = {}
        for block, size in reversed(network["blocks"].items()):
            if left > 0:
                network["trains"] |= {block: min(size, left)}
                left -= size
    return content | {"network": network, "schema_version": 3}


# Title, description, all parameters, and those of the stem and of each block that can train.
_NETWORKS_OF_2: dict[str, tuple[str, str, int, list[int]]] = {
    "resnet50": (
        "ResNet50",
        "a chain of residual blocks in four groups (conv2 to conv5): each block adds what its three convolutions "
        "compute to what came in, so that the signal and its gradient also have a direct way",
        23_587_712,
        [9600, 75648, *2 * [70784], 380672, *3 * [280832], 1515008, *5 * [1118720], 6044672, *2 * [4465664]],
    ),
    "mobilenet": (
        "MobileNet",
        "a chain of depthwise-separable blocks: each filters every channel on its own (depthwise) and then mixes the "
        "channels at each pixel (pointwise), at a fraction of a full convolution's cost",
        3_228_864,
        [928, 2528, 9152, 18048, 34688, 68864, 134912, *5 * [268800], 531968, 1061888],
    ),
}
MIGRATIONS = {1: _from_1, 2: _from_2}


def migrated(content: dict[str, Any]) -> dict[str, Any]:
    """Bring the content of a ``record.json`` of any schema version to the present one."""
    while type(version := content.get("schema_version")) is int and version in MIGRATIONS:
        content = MIGRATIONS[version](content)
    return content
