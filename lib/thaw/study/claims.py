"""Claims that a study can decide: which tests there are, what each one needs, and how `claims.yaml` is read.

`thaw.report.verdicts` holds the function that judges each test. To add a test,
add a class here and its function there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pandas as pd
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr
from pydantic import ValidationError, ValidationInfo, field_validator, model_validator

from thaw.errors import InvalidParameter, did_you_mean, first_line
from thaw.experiment import Strategy, shown
from thaw.records.record import Run

FILE, TABLE = "claims.yaml", "results.csv"
COLUMNS = ("backbone", "strategy", "amount", "train_accuracy", "train_loss", "validation_accuracy", "validation_loss")
COLUMNS += ("test_accuracy", "trainable_parameters", "inference_ms_per_image")  # of TABLE


@dataclass(frozen=True)
class Quantity:
    """Something a record holds that a claim can speak of.

    Attributes
    ----------
    of : callable
        Its value, from a `Record` or from rows of an original's table.
    unit : str
    in_table : bool
        Whether an original's table has it too.
    """

    of: Callable[[Any], Any]
    unit: str = ""
    in_table: bool = False


QUANTITIES = {
    "training loss": Quantity(lambda record: record.train_loss, in_table=True),
    "validation loss": Quantity(lambda record: record.validation_loss, in_table=True),
    "gap between training and validation accuracy": Quantity(
        lambda record: record.train_accuracy - record.validation_accuracy, in_table=True
    ),
    "fine-tuning time": Quantity(lambda record: record.training_seconds.finetune, "s"),
    "frozen pass time": Quantity(lambda record: record.training_seconds.activations, "s"),
    "training time": Quantity(lambda record: record.training_seconds.total, "s"),
    "peak memory": Quantity(lambda record: record.peak_memory_mb, "MB"),
}


def _one_of(allowed: Collection[str], what: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in allowed:
            raise ValueError(f"no such {what}. {did_you_mean(name[:100], allowed)}")
        return name

    return AfterValidator(check)


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


class Entry(BaseModel):
    """A mapping in `claims.yaml` that refuses unknown names."""

    model_config = ConfigDict(frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, given: Any) -> Any:
        for name in given if isinstance(given, dict) else ():
            if name not in cls.model_fields:
                raise ValueError(f"{shown(name)}: no such entry. {did_you_mean(str(name)[:100], cls.model_fields)}")
        return given


class Selection(Entry):
    """Some configurations. What is left out does not restrict; each entry is a value or a list of values.

    Attributes
    ----------
    backbone, strategy, amount : tuple
    control : bool
        Whether the control is meant (a frozen base with the epochs of a
        fine-tuned run). Otherwise it is never selected.
    """

    backbone: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    strategy: Annotated[
        tuple[Annotated[str, _one_of(get_args(Strategy), "strategy")], ...], BeforeValidator(_listed)
    ] = ()
    amount: Annotated[tuple[int, ...], BeforeValidator(_listed)] = ()
    control: bool = False

    @field_validator("backbone")
    @classmethod
    def _backbones_are_known(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for name in names if info.context else ():
            if name not in info.context["backbones"]:
                raise ValueError(f"no such backbone. {did_you_mean(name[:100], info.context['backbones'])}")
        return names

    @model_validator(mode="after")
    def _can_exist(self) -> Selection:
        if self.strategy == ("frozen",) and set(self.amount) - {0}:
            raise ValueError("strategy 'frozen' unfreezes nothing, so it has no amount. Remove the amount.")
        return self

    def covers(self, configuration: Any) -> bool:
        """Say whether a configuration (an experiment, or a row of a table) is meant, or is the control of one."""
        return all(
            not allowed or getattr(configuration, name) in allowed
            for name, allowed in (("backbone", self.backbone), ("strategy", self.strategy), ("amount", self.amount))
        )

    def selects(self, configuration: Any) -> bool:
        """Say whether a configuration is meant."""
        return self.covers(configuration) and bool(getattr(configuration, "control", False)) == self.control

    def of(self, runs: Iterable[Run]) -> list[Run]:
        """Return the runs that are meant."""
        return [run for run in runs if self.selects(run.record.experiment)]


# ---- tests --------------------------------------------------------------------------------------


class Test(Entry):
    """What decides a claim."""

    def covers(self, experiment: Any) -> bool:
        """Say whether the verdict depends on runs of this configuration."""
        return any(value.covers(experiment) for _, value in self if isinstance(value, Selection))


class TwoSides(Test):
    """A test that compares two sides."""

    first: Selection
    second: Selection

    @model_validator(mode="after")
    def _sides_differ(self) -> TwoSides:
        if self.first == self.second:
            raise ValueError("first and second are the same configurations. Change one of them.")
        return self


class FewerParameters(TwoSides):
    """The network of the first side has fewer parameters in all than that of the second."""

    name: Literal["fewer parameters"]

    def covers(self, experiment: Any) -> bool:
        """Say no: any run of the network tells its size."""
        return False


class MoreAccurate(TwoSides):
    """The first side is more accurate; with `match`, only where both sides have the same values of these."""

    name: Literal["more accurate"]
    match: Annotated[
        tuple[Annotated[str, _one_of(("backbone", "strategy", "amount"), "parameter")], ...], BeforeValidator(_listed)
    ] = ()


class WithinMargin(TwoSides):
    """Each configuration of the first side is within the margin (by default the study's) of the second side."""

    name: Literal["within margin"]
    margin: float | None = Field(None, gt=0, lt=1)


class BestOf(Test):
    """The first side, taken together, is more accurate than each other configuration in `among`."""

    name: Literal["best of"]
    first: Selection
    among: Selection


class InRange(Test):
    """Each configuration has an accuracy from `low` to `high`."""

    name: Literal["accuracy in range"]
    first: Selection
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)


