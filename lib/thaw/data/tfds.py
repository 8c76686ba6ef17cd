"""Labelled photos of a TFDS data set, in its own order."""

from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
import tensorflow_datasets as tfds

from thaw.disk import places
from thaw.disk.hashes import sha256_of
from thaw.disk.locks import locked
from thaw.errors import DataDamaged, DataNotFound, InvalidParameter, did_you_mean, first_line

tf.get_logger().setLevel("ERROR")  # TFDS calls deprecated parts of TensorFlow; readers cannot act on those warnings
tfds.core.add_data_dir(str(places.shipped("data")))  # TFDS looks here, too

FEWEST = 20  # photos: with fewer, hardly one would be left for the test


@dataclass(frozen=True)
class TfdsSource:
    """A prepared TFDS data set of labelled images. `prepare` finds or fetches it.

    Attributes
    ----------
    builder : tfds.core.DatasetBuilder
    """

    builder: tfds.core.DatasetBuilder

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
        return tuple(self.builder.info.features[self.builder.info.supervised_keys[1]].names)

    def __len__(self) -> int:
        """Count the photos."""
        return self.builder.info.splits["train"].num_examples

    def content(self) -> dict:
        """Describe what the photos are, in JSON's types: equal descriptions mean equal photos, labels and classes.

        Raises
        ------
        DataDamaged
            If a file is missing or cannot be read.
        """
        files = [Path(file) for file in self.builder.info.splits["train"].filepaths]
        try:
            hashes = sha256_of(files)
        except OSError as error:
            raise self._unusable(f"{error.filename} cannot be read ({error.strerror})") from None
        return {"dataset": self.full_name, "classes": list(self.classes), "files": hashes}

    def photos(self, count: int) -> tf.data.Dataset:
        """Read the first photos, in the data set's own order.

        Returns
        -------
        tf.data.Dataset of (image, label, key)
            A uint8 image (height, width, 3), an int64 label and TFDS' own key of the photo, a string.
        """
        image, label = self.builder.info.supervised_keys
        return self._examples(count).map(lambda example: (example[image], example[label], example["tfds_id"]))

    def damaged(self, count: int, error: Exception) -> DataDamaged:
        """Make the error that names the file or photo that could not be read.

        Parameters
        ----------
        count : int
            How many photos were asked for.
        error : Exception
            What TensorFlow raised.
        """
        return self._unusable(f"{self._damage(count)} ({first_line(error)})")

    def _unusable(self, damage: str) -> DataDamaged:
        return DataDamaged(
            f"dataset = {self.name!r}: {damage}. No photos were used. Restore the files, "
            f"or delete the folder {self.builder.data_dir} to have TFDS prepare it again."
        )

    def _damage(self, count: int) -> str:
        split = self.builder.info.splits["train"]
        for file, expected in zip(map(str, split.filepaths), split.shard_lengths):
            try:
                found = sum(1 for _ in tf.data.TFRecordDataset(file))
            except tf.errors.OpError:
                return f"{file} is damaged"
            if found != expected:
                return f"{file} holds {found} of {expected} photos"
        image = self.builder.info.supervised_keys[0]
        for example in self._examples(count, decoders={image: tfds.decode.SkipDecoding()}):
            try:
                self.builder.info.features[image].decode_example(example[image])
            except tf.errors.OpError:
                key = example["tfds_id"].numpy().decode()
                return f"the photo {key} in {self.builder.data_dir} cannot be decoded"
        return f"a photo in {self.builder.data_dir} cannot be read"

    def _examples(self, count: int, **options) -> tf.data.Dataset:
        own_keys = "tfds_id" in self.builder.info.features
        config = tfds.ReadConfig(add_tfds_id=not own_keys, try_autocache=False)
        return self.builder.as_dataset(split=f"train[:{count}]", read_config=config, shuffle_files=False, **options)


def prepare(dataset: str) -> TfdsSource:
    """Find a data set on disk, or fetch it.

    Parameters
    ----------
    dataset : str
        The name of a TFDS data set.

    Raises
    ------
    DataNotFound
        If it is not on disk and cannot be fetched.
    InvalidParameter
        If TFDS has no such data set, or it is not one of labelled images, or it has too few of them.
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
            f"dataset = {dataset!r}: not a set of labelled images with a 'train' split. "
            "Give one that is, such as tf_flowers."
        )
    source = TfdsSource(builder)
    if len(source) < FEWEST:
        raise InvalidParameter(
            f"dataset = {dataset!r}: only {len(source)} photos in its 'train' split, and {FEWEST} or more are needed "
            "to train, validate and test. Give a larger one."
        )
    return source


def _fetched(dataset: str) -> tfds.core.DatasetBuilder:
    builder = _builder(dataset)
    try:
        builder.download_and_prepare()
    except Exception as error:  # whatever a download can raise
        raise DataNotFound(
            f"dataset = {dataset!r}: not in {builder.data_dir}, and TFDS could not fetch it ({first_line(error)}). "
            "Connect to the internet, or set TFDS_DATA_DIR to a folder that holds it."
        ) from None
    return builder


def on_disk(dataset: str) -> bool:
    """Whether a data set can be read without a download."""
    try:
        return Path(_builder(dataset).data_dir).is_dir()
    except InvalidParameter:
        return False


def _builder(dataset: str) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(dataset)
    except tfds.core.registered.DatasetNotFoundError:
        shipped = [path.name for path in places.shipped("data").iterdir()]
        close = did_you_mean(dataset, [*shipped, *tfds.list_builders(with_community_datasets=False)])
        raise InvalidParameter(
            f"dataset = {dataset!r}: TFDS has no such data set. {close.split(' Allowed:')[0]} "
            "See tfds.list_builders() for all."
        ) from None
    except Exception as error:  # each kind of wrong name, version or configuration raises its own
        raise InvalidParameter(
            f"dataset = {dataset!r}: TFDS cannot use this name ({first_line(str(error).split('}: ')[-1])}). "
            "Give name, name:version or name/configuration:version."
        ) from None
