"""A profile's study: which experiments it has, where each leaves its files, and what has become of it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from thaw.disk import places
from thaw.disk.atomic import write_atomic
from thaw.disk.locks import Taken, give_up, locked
from thaw.errors import InvalidParameter, InvalidRecord, ThawError, did_you_mean, explained
from thaw.experiment import FEWEST_FOLDS, Experiment, Strategy
from thaw.network import backbones
from thaw.records import runs
from thaw.records.runs import Run
from thaw.study import rates
from thaw.study.claims import FILE, Claims, folder_of
from thaw.study.profile import Profile, StudySettings, read_parameters

NOT_RUN = "it has not been run"
DAMAGED = "record.damaged.json"
FINDINGS = "findings.csv"  # of the data checks


@dataclass(frozen=True)
class Job:
    """One experiment of a study.

    Its name holds a digest of all parameters: other parameters make another
    job, so that content decides what is up to date, and not the times of files.
    """

    name: str  # configuration, seed and digest
    configuration: str
    experiment: Experiment  # output_dir: <outputs>/<profile>/runs/<name>, relative to the project's root
    directory: Path  # the same folder, as an absolute path
    choice: rates.Choice | None = field(default=None, compare=False)  # of its learning rates
    awaits_rates: bool = False  # until they are chosen, it has no folder and no final name
    twin_of: str = ""  # the configuration that it repeats in float32: it is compared with that one alone

    @property
    def label(self) -> str:
        """The job in words, for example 'mobilenet-blocks-2, seed 0'."""
        count = len(self.experiment.tested_folds)
        folds = f", {count} fold{'s' * (count > 1)}" if count else ""
        return f"{self.configuration}, seed {self.experiment.seed}{folds}"

    @property
    def effort(self) -> int:
        """A rough measure of how long it takes, in layers: a block has some ten."""
        if self.experiment.strategy in ("pattern", "all"):
            return 1000
        reached = self.experiment.amount + self.experiment.skip
        return reached * (10 if self.experiment.strategy == "blocks" else 1)

    @property
    def record(self) -> Path:
        """The file that a finished experiment leaves."""
        return self.directory / "record.json"

    @property
    def notebook(self) -> Path:
        """The notebook that it leaves: the last of its files to appear."""
        return self.directory / "experiment.ipynb"

    def is_in_notebook(self) -> bool:
        """Whether its notebook can be read, is its own, and has been run."""
        try:
            read = json.loads(self.notebook.read_text(encoding="utf-8"))
            own = Path(read["metadata"]["papermill"]["parameters"]["output_dir"]).name == self.name
            return own and any(cell.get("outputs") for cell in read["cells"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    @property
    def folders(self) -> list[Path]:
        """The folder that holds its record, or those of its finished folds."""
        if self.record.is_file():
            return [self.directory]
        folders = [runs.of_fold(self.directory, fold) for fold in self.experiment.tested_folds]
        return [folder for folder in folders if (folder / "record.json").is_file()]

    def unfinished_folds(self) -> list[int]:
        """List the folds without a record; none without folds."""
        there = self.folders
        if there == [self.directory]:
            return []
        tested = self.experiment.tested_folds
        return [fold for fold in tested if runs.of_fold(self.directory, fold) not in there]

    def read(self) -> list[Run]:
        """Read what the experiment has left: one run, or one for each finished fold.

        Raises
        ------
        InvalidRecord
            As `thaw.records.runs.read` does.
        """
        return runs.read(self.directory, self.experiment)

    def set_aside_damaged(self) -> list[str]:
        """Rename records that cannot be read, or are of other parameters; say what was wrong with each.

        Its notebook, if it is not of this job, is deleted: it is made again, from the record if there is one.
        """
        of_folds = {runs.of_fold(self.directory, e.fold): e for e in self.experiment.in_turn() if e.fold is not None}
        runs.take_apart(self.directory, self.experiment)
        wrong = []
        for folder in self.folders:
            try:
                runs.read(folder, of_folds.get(folder, self.experiment))
            except InvalidRecord as error:
                (folder / "record.json").replace(folder / DAMAGED)
                wrong.append(str(error))
        if self.notebook.is_file() and not self.is_in_notebook():
            self.notebook.unlink(missing_ok=True)
        return wrong

    @property
    def locks(self) -> list[Path]:
        """What to lock so that nobody trains it meanwhile; nothing where there is nothing of it."""
        if not self.folders:
            return []
        return [self.directory / "experiment", *(set(self.folders) - {self.directory})]

    def is_recorded(self) -> bool:
        """Whether its record is there, with all its folds. Nothing else of it is looked at."""
        return self.record.is_file() and runs.holds_all_folds(self.directory, self.experiment)

    def is_finished(self) -> bool:
        """Whether its record has all its folds and its notebook is there. A diverged run is finished, too."""
        if not self.is_recorded():
            return False
        try:
            self.read()
        except InvalidRecord:
            return False
        return self.notebook.is_file()


@dataclass(frozen=True)
class Study:
    """All experiments of a profile."""

    profile: str  # its name
    path: Path  # its file
    outputs: Path  # <outputs>/<profile>
    jobs: tuple[Job, ...]
    settings: StudySettings
    claims: Claims | None = None  # what its runs decide
    choices: tuple[rates.Choice, ...] = ()  # of learning rates: one a configuration, or none

    @classmethod
    def load(cls, profile: str, outputs: str | Path = "outputs", root: Path | None = None) -> Study:
        """Read a profile and merge it with its configurations.

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
        UnknownProfile, UnknownBackbone, InvalidParameter
            If a file is missing, or holds what is not allowed.
        """
        root = root or places.project()
        read = Profile.read(profile, root)
        jobs = [job for name in read.configurations for job in _jobs(read, name, Path(outputs), root)]
        rows: dict[str, Job] = {}
        for job in jobs:
            same = rows.setdefault(job.experiment.digest, job)
            if same is not job:
                raise InvalidParameter(
                    f"configurations {same.configuration} and {job.configuration}, seed {job.experiment.seed}: the "
                    "same parameters twice. Remove one, or change what it is to compare."
                )
        name = read.path.stem
        jobs = sorted(jobs, key=_order)
        choices = {job.choice.name: job.choice for job in jobs if job.choice}
        return cls(
            name,
            read.path,
            root / outputs / name,
            tuple(jobs),
            read.settings,
            _claims(read.settings, root, jobs),
            tuple(choices.values()),
        )

    @property
    def margin(self) -> float:
        """A difference of accuracy that would not matter."""
        return self.settings.margin

    def job(self, name: str) -> Job:
        """Find a job by its name."""
        jobs = {job.name: job for job in self.jobs}
        if name not in jobs:
            raise InvalidParameter(f"{name!r}: no experiment of {self.profile}. {did_you_mean(name, jobs)}")
        return jobs[name]

    def choice(self, name: str) -> rates.Choice:
        """Find a choice of learning rates by its name."""
        choices = {choice.name: choice for choice in self.choices}
        if name not in choices:
            raise InvalidParameter(f"{name!r}: no choice of {self.profile}. {did_you_mean(name, choices)}")
        return choices[name]

    def networks(self) -> list[Experiment]:
        """One experiment of each network: of each backbone and photo size."""
        experiments = [job.experiment for job in reversed(self.jobs) if not job.twin_of]
        found = {(e.backbone, e.image_size): e for e in experiments}
        return list(found.values())[::-1]

    def outcomes(self) -> tuple[dict[Job, list[Run]], dict[Job, str]]:
        """Read the results of all jobs.

        Returns
        -------
        finished : dict of Job to list of Run
            One run, or one for each fold that is finished; some of these may
            have diverged, but not all.
        missing : dict of Job to str
            Why a job has no run to compare: it diverged, it failed, or its
            files cannot be read.

        Raises
        ------
        InvalidRecord
            If no run has results, or if the runs have different data or
            weights and cannot be compared.
        """
        finished: dict[Job, list[Run]] = {}
        missing = {job: reason for job, reason in self.reasons().items() if not job.folders}
        for job in self.jobs:
            if job in missing:
                continue
            try:
                found = job.read()
            except InvalidRecord as error:
                missing[job] = str(error)
                continue
            if all(run.record.diverged for run in found):
                missing[job] = f"diverged: after epoch {found[0].record.diverged} its loss was no finite number"
            else:
                finished[job] = found
        missing = {job: missing[job] for job in self.jobs if job in missing}
        if not finished:
            reasons = "".join(f"\n  {job.label}: {reason}" for job, reason in missing.items() if reason != NOT_RUN)
            raise InvalidRecord(
                f"profile {self.profile}: none of its {len(self.jobs)} experiments has results to report.{reasons}\n"
                f"Run make report PROFILE={self.profile}."
            )
        _check_same_origin(finished)
        return finished, missing

    def finished(self) -> list[Job]:
        """List the jobs that have left a record of all their folds."""
        return [job for job in self.jobs if job.is_recorded()]

    def unfinished(self) -> list[Job]:
        """List the jobs without a record, or with one that lacks folds."""
        return [job for job in self.jobs if not job.is_recorded()]

    def to_choose(self) -> list[rates.Choice]:
        """List the choices of learning rates that are still to be made."""
        return [choice for choice in self.choices if choice.chosen() is None]

    def ready(self) -> list[Job]:
        """List the jobs without a record or without a notebook that have their learning rates."""
        return [job for job in self._incomplete() if not job.awaits_rates]

    def _incomplete(self) -> list[Job]:
        return [job for job in self.jobs if not (job.is_recorded() and job.notebook.is_file())]

    def reportable(self) -> list[Job]:
        """List the jobs with enough results for a report: a record, or those of `FEWEST_FOLDS` folds."""
        jobs = [job for job in self.jobs if not job.twin_of]
        return [job for job in jobs if job.record.is_file() or len(job.folders) >= FEWEST_FOLDS]

    def waiting(self) -> list[Job]:
        """List the jobs that could run, and have neither finished nor failed."""
        reasons = self.reasons()
        return [job for job in self.ready() if reasons[job] == NOT_RUN]

    def reasons(self) -> dict[Job, str]:
        """Why jobs are not finished."""
        failures, found = self.failures(), {}
        choices = {choice.configuration: choice.name for choice in self.choices}
        for job in self._incomplete():
            folds = {fold: failures.get(fold_name(job, fold)) for fold in job.unfinished_folds()}
            found[job] = failures.get(job.name) or next(
                (f"fold {fold}: {reason}" for fold, reason in folds.items() if reason), NOT_RUN
            )
            if job.awaits_rates:
                name = choices[job.twin_of or job.configuration]
                found[job] = f"its learning rates are not chosen: {failures.get(name, 'this has not been run')}"
        return found

    def set_aside_damaged(self) -> list[str]:
        """Rename records that cannot be read, so that their experiments run again.

        A notebook that is not of its experiment is deleted. The next graph
        makes it again from the record, without any training.

        Returns
        -------
        list of str
            What was wrong with each damaged record.
        """
        wrong = []
        for choice in self.to_choose():
            choice.path.unlink(missing_ok=True)  # it cannot be read, or is half of one
        for job in self.jobs:
            with contextlib.suppress(Taken), locked(job.locks, give_up):
                wrong += job.set_aside_damaged()
        return wrong

    def failures(self) -> dict[str, str]:
        """Why jobs of the graph are not finished, by their names."""
        return {path.stem: path.read_text(encoding="utf-8", errors="replace") for path in self._notes()}

    def why_missing(self, what: str, unknown: str = "see the messages above") -> str:
        """Say why the latency, the report or the model is not there, if a job has left a note of it."""
        failures = self.failures()
        notes = (failures[name] for name in (what, f"{what}.html", f"{what}.pdf") if name in failures)
        return next(notes, unknown)

    def forget_failures(self) -> None:
        """Delete the notes of failures, before another try."""
        for path in self._notes():
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def noting_failure(self, name: str) -> Iterator[None]:
        """Leave a note of why a job is not finished, until it is finished; also if its process is killed."""
        note = self.outputs / "failures" / f"{name}.txt"

        def write(text: str) -> None:
            with contextlib.suppress(OSError):  # the disk itself may be the problem
                write_atomic(note, text)

        write("it was stopped from outside, or its machine was lost; if memory ran out, --cores 1 takes less")
        try:
            yield
        except ThawError as error:
            write(str(error))
            raise
        except Exception as error:
            write(explained(type(error).__name__, str(error)))
            raise
        note.unlink(missing_ok=True)

    def _notes(self) -> list[Path]:
        return sorted((self.outputs / "failures").glob("[!.]*.txt"))


def _jobs(profile: Profile, configuration: str, outputs: Path, root: Path) -> list[Job]:
    """Make the jobs of one configuration: one for each seed, and one for its twin in float32."""
    settings, own = profile.settings, profile.configurations[configuration]
    jobs = []
    try:
        backbone = Experiment.of(profile.parameters | own).backbone
        backbones.get(backbone)
        merged = profile.parameters | settings.backbones.get(backbone, {}) | own
        merged |= {"folds": settings.folds, "choosing_folds": settings.choosing_folds}
        merged |= {"test_folds": settings.test_folds_of(backbone)}
        seeds = settings.seeds_of(backbone)
        first = Experiment.of(merged | {"seed": seeds[0]})
        choice = rates.of(configuration, first, settings.grids, root / outputs / profile.path.stem / "rates")
        chosen = choice.chosen() if choice else {}
        runs_of: list[tuple[str, str, dict[str, Any]]] = [(configuration, "", {"seed": seed}) for seed in seeds]
        if folds := settings.also_float32.get(configuration):
            if first.precision == "float32":
                raise InvalidParameter(
                    "study.also_float32: its precision is float32 already. Remove it there, or give another precision."
                )
            if folds > (there := len(first.tested_folds)):
                raise InvalidParameter(
                    f"study.also_float32 = {folds}: there are {there} to test on. Give {there} or fewer."
                )
            again = {"seed": seeds[0], "precision": "float32", "test_folds": folds}
            runs_of.append((f"{configuration}-float32", configuration, again))
        for named, twin_of, more in runs_of:
            experiment = Experiment.of(merged | (chosen or {}) | more)
            digest = "undecided" if chosen is None else experiment.digest[:8]
            name = f"{named}-seed-{experiment.seed}-{digest}"
            output_dir = outputs / profile.path.stem / "runs" / name
            experiment = experiment.model_copy(update={"output_dir": output_dir})
            its = None if twin_of else choice
            jobs.append(Job(name, named, experiment, root / output_dir, its, chosen is None, twin_of))
    except InvalidParameter as error:
        raise type(error)(f"profile {profile.path.stem}, configuration {configuration}:\n{error}") from None
    return jobs


def fold_name(job: Job, fold: int) -> str:
    """Name a fold of a job where it is a job of its own."""
    return f"{job.name}-fold-{fold}"


def _claims(settings: StudySettings, root: Path, jobs: list[Job]) -> Claims | None:
    """Read the claims, which may name any network: also the study's own files."""
    if settings.claims is None:
        return None
    folder = folder_of(settings.claims, root)
    known = [*dict.fromkeys([*backbones.names(), *(job.experiment.backbone for job in jobs)])]
    return Claims.of(folder, read_parameters(folder / FILE), known)


def _order(job: Job) -> tuple:
    """Order rows: by network, then by strategy, each by amount, with what is plain first; twins are the last."""
    experiment = job.experiment
    return (
        bool(job.twin_of),
        backbones.order(experiment.backbone),
        get_args(Strategy).index(experiment.strategy),
        experiment.amount,
        experiment.skip,
        experiment.epochs,
        len(experiment.extras),
        experiment.label,
        experiment.seed,
    )


def _check_same_origin(finished: dict[Job, list[Run]]) -> None:
    """Refuse to compare runs of different photos, or of different weights of one network; a seed draws random ones."""
    first: dict[str, tuple[str, Path]] = {}
    for job, run in ((job, run) for job, found in finished.items() for run in found):
        drawn = f" with seed {job.experiment.seed}" if job.experiment.weights == "none" else ""
        for what, digest in (
            ("data", run.record.data["sha256"]),
            (f"weights of {job.experiment.backbone}{drawn}", run.record.weights["tensors_sha256"]),
        ):
            expected, where = first.setdefault(what, (digest, job.directory))
            if digest != expected:
                raise InvalidRecord(
                    f"{job.directory}: not the {what} of {where}, though the parameters are the same. "
                    "Delete the folders of one kind, and run the study again."
                )
