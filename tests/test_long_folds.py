"""Real heads on real features, trained thousands of times: minutes, under `make test-long`.

Whether the interval over folds covers is no theorem, since folds share
training photos (Bengio and Grandvalet, 2004). So here TF Flowers is divided
again and again into small data sets that have no photo in common. On each,
two heads are tested on ten folds. Photos of the other data sets tell how much
better one head truly is, as trained on so few photos.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import has_flowers, has_weights
from test_statistics_of_folds import beyond, light

from thaw.data import splits
from thaw.data.photos import photos_of
from thaw.experiment import Experiment
from thaw.report.statistics import ALPHA, difference

pytestmark = [pytest.mark.long, has_flowers, has_weights]
FOLDS, EPOCHS, BATCH = 10, 8, 32
RATES = (4e-3, 2e-2)  # of the two heads
SIDE = 128  # pixels


@pytest.fixture(scope="module")
def flowers() -> tuple[np.ndarray, np.ndarray]:
    """MobileNet's pooled features of all photos, (photos, 1024), and their labels."""
    import keras

    data = photos_of(Experiment(backbone="mobilenet", strategy="frozen", image_size=SIDE))
    weights = str(Path(os.environ["THAW_WEIGHTS_DIR"], "mobilenet.h5"))
    base = keras.applications.MobileNet(include_top=False, pooling="avg", weights=weights, input_shape=(SIDE, SIDE, 3))
    batches = np.array_split(np.arange(len(data.labels)), 60)
    features = [base.predict_on_batch(np.asarray(data.images[batch], np.float32) / 127.5 - 1) for batch in batches]
    return np.concatenate(features), np.asarray(data.labels)


def train(features, labels, photos: np.ndarray, rates: Sequence[float], rng) -> np.ndarray:
    """Train many heads at once, as Thaw trains one: softmax, Adam, a new order in each epoch.

    Parameters
    ----------
    photos : array of int, (heads, photos)
        On which each is trained. With each rate, all begin with the same
        weights and see the photos in the same order.

    Returns
    -------
    array, (rates, heads, features + 1, classes)
        Kernels; the bias is the last row.
    """
    classes, width = int(labels.max()) + 1, features.shape[1] + 1
    with_bias = np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1)
    targets = np.eye(classes, dtype=np.float32)[labels]
    limit = np.sqrt(6 / (width - 1 + classes))
    kernel = rng.uniform(-limit, limit, (1, len(photos), width, classes)).astype(np.float32).repeat(len(rates), axis=0)
    kernel[..., -1, :] = 0
    mean, square, step = np.zeros_like(kernel), np.zeros_like(kernel), 0
    rate = np.reshape(np.array(rates, np.float32), (-1, 1, 1, 1))
    for _ in range(EPOCHS):
        order = rng.permuted(photos, axis=1)
        for start in range(0, photos.shape[1], BATCH):
            chosen = order[:, start : start + BATCH]
            inputs, step = with_bias[chosen], step + 1
            scores = inputs @ kernel
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            wrong = scores / scores.sum(axis=-1, keepdims=True) - targets[chosen]
            gradient = np.swapaxes(inputs, -1, -2) @ wrong / chosen.shape[1]
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            kernel -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-7)
    return kernel


@pytest.mark.parametrize("size, times", [(367, 40), (734, 60)])
def test_over_folds_the_interval_of_two_real_heads_covers(flowers, size, times):
    features, labels = flowers
    rng = np.random.default_rng(0)
    parts = [splits.in_fold(splits.places_by_position(size), FOLDS, fold) for fold in range(FOLDS)]
    fewest = min(len(train) for train, _, _ in parts)
    effects, pooled, truths = [], [], []
    for _ in range(times):
        order = rng.permutation(len(labels))
        for photos in order[: len(order) // size * size].reshape(-1, size):
            training = np.stack([photos[rng.permutation(train)[:fewest]] for train, _, _ in parts])
            kernels = train(features, labels, training, RATES, rng)
            scores = features @ kernels[..., :-1, :] + kernels[..., -1:, :]
            right = scores.argmax(axis=-1) == labels  # (rates, folds, photos)
            others = np.setdiff1d(order, photos)
            truths.append(right[0][:, others].mean() - right[1][:, others].mean())
            tested = [[right[head, fold, photos[test]] for fold, (*_, test) in enumerate(parts)] for head in (0, 1)]
            runs = [[light(each, fold, head + 1) for fold, each in enumerate(of)] for head, of in enumerate(tested)]
            effects.append(difference(*runs))
            pooled.append(difference(*([light(np.concatenate(of), None)] for of in tested)))
    truth = np.mean(truths)
    covered, of_photos = (np.mean([e.low <= truth <= e.high for e in some]) for some in (effects, pooled))
    print(
        f"{len(effects)} data sets of {size} photos: {covered:.1%} cover {100 * truth:+.2f} points; over pooled photos "
        f"{of_photos:.1%}; Monte-Carlo error {100 * beyond(ALPHA, len(effects)) / 3:.1f} points"
    )
    assert covered >= 1 - ALPHA - beyond(ALPHA, len(effects))
