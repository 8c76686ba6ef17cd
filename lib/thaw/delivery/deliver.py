"""The recommended network, trained once more on all photos and left as files that need nothing of Thaw."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from thaw.data.photos import Data, photos_of
from thaw.delivery import card
from thaw.disk.atomic import folder_whole
from thaw.disk.hashes import sha256
from thaw.errors import Diverged, InvalidRecord, ThawError
from thaw.experiment import OWN_PHOTOS, Experiment
from thaw.network import saved
from thaw.records.record import Record, versions
from thaw.records.runs import write_csv
from thaw.report.results import Results
from thaw.study import freshness
from thaw.study.profile import RECOMMENDED
from thaw.study.study import Study
from thaw.training import phases
from thaw.training.setup import Setup

FORMAT = 1  # of the files: another number, and they are made anew
NETWORK = (saved.KERAS, saved.TFLITE, saved.LABELS, "history.csv")  # what training leaves
COMPARED = 64  # validation photos, at most, on which both files are compared


@dataclass(frozen=True)
class Choice:
    """The configuration that is delivered.

    Attributes
    ----------
    name : str
        Its file's.
    experiment : Experiment
        Without folds: all photos but the validation share train.
    row : Series
        Its row in the results.
    record : Record
        Of one of its runs.
    """

    name: str
    experiment: Experiment
    row: pd.Series
    record: Record

    @classmethod
    def of(cls, study: Study, results: Results) -> Choice:
        """Find what a study delivers: the configuration that its profile names, or the recommended one.

        Raises
        ------
        InvalidRecord
            If that configuration has no results.
        """
        named = study.settings.deliver
        jobs = [job for job in study.jobs if named in (RECOMMENDED, job.configuration)]
        if named == RECOMMENDED:
            row = results.recommended
        else:
            hashes = {job.experiment.configuration for job in jobs}
            found = results.rows[results.rows["configuration"].isin(hashes)]
            if not len(found):
                reasons = [results.missing[job] for job in jobs if job in results.missing]
                raise InvalidRecord(
                    f"study.deliver = {named!r}: has no results to deliver ({'; '.join(reasons)}). Name another "
                    f"configuration, or {RECOMMENDED}."
                )
            row = found.iloc[0]
        job = min(
            (job for job in jobs if job.experiment.configuration == row["configuration"]),
            key=lambda job: job.experiment.seed,
        )
        experiment = job.experiment.undivided.model_copy(update={"output_dir": None})
        return cls(job.configuration, experiment, row, results.of_row(row)[0].record)

    @property
    def trained_from(self) -> str:
        """A digest of everything that the network depends on."""
        facts = [
            FORMAT,
            self.experiment.model_dump(mode="json"),
            self.record.data["sha256"],
            self.record.weights["tensors_sha256"],
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def deliver(study: Study, log: Callable[[str], None] = print) -> Path:
    """Leave a study's network in its folder ``model``, whole or not at all.

    It is trained anew only if what it is trained from has changed. Else the
    model card alone is written again, with the present results.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ThawError
        If there are no results, the photos or weights are others than the
        study's, or training diverges.
    """
    made_from = freshness.model_made_from(study)  # before anything is read
    results = Results.of(study)
    choice = Choice.of(study, results)
    target = study.outputs / freshness.MODEL
    with folder_whole(target) as unfinished:
        before = freshness.delivered(study)
        if before.get("trained_from") == choice.trained_from:
            log(f"{choice.name} is trained already: only its card is written again")
            for name in NETWORK:
                shutil.copy2(target / name, unfinished / name)
            facts = before["network"]
        else:
            facts = _network(choice, unfinished, log)
        about = {
            "made_from": made_from,
            "trained_from": choice.trained_from,
            "profile": study.profile,
            "configuration": choice.name,
            "experiment": _without_folders(choice.experiment),
            "network": facts,
            "tested": _tested(results, choice),
            "files": {name: sha256(unfinished / name) for name in NETWORK},
        }
        (unfinished / freshness.ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
        (unfinished / "README.md").write_text(card.write(choice.record, choice.row, about), encoding="utf-8")
    return target


def _without_folders(experiment: Experiment) -> dict[str, Any]:
    """List an experiment's parameters; of paths only the last part, as the files may be given away."""
    shown = experiment.model_dump(mode="json")
    shown |= {name: Path(shown[name]).name for name in ("backbone", "weights")}
    kind, colon, path = experiment.dataset.partition(":")
    if kind in OWN_PHOTOS:
        shown["dataset"] = f"{kind}{colon}{Path(path).name}"
    return shown


def _network(choice: Choice, folder: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """Train a configuration on all photos, and write its files; the facts of that for the card."""
    photos = photos_of(choice.experiment).without_test()
    setup = Setup.of(choice.experiment, log, photos)
    for what, own, theirs in (
        ("photos", photos.provenance["sha256"], choice.record.data["sha256"]),
        ("weights", setup.pretrained["tensors_sha256"], choice.record.weights["tensors_sha256"]),
    ):
        if own != theirs:
            raise ThawError(
                f"study.deliver: the {what} are others than those of the study's runs. Restore them, or delete "
                "the study's folder 'runs' to run it again."
            )
    trained = phases.train(setup)
    if trained.diverged:
        phases.forget(setup)
        raise Diverged(
            f"study.deliver: {choice.name} diverged in epoch {trained.diverged} on all photos. Name another "
            "configuration, or give a smaller learning rate."
        )
    log("writing the files")
    network = saved.plain(setup.model, setup.backbone.preprocess, choice.experiment.image_size)
    saved.save_keras(network, photos.classes, folder / saved.KERAS)
    saved.save_tflite(network, photos.classes, folder / saved.TFLITE)
    (folder / saved.LABELS).write_text(saved.labels_text(photos.classes), encoding="utf-8")
    write_csv(trained.history, folder / "history.csv")
    same, compared = _agreement(folder, photos)
    phases.forget(setup)
    kept = trained.history.iloc[trained.kept_epoch - 1]
    return {
        "title": setup.backbone.title,
        "parameters": setup.model.count_params(),
        "classes": list(photos.classes),
        "image_size": choice.experiment.image_size,
        "photos": photos.provenance["photos"],
        "epoch": trained.kept_epoch,
        "validation_accuracy": float(kept["validation_accuracy"]),
        "same_class": [same, compared],
        "versions": versions(),
    }


def _agreement(folder: Path, photos: Data) -> tuple[int, int]:
    """Count the validation photos to which both files give the same class, and those that were compared."""
    both = [saved.Saved.load(str(folder / name)) for name in (saved.KERAS, saved.TFLITE)]
    rows = photos.validation[:: -(-len(photos.validation) // COMPARED) or 1]
    said = [[int(np.argmax(one.probabilities(photos.images[row]))) for row in rows] for one in both]
    return sum(first == second for first, second in zip(*said)), len(rows)


def _tested(results: Results, choice: Choice) -> dict[str, Any]:
    """Gather how accurate networks were that were trained in this way, on photos that they had not seen."""
    row = choice.row
    runs = results.of_row(row)
    photos = results.predictions(row).drop_duplicates("key")
    return {
        "accuracy": float(row["test_accuracy"]),
        "low": float(row["test_low"]),
        "high": float(row["test_high"]),
        "runs": len(runs),
        "folds": len({run.record.experiment.fold for run in runs} - {None}),
        "photos": len(photos),
        "training_seconds": float(row["training_seconds"]),
        "recall": {name: float(share) for name, share in results.recall(row).items()},
        "photos_of_class": {name: int(count) for name, count in photos["label"].value_counts().items()},
    }
