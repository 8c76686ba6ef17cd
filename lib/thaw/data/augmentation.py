"""Photos that are mirrored, cropped and recoloured at random, so that a network sees more than there are."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

from thaw.data.photos import Data, writing
from thaw.disk import arrays, places
from thaw.disk.locks import locked

BATCH = 32  # photos at once
LEAST_SIDE = 0.8  # of a photo's, that a crop keeps
CHANGE = 0.2  # of contrast and saturation, at most; of brightness, half as much of its range


def augment(photos: tf.Tensor, number: tf.Tensor | int, kind: str, seed: int) -> tf.Tensor:
    """Change each photo of a batch at random. The choices depend on the seed and the number alone.

    Parameters
    ----------
    photos : Tensor of float32, (m, size, size, 3)
        Of 0 to 255.
    number : int
        The batch's, counted over all epochs.
    kind : {'flip', 'standard'}
        'flip' mirrors every other photo. 'standard' also crops it to a square
        of at least 0.8 of its side, enlarged again, and changes brightness,
        contrast and saturation.
    seed : int

    Returns
    -------
    Tensor of float32, (m, size, size, 3)
        Of 0 to 255.
    """
    count, side = tf.shape(photos)[0], photos.shape[1]
    heads = tf.random.stateless_uniform((count, 1, 1, 1), seed=[seed, number]) < 0.5
    photos = tf.where(heads, tf.reverse(photos, axis=[2]), photos)
    if kind == "flip":
        return photos
    # Of another seed than the mirror's.
    share, top, left, *colours = tf.unstack(tf.random.stateless_uniform((6, count), seed=[-1 - seed, number]))
    share = LEAST_SIDE + (1 - LEAST_SIDE) * share
    top, left = top * (1 - share), left * (1 - share)
    boxes = tf.stack([top, left, top + share, left + share], axis=1)
    photos = tf.image.crop_and_resize(photos, boxes, tf.range(count), (side, side))
    brightness, contrast, saturation = (CHANGE * (2 * colour[:, None, None, None] - 1) for colour in colours)
    mean = tf.reduce_mean(photos, axis=(1, 2), keepdims=True)
    photos = mean + (1 + contrast) * (photos - mean) + 255 / 2 * brightness
    grey = tf.image.rgb_to_grayscale(photos)
    return tf.clip_by_value(grey + (1 + saturation) * (photos - grey), 0, 255)


def with_copies(data: Data, kind: str, copies: int) -> Data:
    """Add augmented copies of the training photos, made once and kept on disk.

    They are the same for every network, strategy and seed, so that the frozen
    part of a network sees them once.

    Parameters
    ----------
    data : Data
    kind : {'flip', 'standard'}
    copies : int
        How many of each training photo; of every photo where these are divided into folds.

    Returns
    -------
    Data
        All photos, then the copies; epoch e trains on copy e mod `copies` of
        each photo. Validation and test photos are as they were.
    """
    copied = data.train if data.fold is None else np.arange(len(data))
    key = {"photos": data.provenance["sha256"], "augmentation": kind, "copies": copies, "tensorflow": tf.__version__}
    key |= {} if data.fold is None else {"of": "all"}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = places.cache("photos") / f"{digest[:12]}-{kind}-{copies}.npy"
    kept = arrays.find(path, key)
    if kept is None:
        with locked([path]):
            kept = arrays.find(path, key) or _write(data, kind, copied, copies, path, key)
    count = len(data)
    rows = count + np.arange(copies * len(copied), dtype=np.int64).reshape(copies, len(copied))
    if data.fold is not None:
        rows = rows[:, data.train]
    labels = np.concatenate([data.labels, np.tile(data.labels[copied], copies)])
    return dataclasses.replace(data, images=kept, labels=labels, copies_sha256=digest, train_by_epoch=rows)


def _write(data: Data, kind: str, copied: np.ndarray, copies: int, path: Path, key: dict) -> arrays.StoredArray:
    shape = (len(data) + copies * len(copied), *data.images.shape[1:])
    made = tf.function(lambda photos, number: augment(tf.cast(photos, tf.float32), number, kind, 0), autograph=False)
    with writing(path, key, shape) as writer:
        for first in range(0, len(data), BATCH):
            writer.append(data.images[first : first + BATCH])
        batches = [copied[first : first + BATCH] for first in range(0, len(copied), BATCH)] * copies
        for number, rows in enumerate(batches):
            writer.append(np.round(made(data.images[rows], tf.constant(number)).numpy()).astype(np.uint8))
    return writer.array
