"""A profile's study: which experiments it holds, and where each leaves its files."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from thaw.disk import places
from thaw.disk.atomic import locked, write_atomic
from thaw.errors import InvalidParameter, InvalidRecord, ThawError, UnknownProfile, did_you_mean, explained, first_line
from thaw.experiment import Experiment, in_words, shown
from thaw.network.backbones import REGISTRY
from thaw.records.runs import Run
from thaw.study.claims import FILE, Claims, folder_of

NOT_RUN = "it has not been run"
TUNED = (
    "head_learning_rate",
    "finetune_learning_rate",
    "batch_size",
)  # what may differ by backbone, and be searched for


class StudySettings(BaseModel):
    """A profile's ``study`` section: what the graph makes of it.

    Attributes
    ----------
    seeds : list of int, or dict of such lists by backbone
        Every configuration is run once with each.
    configurations : list of str or None
        Names in ``params/configurations``. None: all of them.
    margin : float
        A difference of accuracy, from 0 to 1, that would not matter: what a
        claim of "no difference" has to stay inside.
    hours : float
        The longest that a cell of a notebook may take: one that takes longer
        is taken to hang, and its experiment to have failed.
    backbones : dict of str to dict
        Those of `TUNED` that one value for all backbones does not suit.
    search : str or None
        The profile of the search that they come from: the report's appendix.
    claims : str or None
        A folder of ``params``, or the path of one, with claims that the study
        decides: see `thaw.study.claims`.
    tries : dict of str to dict, or None
        A search in place of a study: by configuration, one of `TUNED` or
        more, each with the values to try, one at a time.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    seeds: list[int] | dict[str, Annotated[list[int], Field(min_length=1)]] = Field([0], min_length=1)
    configurations: list[str] | None = Field(None, min_length=1)
    margin: float = Field(0.02, gt=0, lt=1)
    hours: float = Field(24, gt=0, le=1000)
    backbones: dict[str, dict[str, Any]] = {}
    search: str | None = None
    claims: str | None = None
    tries: dict[str, Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]] | None = (
        Field(None, min_length=1)
    )

    @model_validator(mode="after")
    def _names_are_known(self) -> StudySettings:
        for allowed, names in (
            (REGISTRY, self.backbones),
            (TUNED, [name for values in (*self.backbones.values(), *(self.tries or {}).values()) for name in values]),
        ):
            if unknown := set(names) - set(allowed):
                raise ValueError(
                    f"study: {shown(min(unknown))}: not allowed here. {did_you_mean(min(unknown)[:100], allowed)}"
                )
        if self.tries and self.configurations:
            raise ValueError("study: has both tries and configurations. Remove one: tries names its configurations.")
        return self

    def seeds_of(self, backbone: str) -> list[int]:
        """The seeds that a backbone's configurations are run with."""
        if isinstance(self.seeds, list):
            return self.seeds
        if backbone not in self.seeds:
            raise InvalidParameter(
                f"study.seeds: has none for the backbone {backbone!r}. {did_you_mean(backbone, self.seeds)}"
            )
        return self.seeds[backbone]


@dataclass(frozen=True)
class Job:
    """One experiment of a study.

    Attributes
    ----------
    name : str
        Configuration, seed and a digest of all parameters. Other parameters
        are another job, so that what is up to date is told by content and not
        by the times of files.
    configuration : str
    experiment : Experiment
        With ``output_dir`` set to ``<outputs>/<profile>/runs/<name>``, seen
        from the project's root.
    directory : Path
        The same, wherever one is.
    tried : str
        In a search, the parameter that it tries a value of.
    """

    name: str
    configuration: str
    experiment: Experiment
    directory: Path
    tried: str = ""

    @property
    def label(self) -> str:
        """For people."""
        tried = f", {self.tried} {getattr(self.experiment, self.tried):g}" if self.tried else ""
        return f"{self.configuration}{tried}, seed {self.experiment.seed}"

    def read(self) -> Run:
        """Read what it has left.

        Raises
        ------
        InvalidRecord
            As `Run.read` does, or if it is of other parameters.
        """
        run = Run.read(self.directory)
        if self.experiment != run.record.experiment.model_copy(update={"output_dir": self.experiment.output_dir}):
            raise InvalidRecord(
                f"{self.directory}: the record is of other parameters. Delete the folder to run it again."
            )
        return run

    def is_finished(self) -> bool:
        """Whether nothing of it needs to be run, a record of having diverged included."""
        try:
            self.read()
        except InvalidRecord:
            return False
        return (self.directory / "experiment.ipynb").is_file()


