"""The head on the backbone, and its training in two phases."""

import hashlib
import json
import math
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from thaw.data.photos import Data, Photos
from thaw.disk import places
from thaw.disk.arrays import Stored, make_room
from thaw.disk.atomic import kept_if_there_is_room, locked, write_atomic
from thaw.experiment import Experiment
from thaw.network import backbones
from thaw.network import unfreezing as unfreeze
from thaw.training import activations
from thaw.training.evaluation import peak_memory_mb

BACKUPS = 4e9  # bytes of disk for the last epochs of runs


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
        'finetune', validation and tracing included and backups not, whoever
        spent it: what other runs have left is counted as if this one had made
        it.
    activations : dict
        For each phase the ``frontier``'s tensors, whether they were
        ``cached``, ``why``, and how many ``megabytes`` (1e6 bytes) they are.
    network : keras.Model
        What the last phase trained: the whole network, or its unfrozen rest.
    test : Dataset
        The test photos as they enter that, in order, in batches.
    peak_memory_mb : float
        Of the processes that trained it before this one; 0 without any.
    """

    history: pd.DataFrame
    seconds: dict[str, float]
    activations: dict[str, dict]
    network: keras.Model
    test: tf.data.Dataset
    peak_memory_mb: float = 0.0

    @property
    def diverged(self) -> int | None:
        """The epoch, from 1, after which the loss was no finite number any more; training ended there."""
        return diverged(self.history)


def diverged(history: pd.DataFrame) -> int | None:
    """The epoch after which the training or validation loss was no finite number, or None."""
    finite = np.isfinite(history[["train_loss", "validation_loss"]].to_numpy(float)).all(axis=1)
    return None if finite.all() else int(history["epoch"][~finite].iloc[0])


def set_up(experiment: Experiment) -> None:
    """Set Keras' random seed and precision, before anything is built."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(experiment.seed)
    keras.config.set_dtype_policy(experiment.precision)


def add_head(base: keras.Model, classes: int, seed: int = 0) -> keras.Model:
    """Put global average pooling and one softmax layer on a backbone.

    Parameters
    ----------
    base : keras.Model
    classes : int
    seed : int
        Of the softmax layer's initial weights.

    Returns
    -------
    keras.Model
        From preprocessed photos (n, size, size, 3) to probabilities
        (n, classes), in float32 whatever the precision.
    """
    features = keras.layers.GlobalAveragePooling2D(name="pooled")(base.output)
    start = keras.initializers.GlorotUniform(seed)
    head = keras.layers.Dense(classes, activation="softmax", kernel_initializer=start, dtype="float32", name="head")
    return keras.Model(base.input, head(features), name=f"{base.name}_with_head")


def batches(
    columns: Sequence[np.ndarray | Stored], labels: np.ndarray, order: tf.data.Dataset, prepare: Callable | None = None
) -> tf.data.Dataset:
    """A network's inputs and labels in batches.

    Parameters
    ----------
    columns : sequence of ndarray or Stored, (n, ...)
        Activations at each tensor of the frontier, or photos.
    labels : ndarray of int64, (n,)
    order : Dataset of int64 (m,)
        The positions of the photos of each batch.
    prepare : callable, optional
        Applied to each input of a batch as float32: the backbone's
        preprocessing, for photos.

    Returns
    -------
    Dataset of (tuple of (m, ...), or the one of them, int64 (m,))
    """
    kinds = [tf.as_dtype(column.dtype) for column in columns]

    def read(chosen):
        return [column[chosen] for column in columns]

    def gather(chosen):
        batch = tf.numpy_function(read, [chosen], kinds)
        for part, column in zip(batch, columns):
            part.set_shape((None, *column.shape[1:]))
        if prepare is not None:
            batch = [prepare(tf.cast(part, tf.float32)) for part in batch]
        return tuple(batch) if len(batch) > 1 else batch[0], tf.gather(tf.constant(labels), chosen)

    options = tf.data.Options()
    options.autotune.enabled = (
        False  # at every epoch's end its thread is waited for: seconds, where an epoch takes no longer
    )
    # One batch ahead is enough: reading one takes a fiftieth of training on it, and it may have 50 MB.
    return order.map(gather).prefetch(1).with_options(options)


