"""The photos of a data set, decoded and resized once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
import tensorflow as tf

from thaw.data import splits as splitting
from thaw.data.source import PREFIXES, Source, content_digest, find_source
from thaw.data.splits import PARTS
from thaw.disk import arrays, budget, places
from thaw.disk.arrays import StoredArray
from thaw.disk.atomic import is_full
from thaw.disk.locks import locked
from thaw.errors import InvalidParameter, OutputNotWritable
from thaw.experiment import Experiment

IGNORED = 20  # files that are no photos: so many are named


@dataclass(frozen=True)
class Data:
    """A data set's photos, and which of them train, validate and test.

    Attributes
    ----------
    images : ndarray or StoredArray of uint8, (photos, size, size, 3)
        In the data set's own order. On disk: index it to read some.
    labels : ndarray of int64, (photos,)
    keys : ndarray of str, (photos,)
        The name of each photo, the same on every machine: TFDS' own, or its path in the folder or table.
    train, validation, test : ndarray of int64
        Positions of photos.
    classes : tuple of str
        A name for each label.
    provenance : dict
        The data set's name, version, description and size, how it was split (``splits``), which photos were left out
        and why (``left_out``), and a hash over keys, labels and pixels in their order, and over the parts of files.
    files : DataFrame or None
        What the photos' files say, a photo a row, for the data checks: see `FileSource.listing`. None for TFDS.
    copies_sha256 : str
        A hash of what augmented copies were made from; empty without copies.
    train_by_epoch : ndarray of int64, (copies, training photos), or None
        What an epoch trains on, in turn, where there are augmented copies.
    places : ndarray of float, (photos,), or None
        Where each photo is, from 0 to 1, when they are divided into folds. None: by position.
    spread : str
        How places were given, within a sentence.
    fold : ndarray of int64, (photos,), or None
        The fold of each photo, where they are divided into folds.
    """

    images: np.ndarray | StoredArray
    labels: np.ndarray
    keys: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]
    provenance: dict
    files: pd.DataFrame | None = None
    copies_sha256: str = ""
    train_by_epoch: np.ndarray | None = None
    places: np.ndarray | None = None
    spread: str = splitting.BY_POSITION
    fold: np.ndarray | None = None

    def __len__(self) -> int:
        """Count the images: photos, and copies of them."""
        return len(self.labels)

    @property
    def digest(self) -> str:
        """A hash of all images, of how they are divided, and of which of them are copies."""
        return self.copies_sha256 or self.provenance["sha256"]

    @property
    def epochs(self) -> np.ndarray:
        """Positions of the images that an epoch trains on, in turn, (1 or copies, training photos)."""
        return self.train[None] if self.train_by_epoch is None else self.train_by_epoch

    def positions(self, keys: Iterable[str]) -> np.ndarray:
        """Find photos by their keys."""
        of = {key: position for position, key in enumerate(self.keys)}
        return np.array([of[key] for key in keys], np.int64)

    def in_fold(self, folds: int, fold: int) -> Data:
        """Divide the same photos anew, to test on one of several folds: see `thaw.data.splits.in_fold`."""
        return self._divided(folds, splitting.in_fold(self.place, folds, fold))

    def for_choosing(self, folds: int, choosing: int) -> Data:
        """Divide the same photos anew, to choose on the first folds: they validate and test, all others train."""
        train, validation = splitting.for_choosing(self.place, folds, choosing)
        return self._divided(folds, (train, validation, validation))

    def check_folds(self, folds: int) -> None:
        """See that the photos can be divided into so many folds: see `thaw.data.splits.check_folds`."""
        of_photos = np.array(self.classes)[self.labels[: len(self.keys)]]
        splitting.check_folds(self.place, of_photos.tolist(), folds, self.provenance["dataset"])

    def without_test(self) -> Data:
        """Divide the same photos anew, for a network that is to be used: what would test trains, too."""
        nothing = np.array([], np.int64)
        train = np.sort(np.concatenate([self.train, self.test]))
        counts = {name: len(part) for name, part in zip(PARTS, (train, self.validation, nothing))}
        return replace(
            self,
            provenance=self.provenance | {"photos": self.provenance["photos"] | counts},
            train=train,
            test=nothing,
            fold=np.zeros(len(self.keys), int),  # all are in one: if there are augmented copies, then of all
        )

    @property
    def place(self) -> np.ndarray:
        """Where each photo is, from 0 to 1, when they are divided into folds, (photos,)."""
        return splitting.places_by_position(len(self.keys)) if self.places is None else self.places

    def _divided(self, folds: int, parts: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Data:
        train, validation, test = parts
        counts = {name: len(part) for name, part in zip(PARTS, parts)}
        about = {
            "photos": self.provenance["photos"] | counts,
            "splits": splitting.fold_sentence(folds, self.spread),
        }
        copied = None
        if self.train_by_epoch is not None:  # of all photos, in the same order
            copied = len(self.keys) * (1 + np.arange(len(self.train_by_epoch), dtype=np.int64))[:, None] + train
        fold = np.floor(self.place * folds + 1e-9).astype(int)
        return replace(
            self,
            provenance=self.provenance | about,
            train=train,
            validation=validation,
            test=test,
            train_by_epoch=copied,
            fold=fold,
        )

    def listing(self) -> pd.DataFrame:
        """List the photos for the record, in the data set's own order.

        Returns
        -------
        DataFrame
            path (the photo's key), label (the class' name), and part or fold; for photos in files of their own, also
            sha256, and group if any is given.
        """
        parts = np.empty(len(self.keys), object)
        for name, rows in zip(PARTS, (self.train, self.validation, self.test)):
            parts[rows] = name
        table = pd.DataFrame({"path": self.keys, "label": np.array(self.classes)[self.labels[: len(self.keys)]]})
        table = table.assign(part=parts) if self.fold is None else table.assign(fold=self.fold)
        if self.files is None:
            return table
        also = ("sha256", "group") if self.fold is None else ("part", "sha256", "group")  # the part its owner gave it
        return table.join(self.files[[name for name in also if name in self.files]])


def photos_of(experiment: Experiment) -> Data:
    """Load the photos of an experiment: see `load_photos`. Of several folds, they are divided for the first tested.

    Raises
    ------
    InvalidParameter
        Also if a class has fewer photos than there are folds.
    """
    e = experiment
    data = load_photos(e.dataset, e.image_size, e.max_examples, e.splits, e.on_damaged)
    if e.folds is None:
        return data
    data.check_folds(e.folds)
    return data.in_fold(e.folds, e.tested_folds[0])


def load_photos(
    dataset: str,
    image_size: int,
    max_examples: int | None = None,
    splits: str = "official",
    on_damaged: str = "refuse",
) -> Data:
    """Read a data set, resize its photos to squares and split it.

    Decoded and resized photos are kept on disk for the next time.

    A data set's own parts are used. Where it has none, 75 % of the photos
    train, 15 % validate and 10 % test: those of TFDS by their position (TFDS'
    order is a hash of their keys, so random but the same everywhere), those of
    a folder or table by a hash of their contents.

    Parameters
    ----------
    dataset : str
        The name of a TFDS data set with an image and a label, ``folder:PATH`` or ``table:FILE.csv``.
    image_size : int
        Side of the square, in pixels. Photos are squeezed, not cropped,
        bilinearly with antialiasing.
    max_examples : int, optional
        Use so many photos only, the first of each part.
    splits, on_damaged : str
        See `find_source`.

    Raises
    ------
    DataNotFound, InvalidParameter
        As `find_source` does.
    DataDamaged
        If a photo cannot be read, or some are missing.
    """
    source = find_source(dataset, splits, on_damaged).first(max_examples)
    count = len(source)

    def squeeze(image, label, name):
        image = tf.image.resize(image, (image_size, image_size), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8), label, name

    path = places.cache("photos") / f"{_stem(dataset, splits, on_damaged)}-{max_examples or 'all'}-{image_size}px.npy"
    key = {
        **source.content(),
        "image_size": image_size,
        "photos": count,
        "tensorflow": tf.__version__,  # it decodes and resizes
        "pillow": PIL.__version__,  # it decodes photos in files of their own
    }
    kept = arrays.find(path, key)
    if kept is None:
        with locked([path]):
            kept = arrays.find(path, key) or _decode(source, squeeze, path, key, image_size)
    labels, keys = np.array(kept.about["labels"], np.int64), np.array(kept.about["keys"])
    files, what = source.listing(), [keys.tolist(), labels.tolist(), kept.sha256]
    if files is not None:  # the same files can be divided in other ways; those of TFDS cannot
        what += [files[name].tolist() for name in ("part", "group") if name in files]
    digest = hashlib.sha256(json.dumps(what).encode())
    if labels.min(initial=0) < 0:
        raise InvalidParameter(
            f"dataset = {dataset!r}: {(labels < 0).sum():,} photos have no label. "
            "Set splits to position: then only the photos of its 'train' split are used."
        )
    train, validation, test = source.parts()
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
            "photos": {
                "train": len(train),
                "validation": len(validation),
                "test": len(test),
                "available": source.available,
            },
            "classes": list(source.classes),
            "sha256": digest.hexdigest(),
            "files_sha256": content_digest(source),
            "splits": source.splits,
            "left_out": list(source.left_out),
            "ignored": list(source.ignored)[:IGNORED],
        },
        files=files,
        places=source.places(),
        spread=source.spread,
    )


def _stem(dataset: str, splits: str, on_damaged: str) -> str:
    """Make a file's name of what photos were asked for: of any path, and no two alike."""
    named = re.sub(r"[^\w.-]+", "-", dataset, flags=re.ASCII)[-40:]
    kind, _, place = dataset.partition(":")
    asked = [dataset, splits, on_damaged, str(places.in_project(place)) if kind in PREFIXES else ""]
    return f"{named}-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]}"