@dataclass(frozen=True)
class Study:
    """All experiments of a profile.

    Attributes
    ----------
    profile : str
        Its name.
    path : Path
        The profile's file.
    outputs : Path
        ``<outputs>/<profile>``.
    jobs : tuple of Job
    margin, hours : float
    search : str or None
        See `StudySettings`.
    is_search : bool
        Whether it is one: its runs try values, and make no report.
    claims : Claims or None
        What its runs decide.
    """

    profile: str
    path: Path
    outputs: Path
    jobs: tuple[Job, ...]
    margin: float
    hours: float
    search: str | None = None
    is_search: bool = False
    claims: Claims | None = None

    @classmethod
    def load(cls, profile: str, outputs: str | Path = "outputs", root: Path | None = None) -> Study:
        """Read a profile and merge it with every configuration.

        Parameters
        ----------
        profile : str
            A name in ``params/profiles``, or the path of a YAML file.
        outputs : str or Path
            The folder of all outputs, relative to the project's root.
        root : Path, optional
            The project's root. By default the one around the working directory.

        Raises
        ------
        UnknownProfile, InvalidParameter
            If a file is missing, or holds what is not allowed.
        """
        root = root or places.project()
        profiles = {path.stem: path for path in (root / "params" / "profiles").glob("*.yaml")}
        configurations = {path.stem: path for path in (root / "params" / "configurations").glob("*.yaml")}
        path = profiles.get(profile, Path(profile))
        if not os.path.isfile(path):  # unlike Path's, of any text whatever
            raise UnknownProfile(
                f"PROFILE = {shown(profile)}: no such profile. {did_you_mean(profile[:100], profiles)}"
            )
        _check_name(path)
        base = read_parameters(path)
        plan = base.get("study", {})
        if not isinstance(plan, dict):
            raise InvalidParameter(
                f"{path}: study = {shown(plan)}: not a mapping. {did_you_mean('', StudySettings.model_fields)}"
            )
        try:
            extent = StudySettings.model_validate(plan)
        except ValidationError as error:
            raise InvalidParameter(f"{path}:\n{in_words(error, StudySettings, 'study.')}") from None
        for name, instead in (("seed", "study: {seeds: [...]}"), ("output_dir", "--outputs")):
            if name in base:
                raise InvalidParameter(
                    f"{path}: {name} = {shown(base[name])}: a study has many. Give {instead} instead."
                )
        if extent.search is not None and extent.search not in profiles:
            raise UnknownProfile(
                f"{path}: study.search = {shown(extent.search)}: no such profile. {did_you_mean(extent.search[:100], profiles)}"
            )
        folder = Path(outputs) / path.stem
        jobs = []
        for name in extent.tries or extent.configurations or sorted(configurations):
            if name not in configurations:
                key = "tries" if extent.tries else "configurations"
                raise UnknownProfile(
                    f"study.{key}: {shown(name)}: no such configuration. {did_you_mean(name[:100], configurations)}"
                )
            _check_name(configurations[name])
            configuration = read_parameters(configurations[name])
            try:
                backbone = Experiment.of(base | configuration).backbone
                merged = base | extent.backbones.get(backbone, {}) | configuration
                tries = extent.tries[name] if extent.tries else {}
                for variant in [{tried: value} for tried, values in tries.items() for value in values] or [{}]:
                    for seed in extent.seeds_of(backbone):
                        experiment = Experiment.of(merged | variant | {"seed": seed})
                        job = f"{name}-seed-{seed}-{experiment.digest[:8]}"
                        output_dir = folder / "runs" / job
                        experiment = experiment.model_copy(update={"output_dir": output_dir})
                        jobs.append(Job(job, name, experiment, root / output_dir, "".join(variant)))
            except InvalidParameter as error:
                raise type(error)(f"profile {path.stem}, configuration {name}:\n{error}") from None
        rows: dict[tuple | str, str] = {}
        for job in jobs:
            row = job.name if job.tried else _order(job)
            other = rows.get(row)
            rows[row] = job.configuration
            if other is not None:
                raise InvalidParameter(
                    f"configurations {other} and {job.configuration}, seed {job.experiment.seed}: the same row of the table "
                    "twice. Remove one, or give what differs in a profile of its own."
                )
        return cls(
            path.stem,
            path.resolve(),
            root / folder,
            tuple(sorted(jobs, key=_order)),
            extent.margin,
            extent.hours,
            extent.search,
            bool(extent.tries),
            _claims(extent.claims, root) if extent.claims is not None else None,
        )

    def configurations(self) -> list[Experiment]:
        """One experiment of each configuration, the first seed's."""
        return list({job.configuration: job.experiment for job in reversed(self.jobs)}.values())[::-1]

    def outcomes(self) -> tuple[dict[Job, Run], dict[Job, str]]:
        """What has become of each job.

        Returns
        -------
        finished : dict of Job to Run
        missing : dict of Job to str
            Why there is no run to compare: it has diverged, failed, or its
            files cannot be read.

        Raises
        ------
        InvalidRecord
            If there is no run with figures, or if the runs are not of the same
            data and weights and so cannot be compared.
        """
        finished: dict[Job, Run] = {}
        missing: dict[Job, str] = {}
        failures = self.failures()
        for job in self.jobs:
            if not (job.directory / "record.json").is_file():
                missing[job] = failures.get(job.name, NOT_RUN)
                continue
            try:
                run = job.read()
            except InvalidRecord as error:
                missing[job] = str(error)
                continue
            if run.record.diverged:
                missing[job] = f"diverged: after epoch {run.record.diverged} its loss was no finite number"
            else:
                finished[job] = run
        if not finished:
            reasons = "".join(f"\n  {job.label}: {reason}" for job, reason in missing.items() if reason != NOT_RUN)
            raise InvalidRecord(
                f"profile {self.profile}: none of its {len(self.jobs)} experiments has figures to report.{reasons}\n"
                f"Run make report PROFILE={self.profile}."
            )
        first: dict[str, tuple[str, Path]] = {}
        for job, run in finished.items():
            for what, digest in (
                ("data", run.record.data["sha256"]),
                (f"weights of {job.experiment.backbone}", run.record.weights["tensors_sha256"]),
            ):
                expected, where = first.setdefault(what, (digest, job.directory))
                if digest != expected:
                    raise InvalidRecord(
                        f"{job.directory}: not the {what} of {where}, though the parameters are the same. "
                        "Delete the folders of the one or the other kind, and run the study again."
                    )
        return finished, missing

    def finished(self) -> list[Job]:
        """The jobs that have left a record."""
        return [job for job in self.jobs if (job.directory / "record.json").is_file()]

    def set_aside_damaged(self) -> list[str]:
        """Rename records that cannot be read, so that their experiments run again; what is wrong with each.

        One that was stopped between its record and the end of its notebook
        loses the record: it makes both again from what its training has left.
        A notebook that is missing for another reason is not missed.
        """
        wrong, stopped = [], self.failures()
        for job in self.finished():
            with contextlib.suppress(_AtWork), locked([job.directory / "experiment"], _at_work):
                record = job.directory / "record.json"
                try:
                    job.read()
                except InvalidRecord as error:
                    record.replace(job.directory / "record.damaged.json")
                    wrong.append(str(error))
                else:
                    if job.name in stopped and not job.is_finished():
                        record.unlink()
        return wrong

    def failures(self) -> dict[str, str]:
        """Why jobs of the graph have not been finished, by their names."""
        return {path.stem: path.read_text(encoding="utf-8", errors="replace") for path in self._notes.glob("*.txt")}

    def forget_failures(self) -> None:
        """Before another try."""
        for path in self._notes.glob("*.txt"):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def noting_failure(self, name: str) -> Iterator[None]:
        """Leave a note of why a job is not finished, until it is: also if its process is killed."""
        note = self._notes / f"{name}.txt"

        def write(text: str) -> None:
            with contextlib.suppress(OSError):  # the disk may be what is wrong
                write_atomic(note, lambda partial: partial.write_text(text, encoding="utf-8"))

        write("it was stopped from outside, or its machine was lost")
        try:
            yield
        except ThawError as error:
            write(str(error))
            raise
        except Exception as error:
            write(explained(type(error).__name__, str(error)))
            raise
        note.unlink(missing_ok=True)

    @property
    def _notes(self) -> Path:
        return self.outputs / "failures"


