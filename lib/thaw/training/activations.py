"""The frozen prefix of a network, computed once.

Below the first layer that trains, every epoch would compute the same numbers
from the same photos: frozen weights do not change, and a frozen BatchNorm
layer, in inference mode, knows nothing of the batch. So the photos are run
through that part once, what leaves it is kept on disk, and training starts
from there.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import keras
import numpy as np
import psutil
import tensorflow as tf

from thaw.data.photos import Data
from thaw.disk import arrays as store
from thaw.disk import places
from thaw.disk.arrays import Stored
from thaw.disk.atomic import is_full, locked
from thaw.experiment import Experiment
from thaw.network import backbones

BATCH = 32  # photos at once through the frozen part, whatever the batch size of training


@dataclass(frozen=True)
class Cut:
    """A network cut in two where its frozen part ends.

    Attributes
    ----------
    frontier : dict of str to KerasTensor
        What flows from the frozen part to the rest, by the layer it comes
        from: one tensor at a block's edge, more where the cut lies inside a
        residual block.
    tail : keras.Model
        From the frontier to the output; it shares the network's weights.
    saves : bool
        Whether there are weights before the frontier, so that there is
        something to compute once.
    """

    frontier: dict[str, keras.KerasTensor]
    tail: keras.Model
    saves: bool

    @property
    def bytes_a_photo(self) -> int:
        """How much of the frontier belongs to one photo."""
        return sum(map(bytes_a_photo, self.frontier.values()))


def cut(model: keras.Model) -> Cut:
    """Cut a network where its frozen part ends, as its layers are frozen now.

    What trains is every layer with trainable weights, and every layer that
    depends on one of them.
    """
    live: set[str] = set()
    frontier: dict[str, keras.KerasTensor] = {}
    for layer in model.layers:  # Keras keeps them in topological order
        inputs = _inputs(layer)
        if layer.trainable_weights or any(_producer(tensor).name in live for tensor in inputs):
            live.add(layer.name)
            frontier |= {_producer(tensor).name: tensor for tensor in inputs if _producer(tensor).name not in live}
    saves = any(layer.weights for layer in model.layers if layer.name not in live)
    return Cut(frontier, keras.Model(_one_or_all(list(frontier.values())), model.output), saves)


def bytes_a_photo(tensor: keras.KerasTensor) -> int:
    """How much of a tensor belongs to one photo."""
    return math.prod(tensor.shape[1:]) * tf.as_dtype(tensor.dtype).size


def nearest(model: keras.Model, wanted: Collection[str], kept: Collection[str]) -> list[str]:
    """What to start from in order to compute some layers' outputs.

    Parameters
    ----------
    model : keras.Model
    wanted : collection of str
        The layers.
    kept : collection of str
        Layers whose outputs are at hand.

    Returns
    -------
    list of str
        Those of them, or the network's input layer, on every way to what is
        wanted, the last on each way.
    """
    sources: dict[str, None] = {}
    seen: set[str] = set()
    left = list(wanted)
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        inputs = _inputs(model.get_layer(name))
        if name in kept or not inputs:
            sources[name] = None
        else:
            left += [_producer(tensor).name for tensor in inputs]
    return [layer.name for layer in model.layers if layer.name in sources]


def multiply_adds(model: keras.Model, wanted: Collection[str], sources: Collection[str] = ()) -> int:
    """Count the multiplications, each with its addition, from some layers' outputs to others', for one photo.

    Those of convolutions and dense layers; the rest is a hundredth of them.
    """
    seen: set[str] = set(sources)
    left, total = list(wanted), 0
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        layer = model.get_layer(name)
        left += [_producer(tensor).name for tensor in _inputs(layer)]
        if hasattr(layer, "kernel"):
            total += math.prod(layer.output.shape[1:-1]) * math.prod(layer.kernel.shape)
    return total


def folder(experiment: Experiment) -> Path:
    """Where the activations of one backbone on one data set are kept: the same for all strategies and seeds."""
    fields = ("dataset", "image_size", "max_examples", "weights", "precision")
    text = json.dumps([*(getattr(experiment, name) for name in fields), *origin(experiment)])
    return root() / f"{experiment.backbone}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def origin(experiment: Experiment) -> list[str | None]:
    """What else tells cached files apart by name, before any weights are read: where these are, and the library."""
    folder = os.environ.get("THAW_WEIGHTS_DIR") if experiment.weights == "imagenet" else None
    return [folder, tf.__version__]


def root() -> Path:
    """Where all activations are kept."""
    return places.cache("activations")


def budget(precision: str) -> float:
    """Bytes of disk that all activations may take: ``$THAW_DISK_GB``, or 8 GB, and half of it in 16-bit numbers."""
    return 1e9 * float(os.environ.get("THAW_DISK_GB") or (8 if precision == "float32" else 4))


def key(experiment: Experiment, data: str, weights: str, layer: str) -> dict:
    """All that changes a layer's output: hashes of the data, in their order, and of the weights, and the settings."""
    return {
        "data": data,
        "weights": weights,
        "backbone": experiment.backbone,
        "image_size": experiment.image_size,
        "layer": layer,
        "precision": experiment.precision,
        "tensorflow": tf.__version__,
    }


