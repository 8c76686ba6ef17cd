"""A TFDS data set as train, validation and test photos."""

import contextlib
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from thaw.data import splits
from thaw.demo import drawn
from thaw.disk import arrays, places
from thaw.disk.arrays import StoredArray
from thaw.disk.atomic import is_full
from thaw.disk.budget import make_room
from thaw.disk.locks import locked
from thaw.errors import DataDamaged, DataNotFound, InvalidParameter, OutputNotWritable, did_you_mean, first_line

tf.get_logger().setLevel("ERROR")  # TFDS calls what TensorFlow has deprecated; no reader can help that

_RESTORE = "Nothing was made of the rest. Restore the files, or delete that folder to have TFDS prepare it again."
FEWEST = 20  # photos: of fewer, hardly one would be left to test on
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
    """

    images: np.ndarray | StoredArray
    labels: np.ndarray
    keys: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]
    provenance: dict

    def __len__(self) -> int:
        return len(self.labels)


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
    builder = prepare(dataset)
    image_key, label_key = builder.info.supervised_keys
    total = builder.info.splits["train"].num_examples
    count = min(total, max_examples or total)

    def squeeze(example):
        image = tf.image.resize(example[image_key], (image_size, image_size), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8), example[label_key], example["tfds_id"]

    path = photos_path(dataset, image_size, max_examples)
    key = {
        "dataset": builder.info.full_name,
        "folder": str(builder.data_dir),
        "files": builder.info.splits["train"].shard_lengths,
        "image_size": image_size,
        "photos": count,
        "tensorflow": tf.__version__,  # it decodes and resizes
    }
    kept = arrays.find(path, key)
    if kept is None:
        with locked([path]):
            kept = arrays.find(path, key) or _decode(builder, count, squeeze, path, key, image_size)
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
        classes=tuple(builder.info.features[label_key].names),
        provenance={
            "dataset": builder.info.name,
            "version": str(builder.info.version),
            "title": title(builder.info.name),
            "description": " ".join(builder.info.description.split()),
            "photos": {"train": len(train), "validation": len(validation), "test": len(test), "available": total},
            "sha256": digest.hexdigest(),
        },
    )


def _decode(builder, count: int, squeeze, path: Path, key: dict, image_size: int) -> StoredArray:
    """Decode and resize photos, and keep them."""
    # Few in parallel: TFDS decodes full-size photos, and a small machine's memory is what limits.
    examples = _examples(builder, count).map(squeeze, num_parallel_calls=4, deterministic=True)
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
        raise DataDamaged(
            f"dataset = {builder.info.name!r}: {_damage(builder, count)} ({first_line(error)}). {_RESTORE}"
        ) from None
    except OSError as error:
        if not is_full(error):
            raise
        size = count * image_size**2 * 3 / 1e9
        raise OutputNotWritable(
            f"{path.parent}: the disk is full; the decoded photos take {size:.1f} GB. Make room, or set THAW_CACHE_DIR to another folder."
        ) from None


def _examples(builder, count: int, **options) -> tf.data.Dataset:
    """The first photos of a data set, in its own order."""
    config = tfds.ReadConfig(add_tfds_id=True, try_autocache=False)
    return builder.as_dataset(split=f"train[:{count}]", read_config=config, shuffle_files=False, **options)


def _damage(builder, count: int) -> str:
    """Which file or photo of a data set cannot be read."""
    split = builder.info.splits["train"]
    for file, expected in zip(map(str, split.filepaths), split.shard_lengths):
        try:
            found = sum(1 for _ in tf.data.TFRecordDataset(file))
        except tf.errors.OpError:
            return f"{file} is damaged"
        if found != expected:
            return f"{file} holds {found} of {expected} photos"
    image = builder.info.supervised_keys[0]
    for example in _examples(builder, count, decoders={image: tfds.decode.SkipDecoding()}):
        try:
            builder.info.features[image].decode_example(example[image])
        except tf.errors.OpError:
            return f"the photo {example['tfds_id'].numpy().decode()} in {builder.data_dir} cannot be decoded"
    return f"a photo in {builder.data_dir} cannot be read"


def photos_path(dataset: str, image_size: int, max_examples: int | None) -> Path:
    """The file of a data set's photos, decoded and resized, made or not."""
    return places.cache("photos") / f"{dataset.replace('/', '-')}-{max_examples or 'all'}-{image_size}px.npy"


def title(dataset: str) -> str:
    """A data set's name as people write it, for example 'TF Flowers'."""
    return {"tf_flowers": "TF Flowers", "drawn_flowers": "Drawn Flowers"}.get(dataset, dataset)


def prepare(dataset: str) -> tfds.core.DatasetBuilder:
    """Find a data set on disk; draw or fetch it if it is not there.

    Parameters
    ----------
    dataset : str
        The name of a TFDS data set.

    Raises
    ------
    DataNotFound
        If it is not on disk and cannot be fetched.
    InvalidParameter
        If TFDS has no such data set, or it is not one of labelled images, or
        of too few.
    """
    with locked([places.cache("photos") / dataset.replace("/", "-")]):
        builder = _fetched(dataset)
    keys = builder.info.supervised_keys
    features = builder.info.features
    labelled_images = (
        keys is not None
        and len(keys) == 2
        and isinstance(features[keys[0]], tfds.features.Image)
        and isinstance(features[keys[1]], tfds.features.ClassLabel)
        and "train" in builder.info.splits
    )
    if not labelled_images:
        raise InvalidParameter(
            f"dataset = {dataset!r}: not a set of labelled images with a 'train' split. Give one that is, such as tf_flowers."
        )
    if (total := builder.info.splits["train"].num_examples) < FEWEST:
        raise InvalidParameter(
            f"dataset = {dataset!r}: only {total} photos in its 'train' split, and {FEWEST} or more are needed to train, "
            "validate and test. Give a larger one."
        )
    return builder


def _fetched(dataset: str) -> tfds.core.DatasetBuilder:
    if dataset == "drawn_flowers":
        builder = drawn.DrawnFlowers(data_dir=places.drawn())
    else:
        try:
            builder = tfds.builder(dataset)
        except tfds.core.registered.DatasetNotFoundError:
            raise InvalidParameter(f"dataset = {dataset!r}: TFDS has no such data set. {_nearest(dataset)}") from None
    try:
        with _silently() if dataset == "drawn_flowers" else contextlib.nullcontext():
            builder.download_and_prepare()
    except Exception as error:  # whatever a download can raise
        raise DataNotFound(
            f"dataset = {dataset!r}: not in {builder.data_dir}, and TFDS could not fetch it ({first_line(error)}). "
            "Connect to the internet, or set TFDS_DATA_DIR to a folder that holds it."
        ) from None
    return builder


def on_disk(dataset: str) -> bool:
    """Whether TFDS has a data set prepared, or it can be drawn: without a download."""
    if dataset == "drawn_flowers":
        return True
    try:
        return Path(tfds.builder(dataset).data_dir).is_dir()
    except tfds.core.registered.DatasetNotFoundError:
        return False


@contextlib.contextmanager
def _silently():
    """Keep TFDS from telling of its progress: what is drawn takes seconds, a download minutes."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def _nearest(dataset: str) -> str:
    close = did_you_mean(dataset, ["drawn_flowers", *tfds.list_builders(with_community_datasets=False)])
    return close.split(" Allowed:")[0] + " See tfds.list_builders() for all."
