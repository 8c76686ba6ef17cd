"""What experiments of one network share: a job of its own makes it before they start.

Each network's frozen part sees the photos once, and each head is trained
once. An experiment that finds one of these missing makes it itself: the plan
saves time, and no result depends on it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.disk.atomic import write_atomic
from thaw.disk.locks import Taken, give_up, locked
from thaw.errors import ThawError
from thaw.experiment import OF_UNFREEZING, Experiment, is_file
from thaw.records.runs import write_csv
from thaw.study import probe
from thaw.study.study import FINDINGS, Job, Study

if TYPE_CHECKING:
    from thaw.training.setup import Setup

# What does not change how a head is trained alone, and what besides does not change the output of a frozen part.
BEHIND_HEAD = {*OF_UNFREEZING, "amount", "finetune_learning_rate", "output_dir"}
BEHIND_FROZEN = {"head_epochs", "seed", "batch_size", "head_learning_rate", "class_weight", "keep"}


@dataclass(frozen=True)
class Part:
    """What some experiments of one network share.

    Attributes
    ----------
    name : str
        Holds a digest of the parameters in common.
    label : str
        The name for people.
    jobs : list of Job
        The experiments that share it.
    """

    name: str
    label: str
    jobs: list[Job]

    def heads(self) -> list[Experiment]:
        """List the heads that several of them share, of every fold, each as an experiment that trains nothing else."""
        counts = Counter(
            head_alone(each) for job in self.jobs if not job.awaits_rates for each in job.experiment.in_turn()
        )
        return [head for head, count in counts.items() if count > 1]


@dataclass(frozen=True)
class Plan:
    """The shared parts of a study by name, and the name of the one that a job waits for, by the job's name."""

    parts: dict[str, Part]
    needs: dict[str, str]


def plan(study: Study, jobs: Sequence[Job]) -> Plan:
    """Find what some experiments of a study share, from their parameters alone."""
    parts: dict[str, Part] = {}
    for job in jobs:
        name = f"shared-{hashlib.sha256(_common(job.experiment).encode()).hexdigest()[:8]}"
        parts.setdefault(name, Part(name, f"{job.experiment.backbone}, shared part", [])).jobs.append(job)
    parts = {name: part for name, part in parts.items() if len(part.jobs) > 1}
    return Plan(parts, {job.name: part.name for part in parts.values() for job in part.jobs})


def is_kept(experiment: Experiment) -> bool:
    """Whether the output of the frozen part may be kept: it does not differ from epoch to epoch."""
    return experiment.activations != "compute" and not experiment.augments_afresh


def _common(experiment: Experiment) -> str:
    """Name what experiments have in common if they share a part: a frozen part's output, or else a head alone."""
    behind = BEHIND_FROZEN if is_kept(experiment) else set()
    if experiment.weights == "none":  # the seed makes them
        behind = behind - {"seed"}
    head = head_alone(experiment).model_dump(mode="json", exclude={"test_folds", *behind})
    return json.dumps(head, sort_keys=True)


def head_alone(experiment: Experiment) -> Experiment:
    """Return the experiment that trains the same head alone."""
    epochs = experiment.epochs if experiment.strategy == "frozen" else experiment.head_epochs
    others = {name: Experiment.model_fields[name].get_default() for name in BEHIND_HEAD}
    alone = {"strategy": "frozen", "head_epochs": epochs, "finetune_epochs": 0}
    if experiment.strategy != "frozen":
        alone["keep"] = "last"  # of the last phase it keeps the best
    return experiment.model_copy(update=others | alone)


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
    from thaw.training import activations, phases  # with TensorFlow: seconds
    from thaw.training.setup import Setup

    setup, folder = Setup.of(part.jobs[0].experiment, log), ""
    to_probe = probe.is_due(study, setup)
    if is_kept(setup.experiment):
        phases.provide_activations(setup, [job.experiment for job in part.jobs], for_probe=to_probe)
        folder = str(activations.folder(setup))
        _check_photos(study, setup)
    for experiment in part.heads():
        phases.train_head(setup.of_fold(experiment))
    if to_probe:  # before this part's marker, so before anything that waits for it is fine-tuned
        try:
            _probe(study, setup, log)
        except ThawError as error:
            log(f"no probe: {error}")
    path = marker(study, part.name)
    write_atomic(path.with_suffix(".folder"), folder)
    write_atomic(path, "")


def probed(study: Study, backbone: str, log: Callable[[str], None] = print) -> probe.Probe:
    """Probe one network of a study, or read its probe if there is one of these photos and weights.

    Raises
    ------
    ThawError
        If photos or weights cannot be read, or there are too few photos.
    """
    from thaw.training.setup import Setup

    experiment = head_alone(probe.networks(study)[backbone])
    # Of photos that change or are copied, its head would take many times as long.
    experiment = experiment.model_copy(update={"activations": "keep", "augmentation": "none", "copies": 0})
    setup = Setup.of(experiment, log)
    there = probe.read(study, backbone)
    return _probe(study, setup, log) if there is None or probe.is_due(study, setup) else there


def _probe(study: Study, setup: Setup, log: Callable[[str], None]) -> probe.Probe:
    """Probe a network with its head trained; a head that is there is taken over."""
    from thaw.training import phases

    headed = setup.of_fold(head_alone(setup.experiment).in_turn()[0])
    phases.provide_activations(headed, [headed.experiment], for_probe=is_kept(headed.experiment))
    phases.train_head(headed)
    return probe.make(study, headed, log)


def _check_photos(study: Study, setup: Setup) -> None:
    """Leave what the data checks find as ``findings.csv``.

    The features are those of the study's first network that was pre-trained;
    a network of Keras' own rather than one from a file.
    """
    from thaw.data import checks
    from thaw.training import phases

    trained = [e for e in study.networks() if e.weights != "none" or is_file(e.backbone)] or study.networks()
    first = min(trained, key=lambda e: is_file(e.backbone))
    if setup.experiment.backbone != first.backbone or setup.experiment.copies:
        return
    data = setup.data
    photos = data.listing() if data.files is None else data.files
    if folds := setup.experiment.folds:
        photos = checks.by_fold(photos, data.place, folds)
    found = checks.findings(photos, data.provenance["left_out"], data.provenance["ignored"])
    features = None if first.weights == "none" and not is_file(first.backbone) else phases.pooled_features(setup)
    if features is not None:
        found += checks.findings_of_features(photos, features)
    write_csv(checks.as_table(found), study.outputs / FINDINGS)


def forget(study: Study) -> None:
    """Delete the markers; the findings, if no experiment is finished; the activations, if all are."""
    if not any(job.folders for job in study.jobs):  # it begins anew, perhaps on other photos
        (study.outputs / FINDINGS).unlink(missing_ok=True)
    for path in marker(study, "").parent.glob("*.done"):
        path.unlink()
    if study.unfinished():
        return
    for path in marker(study, "").parent.glob("*.folder"):
        if folder := path.read_text(encoding="utf-8"):
            with suppress(Taken), locked([Path(folder)], give_up):  # another study may be writing there
                shutil.rmtree(folder, ignore_errors=True)
        path.unlink()