def provide(
    model: keras.Model,
    frontiers: Sequence[Collection[str]],
    data: Data,
    weights: str,
    experiment: Experiment,
    log: Callable[[str], None] = print,
) -> dict[str, Stored]:
    """Find layers' outputs for all photos on disk, or compute and keep them where that pays.

    They are computed in one pass, from what is kept of shallower layers where
    there is some. A frontier that is slower to read than to compute, or that
    does not fit the budget, is not kept unless ``experiment.activations`` is
    'keep'; a note of it stays.

    Parameters
    ----------
    model : keras.Model
    frontiers : sequence of collection of str
        The layers, frozen up to there. Those of a frontier are of use
        together alone.
    data : Data
    weights : str
        The hash of the backbone's weights.
    experiment : Experiment
    log : callable

    Returns
    -------
    dict of str to Stored
        (photos, ...) for each layer whose output is kept: training photos
        first, then those for validation, then the test's. ``about`` holds
        the ``seconds`` that it took from the photos on, ``seconds_a_photo``
        once the first batch was through, and ``why`` it is kept.
    """
    kept, due = _found(frontiers, data, weights, experiment, log)
    if not due:
        return kept
    here, missing = folder(experiment), set(chain(*due)) - kept.keys()
    files = [here / f"{layer}.h5" for layer in missing]
    with locked(files, lambda: log("another process computes the same: waiting for it")):
        kept, due = _found(frontiers, data, weights, experiment, lambda line: None)  # made meanwhile, it may be
        if not due:
            return kept
        try:
            return kept | _compute_from_nearest(model, due, kept, data, weights, experiment, log)
        except (OSError, RuntimeError) as error:  # HDF5 raises either
            if not is_full(error):
                raise
            log(f"the disk is full: nothing more is kept in {here}")
            return kept


def _found(frontiers, data, weights, experiment, log) -> tuple[dict[str, Stored], list[Collection[str]]]:
    """What is kept, and the frontiers that have to be computed."""
    kept = {
        layer: found
        for layer in dict.fromkeys(chain(*frontiers))
        if (found := _find(layer, data, weights, experiment, log))
    }
    due = []
    for frontier in frontiers:
        rejection = None if experiment.activations == "keep" else _rejection(experiment, data, weights, frontier)
        if not kept.keys() >= set(frontier) and (not rejection or rejection["budget"] != budget(experiment.precision)):
            due.append(frontier)
    return kept, due


def _find(layer, data, weights, experiment, log) -> Stored | None:
    path = folder(experiment) / f"{layer}.h5"
    return store.find(path, key(experiment, data.provenance["sha256"], weights, layer), log)


def _compute_from_nearest(model, due, kept, data, weights, experiment, log) -> dict[str, Stored]:
    """Compute what is missing of some frontiers from the deepest layers on disk."""
    here, missing = folder(experiment), set(chain(*due)) - kept.keys()
    others = {path.stem for path in here.glob("*.h5")} & {layer.name for layer in model.layers} - missing
    while True:  # until all that it starts from is sound
        names = nearest(model, missing, others)
        found = {
            name: kept.get(name) or _find(name, data, weights, experiment, log) for name in names if name in others
        }
        if all(found.values()):
            break
        others -= {name for name in found if not found[name]}
    return _compute(model, due, kept, names, found, data, weights, experiment, log)


def why_not(experiment: Experiment, data: Data, weights: str, frontier: Collection[str]) -> str:
    """Why a frontier's outputs are not kept."""
    rejection = _rejection(experiment, data, weights, frontier)
    return rejection["why"] if rejection else "not kept"


def _rejection(experiment: Experiment, data: Data, weights: str, frontier: Collection[str]) -> dict | None:
    """The note of just these layers together that they are not kept."""
    here, digest = folder(experiment), data.provenance["sha256"]
    notes = [
        store.note(here / f"{layer}.h5", key(experiment, digest, weights, layer), lambda line: None)
        for layer in frontier
    ]
    if not all(notes):
        return None
    return next((note for note in notes if not note["kept"] and note.get("frontier") == sorted(frontier)), None)


