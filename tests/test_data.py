"""A data set in its three parts."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import has_flowers

from thaw import data
from thaw.errors import DataNotFound, InvalidParameter


@pytest.fixture(scope="module")
def flowers():
    return data.load("drawn_flowers", 32, 100)


def test_parts_are_consecutive_shares_of_the_data_set_s_order(flowers):
    assert [len(part) for part in (flowers.train, flowers.validation, flowers.test)] == [75, 15, 10]
    builder = data.prepare("drawn_flowers")
    order = [
        key.decode()
        for key in builder.as_dataset(split="train[:100]", read_config=tfds.ReadConfig(add_tfds_id=True))
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
    builder = data.prepare("tf_flowers")
    flowers = data.load("tf_flowers", 32)
    assert [len(part) for part in (flowers.train, flowers.validation, flowers.test)] == [2752, 551, 367]
    counts = dict(
        zip(
            flowers.classes,
            np.bincount(np.concatenate([flowers.train.labels, flowers.validation.labels, flowers.test.labels])),
        )
    )
    assert counts == {"dandelion": 898, "daisy": 633, "tulips": 799, "sunflowers": 699, "roses": 641}
    theirs = builder.as_dataset(
        split="train[90%:]",
        read_config=tfds.ReadConfig(add_tfds_id=True),
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    assert [example["tfds_id"].decode() for example in theirs.as_numpy_iterator()] == flowers.test.keys.tolist()


def test_an_unknown_data_set():
    with pytest.raises(InvalidParameter, match="'tf_flower'.*Did you mean 'tf_flowers'"):
        data.prepare("tf_flower")


def test_a_data_set_too_small_to_be_divided(monkeypatch):
    monkeypatch.setattr(data, "FEWEST", 10**6)
    with pytest.raises(InvalidParameter, match=r"'drawn_flowers': only \d+ photos.*1000000 or more.*larger"):
        data.prepare("drawn_flowers")


def test_a_data_set_that_cannot_be_had(monkeypatch, tmp_path):
    def refuse(*arguments, **keywords):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", refuse)
    with pytest.raises(DataNotFound, match="no route to host.*TFDS_DATA_DIR"):
        data.prepare("drawn_flowers")
