"""Claims that a study can decide: how `claims.yaml` is read, and what may stand in it.

`thaw.report.verdicts` has a function for each test in `TESTS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import pandas as pd
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from thaw.errors import InvalidParameter, did_you_mean, first_line
from thaw.experiment import OF_UNFREEZING, Experiment, Strategy, shown
from thaw.records.runs import Run

FILE, TABLE = "claims.yaml", "results.csv"
COLUMNS = ["backbone", "strategy", "amount", "train_accuracy", "train_loss", "validation_accuracy", "validation_loss"]
COLUMNS += ["test_accuracy", "trainable_parameters", "inference_ms_per_image"]  # of TABLE
TESTS = {  # by name: the entries that a test needs, and those that it may have
    "more accurate": ("first second", "match"),  # where both sides have the same values of `match`
    "within margin": ("first second", "margin"),  # each configuration of the first side; by default the study's margin
    "best of": ("first among", ""),  # the first side is more accurate than each other configuration
    "accuracy in range": ("first low high", ""),
    "more accurate at like parameters": ("first second", "factor"),  # that differ by no more than a factor
    "most within margin of least": ("", ""),  # the configuration that trains most, and the one that trains least
    "more accurate than the least unfrozen": ("", ""),  # all other fine-tuned configurations together
    "gain over control": ("", ""),  # of fine-tuning, in each network
    "faster": ("first second", "share"),  # needs less than this share of the second side's time for a photo
    "fewer parameters": ("first second", ""),
    "less over all configurations": ("first second quantity", ""),  # in the sum, and in most of them
    "rises with trainable parameters": ("quantity", "control"),  # in each network, the most less the least unfrozen
    "falls with trainable parameters": ("quantity", "control"),  # `control` counts the control as the least
    "all of": ("parts", ""),
}


OF_ROWS = ("accuracy in range", "more accurate at like parameters", "faster")  # they go by a table of results
# What else sets a configuration apart than where it unfreezes, and the strategies that a claim about any means.
SPECIAL = (*OF_UNFREEZING, "augmentation", "copies", "class_weight", "keep")
PLAIN = ("frozen", "layers", "blocks")


@dataclass(frozen=True)
class Quantity:
    """A quantity that a claim can speak of.

    Attributes
    ----------
    of : callable
        How to get it from a record.
    unit : str
    in_table : bool
        Whether `TABLE` holds it too.
    chance : str
        What is left to chance in it: the test ``photos``; the training and
        validation photos (``parts``); which ``folds`` it is trained on, else
        nothing; or nothing at all: it is counted.
    """

    of: Callable[[Any], Any]
    unit: str = ""
    in_table: bool = False
    chance: str = ""


QUANTITIES = {
    "training loss": Quantity(lambda record: record.train_loss, "", in_table=True, chance="folds"),
    "loss on unseen photos": Quantity(lambda record: record.validation_loss, "", in_table=True, chance="photos"),
    "lead of training over validation accuracy": Quantity(
        lambda record: record.train_accuracy - record.validation_accuracy, "points", in_table=True, chance="parts"
    ),
    "fine-tuning time": Quantity(lambda record: record.training_seconds.finetune, "s"),
    "frozen pass time": Quantity(lambda record: record.training_seconds.activations, "s"),
    "training time": Quantity(lambda record: record.training_seconds.total, "s"),
    "peak memory": Quantity(lambda record: record.peak_memory_mb, "MB"),
}


def _name(what: str, allowed: Collection[str] = ()) -> AfterValidator:
    """Refuse an unknown name; without `allowed`, the names are the validation context's."""

    def check(name: str, info: ValidationInfo) -> str:
        known = allowed or (info.context or {what: [name]})[what]
        if name not in known:
            raise ValueError(f"no such {what}. {did_you_mean(name[:100], known)}")
        return name

    return AfterValidator(check)


_Item = TypeVar("_Item")
_Listed = Annotated[  # one value, or a list of them
    tuple[_Item, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, (list, tuple)) else (value,))
]
_Quantity = Annotated[str, _name("quantity", QUANTITIES)]


class Entry(BaseModel):
    """A mapping in `claims.yaml` that refuses unknown names."""

    model_config = {"frozen": True, "strict": True}

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, given: Any) -> Any:
        for name in given if isinstance(given, dict) else ():
            if name not in cls.model_fields:
                raise ValueError(f"{shown(name)}: no such entry. {did_you_mean(str(name)[:100], cls.model_fields)}")
        return given


