"""How well a frozen network's features tell the classes apart, at the end of each block.

The photos pass once through the network as it was pre-trained. From what leaves
each block, averaged over the photo, two simple classifiers learn the classes:
a linear one (Alain and Bengio, 2016), and the nearest neighbours. Where their
accuracy stops rising, the pre-trained features stop helping. Test photos take
no part.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from threadpoolctl import threadpool_limits

from thaw.errors import InvalidParameter, OutputNotWritable
from thaw.network import graph, unfreezing
from thaw.training import activations
from thaw.training.setup import Setup

FOLDS, NEIGHBOURS = 5, 5
PENALTY = 0.01  # C of the linear probe, as in the data checks: there may be more channels than photos
PHOTOS = 256  # training photos that the gradient is of
PIXELS = 400_000  # at once: a backward pass through the whole network holds what leaves each of its layers
COLUMNS = ("linear", "linear_error", "neighbours", "neighbours_error")
POOLING = {4: keras.layers.GlobalAveragePooling2D, 3: keras.layers.GlobalAveragePooling1D}


def with_averages(setup: Setup) -> tuple[Setup, dict[str, str]]:
    """Let a network also give what leaves each block, averaged over the photo.

    Returns
    -------
    setup : Setup
        Its model has these as outputs, too, and computes the same.
    names : dict of str to str
        For each block, from the input to the output, the name of its
        average: (n, channels) in float32.
    """
    names, averages = {}, {}
    for block, (name, tensor) in _ends(setup).items():
        names[block] = f"{name}_average"
        if names[block] not in averages:
            pool = POOLING.get(len(tensor.shape), keras.layers.Identity)
            averages[names[block]] = pool(name=names[block], dtype="float32")(tensor)
    model = keras.Model(setup.model.input, [setup.model.output, *averages.values()])
    return replace(setup, model=model, made={}), names


def _ends(setup: Setup) -> dict[str, tuple[str, keras.KerasTensor]]:
    """Find the tensor that leaves each block's last layer, by the block's name.

    A sum written with ``+`` after that layer belongs to the block. The last
    block reaches the end of the base.
    """
    steps = graph.steps(setup.base)
    position = {step.name: number for number, step in enumerate(steps)}
    ends = {}
    for block, layers in setup.backbone.blocks(setup.base).items():
        last = max(position[layer.name] for layer in layers)
        while last + 1 < len(steps) and not isinstance(steps[last + 1].operation, keras.layers.Layer):
            last += 1
        ends[block] = list(steps[last].outputs.items())[-1]
    block = list(ends)[-1]
    name = next(name for step in steps for name, tensor in step.outputs.items() if tensor is setup.base.output)
    return ends | {block: (name, setup.base.output)}


def features(setup: Setup) -> dict[str, np.ndarray]:
    """Compute what leaves each block, averaged over the photo, (photos, channels), or read what is kept of it.

    Raises
    ------
    OutputNotWritable
        If the disk has no room for it: some kilobytes a photo.
    """
    plain = {"activations": "keep"} | ({} if setup.experiment.copies else {"augmentation": "none"})
    averaging, names = with_averages(replace(setup, experiment=setup.experiment.model_copy(update=plain)))
    kept, _ = activations.cached(averaging, [list(dict.fromkeys(names.values()))])
    if not kept.keys() >= set(names.values()):
        raise OutputNotWritable(f"{activations.root()}: no room for what the probe reads. Make room on this disk.")
    photos = len(setup.data.keys)  # without augmented copies
    return {block: np.asarray(kept[name][:photos], np.float32) for block, name in names.items()}


def accuracies(setup: Setup) -> pd.DataFrame:
    """Cross-validate the two classifiers on the training and validation photos, at each depth.

    Photos of one group stay in one fold. The folds are the same at each depth,
    and on every run.

    Returns
    -------
    DataFrame
        A block a row, from the input to the output: ``block``; ``linear`` and
        ``neighbours``, accuracies from 0 to 1, means over the folds; and their
        standard errors over the folds in ``linear_error`` and
        ``neighbours_error``.

    Raises
    ------
    InvalidParameter
        If there are too few photos.
    """
    data = setup.data
    rows = np.sort(np.concatenate([data.train, data.validation]))
    labels = data.labels[rows]
    groups = None
    if data.files is not None and "group" in data.files:
        names = data.files["group"].to_numpy(str)[rows]
        groups = np.where(names == "", data.keys[rows], names)
    folds = _folds(labels, groups)
    with threadpool_limits(1):  # on matrices so small, threads cost twenty times what they save
        found = [(block, *_both(values[rows], labels, folds)) for block, values in features(setup).items()]
    return pd.DataFrame(found, columns=["block", *COLUMNS])


def _folds(labels: np.ndarray, groups: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide photos into folds, as evenly in each class as can be: pairs of positions to train and to test on."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    counts = np.bincount(labels)
    if (counts > 0).sum() < 2 or counts.max() < FOLDS or (groups is not None and len(set(groups)) < FOLDS):
        raise InvalidParameter(
            f"{len(labels)} photos to train and validate, at most {counts.max()} of a class: too few to probe. "
            f"The probe needs {FOLDS} photos of a class at least, and two classes. Raise max_examples, or add photos."
        )
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer photos than there are folds
        folds = list(kind(FOLDS, shuffle=True, random_state=0).split(labels, labels, groups))
    return [(train, test) for train, test in folds if len(set(labels[train])) > 1 and len(test)]


def _both(values: np.ndarray, labels: np.ndarray, folds: list) -> tuple[float, float, float, float]:
    """Measure the two classifiers on features (n, channels): each one's accuracy and its standard error."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    values = np.nan_to_num(values)  # a half-precision network may overflow
    right: dict[str, list[float]] = {"linear": [], "neighbours": []}
    for train, test in folds:
        models = {
            "linear": make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, tol=1e-3)),
            "neighbours": KNeighborsClassifier(min(NEIGHBOURS, len(train)), metric="cosine"),
        }
        for name, model in models.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                right[name].append(float(model.fit(values[train], labels[train]).score(values[test], labels[test])))
    linear, neighbours = ((float(np.mean(of)), float(np.std(of, ddof=1) / math.sqrt(len(of)))) for of in right.values())
    return *linear, *neighbours


