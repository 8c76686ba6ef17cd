"""Labelled photos in files of their own: a folder with a sub-folder a class, or a table that names them."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import PIL

from thaw.data import decoding, splits
from thaw.data.splits import FEWEST, PARTS
from thaw.disk import places
from thaw.disk.hashes import noted
from thaw.disk.places import printable
from thaw.errors import DataDamaged, InvalidParameter

if TYPE_CHECKING:
    import tensorflow as tf

MANY = 2000  # files to be decoded for the first time: worth a line, as it takes some time
LISTED = 10  # of anything, in a message


@dataclass(frozen=True)
class Found:
    """What a folder or a table names, before any photo is opened.

    Attributes
    ----------
    photos : DataFrame
        A photo a row: file (where it is), path (its name in the data set), label, part (the one its owner gave it, or
        ``train``), group (the name of what it belongs together with, or empty).
    ignored : tuple of str
        Files and folders that were passed over, by their paths.
    divided : bool
        Whether the owner gave the parts.
    """

    photos: pd.DataFrame
    ignored: tuple[str, ...] = ()
    divided: bool = False


@dataclass(frozen=True)
class FileSource:
    """The photos of a folder or a table. `thaw.data.folder` and `thaw.data.table` find them.

    Attributes
    ----------
    dataset : str
        The name it was asked for by, such as ``folder:photos``.
    path : Path
        The folder or the table.
    table : DataFrame
        A photo a row, in the order of their hashes: path, label, part, group, sha256, and what `decoding.look` noted.
    left_out : tuple of dict
        path and reason of each photo that cannot be read.
    ignored : tuple of str
        Files that are no photos, and hidden ones.
    splits : str
        A sentence on how the parts were made.
    divided : bool
        Whether their owner gave them parts that are used.
    available : int
        How many photos there are, whether taken or not.
    """

    dataset: str
    path: Path
    table: pd.DataFrame
    left_out: tuple[dict[str, str], ...]
    ignored: tuple[str, ...]
    splits: str
    divided: bool
    available: int

    @classmethod
    def of(cls, dataset: str, path: Path, found: Found, official: bool, on_damaged: str) -> FileSource:
        """Look at all photos, decode each once, and divide them.

        Parameters
        ----------
        official : bool
            Whether to use the parts that the owner gave.
        on_damaged : {'refuse', 'leave_out'}
            What to do if some photos cannot be read.

        Raises
        ------
        DataDamaged, InvalidParameter
        """
        photos, left_out = _looked_at(dataset, path, found.photos)
        if left_out and on_damaged == "refuse":
            named = some([f"{photo['path']}: {photo['reason']}" for photo in left_out])
            raise DataDamaged(
                f"dataset = {dataset!r}: {len(left_out)} of {len(found.photos):,} photos cannot be read. {named}. "
                "Repair or remove them, or set on_damaged to leave_out: then the report names them."
            )
        names = _belonging(photos)
        given = photos["part"] if official else pd.Series("train", photos.index)
        photos = photos.assign(part=splits.by_hash(names.tolist(), photos["label"].tolist(), given.tolist()))
        photos = photos.sort_values(["sha256", "path"], ignore_index=True)
        sentence, divided = _sentence(set(given), bool((photos["group"] != "").any())), set(given) > {"train"}
        source = cls(dataset, path, photos, tuple(left_out), found.ignored, sentence, divided, len(photos))
        source.check()
        return source

    def check(self) -> None:
        """See that the photos can be trained on.

        Raises
        ------
        InvalidParameter
            If there are too few photos or classes, or a class has no photo in a part.
        """
        wrong = f"dataset = {self.dataset!r}: "
        if len(self) < FEWEST:
            raise InvalidParameter(
                f"{wrong}{len(self)} photos{self._beside()}. {FEWEST} or more are needed to train, validate and test. "
                "Add photos."
            )
        if len(self.classes) < 2:
            raise InvalidParameter(
                f"{wrong}one class, {self.classes[0]!r}. Two or more are needed. Put the photos of each class into a "
                "folder of its own."
            )
        cells = pd.crosstab(self.table["label"], self.table["part"]).reindex(columns=PARTS, fill_value=0)
        empty = [
            f"class {label!r} ({row.sum()} photo{'s' * int(row.sum() > 1)}) has none in {part}"
            for label, row in cells.iterrows()
            for part in PARTS
            if not row[part]
        ]
        if empty:
            raise InvalidParameter(
                f"{wrong}{some(empty, 5)}. Each class needs photos in train, validation and test. Add photos to it, "
                "or leave the class out, or choose the parts yourself: sub-folders train, validation and test, "
                "or a column split in a table."
            )

    def _beside(self) -> str:
        parts = [
            f"{len(self.left_out)} cannot be read" * bool(self.left_out),
            f"{len(self.ignored)} other files are ignored: {some(self.ignored, 3)}" * bool(self.ignored),
        ]
        return f" ({'; '.join(filter(None, parts))})" if any(parts) else ""

    @property
    def name(self) -> str:
        """The name it was asked for by."""
        return self.dataset

    @property
    def title(self) -> str:
        """The name of the folder, or of the table without its suffix."""
        return (self.path.resolve().stem if self.path.is_file() else self.path.resolve().name) or self.dataset

    @property
    def version(self) -> str:
        """Empty: folders have none. The hash says which photos they were."""
        return ""

    @property
    def description(self) -> str:
        """Where the photos are, how many, and of how many classes, in a sentence."""
        kind, _, path = self.dataset.partition(":")
        return f"{self.available:,} photos of {len(self.classes):,} classes, from the {kind} {path}."

    @property
    def classes(self) -> tuple[str, ...]:
        """A name for each label, in the order of the alphabet."""
        return tuple(sorted(self.table["label"].unique()))

    def __len__(self) -> int:
        """Count the photos."""
        return len(self.table)

    def first(self, count: int | None) -> FileSource:
        """Take so many photos, of each class and part in proportion, by the order of their hashes.

        Raises
        ------
        InvalidParameter
            If they are too few for a photo of each class in each part.
        """
        if count is None or count >= len(self):
            return self
        least = len(PARTS) * len(self.classes)
        if count < least:
            raise InvalidParameter(
                f"max_examples = {count}: {self.dataset!r} has {len(self.classes)} classes, and each needs a photo to "
                f"train, to validate and to test. Give {least} or more."
            )
        return replace(self, table=splits.first(self.table, count))

    def content(self) -> dict:
        """Describe what the photos are, in JSON's types: equal descriptions mean equal photos, labels and parts."""
        told = ["path", "label", "part", "sha256"]
        told += ["group"] * bool((self.table["group"] != "").any())  # it decides what is in one fold
        rows = json.dumps(self.table[told].to_numpy().tolist())
        return {
            "dataset": "files",
            "classes": list(self.classes),
            "files": hashlib.sha256(rows.encode()).hexdigest(),
        }

    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give the positions of the photos that train, validate and test."""
        train, validation, test = (np.flatnonzero(self.table["part"] == part) for part in PARTS)
        return train, validation, test

    @property
    def spread(self) -> str:
        """How photos are divided into folds, within a sentence."""
        return "by a hash of their contents, each class evenly"

    def places(self) -> np.ndarray:
        """Give each photo its place from 0 to 1, to divide them into folds: each class evenly, groups together."""
        return splits.places_by_class(_belonging(self.table).tolist(), self.table["label"].tolist())

    def labels(self) -> list[str]:
        """Give the class of each photo, in the data set's own order."""
        return self.table["label"].tolist()

    def listing(self) -> pd.DataFrame:
        """List the photos, in the data set's own order.

        Returns
        -------
        DataFrame
            path, label (the class' name), part, sha256, group (if any is given), width, height (pixels), format,
            p5 and p99 (brightness).
        """
        photos = self.table.drop(columns=["file"])
        return photos if (photos["group"] != "").any() else photos.drop(columns=["group"])

    def photos(self) -> tf.data.Dataset:
        """Read the photos, in the data set's own order.

        Returns
        -------
        tf.data.Dataset of (image, label, key)
            A uint8 image (height, width, 3), an int64 label and the photo's path in the data set, a string.
        """
        import tensorflow as tf

        def read(file, label, key):
            image = tf.numpy_function(lambda name: decoding.read(Path(os.fsdecode(name))), [file], tf.uint8)
            return tf.ensure_shape(image, (None, None, 3)), label, key

        number = {name: i for i, name in enumerate(self.classes)}
        labels = np.array([number[label] for label in self.table["label"]], np.int64)
        columns = self.table["file"].map(str).tolist(), labels, self.table["path"].tolist()
        # Four at a time: Pillow decodes photos side by side, and only a few are in memory.
        return tf.data.Dataset.from_tensor_slices(columns).map(read, num_parallel_calls=4, deterministic=True)

    def damaged(self, error: Exception) -> DataDamaged:
        """Make the error that names the photo that could not be read."""
        for file, path in zip(self.table["file"], self.table["path"]):
            try:
                decoding.read(file)
            except decoding.Unreadable as unreadable:
                error = Exception(f"{path}: {unreadable}")
                break
        return DataDamaged(
            f"dataset = {self.dataset!r}: a photo changed while it was read ({error}). Run the command again."
        )


