"""A profile's file: the parameters of its experiments, and what its study section says."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from thaw.errors import InvalidParameter, UnknownProfile, did_you_mean, first_line
from thaw.experiment import FEWEST_FOLDS, Rate, in_words, is_file, shown
from thaw.network import backbones

# What may differ between backbones.
Tuned = Literal["head_learning_rate", "finetune_learning_rate", "batch_size", "weights", "preprocessing"]
Seeds = Annotated[list[int], Field(min_length=1, max_length=100)]
Rates = Annotated[list[Rate], Field(min_length=1)]
Folds = Annotated[int, Field(ge=FEWEST_FOLDS, lt=100)]
# Parameters that the whole study sets, and what to give for them.
OF_STUDY = {
    "seed": "study: {seeds: [...]}",
    "folds": "study: {folds: ...}",
    "fold": "study: {folds: ...}",
    "choosing_folds": "study: {choosing_folds: ...}",
    "test_folds": "study: {test_folds: ...}",
    "output_dir": "--outputs",
}


RECOMMENDED = "recommended"  # to deliver what the report recommends
LARGEST = 2**16  # bytes of a YAML file: a profile of 500 configurations has half of that
DIGITS = 400  # of a number in YAML: reading it takes time with the square of its length


class StudySettings(BaseModel):
    """A profile's ``study`` section: which experiments the study has, and how they are compared.

    Attributes
    ----------
    seeds : list of int, or dict of such lists by backbone
        Every configuration is run once with each seed.
    configurations : list of str or None
        Names in ``params/configurations`` or its ``catalogue``. None: all of
        the former.
    networks : list of str or None
        Backbones. Every configuration that names no backbone is run with each
        of them.
    margin : float
        A difference of accuracy, from 0 to 1, that would not matter. A claim
        of "no difference" has to stay inside it.
    hours : float
        The longest that a cell of a notebook may take. After that its
        experiment counts as failed.
    backbones : dict of str to dict
        Parameters out of `Tuned` that differ between backbones.
    folds : int or None
        Test every configuration on so many folds in turn. None: on one test
        part.
    choosing_folds : int
        So many folds, the first, are not tested: they choose learning rates.
    test_folds : int, dict of int by backbone, or None
        Test on so many folds, the first of the others. None: on all of them.
        With a larger number a study goes on.
    also_float32 : dict of str to int
        Configurations to train once more in float32, and on how many folds:
        the report then says what the study's own precision does to accuracy.
    learning_rates : dict of str to list of float, or None
        What to try for the ``head`` alone, and for ``finetune``: each
        configuration chooses its own (see `thaw.study.rates`).
    spread : {'configurations', 'folds'}
        Whether a job trains all folds of a configuration in turn, or each
        fold is a job of its own.
    claims : str or None
        A folder of ``params``, or the path of one, with claims that the study
        decides: see `thaw.study.claims`.
    deliver : str or None
        The configuration whose network is trained once more on all photos, and
        left in the folder ``model``: its name, ``recommended``, or None
        (``none``).
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    seeds: Seeds | dict[str, Seeds] = Field([0], min_length=1)
    configurations: list[str] | None = Field(None, min_length=1)
    networks: list[str] | None = Field(None, min_length=1)
    margin: float = Field(0.02, gt=0, lt=1)
    hours: float = Field(24, gt=0, le=1000)
    backbones: dict[str, dict[Tuned, Any]] = {}
    folds: int | None = Field(None, ge=3, le=100)
    choosing_folds: int = Field(0, ge=0, lt=100)
    test_folds: (
        Annotated[
            Annotated[Folds, Tag("number")] | Annotated[dict[str, Folds], Tag("networks")],
            Discriminator(lambda given: "networks" if isinstance(given, dict) else "number"),  # one complaint, not two
        ]
        | None
    ) = None
    also_float32: dict[str, Annotated[int, Field(ge=1, lt=100)]] = {}
    learning_rates: dict[Literal["head", "finetune"], Rates] | None = Field(None, min_length=1)
    spread: Literal["configurations", "folds"] = "configurations"
    claims: str | None = None
    deliver: Annotated[str | None, BeforeValidator(lambda name: None if name == "none" else name)] = RECOMMENDED

    @model_validator(mode="after")
    def _have_their_folds(self) -> StudySettings:
        of_folds: dict[str, Any] = {
            "choosing_folds": 0,
            "test_folds": None,
            "also_float32": {},
            "spread": "configurations",
        }
        given = [name for name, default in of_folds.items() if getattr(self, name) != default]
        if self.folds is None and given:
            raise ValueError(
                f"study.{given[0]} = {shown(getattr(self, given[0]))}: there are no folds. Set study.folds, for "
                "example to 10."
            )
        if self.learning_rates and not self.choosing_folds:
            raise ValueError(
                "study.learning_rates: no photos to choose on. Set study.folds, for example to 10, and "
                "study.choosing_folds, for example to 2."
            )
        return self

    @property
    def grids(self) -> dict[str, list[float]]:
        """The rates to try, by the parameter's name."""
        return {f"{phase}_learning_rate": rates for phase, rates in (self.learning_rates or {}).items()}

    def test_folds_of(self, backbone: str) -> int | None:
        """Return on how many folds a backbone's configurations are tested; None: on all that choose nothing."""
        return self.test_folds.get(backbone) if isinstance(self.test_folds, dict) else self.test_folds

    def seeds_of(self, backbone: str) -> list[int]:
        """Return the seeds that a backbone's configurations are run with."""
        if isinstance(self.seeds, list):
            return self.seeds
        if backbone not in self.seeds:
            raise InvalidParameter(
                f"study.seeds: has none for the backbone {backbone!r}. {did_you_mean(backbone, self.seeds)}"
            )
        return self.seeds[backbone]