def _compute(model, frontiers, kept, names, found, data, weights, experiment, log) -> dict[str, Stored]:
    """Run the photos from some layers' outputs (names; found are those on disk) to the frontiers that pay.

    Of a frontier, those that are kept already are not computed again.
    """
    began = time.perf_counter()
    here, preprocess = folder(experiment), backbones.get(experiment.backbone).preprocess
    photos, forced, room = sum(map(len, data.parts)), experiment.activations == "keep", budget(experiment.precision)
    writers: dict[str, store.Writer] = {}
    rejected: list[tuple[Collection[str], str, float | None]] = []

    def writer(layer: str) -> store.Writer:
        output, of = model.get_layer(layer).output, key(experiment, data.provenance["sha256"], weights, layer)
        return store.Writer(here / f"{layer}.h5", of, tf.as_dtype(output.dtype), (photos, *output.shape[1:]))

    try:
        in_use = [here / f"{layer}.h5" for layer in {*names, *chain(*frontiers)}]
        why: dict[tuple[str, ...], str] = {}
        leaving, needed = [], 0
        for frontier in frontiers:
            new = [layer for layer in frontier if layer not in kept and layer not in leaving]
            size = photos * sum(bytes_a_photo(model.get_layer(layer).output) for layer in new)
            if store.make_room(root(), needed + size, room, in_use) or forced:
                why[tuple(frontier)] = "as asked" if forced else "few photos"
                leaving, needed = leaving + new, needed + size
            else:
                # Tried again if it could fit another time.
                limit = room if size > room else None
                rejected.append((frontier, f"{size / 1e9:.1f} GB would not fit on the disk, or its budget", limit))
        closed = {}
        if leaving:
            prefix = keras.Model(
                _one_or_all([model.get_layer(name).output for name in names]),
                [model.get_layer(layer).output for layer in leaving],
            )
            whole = multiply_adds(model, leaving, names) or 1
            before = {
                name: max((source.about[name] for source in found.values()), default=0.0)
                for name in ("seconds", "seconds_a_photo")
            }
            writers |= {layer: writer(layer) for layer in leaving}

            @tf.function(reduce_retracing=True, autograph=False)
            def run(*columns):
                inputs = [
                    column if name in found else preprocess(tf.cast(column, tf.float32))
                    for name, column in zip(names, columns)
                ]
                return prefix(_one_or_all(inputs), training=False)

            seconds, traced = [], began
            for number, (start, stop, images) in enumerate(_in_batches(data)):
                batch_began = time.perf_counter()
                if number == 1:
                    traced = batch_began
                columns = [found[name][start:stop] if name in found else images for name in names]
                results = [np.asarray(rows) for rows in tf.nest.flatten(run(*columns))]
                seconds.append(time.perf_counter() - batch_began)
                for layer, rows in zip(leaving, results):
                    if layer in writers:
                        writers[layer].append(rows)
                if number == 3 and not forced:
                    fastest = min(seconds[1:]) / (stop - start)  # the first one's seconds are tracing
                    for frontier in list(why):
                        share = multiply_adds(model, frontier, names) / whole
                        computing = before["seconds_a_photo"] + fastest * share
                        reading = _reading([writers[layer] for layer in frontier if layer in writers], start, stop)
                        why[frontier] = (
                            f"reading takes {1e3 * reading:.2f} ms a photo, computing {1e3 * computing:.2f} ms"
                        )
                        if reading >= computing:
                            rejected.append((frontier, why.pop(frontier), room))
                    for layer in writers.keys() - set(chain(*why)):
                        writers.pop(layer).discard()
                    if not why:
                        break
            taken = time.perf_counter() - began
            a_photo = (time.perf_counter() - traced) / max(photos - BATCH, 1)  # without the first batch
            for layer, output in writers.items():
                share = multiply_adds(model, [layer], names) / whole
                closed[layer] = output.finish(
                    kept=True,
                    why=next(reason for frontier, reason in why.items() if layer in frontier),
                    seconds=before["seconds"] + taken * share,
                    seconds_a_photo=before["seconds_a_photo"] + a_photo * share,
                )
        for frontier, reason, limit in rejected:
            for layer in set(frontier) - kept.keys() - closed.keys():
                writer(layer).give_up(kept=False, why=reason, budget=limit, frontier=sorted(frontier))
        if closed:
            start = f" from {' and '.join(found)}" if found else ""
            log(f"the frozen part has seen all {photos:,} photos once{start}: {taken:.1f} s")
        return closed
    finally:
        for output in writers.values():
            output.discard()


def _reading(writers: list[store.Writer], start: int, stop: int) -> float:
    """Seconds a photo to read some rows together: from the disk where they will not stay in the system's memory."""
    size = sum(math.prod(output.shape) * output.dtype.size for output in writers)
    cold = size >= psutil.virtual_memory().available / 2
    # The fastest of three, as of the batches computed: results differ by rounding with what is kept, so that no
    # moment's load on the machine should decide it.
    return min(sum(output.seconds_to_read(start, stop, cold) for output in writers) for _ in range(3)) / (stop - start)


def _in_batches(data: Data) -> Iterator[tuple[int, int, np.ndarray]]:
    """All photos in order: from and to which one, and the images."""
    start = 0
    for part in data.parts:
        for i in range(0, len(part), BATCH):
            images = part.images[i : i + BATCH]
            yield start, start + len(images), images
            start += len(images)


def _inputs(layer: keras.layers.Layer) -> list[keras.KerasTensor]:
    return [] if isinstance(layer, keras.layers.InputLayer) else layer._inbound_nodes[0].input_tensors


def _producer(tensor: keras.KerasTensor) -> keras.layers.Layer:
    """The layer that a tensor comes from."""
    return tensor._keras_history.operation


def _one_or_all(tensors: list):
    return tensors if len(tensors) > 1 else tensors[0]
