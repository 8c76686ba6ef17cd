"""Training and testing an experiment: one run, or one fold after the other in one process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from thaw.disk import status
from thaw.errors import Diverged, InvalidRecord
from thaw.experiment import Experiment
from thaw.records import runs
from thaw.records.record import Record
from thaw.records.runs import Run
from thaw.training import evaluation, phases
from thaw.training.setup import Setup


def run_all(setup: Setup, directory: Path) -> list[Run]:
    """Train, test and save an experiment: itself, or all its folds in turn on one network.

    What is finished is read and not run again. Each fold is saved as soon as
    it is tested, so that a stop loses nothing of it; when all are, they are
    gathered in one record. If a fold diverges, that is recorded, and the
    others go on.

    Parameters
    ----------
    setup : Setup
        Of the whole experiment.
    directory : Path
        Where its files go.

    Raises
    ------
    Diverged
        If it has diverged; of several folds, all of them. Its record is saved.
    """
    in_turn, data = setup.experiment.in_turn(), setup.data
    found = _gathered(setup, directory)
    if not found:
        found = [run_one(setup, experiment, directory) for experiment in in_turn]
        if in_turn != [setup.experiment]:  # folds, be it a single one
            runs.gather(directory, setup.experiment, data.listing() if data.files is not None else None)
    epochs = [run.record.diverged for run in found]
    if all(epochs):
        phases.forget(setup)
        where = f" in all {len(epochs)} folds" if len(epochs) > 1 else ""
        raise Diverged(
            f"diverged: after epoch {epochs[0]} the loss is not a finite number{where}. The run ends here, and is "
            "recorded as diverged. Give a smaller learning rate, or the precision float32."
        )
    return found


def _gathered(setup: Setup, directory: Path) -> list[Run]:
    """Read the folds of an experiment where they are gathered; delete the record if it is of another."""
    runs.take_apart(directory, setup.experiment)
    if setup.experiment.in_turn() == [setup.experiment] or not (directory / "record.json").is_file():
        return []
    with contextlib.suppress(InvalidRecord):
        found = runs.read(directory, setup.experiment)
        if len(found) == len(setup.experiment.in_turn()) and all(_is_of(run, setup) for run in found):
            return found
    (directory / "record.json").unlink()
    return []


def run_one(setup: Setup, experiment: Experiment, directory: Path) -> Run:
    """Train, test and save one fold of an experiment, or its only run; or read it if it is there.

    Parameters
    ----------
    setup : Setup
        Of the whole experiment.
    experiment : Experiment
        One of its `Experiment.in_turn`.
    directory : Path
        Of the whole experiment.
    """
    alone, fold = experiment == setup.experiment, experiment.fold
    folder = directory if alone or fold is None else runs.of_fold(directory, fold)
    with contextlib.suppress(InvalidRecord):
        found = Run.read(folder)
        if found.record.experiment.digest == experiment.digest and _is_of(found, setup):
            return found
    if fold is not None:
        status.tell(fold=fold, epoch=0)
    of_fold = setup.of_fold(experiment)
    training = phases.train(of_fold)
    predictions = evaluation.predict(training.network, training.test, of_fold.data)
    scores = runs.scores(predictions)
    if training.diverged:
        predictions, scores = predictions[:0], {}
    record = Record.of(experiment, training.history, **training.measured(of_fold), **scores)
    photos = of_fold.data.listing() if alone and of_fold.data.files is not None else None
    runs.save(folder, record, training.history, predictions, photos)
    if not alone:
        phases.forget(of_fold)
    return Run.read(folder)


def only_fold(experiment: Experiment, directory: Path, fold: int, log: Callable[[str], None] = print) -> Run:
    """Train, test and save one of an experiment's folds, in a process of its own."""
    setup = Setup.of(experiment, log)
    (one,) = (each for each in experiment.in_turn() if each.fold == fold)
    return run_one(setup, one, directory)


def _is_of(run: Run, setup: Setup) -> bool:
    """Whether a run had the same photos and weights."""
    record = run.record
    return (record.data["sha256"], record.weights["tensors_sha256"]) == (
        setup.data.provenance["sha256"],
        setup.pretrained["tensors_sha256"],
    )