class Selection(Entry):
    """Some configurations, by a value or a list of values each. What is left out does not restrict.

    The control (a frozen base with the epochs of a fine-tuned run) is only
    selected with `control`, and then nothing else is. What is special
    (`SPECIAL`, and the strategies ``pattern`` and ``all``) is only selected by
    its value: without one, it has to have its default.
    """

    backbone: _Listed[Annotated[str, _name("backbone")]] = ()
    strategy: _Listed[Annotated[str, _name("strategy", get_args(Strategy))]] = ()
    amount: _Listed[int] = ()
    control: bool = False
    skip: Annotated[int, Field(ge=0)] = 0
    pattern: str | None = None
    trains: Literal["everything", "norm", "bias"] = "everything"
    batchnorm: Literal["train", "frozen"] = "train"
    rate_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    gradual: bool = False
    augmentation: Literal["none", "flip", "standard"] = "none"
    copies: Annotated[int, Field(ge=0)] = 0
    class_weight: Literal["none", "balanced"] = "none"
    keep: Literal["last", "best"] = "last"

    @model_validator(mode="after")
    def _can_exist(self) -> Selection:
        if self.strategy == ("frozen",) and any(self.amount):
            raise ValueError("strategy 'frozen' unfreezes nothing, so it has no amount. Remove the amount.")
        if self.control and set(self.strategy) - {"frozen"}:
            raise ValueError("the control is a frozen base. Remove the strategy, or control.")
        unfreezes = [name for name in self.special if name in OF_UNFREEZING]
        if unfreezes and (self.control or self.strategy == ("frozen",)):
            raise ValueError(f"a frozen base has no {unfreezes[0]}. Remove it.")
        if self.copies and self.augmentation == "none":
            raise ValueError("copies are of augmented photos. Add the augmentation, or remove copies.")
        if ("pattern" in self.strategy) != (self.pattern is not None):
            raise ValueError("the strategy 'pattern' and a pattern go together. Add the one that is missing.")
        return self

    @property
    def special(self) -> dict[str, Any]:
        """The values that are not the default, of `SPECIAL`."""
        return {
            name: value for name in SPECIAL if (value := getattr(self, name)) != type(self).model_fields[name].default
        }

    def covers(self, configuration: Any) -> bool:
        """Say whether a configuration (an experiment, or a row of a table) is meant, or is the control of one.

        What is special in a row of a table is not known: only plain ones are meant then.
        """
        if isinstance(configuration, Experiment):
            is_so = all(getattr(configuration, name) == getattr(self, name) for name in SPECIAL)
            is_so = is_so and (configuration.strategy in PLAIN or bool(self.strategy))
        else:
            is_so = getattr(configuration, "plain", True) and not self.special  # a source's own table has plain ones
        meant = {"backbone": self.backbone, "strategy": self.strategy, "amount": self.amount}
        return is_so and all(not values or getattr(configuration, name) in values for name, values in meant.items())

    def selects(self, configuration: Any) -> bool:
        """Say whether a configuration is meant."""
        return self.covers(configuration) and bool(getattr(configuration, "control", False)) == self.control

    def of(self, runs: Iterable[Run]) -> list[Run]:
        """Return the runs that are meant."""
        return [run for run in runs if self.selects(run.record.experiment)]

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table of configurations that are meant."""
        return table[[self.selects(row) for row in table.itertuples()]]


class Test(Entry):
    """What decides a claim: a name in `TESTS`, with the entries that it takes."""

    name: Annotated[str, _name("test", TESTS)]
    first: Selection = Selection()
    second: Selection = Selection()
    among: Selection = Selection()
    match: _Listed[Annotated[str, _name("parameter", ("backbone", "strategy", "amount"))]] = ()
    margin: float | None = Field(None, gt=0, lt=1)
    low: float = Field(0, ge=0, le=1)
    high: float = Field(1, ge=0, le=1)
    share: float = Field(0.95, gt=0, le=1)
    factor: float = Field(1.25, gt=1)
    quantity: _Quantity = ""
    control: bool = False
    words: str = ""  # what a part of a claim says
    parts: _Listed[Test] = ()

    @model_validator(mode="after")
    def _has_what_it_takes(self) -> Test:
        needed, optional = (set(names.split()) for names in TESTS[self.name])
        given = self.model_fields_set - {"name", "words"}
        if lacking := needed - given:
            raise ValueError(f"test {self.name!r} needs {min(lacking)}. Add it.")
        if more := given - needed - optional:
            raise ValueError(f"test {self.name!r} takes no {min(more)}. {did_you_mean(min(more), needed | optional)}")
        if self.first == self.second and "second" in given:
            raise ValueError("first and second are the same configurations. Change one of them.")
        sides = self.first, self.second, self.among
        special = {name for side in sides for name in side.special}
        special |= {f"strategy {name!r}" for side in sides for name in side.strategy if name not in PLAIN}
        if special and self.name in OF_ROWS:
            raise ValueError(
                f"test {self.name!r} goes by a table of results, which knows no {min(special)}. Remove it, or take "
                "another test."
            )
        if self.low > self.high:
            raise ValueError(f"low = {self.low:g} is above high = {self.high:g}. Change one of them.")
        return self

    def covers(self, experiment: Any) -> bool:
        """Say whether the verdict depends on runs of this configuration."""
        if self.parts:
            return any(part.covers(experiment) for part in self.parts)
        if self.name in ("fewer parameters", "gain over control"):  # any run tells a network's size
            return self.name == "gain over control"
        sides = [getattr(self, side) for side in ("first", "second", "among") if side in self.model_fields_set]
        if sides:
            return any(side.covers(experiment) for side in sides)
        return experiment.plain and (experiment.strategy != "frozen" or (self.control and experiment.control))


class Claim(Entry):
    """Something that a study can decide: in a sentence, where its source says so, and the test.

    A claim that is `added` is not the source's own.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,99}$")
    words: str = Field(min_length=1)
    where: str = ""
    added: bool = False
    test: Test


