"""The head on the backbone, and its training in two phases."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from thaw import activations, backbones, unfreeze
from thaw.data import Data
from thaw.experiment import Experiment


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
        'finetune', validation and tracing included.
    activations : dict
        For each phase the ``frontier``'s tensors, whether they were
        ``cached``, and how many ``megabytes`` (1e6 bytes) they are.
    """

    history: pd.DataFrame
    seconds: dict[str, float]
    activations: dict[str, dict]


def set_up(experiment: Experiment) -> None:
    """Set Keras' random seed and precision, before anything is built."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(experiment.seed)
    keras.config.set_dtype_policy(experiment.precision)


def add_head(base: keras.Model, classes: int) -> keras.Model:
    """Put global average pooling and one softmax layer on a backbone.

    Returns
    -------
    keras.Model
        From preprocessed photos (n, size, size, 3) to probabilities
        (n, classes), in float32 whatever the precision.
    """
    features = keras.layers.GlobalAveragePooling2D(name="pooled")(base.output)
    head = keras.layers.Dense(classes, activation="softmax", dtype="float32", name="head")
    return keras.Model(base.input, head(features), name=f"{base.name}_with_head")


def batches(
    inputs: Sequence[np.ndarray], labels: np.ndarray, order: tf.data.Dataset, prepare: Callable | None = None
) -> tf.data.Dataset:
    """A network's inputs and labels in batches.

    Parameters
    ----------
    inputs : sequence of ndarray, (n, ...)
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
    columns, labels = tuple(map(tf.constant, inputs)), tf.constant(labels)

    def gather(chosen):
        batch = tuple(tf.gather(column, chosen) for column in columns)
        if prepare is not None:
            batch = tuple(prepare(tf.cast(part, tf.float32)) for part in batch)
        return batch if len(batch) > 1 else batch[0], tf.gather(labels, chosen)

    options = tf.data.Options()
    options.autotune.enabled = (
        False  # at every epoch's end its thread is waited for: seconds, where an epoch takes no longer
    )
    return order.map(gather, num_parallel_calls=2).prefetch(2).with_options(options)


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
    experiment: Experiment,
    say: Callable[[str], None] = print,
    budget: float = activations.BUDGET,
) -> Training:
    """Train the head alone, then the head with the unfrozen part.

    The second phase starts with a fresh optimiser, at its own learning rate.
    A 'frozen' experiment has but the first, as long as the two together. Each
    phase trains only the part of the network that changes, on the activations
    that enter it, where these fit the budget; else the whole network on the
    photos, which gives the same numbers.

    Parameters
    ----------
    model, base : keras.Model
        The network with its head, and the backbone inside it.
    data : Data
    experiment : Experiment
    say : callable
        Is given a line after each epoch.
    budget : float
        Bytes that the activations of a phase may take; 0 to compute them anew
        in every epoch.
    """
    backbone = backbones.get(experiment.backbone)
    layers = unfreeze.unfrozen(base, backbone, experiment.strategy, experiment.amount)
    head_epochs = experiment.head_epochs if layers else experiment.epochs
    phases = [("head", [], range(head_epochs), experiment.head_learning_rate)]
    if layers:
        phases.append(("finetune", layers, range(head_epochs, experiment.epochs), experiment.finetune_learning_rate))

    photos = len(data.train) + len(data.validation)
    cuts, kept = {}, {}
    for phase, trainable, *_ in phases:
        unfreeze.unfreeze(base, trainable)
        cuts[phase] = cut = activations.cut(model)
        if cut.saves and photos * cut.bytes_a_photo <= budget:
            kept |= {tensor.name: tensor for tensor in cut.frontier}
    began = time.perf_counter()
    stored = {}
    if kept:  # one pass for both phases
        unfreeze.unfreeze(base, [])
        for part, images in (("train", data.train.images), ("validation", data.validation.images)):
            values = activations.compute(model, list(kept.values()), images, backbone.preprocess, experiment.batch_size)
            stored[part] = dict(zip(kept, values))
        say(f"the frozen part has seen all {photos:,} photos once: {time.perf_counter() - began:.1f} s")
    seconds = {"activations": time.perf_counter() - began}

    history = _History(experiment.epochs, say)
    notes = {}
    for phase, trainable, epochs, learning_rate in phases:
        unfreeze.unfreeze(base, trainable)
        names = [tensor.name for tensor in cuts[phase].frontier]
        cached = set(names) <= set(kept)
        part = cuts[phase].tail if cached else model
        inputs = {
            name: [stored[name][tensor] for tensor in names] if cached else [getattr(data, name).images]
            for name in ("train", "validation")
        }
        prepare = None if cached else backbone.preprocess
        part.compile(keras.optimizers.Adam(learning_rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        history.start(phase, learning_rate)
        order = shuffled(len(data.train), experiment.batch_size, experiment.seed, epochs)
        in_order = tf.data.Dataset.range(len(data.validation)).batch(experiment.batch_size)
        part.fit(
            batches(inputs["train"], data.train.labels, order, prepare),
            validation_data=batches(inputs["validation"], data.validation.labels, in_order, prepare),
            initial_epoch=epochs.start,
            epochs=epochs.stop,
            steps_per_epoch=-(-len(data.train) // experiment.batch_size),
            callbacks=[history],
            shuffle=False,  # `order` has done it
            verbose=0,
        )
        seconds[phase] = sum(row["seconds"] for row in history.rows if row["phase"] == phase)
        notes[phase] = {"frontier": names, "cached": cached, "megabytes": photos * cuts[phase].bytes_a_photo / 1e6}
    return Training(pd.DataFrame(history.rows), {"finetune": 0.0} | seconds, notes)


class _History(keras.callbacks.Callback):
    """Collects the epochs of all phases as rows, and tells of each."""

    def __init__(self, epochs: int, say: Callable[[str], None]):
        super().__init__()
        self.total, self.say, self.rows = epochs, say, []

    def start(self, phase: str, learning_rate: float) -> None:
        self.phase, self.learning_rate, self.began = phase, learning_rate, time.perf_counter()

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
        self.say(
            f"epoch {epoch + 1} of {self.total} ({'head alone' if self.phase == 'head' else 'fine-tuning'}): "
            f"training {row['train_accuracy']:.1%}, validation {row['validation_accuracy']:.1%}, {row['seconds']:.1f} s"
        )
