"""A TFDS data set as train, validation and test photos."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from thaw.data.tfds import TfdsSource, prepare
from thaw.disk import arrays as store
from thaw.disk import places
from thaw.disk.arrays import Stored
from thaw.disk.atomic import is_full, locked
from thaw.errors import OutputNotWritable

SHARES = (0.75, 0.15, 0.10)  # train, validation, test, in the data set's own order
KEPT = 4e9  # bytes of disk for decoded photos of other data sets and sizes


@dataclass(frozen=True)
class Photos:
    """Some photos of a data set, in order.

    Attributes
    ----------
    images : ndarray or Stored of uint8, (n, size, size, 3)
        On disk where the data set is: index it to read some.
    labels : ndarray of int64, (n,)
    keys : ndarray of str, (n,)
        TFDS' own name of each photo, the same on every machine.
    """

    images: np.ndarray | Stored
    labels: np.ndarray
    keys: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """A data set in its three parts.

    Attributes
    ----------
    train, validation, test : Photos
    classes : tuple of str
        A name for each label.
    provenance : dict
        The data set's name, version, description and size, and a hash over
        keys, labels and pixels in their order.
    """

    train: Photos
    validation: Photos
    test: Photos
    classes: tuple[str, ...]
    provenance: dict

    @property
    def parts(self) -> tuple[Photos, Photos, Photos]:
        """The three, in the data set's order."""
        return self.train, self.validation, self.test


def load(dataset: str, image_size: int, max_examples: int | None = None) -> Data:
    """Read a data set, resize its photos to squares and split it.

    Decoded and resized photos are kept on disk for the next time.

    The split is by position: the first 75 % of the photos in TFDS' order (a
    hash of their keys, so random but the same everywhere) train, the next
    15 % validate, the last 10 % test.

    Parameters
    ----------
    dataset : str
        The name of a TFDS data set with an image and a label.
    image_size : int
        Side of the square, in pixels. Photos are squeezed, not cropped,
        bilinearly with antialiasing.
    max_examples : int, optional
        Use the first so many photos only.

    Raises
    ------
    DataNotFound, InvalidParameter
        As `prepare` does.
    DataDamaged
        If a photo cannot be read, or some are missing.
    """
    source = prepare(dataset)
    total = len(source)
    count = min(total, max_examples or total)
    ends = np.round(np.cumsum(SHARES) * count).astype(int)  # TFDS' own rounding of train[:75%], ...

    def squeeze(image, label, name):
        image = tf.image.resize(image, (image_size, image_size), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8), label, name

    path = photos_path(dataset, image_size, max_examples)
    key = {
        **source.content(),
        "image_size": image_size,
        "photos": count,
        "tensorflow": tf.__version__,  # it decodes and resizes
    }
    kept = store.find(path, key)
    if kept is None:
        with locked([path]):
            kept = store.find(path, key) or _decode(source, count, squeeze, path, key, image_size)
    labels, keys = np.array(kept.about["labels"], np.int64), np.array(kept.about["keys"])
    digest = hashlib.sha256(json.dumps([keys.tolist(), labels.tolist(), kept.sha256]).encode())
    parts = [Photos(kept.part(a, b), labels[a:b], keys[a:b]) for a, b in zip((0, *ends.tolist()), ends.tolist())]
    return Data(
        *parts,
        classes=source.classes,
        provenance={
            "dataset": source.name,
            "version": source.version,
            "title": source.title,
            "description": source.description,
            "photos": {"train": len(parts[0]), "validation": len(parts[1]), "test": len(parts[2]), "available": total},
            "classes": list(source.classes),
            "sha256": digest.hexdigest(),
        },
    )


def _decode(source: TfdsSource, count: int, squeeze, path: Path, key: dict, image_size: int) -> Stored:
    """Decode and resize photos, and keep them."""
    # Few in parallel: TFDS decodes full-size photos, and a small machine's memory is what limits.
    examples = source.photos(count).map(squeeze, num_parallel_calls=4, deterministic=True)
    store.make_room(path.parent, count * image_size**2 * 3, KEPT)
    writer = store.Writer(path, key, tf.uint8, (count, image_size, image_size, 3))
    labels, keys = [], []
    try:
        for image, label, name in examples.as_numpy_iterator():
            writer.append(image[None])
            labels.append(int(label))
            keys.append(name.decode())
        if len(keys) < count:
            raise tf.errors.DataLossError(None, None, f"{len(keys)} of {count} photos")
        return writer.finish(labels=labels, keys=keys)
    except tf.errors.OpError as error:
        raise source.damaged(count, error) from None
    except (OSError, RuntimeError) as error:
        if not is_full(error):
            raise
        size = count * image_size**2 * 3 / 1e9
        raise OutputNotWritable(
            f"{path.parent}: the disk is full; the decoded photos take {size:.1f} GB. Make room, or set THAW_CACHE_DIR to another folder."
        ) from None
    finally:
        writer.discard()


def photos_path(dataset: str, image_size: int, max_examples: int | None) -> Path:
    """The file of a data set's photos, decoded and resized, made or not."""
    return places.cache("photos") / f"{dataset.replace('/', '-')}-{max_examples or 'all'}-{image_size}px.h5"
