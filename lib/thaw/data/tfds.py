"""Labelled photos of a TFDS data set, in its own order."""

import re
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from thaw.data import splits
from thaw.data.splits import FEWEST, PARTS
from thaw.disk import downloads, places
from thaw.disk.hashes import sha256_of
from thaw.disk.locks import locked
from thaw.errors import DataDamaged, DataNotFound, InvalidParameter, did_you_mean, first_line

tf.get_logger().setLevel("ERROR")  # TFDS calls deprecated parts of TensorFlow; readers cannot act on those warnings
tfds.core.add_data_dir(str(places.shipped("data")))  # TFDS looks here, too

_DOWNLOAD = "import sys; import tensorflow_datasets as tfds; tfds.builder(sys.argv[1]).download_and_prepare()"


@dataclass(frozen=True)
class TfdsSource:
    """A prepared TFDS data set of labelled images. `prepare` finds or fetches it.

    Attributes
    ----------
    builder : tfds.core.DatasetBuilder
    taken : dict of str to int
        How many photos are taken of each of its splits, the first ones: of ``train``, and of ``validation`` and
        ``test`` where the data set has them and they are used. Photos are numbered in this order.
    keys : tuple of str
        The names of the features that hold the image and the label.
    """

    builder: tfds.core.DatasetBuilder
    taken: dict[str, int]
    keys: tuple[str, str]

    left_out: tuple[dict[str, str], ...] = ()  # TFDS prepares all photos, or none
    ignored: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The data set's name, without configuration and version."""
        return self.builder.info.name

    @property
    def full_name(self) -> str:
        """The data set's name with its configuration and version."""
        return self.builder.info.full_name

    @property
    def version(self) -> str:
        """The version of the data set, for example '3.0.1'."""
        return str(self.builder.info.version)

    @property
    def title(self) -> str:
        """The data set's name as people write it, for example 'TF Flowers'."""
        return {"tf_flowers": "TF Flowers", "demo_flowers": "Demo Flowers"}.get(self.name, self.name)

    @property
    def description(self) -> str:
        """What TFDS says of the data set, in one line."""
        return " ".join(self.builder.info.description.split())

    @property
    def classes(self) -> tuple[str, ...]:
        """A name for each label."""
        return tuple(self.builder.info.features[self.keys[1]].names)

    @property
    def available(self) -> int:
        """How many photos there are in the splits that are used."""
        return sum(self.builder.info.splits[name].num_examples for name in self.taken)

    @property
    def splits(self) -> str:
        """How the three parts were made, in a sentence."""
        if len(self.taken) == 1:
            return "By position in TFDS' order, a hash of each photo's key: 75% train, 15% validation and 10% test."
        if len(self.taken) == len(PARTS):
            return "The data set's own: train, validation and test."
        (missing,) = set(PARTS) - set(self.taken)
        share = splits.shares_of(set(self.taken))[missing]
        return f"The data set's own, but for {missing}: the last {share:.0%} of the train photos in TFDS' order."

    def __len__(self) -> int:
        """Count the photos that are taken."""
        return sum(self.taken.values())

    def first(self, count: int | None) -> "TfdsSource":
        """Take so many photos only, of each split in proportion."""
        total = len(self)
        if count is None or count >= total:
            return self
        ends = np.round(np.cumsum(list(self.taken.values())) * count / total).astype(int)
        counts = np.diff(ends, prepend=0)
        return replace(self, taken={name: max(int(n), 1) for name, n in zip(self.taken, counts)})

    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give the positions of the photos that train, validate and test."""
        if len(self.taken) == 1:
            return splits.by_position(len(self))
        own = np.arange(self.taken["train"], dtype=np.int64)
        ends = np.round(np.cumsum(list(splits.shares_of(set(self.taken)).values())) * len(own)).astype(int)
        found = dict(zip(splits.shares_of(set(self.taken)), np.split(own, ends[:-1])))
        start = len(own)
        for name, count in list(self.taken.items())[1:]:
            found[name] = np.arange(start, start + count, dtype=np.int64)
            start += count
        return found["train"], found["validation"], found["test"]

    @property
    def divided(self) -> bool:
        """Whether it came divided into splits that are used."""
        return len(self.taken) > 1

    @property
    def spread(self) -> str:
        """How photos are divided into folds, within a sentence."""
        return splits.BY_POSITION + ", each of its splits evenly" * (len(self.taken) > 1)

    def places(self) -> np.ndarray:
        """Give each photo its place by its position in its split: TFDS' order there is a hash of keys."""
        return np.concatenate([splits.places_by_position(count) for count in self.taken.values()])

    def labels(self) -> list[str]:
        """Read the class of each photo, in the data set's own order."""
        image, label = self.keys
        examples = self._examples(decoders={image: tfds.decode.SkipDecoding()})
        return [self.classes[number] for number in examples.map(itemgetter(label)).as_numpy_iterator()]

    def listing(self) -> None:
        """TFDS keeps photos in records: there are no files to tell of."""

    def content(self) -> dict:
        """Describe what the photos are, in JSON's types: equal descriptions mean equal photos, labels and classes.

        Raises
        ------
        DataDamaged
            If a file is missing or cannot be read.
        """
        files = [Path(file) for name in self.taken for file in self.builder.info.splits[name].filepaths]
        try:
            hashes = sha256_of(files)
        except OSError as error:
            raise self._unusable(f"{error.filename} cannot be read ({error.strerror})") from None
        return {"dataset": self.full_name, "classes": list(self.classes), "files": hashes, "taken": self.taken}

    def photos(self) -> tf.data.Dataset:
        """Read the photos, in the data set's own order.

        Returns
        -------
        tf.data.Dataset of (image, label, key)
            A uint8 image (height, width, 3), an int64 label and TFDS' own key of the photo, a string.
        """
        image, label = self.keys

        def read(example):
            photo = example[image]
            photo = tf.image.grayscale_to_rgb(photo) if photo.shape[-1] == 1 else photo[..., :3]
            return photo, example[label], example["tfds_id"]

        return self._examples().map(read)

    def damaged(self, error: Exception) -> DataDamaged:
        """Make the error that names the file or photo that could not be read.

        Parameters
        ----------
        error : Exception
            What TensorFlow raised.
        """
        return self._unusable(f"{self._damage()} ({first_line(error)})")

    def _unusable(self, damage: str) -> DataDamaged:
        return DataDamaged(
            f"dataset = {self.name!r}: {damage}. No photos were used. Restore the files, "
            f"or delete the folder {self.builder.data_dir} to have TFDS prepare it again."
        )

    def _damage(self) -> str:
        for split in (self.builder.info.splits[name] for name in self.taken):
            for file, expected in zip(map(str, split.filepaths), split.shard_lengths):
                try:
                    found = sum(1 for _ in tf.data.TFRecordDataset(file))
                except tf.errors.OpError:
                    return f"{file} is damaged"
                if found != expected:
                    return f"{file} holds {found} of {expected} photos"
        image = self.keys[0]
        for example in self._examples(decoders={image: tfds.decode.SkipDecoding()}):
            try:
                self.builder.info.features[image].decode_example(example[image])
            except tf.errors.OpError:
                key = example["tfds_id"].numpy().decode()
                return f"the photo {key} in {self.builder.data_dir} cannot be decoded"
        return f"a photo in {self.builder.data_dir} cannot be read"

    def _examples(self, **options) -> tf.data.Dataset:
        own_keys = "tfds_id" in self.builder.info.features
        config = tfds.ReadConfig(add_tfds_id=not own_keys, try_autocache=False)
        asked = [f"{name}[:{count}]" for name, count in self.taken.items()]
        # One after the other: asked for all at once, TFDS mixes the files of several splits.
        examples, *more = self.builder.as_dataset(split=asked, read_config=config, shuffle_files=False, **options)
        for others in more:
            examples = examples.concatenate(others)
        return examples