def mirrored(dataset: tf.data.Dataset, seed: int, first: int) -> tf.data.Dataset:
    """Batches with each photo mirrored or not, at random.

    It depends on the seed and the batch's number alone.

    Parameters
    ----------
    dataset : Dataset of ((m, size, size, 3), labels)
    seed : int
    first : int
        The first batch's number, counted over all epochs.
    """

    def mirror(number, batch):
        photos, labels = batch
        heads = tf.random.stateless_uniform((tf.shape(photos)[0], 1, 1, 1), seed=[seed, number]) < 0.5
        return tf.where(heads, tf.reverse(photos, axis=[2]), photos), labels

    return dataset.enumerate(first).map(mirror)


def shuffled(count: int, batch_size: int, seed: int, epochs: range) -> tf.data.Dataset:
    """The order of photos in training: another permutation each epoch.

    It depends on the seed and the epoch's number alone, so that two
    configurations of one seed see the same batches, and a run that goes on
    from some epoch sees those it would have seen.
    """

    def epoch_order(epoch):
        order = tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), seed=[seed, epoch])
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    return tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(epoch_order)


def train(
    model: keras.Model,
    base: keras.Model,
    data: Data,
    weights: str,
    experiment: Experiment,
    log: Callable[[str], None] = print,
) -> Training:
    """Train the head alone, then the head with the unfrozen part.

    The second phase starts with a fresh optimiser, at its own learning rate.
    A 'frozen' experiment has but the first, as long as the two together. Each
    phase trains only the part of the network that changes, on the activations
    that enter it, where keeping them pays; else the whole network on the
    photos, which gives the same numbers. A head that another run of the same
    seed has trained is taken over with its history, and so are the epochs of
    a run of the same parameters that was stopped. A loss that is no finite
    number any more ends the training.

    Parameters
    ----------
    model, base : keras.Model
        The network with its head, and the backbone inside it.
    data : Data
    weights : str
        The hash of the backbone's weights.
    experiment : Experiment
    log : callable
        Is given a line after each epoch.
    """
    layers = unfreeze.unfrozen(base, backbones.get(experiment.backbone), experiment.strategy, experiment.amount)
    unfreeze.unfreeze(base, layers)
    cut = activations.cut(model)
    kept = _provide(model, list(cut.frontier) if cut.saves else [], data, weights, experiment, log)
    history, head = train_head(model, base, data, weights, experiment, log)
    phases, peak = {"head": head}, 0.0
    if layers and diverged(history) is None:
        unfreeze.unfreeze(base, layers)
        phase = _Phase(experiment, data, model, cut, kept, weights)
        told = _History(history, "finetune", experiment.finetune_learning_rate, experiment.epochs, log)
        history, peak = phase.fit(range(len(history), experiment.epochs), told, places.backup(experiment.digest))
        phases["finetune"] = phase.note
    else:
        phase = _Phase(experiment, data, model, cut, kept, weights)
    seconds = {name: float(history["seconds"][history["phase"] == name].sum()) for name in ("head", "finetune")}
    seconds["activations"] = max(note.pop("seconds") for note in phases.values())
    return Training(history, seconds, phases, phase.network, phase.batches(data.test), peak)


def train_head(
    model: keras.Model,
    base: keras.Model,
    data: Data,
    weights: str,
    experiment: Experiment,
    log: Callable[[str], None] = print,
) -> tuple[pd.DataFrame, dict]:
    """Train the head alone, or take it over from a run that has.

    All strategies with the same seed, data, weights and settings start from
    the same head, so it is trained once and kept.

    Parameters
    ----------
    As of `train`.

    Returns
    -------
    history : DataFrame
        As in `Training`.
    note : dict
        As one of ``Training.activations``, and ``seconds``.
    """
    path = head_path(experiment)
    with locked([path], lambda: log("another process trains the same head: waiting for it")):
        return _train_head(path, model, base, data, weights, experiment, log)


def _train_head(path, model, base, data, weights, experiment, log) -> tuple[pd.DataFrame, dict]:
    unfreeze.unfreeze(base, [])
    epochs = range(experiment.epochs if experiment.strategy == "frozen" else experiment.head_epochs)
    key = {"data": data.provenance["sha256"], "weights": weights, "tensorflow": tf.__version__}
    if path.is_file():
        try:
            with np.load(path) as kept:
                about = json.loads(str(kept["about"]))
                if about["key"] == key:
                    model.get_layer("head").set_weights([kept["kernel"], kept["bias"]])
                    history = pd.DataFrame(about["history"])
                    last = history["validation_accuracy"].iloc[-1]
                    log(
                        f"the head was trained before, {len(history)} epoch{'s' * (len(history) > 1)}: validation {last:.1%}"
                    )
                    return history, about["note"]
                log(f"{path} is of other data or weights: trained anew")
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
            log(f"{path} is damaged: trained anew")
    cut = activations.cut(model)
    kept = _provide(model, list(cut.frontier), data, weights, experiment, log)
    phase = _Phase(experiment, data, model, cut, kept, weights)
    told = _History(pd.DataFrame(), "head", experiment.head_learning_rate, experiment.epochs, log)
    backup = path.with_suffix(".backup.weights.h5")
    history, _ = phase.fit(epochs, told, backup)
    kernel, bias = model.get_layer("head").get_weights()
    about = json.dumps({"key": key, "history": history.to_dict("records"), "note": phase.note})

    def save(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, kernel=kernel, bias=bias, about=about)

    with kept_if_there_is_room(path, log):
        write_atomic(path, save)
    backup.unlink(missing_ok=True)
    return history, phase.note


