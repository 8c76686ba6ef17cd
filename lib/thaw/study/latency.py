"""Latency of each network of a study, measured in one process and in turns.

What a network computes does not depend on which of its layers were trainable:
all configurations of a network run the same graph, so it is measured once. The
values of the weights do not matter either. It is measured in float32, whatever
the precision of the training, and with Keras' own layers, in place of those
that train faster: so computes the network that a study leaves.
"""

import gc
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from thaw.data.photos import photos_of
from thaw.experiment import Experiment
from thaw.network import backbones
from thaw.network.head import add_head
from thaw.training import machine

CALLS = ("graph", "predict")  # the compiled graph, and Keras' `predict`
ROUNDS = {1: 20, 32: 6}  # by the number of photos in a call
WARM_UP = 2
PRECISION = "float32"


def measure(
    networks: Sequence[Experiment], log: Callable[[str], None] = print, rounds: dict[int, int] = ROUNDS
) -> pd.DataFrame:
    """Time every network, on single photos and on batches, compiled and by ``predict``.

    In each round every network has its turn once, in another order each time:
    what slows the machine for a while slows all of them. Preprocessing is part
    of a call.

    Parameters
    ----------
    networks : sequence of Experiment
        One experiment of each network.
    log : callable
        Told of the progress.
    rounds : dict of int to int
        Rounds, by photos in a call.

    Returns
    -------
    DataFrame
        A call a row: backbone, image_size, precision (which network), call
        ('graph' or 'predict'), photos (in the call), round, milliseconds (of
        the whole call), device, cores.
    """
    calls, photos = [], []
    for number, experiment in enumerate(networks, start=1):
        log(f"building {number} of {len(networks)}: {experiment.backbone}")
        data = photos_of(experiment)
        photos.append(data.images[np.resize(data.test, max(rounds))])
        calls.append(_calls(experiment, len(data.classes)))
    turns = [(which, name) for which in range(len(networks)) for name in CALLS]
    order = np.random.default_rng(0)
    rows = []
    for count, repeats in rounds.items():
        log(f"{repeats} rounds of calls with {count} photo{'s' * (count > 1)}")
        for number in range(-WARM_UP, repeats):
            for which, name in (turns[position] for position in order.permutation(len(turns))):
                # Single photos in turn; a batch is the same each time.
                batch = photos[which][[number % max(rounds)]] if count == 1 else photos[which][:count]
                gc.disable()
                began = time.perf_counter()
                calls[which][name](batch)
                milliseconds = 1000 * (time.perf_counter() - began)
                gc.enable()
                if number >= 0:
                    e = networks[which]
                    rows.append((e.backbone, e.image_size, PRECISION, name, count, number, milliseconds))
    columns = ["backbone", "image_size", "precision", "call", "photos", "round", "milliseconds"]
    device = machine.device()
    return pd.DataFrame(rows, columns=columns).assign(device=device["name"], cores=device["cores"])


def _calls(experiment: Experiment, classes: int) -> dict[str, Callable[[np.ndarray], object]]:
    """Build a network as its two calls, from photos uint8 (n, size, size, 3) to probabilities."""
    keras.config.set_dtype_policy(PRECISION)
    network = backbones.get(experiment.backbone, experiment.preprocessing)
    model = add_head(network.build(experiment.image_size), classes, experiment.seed)
    graph = _compiled(model, network.preprocess)
    return {
        "graph": lambda photos: graph(photos).numpy(),
        "predict": lambda photos: model.predict(
            network.preprocess(photos.astype("float32")), batch_size=len(photos), verbose=0
        ),
    }


def _compiled(model: keras.Model, preprocess: Callable) -> Callable:
    """Compile a network into one graph, from photos of 0 to 255 (n, size, size, 3) to probabilities (n, classes)."""
    signature = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)

    @tf.function(input_signature=[signature], autograph=False)
    def graph(photos):
        return model(preprocess(tf.cast(photos, tf.float32)), training=False)

    return graph