def prepare(dataset: str, use: str = "official") -> TfdsSource:
    """Find a data set on disk, or fetch it.

    Parameters
    ----------
    dataset : str
        The name of a TFDS data set.
    use : {'official', 'position'}
        Use its own validation and test photos, where it has some; or only its ``train`` photos, divided by position.

    Raises
    ------
    DataNotFound
        If it is not on disk and cannot be fetched.
    InvalidParameter
        If TFDS has no such data set, or it is not one of labelled images, or it has too few of them.
    """
    with locked([places.cache("photos") / dataset.replace("/", "-")]):
        builder = _fetched(dataset)
    keys = _keys(builder.info)
    if keys is None or "train" not in builder.info.splits:
        raise InvalidParameter(
            f"dataset = {dataset!r}: not a set of labelled images with a 'train' split. "
            "Give one that is, such as tf_flowers."
        )
    used = [name for name in (PARTS if use == "official" else PARTS[:1]) if name in builder.info.splits]
    source = TfdsSource(builder, {name: builder.info.splits[name].num_examples for name in used}, keys)
    if len(source) < FEWEST:
        raise InvalidParameter(
            f"dataset = {dataset!r}: only {len(source)} photos in its splits ({', '.join(used)}), and {FEWEST} or more "
            "are needed to train, validate and test. Give a larger one."
        )
    return source


