"""How long a study takes on this machine: measured on a few batches, then counted up."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from thaw.data.splits import SHARES
from thaw.experiment import Experiment
from thaw.network import backbones, graph, unfreezing
from thaw.network.head import add_head
from thaw.network.pretrained import load_pretrained
from thaw.training.setup import set_keras

BATCH = 32  # photos in each measured call
CALLS = 3  # of which the fastest counts
MEASURED = 0.1  # of a network's work, at least, is in the training step that is measured
# What costs the same whatever the photos, in units of the time that this machine takes to import TensorFlow: see
# benchmarks/estimate.py, which compares the sum with what studies took.
OF_AN_EXPERIMENT = 1.0  # a notebook, in a copy of a process that has imported all: tables, figures
OF_A_CHOICE = 1.5  # of learning rates: imports, building the network
OF_A_NETWORK = 2.0  # its shared part, the check before training, and its latency
OF_A_STUDY = 9.0  # the check, the process that kernels are copies of, the summary, HTML and PDF
HEAD_SECONDS = 5e-5  # to train the head alone on one photo's features
CONTENTION = 0.25  # how much longer each job takes for every other at work beside it: they share the memory


@dataclass(frozen=True)
class Speed:
    """What a network costs on one core of this machine.

    Attributes
    ----------
    size : int
        The side of the photos it was measured with, in pixels.
    forward : float
        Seconds a photo, through the whole network.
    backward : float
        How many times that a training step takes of what it trains.
    tracing : float
        Seconds to build a training step, for each layer that it trains.
    model : keras.Model
        With its head.
    base : keras.Model
    """

    size: int
    forward: float
    backward: float
    tracing: float
    model: keras.Model
    base: keras.Model


def import_seconds() -> float:
    """Measure how long a new process takes to import Keras and TensorFlow, in seconds."""
    seconds = []
    for _ in range(2):  # the second finds the files in memory
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import keras"], capture_output=True)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def measure(experiment: Experiment, classes: int) -> Speed:
    """Measure a network on made-up photos: some seconds.

    Parameters
    ----------
    experiment : Experiment
        One of those that the network is to be trained in.
    classes : int
    """
    set_keras(experiment)
    size = experiment.image_size
    base, _ = load_pretrained(experiment.backbone, size, "none", experiment.preprocessing)
    backbone = backbones.get(experiment.backbone, experiment.preprocessing)
    model = add_head(base, classes)
    photos = np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3)).astype("float32")
    run = tf.function(lambda batch: model(batch, training=False), autograph=False)
    forward = _fastest(lambda: run(photos)) / BATCH
    blocks = list(backbone.blocks(base).values())
    for count in range(max(1, len(blocks) // 3), len(blocks) + 1):
        unfreezing.unfreeze(base, [layer for block in blocks[-count:] for layer in block])
        cut = graph.cut(model)
        share = _share(model, list(cut.frontier))
        if share >= MEASURED:
            break
    cut.tail.compile("adam", "sparse_categorical_crossentropy")
    rows = [np.zeros((BATCH, *tensor.shape[1:]), tensor.dtype) for tensor in cut.frontier.values()]
    labels = np.zeros(BATCH, "int64")
    step = lambda: cut.tail.train_on_batch(graph.one_or_all(rows), labels)  # noqa: E731
    began = time.perf_counter()
    step()
    first = time.perf_counter() - began
    again = _fastest(step)
    return Speed(
        size, forward, again / BATCH / (forward * share), max(first - again, 0) / len(cut.tail.layers), model, base
    )


def _fastest(call: Callable[[], object]) -> float:
    call()  # builds the graph
    seconds = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _share(model: keras.Model, frontier: Sequence[str]) -> float:
    """How much of a network's work lies behind a frontier, from 0 to 1."""
    output = list(graph.tensors(model))[-1]
    whole = graph.multiply_adds(model, [output])
    return 1 - graph.multiply_adds(model, frontier) / whole if whole else 1.0


def seconds(
    experiments: Sequence[Experiment],
    photos: dict[str, int],
    speeds: dict[str, Speed],
    imports: float,
    at_once: int,
    tried: tuple[int, int] = (0, 0),
) -> float:
    """Estimate how long a study takes, in seconds.

    Parameters
    ----------
    experiments : sequence of Experiment
        All of them, of all seeds; each with all its folds.
    photos : dict of str to int
        How many ``train``, ``validation`` and ``test``.
    speeds : dict of str to Speed
        Of each backbone.
    imports : float
        Seconds to import TensorFlow.
    at_once : int
        How many jobs run side by side, each on a core of its own.
    tried : tuple of int
        How many learning rates each experiment tries beforehand, of its head
        and of fine-tuning.
    """
    used = {e.max_examples for e in experiments}.pop()
    total = sum(photos.values())
    counts = {part: count * min(1.0, (used or total) / total) for part, count in photos.items()}
    of_networks = [_pass(e, counts, speeds[e.backbone]) for e in {e.backbone: e for e in experiments}.values()]
    of_networks = [one + OF_A_NETWORK * imports for one in of_networks]
    of_experiments = [_experiment(e, counts, speeds[e.backbone]) + OF_AN_EXPERIMENT * imports for e in experiments]
    of_choices = [_choice(e, counts, speeds[e.backbone], *tried) + OF_A_CHOICE * imports for e in experiments]
    delivered = _delivered(experiments, counts, speeds) + OF_AN_EXPERIMENT * imports
    stages = [of_networks, of_choices if any(tried) else [], of_experiments, [delivered]]
    return OF_A_STUDY * imports + sum(_side_by_side(sorted(jobs, reverse=True), at_once) for jobs in stages)


