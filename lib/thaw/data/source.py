"""Where photos come from: what the name of a data set means.

``folder:PATH`` is a folder with a sub-folder for each class, ``table:FILE.csv``
a table of photos, and any other name a data set of TFDS. A relative path
starts at the project's root, wherever in it a command or notebook runs; where
there is no project, at the working directory.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from thaw.data import folder, table
from thaw.data.files import FileSource
from thaw.disk import places
from thaw.errors import DataDamaged, InvalidParameter

if TYPE_CHECKING:
    import tensorflow as tf

PREFIXES = {"folder": folder.find, "table": table.find}


class Source(Protocol):
    """Labelled photos in a fixed order, divided into three parts."""

    @property
    def name(self) -> str:
        """The data set's name."""

    @property
    def version(self) -> str:
        """Its version, or empty."""

    @property
    def title(self) -> str:
        """Its name as people write it."""

    @property
    def description(self) -> str:
        """What it holds, in one line."""

    @property
    def classes(self) -> tuple[str, ...]:
        """A name for each label."""

    @property
    def splits(self) -> str:
        """How its parts were made, in a sentence."""

    @property
    def divided(self) -> bool:
        """Whether it came divided into parts, and these are used."""

    @property
    def available(self) -> int:
        """How many photos it has, whether all are taken or not."""

    @property
    def left_out(self) -> tuple[dict[str, str], ...]:
        """The photos that cannot be read: path and reason of each."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """The files that are no photos."""

    def __len__(self) -> int:
        """Count the photos that are taken."""

    def first(self, count: int | None) -> Source:
        """Take so many photos only; None: all."""

    def content(self) -> dict:
        """Describe what the photos are, in JSON's types: equal descriptions mean equal photos, labels and parts."""

    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give the positions of the photos that train, validate and test."""

    @property
    def spread(self) -> str:
        """How photos are divided into folds, within a sentence."""

    def places(self) -> np.ndarray:
        """Give each photo its place from 0 to 1, to divide them into folds."""

    def labels(self) -> list[str]:
        """Give the class of each photo, in the data set's own order."""

    def listing(self) -> pd.DataFrame | None:
        """List the photos with what their files say; None where they are in no files of their own."""

    def photos(self) -> tf.data.Dataset:
        """Read image (uint8, (height, width, 3)), label (int64) and key (string) of each photo, in order."""

    def damaged(self, error: Exception) -> DataDamaged:
        """Make the error that names the file or photo that could not be read."""


def find_source(dataset: str, splits: str = "official", on_damaged: str = "refuse") -> Source:
    """Find a data set, look at its photos, and divide them.

    A photo of a folder or table is decoded once for this. What was found is
    kept in the cache, and only looked at again if the file has changed.

    Parameters
    ----------
    dataset : str
        ``folder:PATH``, ``table:FILE.csv``, or the name of a TFDS data set, which is fetched if need be.
    splits : {'official', 'position'}
        Use the parts that a data set comes with, or divide its photos anew:
        those of a folder or table by their hashes, and the `train` photos of
        a TFDS data set by their position.
    on_damaged : {'refuse', 'leave_out'}
        What to do about photos of a folder or table that cannot be read.

    Raises
    ------
    DataDamaged, DataNotFound, InvalidParameter
    """
    kind, _, path = dataset.partition(":")
    if kind in PREFIXES:
        place = places.in_project(path)
        found = PREFIXES[kind](dataset, place)
        return FileSource.of(dataset, place, found, splits == "official", on_damaged)
    if instead := _with_prefix(dataset):
        raise InvalidParameter(f"dataset = {dataset!r}: for your own photos, write dataset: {instead}")
    from thaw.data import tfds  # with TensorFlow: seconds

    return tfds.prepare(dataset, splits)


def content_digest(source: Source) -> str:
    """Hash what a source's photos are, as its files have them: cheap where these have not changed since."""
    return hashlib.sha256(json.dumps(source.content(), sort_keys=True).encode()).hexdigest()


def on_disk(dataset: str) -> bool:
    """Whether a data set can be read without a download."""
    kind, _, path = dataset.partition(":")
    if kind in PREFIXES:
        return places.in_project(path).exists()
    from thaw.data import tfds

    return tfds.on_disk(dataset)


def _with_prefix(dataset: str) -> str:
    """Give what to write instead of a mere path; empty for a name that is none."""
    place = places.in_project(dataset)
    if place.is_dir() and not _is_tfds(dataset):
        return f"folder:{dataset}"
    if place.is_file() or dataset.lower().endswith(".csv"):
        return f"table:{dataset}"
    if dataset.startswith((".", "/", "~", "\\")) or dataset[1:3] in (":\\", ":/"):
        return f"folder:{dataset}"
    return ""


def _is_tfds(dataset: str) -> bool:
    from thaw.data import tfds

    return tfds.has_name(dataset)
