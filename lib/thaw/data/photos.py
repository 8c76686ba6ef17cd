"""The photos of a data set, decoded and resized once."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from thaw.data import splits
from thaw.data.tfds import TfdsSource, prepare
from thaw.disk import arrays, places
from thaw.disk.arrays import StoredArray
from thaw.disk.atomic import is_full
from thaw.disk.budget import make_room
from thaw.disk.locks import locked
from thaw.errors import OutputNotWritable

KEPT = 4e9  # bytes of disk for decoded photos of other data sets and sizes


@dataclass(frozen=True)
class Data:
    """A data set's photos, and which of them train, validate and test.

    Attributes
    ----------
    images : ndarray or StoredArray of uint8, (photos, size, size, 3)
        In the data set's own order. On disk: index it to read some.
    labels : ndarray of int64, (photos,)
    keys : ndarray of str, (photos,)
        TFDS' own name of each photo, the same on every machine.
    train, validation, test : ndarray of int64
        Positions of photos.
    classes : tuple of str
        A name for each label.
    provenance : dict
        The data set's name, version, description and size, and a hash over
        keys, labels and pixels in their order.
    copies_sha256 : str
        A hash of what augmented copies were made from; empty without copies.
    train_by_epoch : ndarray of int64, (copies, training photos), or None
        What an epoch trains on, in turn, where there are augmented copies.
    """

    images: np.ndarray | StoredArray
    labels: np.ndarray
    keys: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]
    provenance: dict
    copies_sha256: str = ""
    train_by_epoch: np.ndarray | None = None

    def __len__(self) -> int:
        """Count the images: photos, and copies of them."""
        return len(self.labels)

    @property
    def digest(self) -> str:
        """A hash of all images, and of which of them are copies."""
        return self.copies_sha256 or self.provenance["sha256"]

    @property
    def epochs(self) -> np.ndarray:
        """Positions of the images that an epoch trains on, in turn, (1 or copies, training photos)."""
        return self.train[None] if self.train_by_epoch is None else self.train_by_epoch


def load_photos(dataset: str, image_size: int, max_examples: int | None = None) -> Data:
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

    def squeeze(image, label, name):
        image = tf.image.resize(image, (image_size, image_size), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8), label, name

    name = f"{dataset.replace('/', '-')}-{max_examples or 'all'}-{image_size}px.npy"
    path = places.cache("photos") / name
    key = {
        **source.content(),
        "image_size": image_size,
        "photos": count,
        "tensorflow": tf.__version__,  # it decodes and resizes
    }
    kept = arrays.find(path, key)
    if kept is None:
        with locked([path]):
            kept = arrays.find(path, key) or _decode(source, count, squeeze, path, key, image_size)
    labels, keys = np.array(kept.about["labels"], np.int64), np.array(kept.about["keys"])
    digest = hashlib.sha256(json.dumps([keys.tolist(), labels.tolist(), kept.sha256]).encode())
    train, validation, test = splits.by_position(count)
    return Data(
        kept,
        labels,
        keys,
        train,
        validation,
        test,
        classes=source.classes,
        provenance={
            "dataset": source.name,
            "version": source.version,
            "title": source.title,
            "description": source.description,
            "photos": {"train": len(train), "validation": len(validation), "test": len(test), "available": total},
            "classes": list(source.classes),
            "sha256": digest.hexdigest(),
        },
    )


def _decode(source: TfdsSource, count: int, squeeze, path: Path, key: dict, image_size: int) -> StoredArray:
    """Decode and resize photos, and keep them."""
    # Few in parallel: TFDS decodes full-size photos, and a small machine's memory is what limits.
    examples = source.photos(count).map(squeeze, num_parallel_calls=4, deterministic=True)
    shape = (count, image_size, image_size, 3)
    make_room(path.parent, arrays.size(shape, "uint8"), KEPT)
    labels, keys = [], []
    try:
        with arrays.writing(path, key, "uint8", shape) as writer:
            for image, label, name in examples.as_numpy_iterator():
                writer.append(image[None])
                labels.append(int(label))
                keys.append(name.decode())
            if writer.left:
                raise tf.errors.DataLossError(None, None, f"{len(keys)} of {count} photos")
            writer.about |= {"labels": labels, "keys": keys}
        return arrays.find(path, key, verify=False)
    except tf.errors.OpError as error:
        raise source.damaged(count, error) from None
    except OSError as error:
        if not is_full(error):
            raise
        size = count * image_size**2 * 3 / 1e9
        raise OutputNotWritable(
            f"{path.parent}: the disk is full; the decoded photos take {size:.1f} GB. "
            "Make room, or set THAW_CACHE_DIR to another folder."
        ) from None
