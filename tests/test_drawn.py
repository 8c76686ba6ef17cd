import hashlib
import json

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds
from thaw.demo import drawn, pretraining


def flower(kind, index):
    return drawn.photo(drawn.FLOWERS[kind], np.random.default_rng([1, index]), drawn.WILD)


def tiny(shortcut=False):
    """A network with every kind of layer that the pre-training treats in its own way."""
    layers = keras.layers
    x = inputs = keras.Input((drawn.SIDE, drawn.SIDE, 3))
    x = layers.Conv2D(4, 3, strides=4, use_bias=False)(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.77)(x)
    if shortcut:
        y = layers.BatchNormalization()(layers.Conv2D(4, 1)(x))
        x = layers.Add()([x, y])
    return keras.Model(inputs, layers.ReLU()(x))


@pytest.fixture
def little(monkeypatch):
    monkeypatch.setattr(drawn, "PHOTOS", 40)


def dataset(folder):
    builder = drawn.DrawnFlowers(data_dir=folder)
    builder.download_and_prepare()
    return builder


@pytest.mark.parametrize("paint", [*drawn.FLOWERS.values(), *drawn.THINGS.values()])
def test_a_photo_depends_on_its_seed_alone(paint):
    first, again, other = (drawn.photo(paint, np.random.default_rng([3, index]), 1) for index in (5, 5, 6))
    assert first.shape == (drawn.SIDE, drawn.SIDE, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.std() > 10  # something is to be seen


def test_global_random_state_is_neither_used_nor_changed():
    np.random.seed(0)
    before = flower("rose", 7)
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    assert np.array_equal(before, flower("rose", 7))
    assert np.array_equal(state, np.random.get_state()[1])


def test_the_data_set_is_whole_and_balanced(little, tmp_path):
    builder = dataset(tmp_path)
    assert builder.name == "drawn_flowers"
    assert builder.info.supervised_keys == ("image", "label")
    assert builder.info.features["label"].names == list(drawn.FLOWERS)
    images, labels = zip(*tfds.as_numpy(builder.as_dataset("train", as_supervised=True)), strict=True)
    assert np.bincount(labels).tolist() == [8] * 5
    assert len({image.tobytes() for image in images}) == 40


def test_the_data_set_is_the_same_every_time(little, tmp_path):
    first, again = (
        [
            (row["image"].tobytes(), int(row["label"]))
            for row in tfds.as_numpy(dataset(tmp_path / name).as_dataset("train"))
        ]
        for name in "ab"
    )
    assert first == again


def test_any_share_of_the_data_set_holds_every_class(monkeypatch, tmp_path):
    monkeypatch.setattr(drawn, "photo", lambda *_: np.zeros((drawn.SIDE, drawn.SIDE, 3), "uint8"))
    builder = dataset(tmp_path)
    labels = [int(row["label"]) for row in tfds.as_numpy(builder.as_dataset("train"))]
    assert len(labels) == drawn.PHOTOS
    for share in (labels[:450], labels[450:540], labels[540:]):
        assert np.bincount(share).tolist() == [len(share) // 5] * 5


def test_things_come_in_turn():
    photos, labels = drawn.draw_things(len(drawn.THINGS) + 1, seed=0)
    assert photos.shape == (len(labels), drawn.SIDE, drawn.SIDE, 3)
    assert labels.tolist() == [*range(len(drawn.THINGS)), 0]
    assert not set(drawn.THINGS) & set(drawn.FLOWERS)


@pytest.mark.parametrize("shortcut", [False, True])
def test_pretraining_leaves_weights_and_their_description(shortcut, tmp_path, capsys):
    path = tmp_path / "cache" / "tiny.weights.h5"
    base = tiny(shortcut)
    before = base.get_weights()
    about = pretraining.pretrain("Tiny", base, lambda x: x / 255, path, photos=32, epochs=2)

    assert sorted(file.name for file in path.parent.iterdir()) == ["tiny.json", "tiny.weights.h5"]
    assert json.loads((path.parent / "tiny.json").read_text()) == about
    assert about["official"] is False and 0 <= about["source_accuracy"] <= 1
    assert about["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(", accuracy")[0] for line in lines] == [f"pre-training Tiny: epoch {k} of 2" for k in (1, 2)]

    read = tiny(shortcut)
    read.load_weights(path)
    for weight, kept, old in zip(read.get_weights(), base.get_weights(), before, strict=True):
        assert np.array_equal(weight, kept)
        assert not np.array_equal(weight, old)
    assert base.layers[3].momentum == 0.77


def test_pretraining_that_fails_leaves_nothing(monkeypatch, tmp_path):
    base = tiny()
    monkeypatch.setattr("thaw.disk.atomic.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        pretraining.pretrain("Tiny", base, lambda x: x / 255, tmp_path / "tiny.weights.h5", photos=16, epochs=1)
    assert list(tmp_path.iterdir()) == []


def test_pretraining_wants_a_name_that_keras_reads_back(tmp_path):
    with pytest.raises(ValueError, match="weights.h5"):
        pretraining.pretrain("Tiny", tiny(), lambda x: x, tmp_path / "tiny.h5")
