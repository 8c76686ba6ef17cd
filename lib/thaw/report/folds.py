"""Which folds of a study are compared: those that all configurations of a network have finished."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from thaw.experiment import FEWEST_FOLDS
from thaw.records.runs import Run
from thaw.study.study import Job


@dataclass(frozen=True)
class Compared:
    """What is compared of what a study has finished.

    Attributes
    ----------
    runs : list of Run
        Of each network only those of the folds that all of its configurations share.
    missing : dict of Job to str
        Why a job is not compared.
    lacking : dict of str to dict of int to list of str
        By network and fold: the finished folds that are left out, and which configurations lack them.
    """

    runs: list[Run] = field(default_factory=list)
    missing: dict[Job, str] = field(default_factory=dict)
    lacking: dict[str, dict[int, list[str]]] = field(default_factory=dict)


def compared(finished: Mapping[Job, Iterable[Run]], missing: Mapping[Job, str]) -> Compared:
    """Keep of each network the folds that all of its configurations with three finished folds or more share.

    A fold that diverged is not finished. Where no three folds are shared, the
    configurations with the fewest go. A study without folds keeps all runs.
    """
    found = Compared(missing=dict(missing))
    networks: dict[str, dict[Job, dict[int | None, Run]]] = {}
    for job, runs in finished.items():
        of_job = {run.record.experiment.fold: run for run in runs if not run.record.diverged}
        enough = FEWEST_FOLDS if job.experiment.tested_folds else 1
        if len(of_job) < enough:
            diverged = [run.record.experiment.fold for run in runs if run.record.diverged]
            found.missing[job] = _so_far(job, len(of_job), diverged)
        else:
            networks.setdefault(job.experiment.backbone, {})[job] = of_job
    for backbone, jobs in networks.items():
        shared = _shared(jobs, found.missing)
        found.runs.extend(of_job[fold] for of_job in jobs.values() for fold in of_job if fold in shared)
        folds = sorted({fold for of_job in jobs.values() for fold in of_job if fold is not None} - shared)
        lacking = {fold: [_named(job, fold, finished[job]) for job in jobs if fold not in jobs[job]] for fold in folds}
        if lacking:
            found.lacking[backbone] = lacking
    return found


def _shared(jobs: dict[Job, dict[int | None, Run]], missing: dict[Job, str]) -> set[int | None]:
    """Find the folds that all jobs have, and take out the jobs with the fewest until these are enough."""
    while True:
        shared = set.intersection(*(set(of_job) for of_job in jobs.values()))
        if len(shared) >= FEWEST_FOLDS or None in shared or len(jobs) == 1:
            return shared
        least = min(reversed(jobs), key=lambda job: len(jobs[job]))
        of_job = jobs.pop(least)
        folds = ", ".join(str(fold) for fold in sorted(fold for fold in of_job if fold is not None))
        missing[least] = f"{len(of_job)} of {len(least.experiment.tested_folds)} folds are finished ({folds}): too few "
        missing[least] += "in common with the other configurations"


def _so_far(job: Job, finished: int, diverged: list[int | None]) -> str:
    """Say how much of a job is finished, where that is too little."""
    text = f"{finished} of {len(job.experiment.tested_folds)} folds are finished"
    if not diverged:
        return text
    return f"{text}; fold{'s' * (len(diverged) > 1)} {', '.join(map(str, diverged))} diverged"


def _named(job: Job, fold: int, finished: Iterable[Run]) -> str:
    """Name a job that lacks a fold, and say where the fold diverged."""
    diverged = any(run.record.experiment.fold == fold for run in finished)
    return f"{job.configuration}, seed {job.experiment.seed}{' (diverged)' * diverged}"
