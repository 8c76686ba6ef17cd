"""Latency of all configurations, measured in one process, in turns.

What a network computes does not depend on which of its layers were trainable:
configurations of one backbone run the same graph, and where they differ, that
is how noisy the machine is. Each is built and measured by itself all the same,
on pre-trained weights, since their values do not matter either.
"""

import gc
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import pandas as pd

from thaw.data import photos as data
from thaw.experiment import Experiment
from thaw.network import backbones
from thaw.network import unfreezing as unfreeze
from thaw.network.pretrained import load_pretrained
from thaw.training import evaluation
from thaw.training import phases as training

CALLS = ("graph", "predict")  # the compiled graph, and Keras' `predict`
ROUNDS = {1: 20, 32: 6}  # by the number of photos in a call
WARM_UP = 2


def measure(
    experiments: Sequence[Experiment], log: Callable[[str], None] = print, rounds: dict[int, int] = ROUNDS
) -> pd.DataFrame:
    """Time every configuration, on single photos and on batches, compiled and by ``predict``.

    In each round every configuration has its turn once, in another order each
    time, so that what slows the machine for a while slows all of them.
    Preprocessing is part of a call.

    Parameters
    ----------
    experiments : sequence of Experiment
        One a configuration, all of the same data set and photo size.
    log : callable
        Told of the progress.
    rounds : dict of int to int
        Rounds, by photos in a call.

    Returns
    -------
    DataFrame
        A call a row: backbone, strategy, amount, epochs (which
        configuration), call ('graph' or 'predict'), photos (in it), round,
        milliseconds (of the whole call), device, cores.
    """
    first = experiments[0]
    images = data.load_photos(first.dataset, first.image_size, first.max_examples)
    classes, photos = len(images.classes), images.test.images[np.arange(max(rounds)) % len(images.test)]
    calls = []
    for number, experiment in enumerate(experiments, start=1):
        log(f"building {number} of {len(experiments)}: {experiment.backbone}, {experiment.label}")
        calls.append(_calls(experiment, classes))
    machine = evaluation.device()
    rows = []
    order = np.random.default_rng(0)
    for count, repeats in rounds.items():
        log(f"{repeats} rounds of calls with {count} photo{'s' * (count > 1)}")
        turns = [(experiment, name) for experiment in range(len(experiments)) for name in CALLS]
        for number in range(-WARM_UP, repeats):
            for position in order.permutation(len(turns)):
                which, name = turns[position]
                # Single photos in turn; a batch is the same each time.
                batch = photos[[number % len(photos)]] if count == 1 else photos[:count]
                gc.disable()
                began = time.perf_counter()
                calls[which][name](batch)
                milliseconds = 1000 * (time.perf_counter() - began)
                gc.enable()
                if number >= 0:
                    e = experiments[which]
                    rows.append((e.backbone, e.strategy, e.amount, e.epochs, name, count, number, milliseconds))
    columns = ["backbone", "strategy", "amount", "epochs", "call", "photos", "round", "milliseconds"]
    return pd.DataFrame(rows, columns=columns).assign(device=machine["name"], cores=machine["cores"])


def _calls(experiment: Experiment, classes: int) -> dict[str, Callable]:
    """A network as its two calls, from photos uint8 (n, size, size, 3) to probabilities."""
    keras.config.set_dtype_policy(experiment.precision)
    network = backbones.get(experiment.backbone)
    base, _ = load_pretrained(experiment.backbone, experiment.image_size, experiment.weights)
    unfreeze.unfreeze(base, unfreeze.unfrozen(base, network, experiment.strategy, experiment.amount))
    model = training.add_head(base, classes, experiment.seed)
    graph = evaluation.compiled(model, network.preprocess)
    return {
        "graph": lambda photos: graph(photos).numpy(),
        "predict": lambda photos: model.predict(
            network.preprocess(photos.astype("float32")), batch_size=len(photos), verbose=0
        ),
    }
