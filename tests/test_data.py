"""A data set in its three parts."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import has_flowers
from tensorflow_datasets.core.utils import file_utils

from thaw.data import photos as data
from thaw.data import tfds as sources
from thaw.disk import hashes, places
from thaw.errors import DataDamaged, DataNotFound, InvalidParameter


@pytest.fixture(scope="module")
def flowers():
    return data.load_photos("demo_flowers", 32, 100)


def test_parts_are_consecutive_shares_of_the_data_set_s_order(flowers):
    assert [len(part) for part in (flowers.train, flowers.validation, flowers.test)] == [75, 15, 10]
    source = sources.prepare("demo_flowers")
    order = [
        key.decode()
        for key in source.builder.as_dataset(split="train[:100]", shuffle_files=False)
        .map(lambda e: e["tfds_id"])
        .as_numpy_iterator()
    ]
    assert flowers.keys.tolist() == order
    positions = np.concatenate([flowers.train, flowers.validation, flowers.test])
    assert positions.tolist() == list(range(100))
    assert len(set(order)) == 100


def test_photos_are_squares_of_bytes_with_labels_of_the_classes(flowers):
    assert flowers.images[flowers.train].shape == (75, 32, 32, 3)
    assert flowers.images[flowers.train].dtype == np.uint8
    assert flowers.images[flowers.train].std() > 20, "not blank"
    assert set(flowers.labels[flowers.train]) == set(range(len(flowers.classes)))


def test_old_arrays_make_room_for_photos_beyond_the_budget_too(tmp_path, monkeypatch):
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("THAW_DISK_GB", "0.0001")
    old = places.cache("activations") / "old.npy"
    old.write_bytes(bytes(2 * 10**5))
    monkeypatch.setattr(
        "shutil.disk_usage", lambda folder: SimpleNamespace(free=10**5 + (0 if old.exists() else 2 * 10**5))
    )
    with data.writing(places.cache("photos") / "new.npy", {}, (80, 32, 32, 3)) as writer:
        assert not old.exists()
        writer.append(np.zeros((80, 32, 32, 3), np.uint8))


def test_the_hash_knows_the_pixels(flowers):
    again, larger = data.load_photos("demo_flowers", 32, 100), data.load_photos("demo_flowers", 36, 100)
    assert again.provenance == flowers.provenance
    assert larger.provenance["sha256"] != flowers.provenance["sha256"]
    assert flowers.provenance["photos"]["available"] > 100


@has_flowers
def test_tf_flowers_is_split_as_everywhere():
    source = sources.prepare("tf_flowers")
    flowers = data.load_photos("tf_flowers", 32)
    assert [len(part) for part in (flowers.train, flowers.validation, flowers.test)] == [2752, 551, 367]
    counts = dict(
        zip(
            flowers.classes,
            np.bincount(flowers.labels),
        )
    )
    assert counts == {"dandelion": 898, "daisy": 633, "tulips": 799, "sunflowers": 699, "roses": 641}
    theirs = source.builder.as_dataset(
        split="train[90%:]",
        read_config=tfds.ReadConfig(add_tfds_id=True),
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    keys = [example["tfds_id"].decode() for example in theirs.as_numpy_iterator()]
    assert keys == flowers.keys[flowers.test].tolist()


def test_an_unknown_data_set():
    with pytest.raises(InvalidParameter, match="'tf_flower'.*Did you mean 'tf_flowers'"):
        sources.prepare("tf_flower")


def test_a_data_set_too_small_to_be_divided(monkeypatch):
    monkeypatch.setattr(sources, "FEWEST", 10**6)
    with pytest.raises(InvalidParameter, match=r"'demo_flowers': only \d+ photos.*1000000 or more.*larger"):
        sources.prepare("demo_flowers")


def test_a_data_set_that_cannot_be_had(monkeypatch, tmp_path):
    def refuse(*arguments, **keywords):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", refuse)
    with pytest.raises(DataNotFound, match="no route to host.*TFDS_DATA_DIR"):
        sources.prepare("demo_flowers")


def examples_in(file: Path) -> list[bytes]:
    return [record.numpy() for record in tf.data.TFRecordDataset(str(file))]


def write_examples(file: Path, examples: list[bytes]) -> None:
    with tf.io.TFRecordWriter(str(file)) as writer:
        for example in examples:
            writer.write(example)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The folder of a copy of the shipped data set, to be changed by the test."""
    shutil.copytree(places.shipped("data"), tmp_path / "data")
    monkeypatch.setattr(file_utils, "_REGISTERED_DATA_DIRS", {tmp_path / "data"})
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "data" / "demo_flowers" / "1.0.0"