@dataclass(frozen=True)
class Profile:
    """A profile's file, and the configurations that its study names."""

    path: Path
    parameters: dict[str, Any]  # of all its experiments
    settings: StudySettings
    configurations: dict[str, dict[str, Any]]  # the parameters of each

    @classmethod
    def read(cls, profile: str, root: Path) -> Profile:
        """Read a profile and its configurations.

        Parameters
        ----------
        profile : str
            A name in ``params/profiles``, or the path of a YAML file.
        root : Path
            The project's root.

        Raises
        ------
        UnknownProfile, InvalidParameter
            If a file is missing, or holds what is not allowed.
        """
        profiles, configurations = (_files(root / "params" / kind) for kind in ("profiles", "configurations"))
        named = configurations | _files(root / "params" / "configurations" / "catalogue")
        path = profiles.get(profile, Path(profile))
        if not os.path.isfile(path):  # noqa: PTH113 - unlike Path.is_file, it accepts any text
            raise UnknownProfile(f"PROFILE = {shown(profile)}: no such profile. {did_you_mean(profile, profiles)}")
        _check_name(path)
        parameters = read_parameters(path)
        settings = _settings(path, parameters.pop("study", {}))
        _check_given(path, parameters, settings)
        chosen = {}
        for name in settings.configurations or sorted(configurations):
            if name not in named:
                raise UnknownProfile(
                    f"study.configurations: {shown(name)}: no such configuration. {did_you_mean(name, named)}"
                )
            _check_name(named[name])
            own = read_parameters(named[name])
            _check_given(named[name], own, settings)
            for full_name, more in _with_networks(name, own, parameters, settings).items():
                if full_name in chosen:
                    raise InvalidParameter(
                        f"study: two configurations are called {full_name}. Rename a configuration or a .keras file."
                    )
                chosen[full_name] = own | more
        for name in settings.also_float32:
            if name not in chosen:
                raise InvalidParameter(
                    f"{path}: study.also_float32: {shown(name)}: no configuration of this study. "
                    f"{did_you_mean(name, chosen)}"
                )
        if settings.deliver not in (None, RECOMMENDED, *chosen):
            raise InvalidParameter(
                f"{path}: study.deliver = {shown(settings.deliver)}: no configuration of this study. "
                f"{did_you_mean(settings.deliver, [RECOMMENDED, 'none', *chosen])}"
            )
        return cls(path.resolve(), parameters, settings, chosen)


