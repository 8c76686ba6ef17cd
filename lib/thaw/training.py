"""The head on the backbone, and its training in two phases."""

import time
from collections.abc import Callable

import keras
import pandas as pd
import tensorflow as tf

from thaw import backbones, unfreeze
from thaw.data import Data, Photos
from thaw.experiment import Experiment


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


def batches(photos: Photos, preprocess: Callable, batch_size: int, order: tf.data.Dataset | None = None) -> tf.data.Dataset:
    """Photos and labels in batches, preprocessed for the network.

    Parameters
    ----------
    photos : Photos
    preprocess : callable
        The backbone's.
    batch_size : int
    order : Dataset of int64 (m,), optional
        The positions of the photos in each batch. By default all photos, once
        and in order.

    Returns
    -------
    Dataset of (float32 (m, size, size, 3), int64 (m,))
    """
    images, labels = tf.constant(photos.images), tf.constant(photos.labels)
    if order is None:
        order = tf.data.Dataset.range(len(photos)).batch(batch_size)

    def gather(chosen):
        return preprocess(tf.cast(tf.gather(images, chosen), tf.float32)), tf.gather(labels, chosen)

    return order.map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


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


def train(model: keras.Model, base: keras.Model, data: Data, experiment: Experiment, say: Callable[[str], None] = print) -> pd.DataFrame:
    """Train the head alone, then the head with the unfrozen part.

    The second phase starts with a fresh optimiser, at its own learning rate.
    A 'frozen' experiment has but the first, as long as the two together.

    Parameters
    ----------
    model, base : keras.Model
        The network with its head, and the backbone inside it.
    data : Data
    experiment : Experiment
    say : callable
        Is given a line after each epoch.

    Returns
    -------
    DataFrame
        An epoch a row: epoch (from 1), phase ('head' or 'finetune'),
        learning_rate, train_accuracy, train_loss (Keras' running means over
        the epoch), validation_accuracy, validation_loss (after it), seconds.
    """
    backbone = backbones.get(experiment.backbone)
    layers = unfreeze.unfrozen(base, backbone, experiment.strategy, experiment.amount)
    head_epochs = experiment.head_epochs if layers else experiment.epochs
    phases = [("head", [], range(head_epochs), experiment.head_learning_rate)]
    if layers:
        phases.append(("finetune", layers, range(head_epochs, experiment.epochs), experiment.finetune_learning_rate))
    validation = batches(data.validation, backbone.preprocess, experiment.batch_size)
    history = _History(experiment.epochs, say)
    for phase, trainable, epochs, learning_rate in phases:
        unfreeze.unfreeze(base, trainable)
        model.compile(keras.optimizers.Adam(learning_rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        history.start(phase, learning_rate)
        order = shuffled(len(data.train), experiment.batch_size, experiment.seed, epochs)
        model.fit(
            batches(data.train, backbone.preprocess, experiment.batch_size, order),
            validation_data=validation,
            initial_epoch=epochs.start,
            epochs=epochs.stop,
            steps_per_epoch=-(-len(data.train) // experiment.batch_size),
            callbacks=[history],
            shuffle=False,  # `order` has done it
            verbose=0,
        )
    return pd.DataFrame(history.rows)


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