class Faster(TwoSides):
    """The first side takes less than `share` of the second side's time for a single photo."""

    name: Literal["faster"]
    share: float = Field(0.95, gt=0, le=1)


class LessInEveryConfiguration(TwoSides):
    """The first side needs less of a quantity in every configuration that both have; `beside` is only shown."""

    name: Literal["less in every configuration"]
    quantity: Annotated[str, _one_of(QUANTITIES, "quantity")]
    beside: Annotated[str, _one_of(QUANTITIES, "quantity")] | None = None


class LikeParameters(TwoSides):
    """The first side is more accurate where both train numbers of parameters that differ by at most `factor`."""

    name: Literal["more accurate at like parameters"]
    factor: float = Field(1.25, gt=1)


class OfFineTuned(Test):
    """A test of all configurations that unfreeze something, in each network."""

    def covers(self, experiment: Any) -> bool:
        """Say whether it unfreezes something."""
        return experiment.strategy != "frozen"


class Trend(OfFineTuned):
    """A quantity rises or falls with the number of trainable parameters; `control` counts the control as 0 unfrozen."""

    name: Literal["rises with trainable parameters", "falls with trainable parameters"]
    quantity: Annotated[str, _one_of(QUANTITIES, "quantity")]
    control: bool = False

    def covers(self, experiment: Any) -> bool:
        """Say whether it unfreezes something, or is the control and counted."""
        return experiment.strategy != "frozen" or (self.control and experiment.control)


class LittleGain(OfFineTuned):
    """The configuration that trains most is within the study's margin of the one that trains least."""

    name: Literal["most within margin of least"]


class LeastIsWorse(OfFineTuned):
    """All others together are more accurate than the configuration that trains least."""

    name: Literal["more accurate than the least unfrozen"]


class GainOverControl(Test):
    """Fine-tuning is more accurate than a base frozen for as many epochs, in each network."""

    name: Literal["gain over control"]

    def covers(self, experiment: Any) -> bool:
        """Say yes: it needs all of them."""
        return True


class AllOf(Test):
    """Several tests that must all hold."""

    name: Literal["all of"]
    parts: Annotated[tuple[AnyTest, ...], BeforeValidator(_listed)]

    def covers(self, experiment: Any) -> bool:
        """Say whether any part depends on it."""
        return any(part.covers(experiment) for part in self.parts)


AnyTest = Annotated[
    FewerParameters
    | MoreAccurate
    | WithinMargin
    | BestOf
    | InRange
    | Faster
    | LessInEveryConfiguration
    | LikeParameters
    | Trend
    | LittleGain
    | LeastIsWorse
    | GainOverControl
    | AllOf,
    Field(discriminator="name"),
]
KINDS = get_args(get_args(AnyTest)[0])
TESTS = [name for kind in KINDS for name in get_args(kind.model_fields["name"].annotation)]


# ---- the file -----------------------------------------------------------------------------------


