"""A data set in its three parts."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import has_flowers
from thaw.data import photos as data
from thaw.data import tfds as sources
from thaw.errors import DataDamaged, DataNotFound, InvalidParameter


@pytest.fixture(scope="module")
def flowers():
    return data.load("drawn_flowers", 32, 100)


def test_parts_are_consecutive_shares_of_the_data_set_s_order(flowers):
    assert [len(part) for part in (flowers.train, flowers.validation, flowers.test)] == [75, 15, 10]
    source = sources.prepare("drawn_flowers")
    order = [
        key.decode()
        for key in source.builder.as_dataset(split="train[:100]", read_config=tfds.ReadConfig(add_tfds_id=True))
        .map(lambda e: e["tfds_id"])
        .as_numpy_iterator()
    ]
    assert [*flowers.train.keys, *flowers.validation.keys, *flowers.test.keys] == order
    assert len(set(order)) == 100


def test_photos_are_squares_of_bytes_with_labels_of_the_classes(flowers):
    assert flowers.train.images.shape == (75, 32, 32, 3) and flowers.train.images.dtype == np.uint8
    assert flowers.train.images[:].std() > 20, "not blank"
    assert set(flowers.train.labels) == set(range(len(flowers.classes)))


def test_the_hash_knows_the_pixels(flowers):
    again, larger = data.load("drawn_flowers", 32, 100), data.load("drawn_flowers", 36, 100)
    assert again.provenance == flowers.provenance
    assert larger.provenance["sha256"] != flowers.provenance["sha256"]
    assert flowers.provenance["photos"]["available"] > 100


@has_flowers
def test_tf_flowers_is_split_as_everywhere():
    source = sources.prepare("tf_flowers")
    flowers = data.load("tf_flowers", 32)
    assert [len(part) for part in (flowers.train, flowers.validation, flowers.test)] == [2752, 551, 367]
    counts = dict(
        zip(
            flowers.classes,
            np.bincount(np.concatenate([flowers.train.labels, flowers.validation.labels, flowers.test.labels])),
        )
    )
    assert counts == {"dandelion": 898, "daisy": 633, "tulips": 799, "sunflowers": 699, "roses": 641}
    theirs = source.builder.as_dataset(
        split="train[90%:]",
        read_config=tfds.ReadConfig(add_tfds_id=True),
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    assert [example["tfds_id"].decode() for example in theirs.as_numpy_iterator()] == flowers.test.keys.tolist()


def test_an_unknown_data_set():
    with pytest.raises(InvalidParameter, match="'tf_flower'.*Did you mean 'tf_flowers'"):
        sources.prepare("tf_flower")


def test_a_data_set_too_small_to_be_divided(monkeypatch):
    monkeypatch.setattr(sources, "FEWEST", 10**6)
    with pytest.raises(InvalidParameter, match=r"'drawn_flowers': only \d+ photos.*1000000 or more.*larger"):
        sources.prepare("drawn_flowers")


def test_a_data_set_that_cannot_be_had(monkeypatch, tmp_path):
    def refuse(*arguments, **keywords):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", refuse)
    with pytest.raises(DataNotFound, match="no route to host.*TFDS_DATA_DIR"):
        sources.prepare("drawn_flowers")


def examples_in(file: Path) -> list[bytes]:
    return [record.numpy() for record in tf.data.TFRecordDataset(str(file))]


def write_examples(file: Path, examples: list[bytes]) -> None:
    with tf.io.TFRecordWriter(str(file)) as writer:
        for example in examples:
            writer.write(example)


@pytest.fixture
def files_of_flowers(tmp_path, monkeypatch, drawn) -> list[Path]:
    """The files of a data set of the test's own, to be damaged."""
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))
    return [Path(file) for file in sources.prepare("drawn_flowers").builder.info.splits["train"].filepaths]


def damaged(words: str) -> None:
    with pytest.raises(DataDamaged, match=words) as caught:
        data.load("drawn_flowers", 32)
    assert "drawn_flowers" in str(caught.value) and "Restore the files" in str(caught.value)
    assert not list(data.photos_path("drawn_flowers", 32, None).parent.glob("*.h5")), "nothing is made of the rest"


def test_a_damaged_file_is_named(files_of_flowers):
    file = files_of_flowers[-1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    damaged(f"{file} is damaged")


def test_a_file_that_ends_too_soon_is_named(files_of_flowers):
    file = files_of_flowers[-1]
    file.write_bytes(file.read_bytes()[:-100])
    damaged(f"{file} is damaged")


def test_photos_that_are_missing_are_counted(files_of_flowers):
    file = files_of_flowers[-1]
    examples = examples_in(file)
    write_examples(file, examples[:-3])
    damaged(f"{file} holds {len(examples) - 3} of {len(examples)} photos")


def test_a_photo_that_cannot_be_decoded_is_named(files_of_flowers):
    file = files_of_flowers[0]
    examples = examples_in(file)
    example = tf.train.Example.FromString(examples[5])
    image = example.features.feature["image"].bytes_list.value
    image[0] = image[0][:20] + b"no photo" * 10
    write_examples(file, [*examples[:5], example.SerializeToString(), *examples[6:]])
    damaged(f"the photo drawn_flowers-train.tfrecord-.*__5 in .*{file.parent.name}.* cannot be decoded")