@pytest.fixture
def file(folder) -> Path:
    """The file that holds the photos."""
    (file,) = folder.glob("*.tfrecord-*")
    return file


def refused(words: str) -> None:
    """See that the data set is refused, and that no photos are kept of it."""
    before = list(places.cache("photos").glob("*.npy"))
    with pytest.raises(DataDamaged, match=words) as caught:
        data.load_photos("demo_flowers", 32)
    assert "demo_flowers" in str(caught.value)
    assert "Restore the files" in str(caught.value)
    assert list(places.cache("photos").glob("*.npy")) == before


def test_a_damaged_file_is_named(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    refused(f"{file} is damaged")


def test_a_file_that_ends_too_soon_is_named(file):
    file.write_bytes(file.read_bytes()[:-100])
    refused(f"{file} is damaged")


def test_a_file_that_is_missing_is_named(file):
    file.unlink()
    refused(f"{file} cannot be read")


def test_photos_that_are_missing_are_counted(file):
    examples = examples_in(file)
    write_examples(file, examples[:-3])
    refused(f"{file} holds {len(examples) - 3} of {len(examples)} photos")


def changed_photo(file: Path, content: bytes) -> None:
    """Give the sixth photo of a file another content."""
    examples = examples_in(file)
    example = tf.train.Example.FromString(examples[5])
    example.features.feature["image"].bytes_list.value[0] = content
    write_examples(file, [*examples[:5], example.SerializeToString(), *examples[6:]])


def test_a_photo_that_cannot_be_decoded_is_named(file):
    key = data.load_photos("demo_flowers", 32, 20).keys[5]
    changed_photo(file, b"no photo" * 10)
    refused(f"the photo {key} in .*{file.parent.name} cannot be decoded")


def test_photos_that_are_replaced_are_read_again(file):
    """The names, counts, sizes and modification times of all files stay."""
    before = data.load_photos("demo_flowers", 32)
    stat, examples = file.stat(), examples_in(file)
    write_examples(file, examples[::-1])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size
    after = data.load_photos("demo_flowers", 32)
    assert np.array_equal(after.keys[after.test], before.keys[before.train][:40][::-1])
    assert np.array_equal(after.images[after.test], before.images[before.train[:40]][::-1])
    assert after.provenance["sha256"] != before.provenance["sha256"]


def test_photos_that_stay_are_hashed_and_decoded_once(file, monkeypatch):
    before = data.load_photos("demo_flowers", 32)
    monkeypatch.setattr(data, "_decode", None)
    monkeypatch.setattr(hashes, "sha256", None)
    assert data.load_photos("demo_flowers", 32).provenance == before.provenance


def test_damaged_notes_of_hashes_are_made_again(file):
    before = data.load_photos("demo_flowers", 32)
    for rubbish in ("", "[1]", "{", '{"a": 1}', "null"):
        (places.cache() / "hashes.json").write_text(rubbish, encoding="utf-8")
        assert data.load_photos("demo_flowers", 32).provenance == before.provenance


def test_a_class_that_is_renamed_is_noticed(folder):
    before = data.load_photos("demo_flowers", 32)
    labels = folder / "label.labels.txt"
    labels.write_text(labels.read_text(encoding="utf-8").replace("roses", "rosies"), encoding="utf-8")
    after = data.load_photos("demo_flowers", 32)
    assert "roses" in before.classes
    assert "rosies" in after.classes
    assert before.provenance["classes"] == list(before.classes)
    assert after.provenance["classes"] == list(after.classes)
    assert after.provenance["sha256"] == before.provenance["sha256"], "the pixels and labels are the same"


@pytest.mark.parametrize(
    "name, said",
    [
        ("tf_flowers:9.9.9", "cannot be loaded at version 9.9.9"),
        ("tf_flowers/plain", "plain not found"),
        ("mnist:9.9.9", "cannot be loaded at version 9.9.9"),
        ("tf_flowers/x/y", "failed"),
        ("huggingface:mnist", "needs the package .*for it"),
        ("demo_flowers:2.0.0", "."),
    ],
)
def test_names_that_tfds_cannot_use_are_refused(name, said):
    with pytest.raises(InvalidParameter, match=f"dataset = '{name}': TFDS .*{said}"):
        sources.prepare(name)
    with pytest.raises(InvalidParameter):  # and not for want of a network
        sources.on_disk(name)


def test_the_shipped_photos_are_those_of_tf_flowers_with_their_keys():
    shipped = data.load_photos("demo_flowers", 96)
    counts = [np.bincount(shipped.labels[part]).tolist() for part in (shipped.train, shipped.validation, shipped.test)]
    assert counts == [[60] * 5, [12] * 5, [8] * 5], "each part holds each class equally often"
    keys = shipped.keys.tolist()
    assert len(set(keys)) == 400
    assert all(key.startswith("tf_flowers-train.tfrecord-") for key in keys)
    assert shipped.provenance["title"] == "Demo Flowers"


@has_flowers
def test_the_shipped_photos_show_what_tf_flowers_shows():
    builder = sources.prepare("tf_flowers").builder
    originals = {
        example["tfds_id"].decode(): example
        for example in builder.as_dataset(
            split="train[:600]", read_config=tfds.ReadConfig(add_tfds_id=True), shuffle_files=False
        ).as_numpy_iterator()
    }
    shipped = data.load_photos("demo_flowers", 96)
    for key, label, image in zip(shipped.keys[:20], shipped.labels[:20], shipped.images[:20]):
        original = tf.image.resize(originals[key]["image"], (96, 96), antialias=True).numpy()
        assert shipped.classes[label] == builder.info.features["label"].int2str(originals[key]["label"])
        assert np.corrcoef(original.ravel(), image.ravel())[0, 1] > 0.95


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Make a data set as a user of TFDS would store one: it names no supervised keys."""

    def prepare(counts: dict[str, int], channels: int = 3, unlabelled: str = ""):
        rng = np.random.default_rng(0)
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, channels)),
                "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            }
        )
        tfds.dataset_builders.store_as_tfds_dataset(
            name="pets",
            version="1.0.0",
            features=features,
            data_dir=tmp_path / "data",
            split_datasets={
                name: tf.data.Dataset.from_tensor_slices(
                    {
                        "image": rng.integers(0, 256, (count, 8, 9, channels), dtype=np.uint8),
                        "label": np.full(count, -1) if name == unlabelled else np.arange(count) % 2,
                    }
                )
                for name, count in counts.items()
            },
        )
        monkeypatch.setattr(file_utils, "_REGISTERED_DATA_DIRS", {tmp_path / "data"})
        monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "cache"))

    return prepare


def test_a_data_set_s_own_splits_are_used(prepared):
    prepared({"train": 60, "test": 20, "validation": 10})
    pets = data.load_photos("pets", 32)
    assert [part.tolist() for part in (pets.train, pets.validation, pets.test)] == [
        list(range(60)),
        list(range(60, 70)),
        list(range(70, 90)),
    ]
    for part, name in ((pets.train, "train"), (pets.validation, "validation"), (pets.test, "test")):
        assert all(key.startswith(f"pets-{name}.") for key in pets.keys[part])
    assert pets.provenance["splits"] == "The data set's own: train, validation and test."
    assert pets.provenance["photos"] == {"train": 60, "validation": 10, "test": 20, "available": 90}
    assert pets.listing()["part"].tolist() == ["train"] * 60 + ["validation"] * 10 + ["test"] * 20

    old = data.load_photos("pets", 32, splits="position")
    assert [len(part) for part in (old.train, old.validation, old.test)] == [45, 9, 6]
    assert old.keys.tolist() == pets.keys[pets.train].tolist()
    assert "By position" in old.provenance["splits"]

    few = data.load_photos("pets", 32, 45)
    assert [len(part) for part in (few.train, few.validation, few.test)] == [30, 5, 10]
    assert few.keys[few.test].tolist() == pets.keys[pets.test][:10].tolist()


@pytest.mark.parametrize(
    "own, missing, ends", [("test", "validation", (50, 60, 80)), ("validation", "test", (53, 80, 60))]
)
def test_a_part_that_a_data_set_lacks_is_taken_from_train(prepared, own, missing, ends):
    prepared({"train": 60, own: 20})
    pets = data.load_photos("pets", 32)
    parts = {"train": pets.train, "validation": pets.validation, "test": pets.test}
    assert parts["train"].tolist() == list(range(ends[0]))
    assert parts[missing].tolist() == list(range(ends[0], 60))
    assert parts[own].tolist() == list(range(60, 80))
    assert f"but for {missing}" in pets.provenance["splits"]


def test_grey_photos_of_a_data_set_become_rgb(prepared):
    prepared({"train": 40}, channels=1)
    images = data.load_photos("pets", 32).images[:]
    assert images.shape == (40, 32, 32, 3)
    assert np.array_equal(images[..., 0], images[..., 2])
    assert images.std() > 20


def test_a_split_without_labels_is_refused(prepared):
    prepared({"train": 40, "test": 10}, unlabelled="test")
    with pytest.raises(InvalidParameter, match="10 photos have no label. Set splits to position"):
        data.load_photos("pets", 32)
    assert len(data.load_photos("pets", 32, splits="position")) == 40
