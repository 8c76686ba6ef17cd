"""The frozen part of a network, computed once.

Below the first layer that trains, every epoch would compute the same numbers
from the same photos: frozen weights do not change, and a frozen BatchNorm
layer, in inference mode, does not depend on the batch. So the photos pass
through that part once, what leaves it is kept on disk, and training starts
from there.
"""

import hashlib
import json
import os
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import chain
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from thaw.disk import arrays, budget, places
from thaw.disk.arrays import StoredArray
from thaw.disk.atomic import is_full
from thaw.disk.locks import locked
from thaw.network import graph
from thaw.training.progress import Bar
from thaw.training.setup import Setup

BATCH = 32  # photos at once through the frozen part, whatever the batch size of training
# A number is kept on disk if it saves at least so many multiply-adds. A core does some 80 of them in the nanosecond
# that it takes to read a byte back. The rule counts work and bytes, not seconds, so that every run decides alike.
WORTH = 600


def cached(setup: Setup, frontiers: Sequence[Collection[str]]) -> tuple[dict[str, StoredArray], list[str]]:
    """Find the outputs of frozen layers for all photos on disk, or compute and keep them.

    What is missing is computed in one pass, from what is kept of shallower
    layers where there is some. A frontier that costs more to read than to
    compute, or that does not fit the disk's budget, is not kept.

    Parameters
    ----------
    setup : Setup
    frontiers : sequence of collection of str
        Each the layers whose outputs are needed together, frozen up to there.

    Returns
    -------
    kept : dict of str to StoredArray
        (photos, ...) for each layer whose output is kept, in the data set's
        order. ``about["seconds"]`` is what it took from the photos on.
    why : list of str
        For each frontier, why it is kept or not.
    """
    reasons = [_reason_against(setup, frontier) for frontier in frontiers]
    wanted = [frontier for frontier, reason in zip(frontiers, reasons, strict=True) if not reason]
    found = _found(setup, set(chain(*wanted)))
    if set(chain(*wanted)) - found.keys():
        waiting = lambda: setup.log("another process computes the same: waiting for it")  # noqa: E731
        with locked([folder(setup)], waiting):
            found = _found(setup, set(chain(*wanted)))  # another process may have made them meanwhile
            found |= _computed(setup, wanted, found)
    kept = {layer: array for layer, array in found.items() if layer in set(chain(*wanted))}
    why = [
        reason or (_saving(setup, frontier) if kept.keys() >= set(frontier) else "there is no room for it on the disk")
        for frontier, reason in zip(frontiers, reasons, strict=True)
    ]
    return kept, why


def folder(setup: Setup) -> Path:
    """Give the folder of a network's activations for these photos: the same for all strategies and seeds."""
    digest = hashlib.sha256(json.dumps(_key(setup), sort_keys=True).encode()).hexdigest()
    return root() / f"{setup.backbone.name}-{digest[:12]}"


def root() -> Path:
    """Give the folder of all activations."""
    return places.cache("activations")