def _decode(source: Source, squeeze, path: Path, key: dict, image_size: int) -> StoredArray:
    """Decode and resize photos, and keep them."""
    # Few in parallel: TFDS decodes full-size photos, and a small machine's memory is what limits.
    count = len(source)
    examples = source.photos().map(squeeze, num_parallel_calls=4, deterministic=True)
    labels, keys = [], []
    try:
        with writing(path, key, (count, image_size, image_size, 3)) as writer:
            for image, label, name in examples.as_numpy_iterator():
                writer.append(image[None])
                labels.append(int(label))
                keys.append(name.decode())
            if writer.left:
                raise tf.errors.DataLossError(None, None, f"{len(keys)} of {count} photos")
            writer.about |= {"labels": labels, "keys": keys}
    except tf.errors.OpError as error:
        raise source.damaged(error) from None
    return writer.array


def check_room(source: Source, kinds: Iterable[tuple[int, int]]) -> None:
    """See that the disk of the cache can hold a data set's photos, decoded.

    Parameters
    ----------
    source : Source
    kinds : iterable of (int, int)
        Of each kind: the side in pixels, and how many augmented copies of each photo.

    Raises
    ------
    OutputNotWritable
    """
    folder = places.cache("photos")
    kept = sum(each.size for each in budget.kept(*budget.ARRAYS))  # some of these, or may be deleted
    allowed = shutil.disk_usage(folder).free + kept
    one = sum(3 * side**2 * (1 + copies) for side, copies in kinds)
    if len(source) * one > allowed:
        raise OutputNotWritable(
            f"dataset = {source.name!r}: {len(source):,} photos take {len(source) * one / 1e9:,.1f} GB once they are "
            f"decoded, and {folder} has room for {allowed / 1e9:,.1f} GB. Set max_examples to {allowed // one:,} or "
            "less, or image_size to a smaller one, or THAW_CACHE_DIR to a folder on another disk."
        )


@contextlib.contextmanager
def writing(path: Path, key: dict, shape: tuple[int, ...]) -> Iterator[arrays.Writer]:
    """Write an array of photos, as `arrays.writing` does, and make room for it.

    Parameters
    ----------
    path, key
        As there.
    shape : tuple of int
        (photos, size, size, 3).

    Raises
    ------
    OutputNotWritable
        If the disk is full.
    """
    size = arrays.size(shape, "uint8")
    try:
        with contextlib.ExitStack() as stack:
            with budget.room():
                if not budget.make_room(budget.ARRAYS, size, budget.for_arrays()):
                    budget.make_room(budget.ARRAYS, size, math.inf)  # a study needs its photos: all that the disk has
                writer = stack.enter_context(arrays.writing(path, key, "uint8", shape))
            yield writer
    except OSError as error:
        if not is_full(error):
            raise
        raise OutputNotWritable(
            f"{path.parent}: the disk is full; the photos take {size / 1e6:,.1f} MB. "
            "Make room, or set THAW_CACHE_DIR to another folder."
        ) from None