def gradient_ratios(setup: Setup) -> dict[str, float | None]:
    """Divide the norm of the loss's gradient by that of the weights, for each block.

    It is the relative gradient norm by which Auto-RGN (Lee et al., 2023) says
    which layers a new task would change most. The gradient is that of the mean
    loss over some training photos, with everything in inference mode.

    Parameters
    ----------
    setup : Setup
        Its head is trained.

    Returns
    -------
    dict of str to float or None
        By the block's name; None for a block without weights that could
        train, and where the loss is not a finite number.
    """
    data, base = setup.data, setup.base
    rows = np.sort(np.random.default_rng(0).permutation(data.train)[:PHOTOS])
    unfreezing.unfreeze(base, base.layers)
    try:
        weights = base.trainable_weights
        total = [np.zeros(weight.shape) for weight in weights]
        at_once = min(max(PIXELS // setup.experiment.image_size**2, 1), activations.BATCH)
        for first in range(0, len(rows), at_once):
            chosen = rows[first : first + at_once]
            photos = setup.backbone.preprocess(tf.cast(data.images[chosen], tf.float32))
            with tf.GradientTape() as tape:
                losses = keras.losses.sparse_categorical_crossentropy(
                    data.labels[chosen], setup.model(photos, training=False)
                )
                loss = tf.reduce_sum(losses) / len(rows)
            gradients = tape.gradient(loss, [weight.value for weight in weights], unconnected_gradients="zero")
            for sum_, gradient in zip(total, gradients, strict=True):
                sum_ += np.asarray(tf.convert_to_tensor(gradient), float)
        squares = {id(w): ((g**2).sum(), (w.numpy().astype(float) ** 2).sum()) for w, g in zip(weights, total)}
        blocks = setup.backbone.blocks(base)
        return {
            block: _ratio([squares[id(w)] for e in layers for w in e.trainable_weights])
            for block, layers in blocks.items()
        }
    finally:
        unfreezing.unfreeze(base, [])


def _ratio(squares: list[tuple[float, float]]) -> float | None:
    """Divide the root of the sum of the first by that of the second."""
    gradient, weight = (math.fsum(each) for each in zip(*squares)) if squares else (0.0, 0.0)
    return math.sqrt(gradient / weight) if weight and math.isfinite(gradient) else None