def some(names: Iterable[str], most: int = LISTED) -> str:
    """List names in one line; of many, the first."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ("; " if any(" " in name for name in names) else ", ").join(names[:most]) + more


def class_name(name: str, where: str) -> str:
    """Give a class' name in Unicode's composed form, so that it is equal on all systems.

    Raises
    ------
    InvalidParameter
        If a message, table or figure could not show it.
    """
    if not printable(name):
        raise InvalidParameter(
            f"{where}: {name!r} is no name for a class: it has a control character or is not Unicode. Rename it."
        )
    return unicodedata.normalize("NFC", name.strip())


def _looked_at(dataset: str, path: Path, photos: pd.DataFrame) -> tuple[pd.DataFrame, list[dict[str, str]]]:
    """Hash and decode all photos, or look up what was found when they were last read."""

    def tell(count: int) -> None:
        if count > MANY:
            print(f"{dataset}: reading {count:,} photos for the first time", flush=True)

    reasons = pd.Series([_refused(file, name) for file, name in zip(photos["file"], photos["path"])], dtype=object)
    usable = photos[(reasons == "").to_numpy()]
    key = f"{path.resolve()} {PIL.__version__}"
    store = places.cache("looks") / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}.json"
    looks = pd.DataFrame(noted(usable["file"], decoding.look, store, tell), index=usable.index)
    if "reason" in looks:
        reasons = reasons.where(~reasons.index.isin(looks.index), looks["reason"].reindex(reasons.index).fillna(""))
    left_out = [
        {"path": shown(name), "reason": reason} for name, reason in zip(photos["path"], reasons) if reason != ""
    ]
    good = photos[(reasons == "").to_numpy()]
    looks = looks.reindex(good.index, columns=["sha256", "width", "height", "format", "p5", "p99"])
    return good.join(looks.astype({"width": int, "height": int})), left_out


def _belonging(photos: pd.DataFrame) -> pd.Series:
    """Name for each photo what has to be in one part: its content, or its group. A photo in two groups joins them."""
    names = photos["sha256"].where(photos["group"] == "", "group " + photos["group"])
    while True:
        of_content = names.groupby(photos["sha256"]).transform("max")
        joined = of_content.groupby(names).transform("max")
        if joined.equals(names):
            return names
        names = joined


def _refused(file: Path, name: str) -> str:
    """Say why a photo need not be opened; empty if it has to be."""
    if not printable(name):
        return "its name has a control character or is not Unicode: rename it"
    if file.suffix.lower() in decoding.FOREIGN:
        return f"{file.suffix[1:].upper()} is not read: save it as JPEG or PNG"
    # A broken link, a name too long, or something that would wait for ever.
    if not os.path.isfile(file):  # noqa: PTH113 - unlike Path.is_file, it accepts any text
        return "there is no such file"
    return ""


def shown(name: str) -> str:
    """Show a file's name in one line of Unicode."""
    return name if printable(name) else ascii(name)[1:-1]


def _sentence(given: set[str], groups: bool) -> str:
    """Say in a sentence how the photos were divided."""
    shares = splits.shares_of(given)
    what = "the group's name, or else of the photo's content" if groups else "each photo's content"
    if len(shares) == 1:
        return "The photos came divided into train, validation and test."
    parts = " and ".join(f"{share:.0%} {part}" for part, share in list(shares.items())[1:])
    if len(shares) == 3:
        return f"By a hash of {what}: about 75% train, 15% validation and 10% test."
    return f"The photos came divided, but for about {parts}, taken from train by a hash of {what}."
