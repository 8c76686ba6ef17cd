"""Training as a list of phases: the head alone, then the head with what is unfrozen."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from thaw.data import batches
from thaw.data.augmentation import augment
from thaw.data.photos import Data
from thaw.disk.arrays import StoredArray
from thaw.disk.locks import locked
from thaw.experiment import Experiment
from thaw.network import frozen, graph, unfreezing
from thaw.training import activations, machine, probe
from thaw.training.checkpoint import Checkpoint, Progress
from thaw.training.optimizer import Restart, adam
from thaw.training.progress import EpochBar
from thaw.training.setup import Setup

HEAD, FINETUNE = "head", "finetune"
NAMES = {HEAD: "head alone", FINETUNE: "fine-tuning"}


@dataclass(frozen=True)
class Phase:
    """One phase of training.

    Attributes
    ----------
    name : {'head', 'finetune'}
    layers : tuple of str
        The layers of the backbone that train. The head always does.
    learning_rate : float
    epochs : range
        The numbers of its epochs, counted from 0 over all phases.
    keep_best : bool
        Whether it ends with the weights of its epoch with the lowest
        validation loss, and not with those of its last.
    """

    name: str
    layers: tuple[str, ...]
    learning_rate: float
    epochs: range
    keep_best: bool = False


def phases(setup: Setup) -> list[Phase]:
    """List the phases of an experiment, in order.

    A 'frozen' experiment has one phase only, as long as both of the others.
    Gradual unfreezing fine-tunes in several phases.
    """
    experiment, best = setup.experiment, setup.experiment.keep == "best"
    if experiment.strategy == "frozen":
        return [Phase(HEAD, (), experiment.head_learning_rate, range(experiment.epochs), best)]
    steps = unfreezing.steps(setup.base, setup.backbone, experiment)
    ends = experiment.head_epochs + np.round(np.linspace(0, experiment.finetune_epochs, len(steps) + 1)).astype(int)
    return [
        Phase(HEAD, (), experiment.head_learning_rate, range(experiment.head_epochs)),
        *(
            Phase(
                FINETUNE,
                tuple(layer.name for layer in layers),
                experiment.finetune_learning_rate,
                range(int(first), int(end)),
                best and layers is steps[-1],
            )
            for layers, first, end in zip(steps, ends, ends[1:])
        ),
    ]


@dataclass(frozen=True)
class Training:
    """What training leaves besides the trained weights.

    Attributes
    ----------
    history : DataFrame
        An epoch a row: epoch (from 1), phase ('head' or 'finetune'),
        learning_rate, train_accuracy, train_loss (Keras' running means over
        the epoch), validation_accuracy, validation_loss (after it), seconds.
    seconds : dict
        Wall time of 'activations' (the frozen part's one pass), 'head' and
        'finetune', with validation and tracing and without checkpoints. The
        seconds of what another run has made count as this run's own.
    activations : dict
        For each phase the ``frontier``'s layers, whether they were
        ``cached``, ``why``, and how many ``megabytes`` (1e6 bytes) they are.
        The phases of gradual unfreezing are numbered.
    network : keras.Model
        What the last phase trained: the whole network, or its unfrozen rest.
    test : Dataset
        The test photos as they enter that network, in order, in batches.
    checkpoints : list of Checkpoint
        Those of fine-tuning. Their files are of no use once the run is
        recorded.
    kept_epoch : int
        The epoch, from 1, whose weights the network has.
    peak_memory_mb : float
        Of all processes that trained the run.
    """

    history: pd.DataFrame
    seconds: dict[str, float]
    activations: dict[str, dict]
    network: keras.Model
    test: tf.data.Dataset
    checkpoints: list[Checkpoint]
    kept_epoch: int
    peak_memory_mb: float

    @property
    def diverged(self) -> int | None:
        """The epoch, from 1, after which the loss was not a finite number; training ended there. Else None."""
        return diverged(self.history)

    def measured(self, setup: Setup) -> dict[str, Any]:
        """Gather what a record holds besides the history and the test figures."""
        return {
            **unfreezing.count_parameters(setup.model),
            "network": setup.network,
            "data": setup.data.provenance,
            "weights": setup.pretrained,
            "device": machine.device(),
            "diverged": self.diverged,
            "kept_epoch": self.kept_epoch,
            "training_seconds": self.seconds,
            "activations": self.activations,
            "peak_memory_mb": max(self.peak_memory_mb, machine.peak_memory_mb()),
            "peak_device_memory_mb": machine.peak_device_memory_mb(),
        }


def diverged(history: pd.DataFrame) -> int | None:
    """Find the epoch after which the training or validation loss was not a finite number; None if there is none."""
    finite = np.isfinite(history[["train_loss", "validation_loss"]].to_numpy(float)).all(axis=1)
    return None if finite.all() else int(history["epoch"][~finite].iloc[0])


def class_weights(data: Data) -> dict[int, float]:
    """Weigh each class in inverse proportion to its training photos, so that the weights of all photos average 1."""
    counts = np.bincount(data.labels[data.train], minlength=len(data.classes))
    return {label: float(counts.sum() / (len(counts) * max(count, 1))) for label, count in enumerate(counts)}


def train(setup: Setup) -> Training:
    """Train an experiment, phase by phase.

    Each phase begins with a fresh optimizer. It trains only the part of the
    network that changes, on the kept activations that enter that part; or the
    whole network on the photos, which gives the same numbers. A phase that
    another run has finished is taken over: all strategies of a seed share
    their head. A run that was stopped goes on after its last epoch. Training
    ends when the loss is not a finite number.
    """
    steps = _steps(setup)
    for number, step in enumerate(steps):
        before = steps[number - 1].progress if number else Progress()
        with locked([step.checkpoint.path], lambda: setup.log("another process trains the same: waiting for it")):
            step.run(before)
        if diverged(pd.DataFrame(step.progress.epochs)):
            break
    history = pd.DataFrame(step.progress.epochs)
    done = steps[: number + 1]
    seconds = {name: float(history["seconds"][history["phase"] == name].sum()) for name in NAMES}
    seconds["activations"] = max(step.progress.note["seconds"] for step in done)
    names = [step.phase.name for step in done]
    notes = {
        f"{name} {names[:number].count(name)}" if names.count(name) > 1 else name: {
            note: value for note, value in step.progress.note.items() if note != "seconds"
        }
        for number, (name, step) in enumerate(zip(names, done), 1)
    }
    test = step.batches(batches.in_order(setup.data.test, setup.experiment.batch_size))
    peak = max(machine.peak_memory_mb(), step.progress.peak_memory_mb)
    own = [step.checkpoint for step in done if step.phase.name == FINETUNE]  # a head may serve other runs, too
    kept = step.progress.best if step.phase.keep_best and step.progress.best else len(history)
    return Training(history, seconds, notes, step.network, test, own, kept, peak)


def forget(setup: Setup) -> None:
    """Delete what was kept for a run that is stopped."""
    of = phases(setup)
    for number, phase in enumerate(of, 1):
        if phase.name == FINETUNE:
            Checkpoint(_key(setup, of[:number])).discard()


def train_head(setup: Setup) -> None:
    """Train the head alone, for all experiments that share it."""
    step = _steps(setup)[0]
    with locked([step.checkpoint.path], lambda: setup.log("another process trains the same head: waiting for it")):
        step.run(Progress())


def provide_activations(setup: Setup, experiments: Iterable[Experiment], for_probe: bool = False) -> None:
    """Compute what several experiments of one network train on, and what its probe reads, in one pass."""
    frontiers: list[list[str]] = []
    for each in (replace(setup, experiment=experiment) for experiment in experiments):
        for phase in phases(each):
            cut = _cut(each, phase)
            if cut.has_frozen_part:
                frontiers.append(list(cut.frontier))
    if for_probe:
        setup, averages = probe.with_averages(setup)
        frontiers.append(list(dict.fromkeys(averages.values())))
    activations.cached(setup, list(map(list, dict.fromkeys(map(tuple, frontiers)))))


def pooled_features(setup: Setup) -> np.ndarray | None:
    """Read what the frozen network makes of each photo, (photos, channels), if `provide_activations` has kept it."""
    (name,) = _cut(setup, phases(setup)[0]).frontier
    kept, _ = activations.cached(setup, [[name]])
    return np.asarray(kept[name][: len(setup.data.keys)], np.float32) if name in kept else None


def _steps(setup: Setup) -> list[_Step]:
    """Prepare the phases, each with the part of the network that it trains and what enters that part."""
    of = phases(setup)
    checkpoints = [Checkpoint(_key(setup, of[: number + 1]), setup.log) for number in range(len(of))]
    cuts = [_cut(setup, phase) for phase in of]
    # A finished phase needs no activations. The last one always does: it tests on them.
    done = [checkpoint.is_complete() for checkpoint in checkpoints[:-1]] + [False]
    needed = [number for number, cut in enumerate(cuts) if cut.has_frozen_part and not done[number]]
    kept, why = activations.cached(setup, [list(cuts[number].frontier) for number in needed])
    reasons = dict(zip(needed, why, strict=True))
    return [
        _Step(setup, phase, cut, kept, reasons.get(number, "nothing is frozen"), checkpoint, is_done)
        for number, (phase, cut, checkpoint, is_done) in enumerate(zip(of, cuts, checkpoints, done, strict=True))
    ]


def _cut(setup: Setup, phase: Phase) -> graph.Cut:
    """Freeze all but what a phase trains, and cut the network there."""
    setup.unfreeze(phase.layers)
    return setup.once(("cut", _what_trains(setup, phase)), lambda: graph.cut(setup.model))


def _what_trains(setup: Setup, phase: Phase) -> tuple:
    """Name what the graph of a phase depends on, besides the network: not photos, seeds or the learning rate."""
    experiment = setup.experiment
    return phase.layers, *((experiment.trains, experiment.batchnorm, experiment.rate_decay) if phase.layers else ())


def _key(setup: Setup, phases: list[Phase]) -> dict[str, Any]:
    """Everything that the numbers of the last of some phases depend on."""
    experiment = setup.experiment
    settings = ("image_size", "batch_size", "precision", "augmentation", "seed", "class_weight")
    of_unfreezing = ("trains", "batchnorm", "rate_decay")
    return {
        **{name: getattr(experiment, name) for name in settings},
        **{name: getattr(experiment, name) for name in of_unfreezing if phases[-1].layers},
        **setup.network_key,
        "data": setup.data.digest,
        "photos": [hashlib.sha256(rows.tobytes()).hexdigest() for rows in (setup.data.epochs, setup.data.validation)],
        "weights": setup.pretrained["tensors_sha256"],
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "phases": [
            [phase.name, list(phase.layers), phase.learning_rate, phase.epochs.stop, phase.keep_best]
            for phase in phases
        ],
    }


class _Step:
    """One phase of one experiment: what it trains, what enters that, and how far it has come."""

    def __init__(
        self,
        setup: Setup,
        phase: Phase,
        cut: graph.Cut,
        kept: dict[str, StoredArray],
        why: str,
        checkpoint: Checkpoint,
        is_done: bool,
    ):
        self.setup, self.phase, self.cut, self.checkpoint = setup, phase, cut, checkpoint
        self.is_done = is_done  # as far as the checkpoint's notes tell; then `kept` may lack what it would train on
        self.progress = Progress()
        self._enter(kept, why)

    def _enter(self, kept: dict[str, StoredArray], why: str) -> None:
        """Choose what the phase trains on: kept activations, or else the photos."""
        setup, cut = self.setup, self.cut
        cached = cut.frontier.keys() <= kept.keys()
        self.network = cut.tail if cached else keras.Model(setup.model.input, setup.model.output)
        self.columns = [kept[layer] for layer in cut.frontier] if cached else [setup.data.images]
        self.preprocess = None if cached else setup.backbone.preprocess
        self.note = {
            "frontier": list(cut.frontier),
            "cached": cached,
            "why": why,
            "megabytes": len(setup.data) * cut.bytes_a_photo / 1e6,
            "seconds": max((kept[layer].about["seconds"] for layer in cut.frontier), default=0.0) if cached else 0.0,
        }

    def batches(self, order: tf.data.Dataset, augment: Callable | None = None, first: int = 0) -> tf.data.Dataset:
        """Photos as they enter the network that this phase trains."""
        return batches.batches(self.columns, self.setup.data.labels, order, self.preprocess, augment, first)

    def run(self, before: Progress) -> None:
        """Train from the checkpoint on, if there is one, to the end of the phase."""
        setup, phase, experiment = self.setup, self.phase, self.setup.experiment
        setup.unfreeze(phase.layers)
        traced = ("network", _what_trains(setup, phase), self.note["cached"])
        self.network, restart = setup.once(traced, self._compiled)
        restart(phase.learning_rate)
        self.progress = self.checkpoint.load(self.network)
        if self.is_done and not self.progress.complete:  # it is damaged, or was deleted just now
            self.is_done = False
            if self.cut.has_frozen_part:
                kept, (why,) = activations.cached(setup, [list(self.cut.frontier)])
                self._enter(kept, why)
            self.run(before)
            return
        if not self.progress.epochs:
            self.progress = Progress(list(before.epochs), note=self.note, peak_memory_mb=before.peak_memory_mb)
        first = len(self.progress.epochs)
        if first > phase.epochs.start:
            self._say_what_is_done()
        if self.progress.complete:
            return
        epochs = range(first, phase.epochs.stop)
        rows, size = setup.data.epochs, experiment.batch_size
        steps = -(-rows.shape[1] // size)
        change = (
            partial(augment, kind=experiment.augmentation, seed=experiment.seed) if experiment.augments_afresh else None
        )
        train = self.batches(batches.shuffled(rows, size, experiment.seed, epochs), change, first * steps)
        self.network.fit(
            train,
            validation_data=self.batches(batches.in_order(setup.data.validation, size)),
            initial_epoch=epochs.start,
            epochs=epochs.stop,
            steps_per_epoch=steps,
            callbacks=[
                _AfterEachEpoch(self),
                EpochBar(NAMES[phase.name], epochs, experiment.epochs, steps, experiment.fold),
            ],
            class_weight=class_weights(setup.data) if experiment.class_weight == "balanced" else None,
            shuffle=False,  # `shuffled` has done it
            verbose=0,
        )

    def _compiled(self) -> tuple[keras.Model, Restart]:
        """Compile the network; give what puts its optimizer back to the beginning, too."""
        setup, phase, decay = self.setup, self.phase, self.setup.experiment.rate_decay
        decays = phase.layers and decay != 1
        factors = unfreezing.rate_factors(setup.base, setup.backbone, decay) if decays else {}
        optimizer = adam(self.network, phase.learning_rate, factors)
        self.network.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        return self.network, Restart(self.network)

    def _say_what_is_done(self) -> None:
        last, file = self.progress.epochs[-1], f"checkpoints/{self.checkpoint.path.name} in the cache"
        self.setup.log(
            f"{NAMES[self.phase.name]}: epochs to {last['epoch']} of {self.phase.epochs.stop} were trained before "
            f"(validation {last['validation_accuracy']:.1%}; {file})"
            + ("" if self.progress.complete else ": going on from there")
        )


class _AfterEachEpoch(keras.callbacks.Callback):
    """Adds an epoch to the history, tells of it, and keeps it in the checkpoint."""

    def __init__(self, step: _Step):
        super().__init__()
        self.step = step
        self.began = time.perf_counter()  # the first epoch of a phase includes tracing

    def on_epoch_begin(self, epoch, logs=None):
        frozen.reseed(self.model, self.step.setup.experiment.seed, epoch)

    def on_epoch_end(self, epoch, logs=None):
        step, progress = self.step, self.step.progress
        row = {
            "epoch": epoch + 1,
            "phase": step.phase.name,
            "learning_rate": step.phase.learning_rate,
            "train_accuracy": logs["accuracy"],
            "train_loss": logs["loss"],
            "validation_accuracy": logs["val_accuracy"],
            "validation_loss": logs["val_loss"],
            "seconds": time.perf_counter() - self.began,
        }
        progress.epochs.append(row)
        step.setup.log(
            f"epoch {epoch + 1} of {step.setup.experiment.epochs} ({NAMES[step.phase.name]}): "
            f"training {row['train_accuracy']:.1%}, validation {row['validation_accuracy']:.1%}, {row['seconds']:.1f} s"
        )
        ended = diverged(pd.DataFrame([row])) is not None
        if ended:
            step.setup.log(
                f"diverged: the loss is {row['train_loss']:.4g} in training, {row['validation_loss']:.4g} in validation"
            )
            self.model.stop_training = True
        progress.complete = ended or epoch + 1 == step.phase.epochs.stop
        if step.phase.keep_best:
            step.checkpoint.keep_best(self.model, progress)
        progress.peak_memory_mb = max(progress.peak_memory_mb, machine.peak_memory_mb())
        step.checkpoint.save(self.model, progress)
        self.began = time.perf_counter()  # the checkpoint belongs to no epoch