class Claims(Entry):
    """A folder of claims.

    Attributes
    ----------
    title : str
        The heading of the report's chapter.
    called : str
        How sentences name the source, such as "the original"; empty for claims of one's own.
    about, conditions : str
        What the source is, in sentences; what it ran on, in a few words.
    dataset, dataset_title : str
        The data set that the source speaks of: its name, and as texts call it.
    test_photos : int or None
        How many photos the source tested on. Needed with a table of results.
    notes : tuple of str
        What to say below the table of claims.
    claims : tuple of Claim
    """

    title: str = "Claims"
    called: str = ""
    about: str = ""
    conditions: str = ""
    dataset: str = ""
    dataset_title: str = ""
    test_photos: int | None = Field(None, ge=1)
    notes: _Listed[str] = ()
    claims: _Listed[Claim]
    _folder: Path = Path()

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Claims:
        ids = [claim.id for claim in self.claims]
        if not ids:
            raise ValueError("claims: empty. State at least one claim.")
        if twice := [id for id in ids if ids.count(id) > 1]:
            raise ValueError(f"two claims have the id {twice[0]!r}. Rename one of them.")
        return self

    @classmethod
    def of(cls, folder: Path, content: dict[str, Any], backbones: Collection[str]) -> Claims:
        """Validate the content of a folder's `claims.yaml`, and its `results.csv` if there is one.

        Raises
        ------
        InvalidParameter
            With a line for each entry that is unknown or not allowed.
        """
        try:
            claims = cls.model_validate(content, context={"backbone": backbones})
        except ValidationError as error:
            lines = dict.fromkeys(_in_words(details, content) for details in error.errors(include_url=False))
            raise InvalidParameter("\n".join([f"{folder / FILE}:", *lines])) from None
        claims._folder = folder
        if claims.results is not None and claims.test_photos is None:
            raise InvalidParameter(f"{folder / FILE}: test_photos: missing. Say how many photos {TABLE} was tested on.")
        return claims

    @property
    def files(self) -> list[Path]:
        """The files that the claims were read from."""
        return [path for path in (self._folder / FILE, self._folder / TABLE) if path.is_file()]

    @cached_property
    def results(self) -> pd.DataFrame | None:
        """The source's own table of results, a configuration a row; None if it has none.

        Raises
        ------
        InvalidParameter
            If a column is missing, or does not hold a number in every row.
        """
        path = self._folder / TABLE
        if path not in self.files:
            return None
        types = dict.fromkeys(COLUMNS[2:], float) | {"amount": int}
        try:
            return pd.read_csv(path, usecols=COLUMNS, dtype=types, na_filter=False)
        except (OSError, ValueError) as error:
            raise InvalidParameter(
                f"{path}: cannot be read as a table of results ({first_line(error)}). It needs a row for each "
                f"configuration, with a value in each of: {', '.join(COLUMNS)}."
            ) from None


def folder_of(name: str, root: Path) -> Path:
    """Find the folder of claims that a profile names: one in ``params``, or a path seen from the project's root.

    Raises
    ------
    InvalidParameter
        If there is no such folder with a `claims.yaml`.
    """
    known = {path.parent.name: path.parent for path in (root / "params").glob(f"*/{FILE}")}
    folder = known.get(name, root / name)
    if not os.path.isfile(folder / FILE):  # noqa: PTH113 (unlike Path's, it takes any text)
        hint = f"{did_you_mean(name[:100], known)} Or give the path of a folder."
        raise InvalidParameter(f"study.claims = {shown(name)}: no folder with a {FILE}. {hint}")
    return folder


def _in_words(error: Any, content: Any) -> str:
    """Word one of pydantic's complaints for people."""
    place, head = [str(name) for name in error["loc"]], ""
    if place[:1] == ["claims"] and len(place) > 1:
        claim = content["claims"][error["loc"][1]] if isinstance(content["claims"], list) else None
        head = f"claim {shown(claim['id']) if isinstance(claim, dict) and 'id' in claim else place[1]}: "
        place = place[2:]
    name, message = ".".join(place), error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        message = "missing. Give it."
    elif not isinstance(error["input"], (dict, Entry)):
        name = f"{name} = {shown(error['input'])}" if name else shown(error["input"])
    return f"{head}{name}: {message}" if name else f"{head}{message}"