def _claims(name: str, root: Path) -> Claims:
    folder = folder_of(name, root)
    return Claims.of(folder, read_parameters(folder / FILE), REGISTRY)


def read_parameters(path: Path) -> dict[str, Any]:
    """Read a profile's or configuration's YAML file as a mapping.

    Raises
    ------
    InvalidParameter
        If it is not YAML, or not a mapping.
    """
    try:
        parameters = yaml.load(path.read_text(encoding="utf-8"), _Yaml)
    except Exception as error:  # beside YAMLError, whatever making a date, a number or a depth of lists can raise
        said = "".join(letter if letter.isprintable() else "\ufffd" for letter in first_line(error))
        raise InvalidParameter(f"{path}: cannot be read as YAML ({said}).") from None
    if not isinstance(parameters, dict):
        raise InvalidParameter(f"{path}: holds no mapping of parameters, such as 'image_size: 224'.")
    return parameters


def _order(job: Job) -> tuple:
    """As the original's table has it: ResNet50 first, frozen, then A, then B, each by amount."""
    experiment = job.experiment
    strategies = ["frozen", "layers", "blocks"]
    return (
        list(REGISTRY).index(experiment.backbone),
        strategies.index(experiment.strategy),
        experiment.amount,
        experiment.epochs,
        experiment.seed,
    )


class _AtWork(Exception):
    """Another process makes these files."""


def _at_work() -> NoReturn:
    raise _AtWork


class _Yaml(yaml.SafeLoader):
    """YAML of plain values, in which a name given twice is a mistake, and not the last one's value."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        names: set[str] = set()
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if key.value in names:
                line = key.start_mark.line + 1
                raise yaml.constructor.ConstructorError(problem=f"{shown(key.value)} again in line {line}")
            names.add(key.value)
        return super().construct_mapping(node, deep)


def _check_name(path: Path) -> None:
    """Refuse a profile's or configuration's name that is not fit for a folder's and an argument."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", path.stem):
        raise InvalidParameter(
            f"{shown(path.name)}: not a name for a profile or a configuration. Allowed: up to 100 letters (a to z), digits "
            "and . _ -, a letter or digit first. Rename the file."
        )