def _keys(info: tfds.core.DatasetInfo) -> tuple[str, str] | None:
    """Name the features that hold the image and the label: those that TFDS names, or the only ones of their kinds."""
    named = info.supervised_keys if len(info.supervised_keys or ()) == 2 else None
    features = dict(info.features.items()) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if named:
        return (named[0], named[1]) if named[0] in images and named[1] in labels else None
    return (images[0], labels[0]) if len(images) == len(labels) == 1 else None


def _fetched(dataset: str) -> tfds.core.DatasetBuilder:
    builder = _builder(dataset)
    try:
        if not Path(builder.data_dir).is_dir():
            folders = [Path(builder.data_dir_root) / name for name in ("downloads", builder.name)]
            downloads.download(_DOWNLOAD, dataset, f"the data set {dataset}", folders)
        builder.download_and_prepare()
    except Exception as error:  # whatever a download can raise
        raise DataNotFound(
            f"dataset = {dataset!r}: not in {builder.data_dir}, and TFDS could not fetch it ({first_line(error)}). "
            "Connect to the internet, or set TFDS_DATA_DIR to a folder that holds it."
        ) from None
    return builder


def on_disk(dataset: str) -> bool:
    """Whether a data set can be read without a download.

    Raises
    ------
    InvalidParameter
        If TFDS has none of this name, version and configuration.
    """
    return Path(_builder(dataset).data_dir).is_dir()


def has_name(dataset: str) -> bool:
    """Whether TFDS knows a data set by its name."""
    # Without those of its community: TFDS would download their names, and wait long for a network that is silent.
    return re.split("[/:]", dataset)[0] in tfds.list_builders(with_community_datasets=False)


def _builder(dataset: str) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(dataset)
    except tfds.core.registered.DatasetNotFoundError:
        shipped = [path.name for path in places.shipped("data").iterdir()]
        close = did_you_mean(dataset, [*shipped, *tfds.list_builders(with_community_datasets=False)])
        raise InvalidParameter(
            f"dataset = {dataset!r}: TFDS has no such data set. {close.partition('Allowed:')[0].strip()} "
            "See tfds.list_builders() for all; for your own photos give folder:PATH or table:FILE.csv."
        ) from None
    except ImportError as error:  # some data sets need more, such as all of huggingface's
        raise InvalidParameter(
            f"dataset = {dataset!r}: TFDS needs the package {error.name} for it, which does not come with Thaw. "
            "Install it, or save the photos in a folder for each class and give folder:PATH."
        ) from None
    except Exception as error:  # each kind of wrong name, version or configuration raises its own
        raise InvalidParameter(
            f"dataset = {dataset!r}: TFDS cannot use this name ({first_line(str(error).split('}: ')[-1])}). "
            "Give name, name:version or name/configuration:version."
        ) from None