def head_path(experiment: Experiment) -> Path:
    """The file of the head that an experiment starts from, made or not: the same for all strategies."""
    fields = {"strategy", "amount", "finetune_epochs", "finetune_learning_rate", "head_epochs", "output_dir"}
    settings = experiment.model_dump(mode="json", exclude=fields)
    settings["epochs"] = experiment.epochs if experiment.strategy == "frozen" else experiment.head_epochs
    settings["origin"] = activations.origin(experiment)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return places.cache("heads") / f"{experiment.backbone}-seed-{experiment.seed}-{digest}.npz"


def _provide(model, frontier, data, weights, experiment, log) -> dict[str, Stored]:
    """Activations, where they may be kept at all."""
    if not frontier or experiment.activations == "compute" or experiment.augmentation != "none":
        return {}
    return activations.provide(model, [frontier], data, weights, experiment, log)


class _Phase:
    """One phase of training: the part of the network that it trains, and what enters that."""

    def __init__(
        self,
        experiment: Experiment,
        data: Data,
        model: keras.Model,
        cut: activations.Cut,
        kept: dict[str, Stored],
        weights: str,
    ):
        self.experiment, self.data, self.weights = experiment, data, weights
        cached = cut.frontier.keys() <= kept.keys()
        self.network = cut.tail if cached else model
        self.prepare = None if cached else backbones.get(experiment.backbone).preprocess
        self.columns = [kept[layer] for layer in cut.frontier] if cached else None
        if cached:
            why = kept[next(iter(cut.frontier))].about["why"]
        elif not cut.saves:
            why = "nothing is frozen"
        elif experiment.augmentation != "none":
            why = "photos are augmented: other ones in every epoch"
        elif experiment.activations == "compute":
            why = "as asked"
        else:
            why = activations.why_not(experiment, data, weights, cut.frontier)
        self.note = {
            "frontier": list(cut.frontier),
            "cached": cached,
            "why": why,
            "megabytes": sum(map(len, data.parts)) * cut.bytes_a_photo / 1e6,
            "seconds": max((column.about["seconds"] for column in self.columns), default=0.0) if cached else 0.0,
        }

    def batches(self, photos: Photos, order: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Some photos as they enter the network, in their own order if no other is given."""
        if order is None:
            order = tf.data.Dataset.range(len(photos)).batch(self.experiment.batch_size)
        columns = [photos.images]
        if self.columns is not None:
            lengths = [len(part) for part in self.data.parts]
            which = next(i for i, part in enumerate(self.data.parts) if part is photos)
            start = sum(lengths[:which])
            columns = [column.part(start, start + lengths[which]) for column in self.columns]
        return batches(columns, photos.labels, order, self.prepare)

    def fit(self, epochs: range, history: "_History", backup: Path) -> tuple[pd.DataFrame, float]:
        """Train for some epochs, from where a run that was stopped has left a backup.

        Returns
        -------
        history : DataFrame
            With these epochs.
        peak_memory_mb : float
            Of the processes before this one; 0 without any.
        """
        experiment, data = self.experiment, self.data
        optimizer = keras.optimizers.Adam(history.learning_rate)
        self.network.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        # The whole network and its tail have other variables.
        key = {"data": data.provenance["sha256"], "weights": self.weights, "tensorflow": tf.__version__}
        keeper = _Backup(backup, key | {"cached": self.note["cached"]}, history)
        epochs = range(epochs.start + keeper.restore(self.network), epochs.stop)
        if not epochs or history.diverged:
            return pd.DataFrame(history.rows), keeper.peak_memory_mb
        steps = -(-len(data.train) // experiment.batch_size)
        train = self.batches(data.train, shuffled(len(data.train), experiment.batch_size, experiment.seed, epochs))
        if experiment.augmentation == "flip":
            train = mirrored(train, experiment.seed, epochs.start * steps)
        history.began = time.perf_counter()
        self.network.fit(
            train,
            validation_data=self.batches(data.validation),
            initial_epoch=epochs.start,
            epochs=epochs.stop,
            steps_per_epoch=steps,
            callbacks=[history, keeper],
            shuffle=False,  # `shuffled` has done it
            verbose=0,
        )
        return pd.DataFrame(history.rows), keeper.peak_memory_mb


class _History(keras.callbacks.Callback):
    """Adds a phase's epochs to a history, and tells of each."""

    def __init__(self, before: pd.DataFrame, phase: str, learning_rate: float, epochs: int, log: Callable):
        super().__init__()
        self.rows, self.phase, self.learning_rate, self.total, self.log = (
            before.to_dict("records"),
            phase,
            learning_rate,
            epochs,
            log,
        )

    def on_epoch_end(self, epoch, logs=None):
        now = time.perf_counter()  # the first epoch of a phase includes tracing
        row = {
            "epoch": epoch + 1,
            "phase": self.phase,
            "learning_rate": self.learning_rate,
            "train_accuracy": logs["accuracy"],
            "train_loss": logs["loss"],
            "validation_accuracy": logs["val_accuracy"],
            "validation_loss": logs["val_loss"],
            "seconds": now - self.began,
        }
        self.began = now
        self.rows.append(row)
        self.log(
            f"epoch {epoch + 1} of {self.total} ({'head alone' if self.phase == 'head' else 'fine-tuning'}): "
            f"training {row['train_accuracy']:.1%}, validation {row['validation_accuracy']:.1%}, {row['seconds']:.1f} s"
        )
        if self.diverged:
            self.log(
                f"diverged: the loss is {row['train_loss']:.4g} in training, {row['validation_loss']:.4g} in validation"
            )
            self.model.stop_training = True

    @property
    def diverged(self) -> bool:
        """Whether the last loss is no finite number."""
        return bool(self.rows) and diverged(pd.DataFrame(self.rows[-1:])) is not None


class _Backup(keras.callbacks.Callback):
    """Keeps the last epoch's weights, optimiser and history in one file, for a run that is stopped.

    `keras.callbacks.BackupAndRestore` writes the same weights, but in place,
    and knows no history.
    """

    def __init__(self, path: Path, key: dict, history: "_History"):
        super().__init__()
        self.path, self.key, self.history, self.before = path, key, history, len(history.rows)
        self.peak_memory_mb = 0.0

    def restore(self, network: keras.Model) -> int:
        """Take a backup up, if there is one of just this; how many epochs it holds."""
        if not self.path.is_file():
            return 0
        network.optimizer.build(network.trainable_variables)
        variables = [*network.weights, *network.optimizer.variables]
        fresh = [variable.numpy() for variable in variables]
        try:
            with h5py.File(self.path) as file:
                about = json.loads(file["thaw"].asstr()[()])
            if about["key"] != self.key:
                self.history.log(f"{self.path} is of other data or weights: trained anew")
                return 0
            # Keras only warns of an optimiser that does not fit.
            with warnings.catch_warnings(action="error", category=UserWarning):
                network.load_weights(self.path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, UserWarning):
            for variable, value in zip(variables, fresh):  # those it could load before it failed
                variable.assign(value)
            self.history.log(f"{self.path} is damaged: trained anew")
            return 0
        self.history.rows += about["epochs"]
        self.peak_memory_mb = about["peak_memory_mb"]
        last = self.history.rows[-1]
        self.history.log(
            f"epochs to {last['epoch']} of {self.history.total} were trained before: going on from there "
            f"(backups/{self.path.name} in the cache)"
        )
        return len(about["epochs"])

    def on_epoch_end(self, epoch, logs=None):
        peak = max(self.peak_memory_mb, peak_memory_mb())
        about = {"key": self.key, "epochs": self.history.rows[self.before :], "peak_memory_mb": peak}

        def save(partial: Path) -> None:
            self.model.save_weights(partial, overwrite=True)
            with h5py.File(partial, "a") as file:
                file["thaw"] = json.dumps(about)

        size = 3 * sum(
            math.prod(weight.shape) * 4 for weight in self.model.weights
        )  # with Adam's two averages, at most
        if not make_room(self.path.parent, size, BACKUPS, [self.path]):
            self.history.log(f"the disk is full: {self.path} is not kept")
            return
        with kept_if_there_is_room(self.path, self.history.log):
            write_atomic(self.path, save)
        self.history.began = time.perf_counter()  # it belongs to no epoch
