"""What experiments of a study share, as jobs of their own, and what waits for what.

Photos are decoded once, each network's frozen part sees them once, and each
head is trained once. An experiment that finds one of these missing makes it
itself: the plan saves time, and no result depends on it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from thaw.disk.atomic import write_atomic
from thaw.disk.locks import Taken, give_up, locked
from thaw.experiment import Experiment
from thaw.study.study import Job, Study

# The parameters that experiments have in common if they share a part.
OF_PHOTOS = ("dataset", "image_size", "max_examples", "splits", "on_damaged")
OF_ACTIVATIONS = (*OF_PHOTOS, "backbone", "weights", "precision")
OF_HEAD = (*OF_ACTIVATIONS, "seed", "batch_size", "augmentation", "head_learning_rate")


@dataclass(frozen=True)
class Part:
    """One thing that experiments share.

    Attributes
    ----------
    kind : {'photos', 'activations', 'head'}
    name : str
        The kind and a digest of the parameters in common.
    label : str
        The name for people.
    jobs : list of Job
        The experiments that share it.
    after : list of str
        The names of the parts that must be made before.
    """

    kind: str
    name: str
    label: str
    jobs: list[Job] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """The shared parts of a study by name, and the names of those that each job waits for, by the job's name."""

    parts: dict[str, Part]
    needs: dict[str, list[str]]


def plan(study: Study, jobs: Sequence[Job]) -> Plan:
    """Find what some experiments of a study share, from their parameters alone."""
    parts: dict[str, Part] = {}
    needs: dict[str, list[str]] = {job.name: [] for job in study.jobs}
    heads = [_name("head", job) for job in jobs]
    for job in jobs:
        experiment = job.experiment
        labels = {"photos": "photos"}
        if experiment.activations != "compute" and experiment.augmentation == "none":
            labels["activations"] = f"{experiment.backbone}, frozen part"
        if heads.count(_name("head", job)) > 1:
            labels["head"] = f"{experiment.backbone}, head, seed {experiment.seed}"
        for kind, label in labels.items():
            name = _name(kind, job)
            part = parts.setdefault(name, Part(kind, name, label, after=list(needs[job.name])))
            part.jobs.append(job)
            needs[job.name].append(name)
    return Plan(parts, needs)


def _name(kind: str, job: Job) -> str:
    common = {"photos": OF_PHOTOS, "activations": OF_ACTIVATIONS, "head": OF_HEAD}[kind]
    values = [getattr(job.experiment, name) for name in common]
    if kind == "head":
        values.append(_head_epochs(job.experiment))
    return f"{kind}-{hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]}"


def _head_epochs(experiment: Experiment) -> int:
    """Epochs of the head alone."""
    return experiment.epochs if experiment.strategy == "frozen" else experiment.head_epochs


def marker(study: Study, name: str) -> Path:
    """Give the path of the file that says that a part was made."""
    return study.outputs / ".snakemake" / "shared" / f"{name}.done"


def make(study: Study, part: Part, log: Callable[[str], None] = print) -> None:
    """Make one of the shared parts.

    Raises
    ------
    ThawError
        If photos or weights cannot be read.
    """
    from thaw.data.photos import photos_of  # with TensorFlow: seconds
    from thaw.training import activations, phases
    from thaw.training.setup import Setup

    first, folder = part.jobs[0].experiment, ""
    if part.kind == "photos":
        photos = photos_of(first)
        log(f"{len(photos):,} are decoded and resized")
    else:
        setup = Setup.of(first, log)
        if part.kind == "head":
            phases.train_head(setup)
        else:
            phases.provide_activations(setup, [job.experiment for job in part.jobs])
            folder = str(activations.folder(setup))
    path = marker(study, part.name)
    write_atomic(path.with_suffix(".folder"), folder)
    write_atomic(path, "")


def forget(study: Study) -> None:
    """Delete the markers, and the activations of a study whose experiments are all finished."""
    for path in marker(study, "").parent.glob("*.done"):
        path.unlink()
    if study.unfinished():
        return
    for path in marker(study, "").parent.glob("*.folder"):
        if folder := path.read_text(encoding="utf-8"):
            with suppress(Taken), locked([Path(folder)], give_up):  # another study may be writing there
                shutil.rmtree(folder, ignore_errors=True)
        path.unlink()