def of_one(experiment: Experiment, photos: dict[str, int], speed: Speed) -> float:
    """Estimate how long one experiment takes in a process that has imported all, in seconds.

    Parameters
    ----------
    experiment : Experiment
    photos : dict of str to int
        How many it uses to ``train``, ``validation`` and ``test``.
    speed : Speed
        Of its network.
    """
    counts = {part: float(count) for part, count in photos.items()}
    return _pass(experiment, counts, speed) + _experiment(experiment, counts, speed)


def _delivered(experiments: Sequence[Experiment], counts: dict[str, float], speeds: dict[str, Speed]) -> float:
    """Seconds to train a network once more, on the test photos too: the mean, as nobody knows yet which."""
    parts = {"train": counts["train"] + counts["test"], "validation": counts["validation"], "test": 0.0}
    alone = [(e.undivided, speeds[e.backbone]) for e in experiments]
    return float(np.mean([_pass(e, parts, speed) + _experiment(e, parts, speed) for e, speed in alone]))


def _side_by_side(jobs: Sequence[float], at_once: int) -> float:
    """How long jobs take, each started as soon as a core is free."""
    busy = [0.0] * at_once
    slower = 1 + CONTENTION * (min(at_once, len(jobs)) - 1)
    for job in jobs:
        busy[busy.index(min(busy))] += job * slower
    return max(busy)


def _pass(experiment: Experiment, counts: dict[str, float], speed: Speed) -> float:
    """Seconds of the frozen part's one pass over all photos."""
    images = sum(counts.values()) + experiment.copies * counts["train"]
    return images * _forward(experiment, speed)


def _forward(experiment: Experiment, speed: Speed) -> float:
    return speed.forward * (experiment.image_size / speed.size) ** 2


def _experiment(experiment: Experiment, counts: dict[str, float], speed: Speed) -> float:
    """Seconds to train and test one experiment, each of its folds, without what experiments share."""
    if not experiment.folds:
        return sum(_training(experiment, counts, speed))
    total, test = sum(counts.values()), 1 / experiment.folds
    shares = {"train": 1 - test - SHARES[1], "validation": SHARES[1], "test": test}
    of_fold, tracing = _training(experiment, {part: share * total for part, share in shares.items()}, speed)
    return len(experiment.tested_folds) * of_fold + tracing


def _choice(experiment: Experiment, counts: dict[str, float], speed: Speed, heads: int, finetunes: int) -> float:
    """Seconds to try so many learning rates of the head, and of fine-tuning."""
    total, chosen = sum(counts.values()), experiment.choosing_folds / (experiment.folds or 1)
    parts = {"train": (1 - chosen) * total, "validation": chosen * total, "test": 0}
    if experiment.strategy == "frozen":
        return heads * sum(_training(experiment, parts, speed))
    of_trial, tracing = _training(experiment, parts, speed)
    return finetunes * of_trial + tracing + heads * experiment.head_epochs * parts["train"] * HEAD_SECONDS


def _training(experiment: Experiment, counts: dict[str, float], speed: Speed) -> tuple[float, float]:
    """Seconds to train and test once; and seconds to build the training steps."""
    backbone, base = backbones.get(experiment.backbone, experiment.preprocessing), speed.base
    total, tracing = experiment.epochs * counts["train"] * HEAD_SECONDS, 0.0
    if experiment.augments_afresh:
        total += experiment.epochs * counts["train"] * _forward(experiment, speed)
    steps = unfreezing.steps(base, backbone, experiment)
    for layers in steps if experiment.strategy != "frozen" else []:
        unfreezing.unfreeze(base, layers, experiment.trains, experiment.batchnorm)
        cut = graph.cut(speed.model)
        behind = _share(speed.model, list(cut.frontier)) * _forward(experiment, speed)
        epochs = experiment.finetune_epochs / len(steps)
        total += epochs * behind * (counts["train"] * speed.backward + counts["validation"])
        total += counts["test"] * behind
        tracing += speed.tracing * len(cut.tail.layers)
    return total, tracing
