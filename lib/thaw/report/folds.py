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


_Jobs = dict[Job, dict[int | None, Run]]  # of one configuration: its seeds, each with its folds


def compared(finished: Mapping[Job, Iterable[Run]], missing: Mapping[Job, str]) -> Compared:
    """Keep of each network the folds that all of its configurations with three finished folds or more share.

    What has diverged in any fold is left out: a mean over the other folds
    would speak of a training that cannot be relied on. So are configurations
    that have hardly begun, where the others have more than twice the folds. A
    study without folds keeps all runs.
    """
    found = Compared(missing=dict(missing))
    networks: dict[str, dict[str, _Jobs]] = {}
    for job, runs in finished.items():
        of_job = {run.record.experiment.fold: run for run in runs}
        diverged = [fold for fold, run in of_job.items() if run.record.diverged]
        if diverged:
            found.missing[job] = _so_far(job, len(of_job) - len(diverged), diverged)
        else:
            networks.setdefault(job.experiment.backbone, {}).setdefault(job.configuration, {})[job] = of_job
    for backbone, configurations in networks.items():
        shared = _shared(configurations, found.missing)
        left_out: set[int] = set()
        for jobs in configurations.values():
            found.runs.extend(run for of_job in jobs.values() for fold, run in of_job.items() if fold in shared)
            left_out |= {fold for fold in _folds(jobs) - shared if fold is not None}
        if left_out:
            found.lacking[backbone] = {
                fold: [name for name, jobs in configurations.items() if fold not in _folds(jobs)]
                for fold in sorted(left_out)
            }
    return found


def _folds(jobs: _Jobs) -> set[int | None]:
    """Find the folds of a configuration that any of its seeds has finished."""
    return set().union(*jobs.values())


def _shared(configurations: dict[str, _Jobs], missing: dict[Job, str]) -> set[int | None]:
    """Find the folds that all configurations have; first take out those with too few, of them or in common."""
    for name in list(configurations):
        jobs = configurations[name]
        if None not in _folds(jobs) and len(_folds(jobs)) < FEWEST_FOLDS:
            missing |= {job: _so_far(job, len(of_job)) for job, of_job in configurations.pop(name).items()}
    while configurations:
        of_each = {name: _folds(jobs) for name, jobs in configurations.items()}
        shared = set.intersection(*of_each.values())
        most = max(map(len, of_each.values()))
        if None in shared or (2 * len(shared) >= most and len(shared) >= FEWEST_FOLDS):
            return shared
        least = min(reversed(of_each), key=lambda name: len(of_each[name]))
        for job, of_job in configurations.pop(least).items():
            folds = ", ".join(map(str, of_job))
            missing[job] = f"{_so_far(job, len(of_job))} ({folds}): too few in common with the other configurations"
    return set()


def _so_far(job: Job, finished: int, diverged: Iterable[int | None] = ()) -> str:
    """Say how much of a job is finished, and where it diverged."""
    text = f"{finished} of {len(job.experiment.tested_folds)} folds are finished"
    if not (folds := list(diverged)):
        return text
    return f"diverged in fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}; {text}"