def _key(setup: Setup) -> dict:
    """All that changes a layer's output: the photos in their order, the weights, and the settings."""
    return {
        "data": setup.data.digest,
        "weights": setup.pretrained["tensors_sha256"],
        **setup.network_key,
        "image_size": setup.experiment.image_size,
        "precision": setup.experiment.precision,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def _reason_against(setup: Setup, frontier: Collection[str]) -> str | None:
    """Why a frontier's outputs are not to be kept; None if they are."""
    if setup.experiment.augments_afresh:
        return "the photos are augmented: they differ in every epoch"
    if setup.experiment.activations == "compute":
        return "as asked"
    if setup.experiment.activations == "auto" and worth(setup.model, frontier) < WORTH:
        return f"computing is faster than reading: {_saving(setup, frontier)}"
    return None


def worth(model: keras.Model, frontier: Collection[str]) -> float:
    """Count how many multiply-adds each number of a frontier saves; from `WORTH` up it is kept."""
    tensors = graph.tensors(model)
    numbers = sum(graph.numbers_a_photo(tensors[name]) for name in frontier)
    return graph.multiply_adds(model, frontier) / numbers


def _saving(setup: Setup, frontier: Collection[str]) -> str:
    return f"each stored number saves {worth(setup.model, frontier):,.0f} multiplications"


def _found(setup: Setup, layers: Collection[str]) -> dict[str, StoredArray]:
    found = {}
    for layer in layers:
        path = folder(setup) / f"{layer}.npy"
        array = setup.made.get(path) or arrays.find(path, _key(setup), setup.log)  # all of it is read: once is enough
        if array is not None:
            found[layer] = setup.made[path] = array
    return found


def _that_fit(setup: Setup, frontiers: Sequence[Collection[str]], found: Collection[str]) -> list[Collection[str]]:
    """Those frontiers that fit the disk's budget together, the ones that save most first."""
    fitting: list[Collection[str]] = []
    needed, limit = 0, budget.for_arrays()
    in_use = [folder(setup) / f"{layer}.npy" for layer in chain(found, *frontiers)]
    for frontier in sorted(frontiers, key=lambda frontier: worth(setup.model, frontier), reverse=True):
        size = sum(_bytes(setup, layer) for layer in set(frontier) - set(found) - set(chain(*fitting)))
        if budget.make_room(budget.ARRAYS, needed + size, limit, in_use):
            fitting.append(frontier)
            needed += size
        else:
            setup.log(
                f"no room to keep {' and '.join(sorted(frontier))}: it takes {size / 1e9:.3g} GB, and photos and "
                f"activations may take {limit / 1e9:.3g} GB (THAW_DISK_GB). It is computed again in each epoch"
            )
    return fitting


def _bytes(setup: Setup, layer: str) -> int:
    output = graph.tensors(setup.model)[layer]
    return len(setup.data) * graph.numbers_a_photo(output) * graph.itemsize(output)


def _computed(
    setup: Setup, frontiers: Sequence[Collection[str]], found: dict[str, StoredArray]
) -> dict[str, StoredArray]:
    """Run all photos to what is missing of some frontiers, from the deepest layers on disk, and keep what comes out."""
    model, here = setup.model, folder(setup)
    try:
        with ExitStack() as stack:
            with budget.room():
                missing = set(chain(*_that_fit(setup, frontiers, found))) - found.keys()
                writers = {layer: stack.enter_context(_writing(setup, layer)) for layer in sorted(missing)}
            if not writers:
                return {}
            on_disk = {Path(name).stem for *_, names in os.walk(here) for name in names} & graph.tensors(
                model
            ).keys() - missing
            while True:  # until all that it starts from is sound
                start = graph.sources(model, missing, on_disk)
                inputs = _found(setup, on_disk & set(start))
                if inputs.keys() == on_disk & set(start):
                    break
                on_disk &= inputs.keys() | (on_disk - set(start))
            seconds = _run(setup, start, inputs, writers)
    except OSError as error:
        if not is_full(error):
            raise
        setup.log(f"the disk is full: nothing more is kept in {here}")
        return {}
    origin = f" from {' and '.join(inputs)}" if inputs else ""
    setup.log(f"the frozen part has seen all {len(setup.data):,} photos once{origin}: {seconds:.1f} s")
    setup.made.update({here / f"{layer}.npy": writer.array for layer, writer in writers.items()})
    return {layer: writer.array for layer, writer in writers.items()}


def _writing(setup: Setup, layer: str) -> AbstractContextManager[arrays.Writer]:
    output = graph.tensors(setup.model)[layer]
    shape = (len(setup.data), *output.shape[1:])
    return arrays.writing(folder(setup) / f"{layer}.npy", _key(setup), output.dtype, shape)


def _run(setup: Setup, start: list[str], inputs: dict[str, StoredArray], writers: dict[str, arrays.Writer]) -> float:
    """Write some layers' outputs for all photos; the seconds that it took."""
    model, preprocess, count = setup.model, setup.backbone.preprocess, len(setup.data)
    tensors = graph.tensors(model)
    outputs = [tensors[name] for name in writers]
    prefix = keras.Model(graph.one_or_all([tensors[name] for name in start]), outputs)

    @tf.function(reduce_retracing=True, autograph=False)
    def run(*columns):
        entering = [
            column if name in inputs else preprocess(tf.cast(column, tf.float32))
            for name, column in zip(start, columns, strict=True)
        ]
        return prefix(graph.one_or_all(entering), training=False)

    began = time.perf_counter()
    bar = Bar("frozen part", count)
    for first in range(0, count, BATCH):
        columns = [inputs.get(name, setup.data.images)[first : first + BATCH] for name in start]
        for writer, rows in zip(writers.values(), tf.nest.flatten(run(*columns)), strict=True):
            writer.append(np.asarray(rows))
        bar.advance(min(first + BATCH, count))
        if first == 0:
            tracing = time.perf_counter() - began
    bar.end()
    seconds = time.perf_counter() - began
    before = max((array.about["seconds"] for array in inputs.values()), default=0.0)
    whole = graph.multiply_adds(model, list(writers), start) or 1
    for layer, writer in writers.items():
        share = graph.multiply_adds(model, [layer], start) / whole
        writer.about |= {"seconds": before + seconds * share, "first_batch_seconds": before + tracing * share}
    return seconds