class Claim(Entry):
    """Something that a study can decide.

    Attributes
    ----------
    id : str
        Lower-case letters, digits and hyphens.
    words : str
        The claim in a sentence.
    where : str
        Where its source says so; may be empty.
    added : bool
        Whether its source does not make this claim.
    test : Test
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,99}$")
    words: str = Field(min_length=1)
    where: str = ""
    added: bool = False
    test: AnyTest


class Claims(Entry):
    """The content of a folder of claims.

    Attributes
    ----------
    title : str
        The heading of the report's chapter.
    called : str
        How sentences name the source, such as "the original"; empty for
        claims that have none.
    about, conditions : str
        What the source is, in sentences; what it ran on, in a few words.
    dataset, dataset_title : str
        The data set that the source speaks of: its name, and as texts call it.
    test_photos : int or None
        How many photos the source tested on. Needed with a table of results.
    notes : tuple of str
        Go below the table of claims.
    claims : tuple of Claim
    """

    title: str = "Claims"
    called: str = ""
    about: str = ""
    conditions: str = ""
    dataset: str = ""
    dataset_title: str = ""
    test_photos: int | None = Field(None, ge=1)
    notes: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    claims: Annotated[tuple[Claim, ...], BeforeValidator(_listed)] = Field(min_length=1)
    _folder: Path = PrivateAttr(Path())

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Claims:
        ids = [claim.id for claim in self.claims]
        if twice := [id for id in ids if ids.count(id) > 1]:
            raise ValueError(f"two claims have the id {twice[0]!r}. Rename one of them.")
        return self

    @classmethod
    def of(cls, folder: Path, content: dict[str, Any], backbones: Collection[str]) -> Claims:
        """Validate the content of a folder's `claims.yaml`, and its `results.csv` if there is one.

        Parameters
        ----------
        folder : Path
        content : dict
            What `claims.yaml` holds.
        backbones : collection of str
            The names that selections may use.

        Raises
        ------
        InvalidParameter
            With a line for each entry that is unknown or not allowed.
        """
        try:
            claims = cls.model_validate(content, context={"backbones": backbones})
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
            If a column is missing or holds no numbers.
        """
        path = self._folder / TABLE
        if path not in self.files:
            return None
        try:
            table = pd.read_csv(path)
        except (OSError, ValueError) as error:
            raise InvalidParameter(f"{path}: cannot be read as a table ({first_line(error)}).") from None
        if missing := [name for name in COLUMNS if name not in table]:
            raise InvalidParameter(f"{path}: has no column {missing[0]}. It needs: {', '.join(COLUMNS)}.")
        numbers = table.select_dtypes("number").columns
        if wrong := [name for name in COLUMNS[2:] if name not in numbers or table[name].isna().any()]:
            raise InvalidParameter(f"{path}: column {wrong[0]} does not hold a number in every row. Fill it in.")
        return table


AllOf.model_rebuild()


def folder_of(name: str, root: Path) -> Path:
    """Find the folder of claims that a profile names.

    Parameters
    ----------
    name : str
        A folder in ``params``, or the path of one, seen from the project's root.
    root : Path
        The project's root.

    Raises
    ------
    InvalidParameter
        If there is no such folder with a `claims.yaml`.
    """
    known = {path.parent.name: path.parent for path in (root / "params").glob(f"*/{FILE}")}
    folder = known.get(name, root / name)
    if "\0" in name or not (folder / FILE).is_file():
        raise InvalidParameter(
            f"study.claims = {shown(name)}: no folder with a {FILE}. {did_you_mean(name[:100], known)} "
            "Or give the path of a folder."
        )
    return folder


def _in_words(error: Any, content: Any) -> str:
    """Word one of pydantic's complaints for people."""
    place, head = [str(name) for name in error["loc"] if name not in TESTS], ""
    if place[0:1] == ["claims"] and len(place) > 1:
        claim = _listed(content["claims"])[error["loc"][1]]
        head = f"claim {shown(claim['id']) if isinstance(claim, dict) and 'id' in claim else place[1]}: "
        place = place[2:]
    if error["type"].startswith("union_tag"):
        given = str(error["ctx"].get("tag", ""))
        place, message = [*place, "name"], f"no such test. {did_you_mean(given[:100], TESTS)}"
    elif error["type"] == "missing":
        given, message = None, "missing. Give it."
    else:
        given, message = error["input"], error["msg"].removeprefix("Value error, ")
    value = "" if given is None or isinstance(given, (dict, Entry)) else f" = {shown(given)}"
    name = ".".join(place) + value
    return f"{head}{name}: {message}" if name else f"{head}{message}"