def _check_given(path: Path, parameters: Mapping[Any, Any], settings: StudySettings) -> None:
    """Refuse what belongs in the study section, and learning rates that are to be chosen."""
    for name, value in parameters.items():
        if name in OF_STUDY:
            raise InvalidParameter(
                f"{path}: {name} = {shown(value)}: the whole study sets it. Give {OF_STUDY[name]} instead."
            )
        if name in settings.grids:
            raise InvalidParameter(
                f"{path}: {name} = {shown(value)}: the study chooses it from study.learning_rates. Remove "
                "one of the two."
            )


def _with_networks(name: str, own: dict, parameters: dict, settings: StudySettings) -> dict[str, dict[str, str]]:
    """Give the names of a configuration with each network of the study, and the parameter that is added to it."""
    if "backbone" in own or "backbone" in parameters:
        return {name: {}}
    if settings.networks is None:
        raise InvalidParameter(
            f"configuration {name}: names no backbone. Give study: {{networks: [...]}} in the profile, "
            "or a backbone in one of the two."
        )
    named: dict[str, dict[str, str]] = {}
    for network in settings.networks:
        stem = Path(network).stem if is_file(network) else network
        full_name = f"{re.sub('[^A-Za-z0-9._-]+', '-', stem).strip('-.') or 'network'}-{name}"
        if full_name in named:
            raise InvalidParameter(
                f"study.networks: {shown(named[full_name]['backbone'])} and {shown(network)} would have the same names "
                "for their runs. Rename a .keras file, or remove one of the two."
            )
        named[full_name] = {"backbone": network}
    return named


def read_parameters(path: Path) -> dict[str, Any]:
    """Read a profile's or configuration's YAML file as a mapping.

    Raises
    ------
    InvalidParameter
        If it is not YAML, or not a mapping, or too large.
    """
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise ValueError(f"{size:,} bytes; allowed are {LARGEST:,}")
        parameters = yaml.load(path.read_text(encoding="utf-8"), _PlainYaml)
    except Exception as error:  # not only YAMLError: dates, numbers and deep lists raise others
        said = "".join(letter if letter.isprintable() else "\ufffd" for letter in first_line(error))
        raise InvalidParameter(f"{path}: cannot be read as YAML ({said}).") from None
    if not isinstance(parameters, dict):
        raise InvalidParameter(f"{path}: holds no mapping of parameters, such as 'image_size: 224'.")
    return parameters


class _PlainYaml(yaml.SafeLoader):
    """YAML of plain values. Aliases, merges and numbers could grow without limit; a name given twice is a mistake."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1
            raise yaml.composer.ComposerError(problem=f"the alias in line {line} is not allowed: write the value out")
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode) and len(node.value) > DIGITS and node.tag.endswith((":int", ":float")):
            line = node.start_mark.line + 1
            raise yaml.composer.ComposerError(problem=f"the number in line {line} has {len(node.value):,} digits")
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        names: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(problem=f"the merge in line {line} is not allowed")
            if key.value in names:
                raise yaml.constructor.ConstructorError(problem=f"{shown(key.value)} again in line {line}")
            names.add(key.value)


def _settings(path: Path, section: Any) -> StudySettings:
    if not isinstance(section, dict):
        allowed = did_you_mean("", StudySettings.model_fields)
        raise InvalidParameter(f"{path}: study = {shown(section)}: not a mapping. {allowed}")
    try:
        settings = StudySettings.model_validate(section)
    except ValidationError as error:
        raise InvalidParameter(f"{path}:\n{in_words(error, StudySettings, 'study.')}") from None
    for name, tuned in settings.backbones.items():
        backbones.get(name)
        _check_given(path, tuned, settings)
    for name in settings.test_folds if isinstance(settings.test_folds, dict) else ():
        backbones.get(name)
    return settings


def _files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in folder.glob("*.yaml")}


def _check_name(path: Path) -> None:
    """Refuse a profile's or configuration's name that cannot name a folder or stand in a command."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", path.stem):
        raise InvalidParameter(
            f"{shown(path.name)}: not a name for a profile or a configuration. Allowed: up to 100 letters (a to z), "
            "digits and . _ -, a letter or digit first. Rename the file."
        )
