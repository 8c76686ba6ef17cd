"""A network as a file: it predicts what Thaw's own network predicts, and needs nothing of Thaw."""

import json
import re
import subprocess
import sys
import warnings
import zipfile

import keras
import numpy as np
import pytest
import small_network
import tensorflow as tf
from conftest import ROOT

from thaw.data.source import find_source
from thaw.errors import UnsupportedNetwork
from thaw.network import backbones, saved
from thaw.network.head import HEAD, add_head
from thaw.network.own import Own
from thaw.network.pretrained import load_pretrained
from thaw.network.saved import Saved

CLASSES = ["daisy", 'it\'s a "rose"', "<b>tulip</b> & $(touch x)", "=1+1", "ünïcödé 🌼"]
WITHOUT_THAW = """
import sys
sys.modules["thaw"] = None
import keras, numpy
model = keras.saving.load_model(sys.argv[1])
photos = numpy.load(sys.argv[2])
numpy.savez(sys.argv[3], **{name: model(photos[name][None]).numpy()[0] for name in photos})
try:
    import thaw
except ImportError:
    print(model.output.dtype, model.input_shape, len(model.trainable_weights))
"""


def without_thaw(code: str, *arguments, **how) -> str:
    """Run code in a process that does not see Thaw; what it printed."""
    command = [sys.executable, "-I", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


def own_prediction(model, preprocess, photo: np.ndarray, size: int) -> np.ndarray:
    """What Thaw's network says of a photo, prepared as for training."""
    squeezed = tf.round(tf.image.resize(photo, (size, size), antialias=True))
    return model(preprocess(squeezed[None]), training=False).numpy()[0]


@pytest.fixture(scope="module")
def flowers() -> list[np.ndarray]:
    """Real photos, in all sizes up to 128 pixels."""
    return [image for image, _, _ in find_source("demo_flowers").photos().as_numpy_iterator()]


@pytest.fixture(scope="module")
def mobilenet(flowers, tmp_path_factory):
    """MobileNet with a head that tells flowers apart, Thaw's own and as both files."""
    keras.utils.set_random_seed(0)
    backbone = backbones.get("mobilenet")
    base, _ = load_pretrained("mobilenet", 96, "demo")
    model = add_head(base, 5)
    source = find_source("demo_flowers")
    labels = np.array([label for _, label, _ in source.photos().as_numpy_iterator()])
    squeezed = np.array([tf.round(tf.image.resize(photo, (96, 96), antialias=True)) for photo in flowers])
    features = keras.Model(model.input, model.get_layer("pooled").output).predict(
        backbone.preprocess(tf.constant(squeezed)), verbose=0
    )
    means = np.array([features[labels == label].mean(axis=0) for label in range(5)])
    model.get_layer(HEAD).set_weights([0.3 * (means - means.mean(axis=0)).T, np.zeros(5)])
    right = (model.predict(backbone.preprocess(tf.constant(squeezed)), verbose=0).argmax(axis=1) == labels).mean()
    assert 0.6 < right < 0.99, "its predictions mean something, and are not all certain"
    folder = tmp_path_factory.mktemp("model")
    network = saved.plain(model, backbone.preprocess, 96)
    saved.save_keras(network, CLASSES, folder / saved.KERAS)
    saved.save_tflite(network, CLASSES, folder / saved.TFLITE)
    return model, backbone.preprocess, folder


def test_the_keras_file_predicts_the_same_without_thaw(mobilenet, flowers, tmp_path):
    model, preprocess, folder = mobilenet
    rng = np.random.default_rng(0)
    photos = [*flowers[:12], flowers[12][:1], flowers[13][:, :1], np.repeat(np.repeat(flowers[14], 7, 0), 5, 1)]
    photos.append(rng.integers(0, 256, (211, 97, 3), dtype=np.uint8))
    photos.append(rng.uniform(0, 255, (50, 333, 3)).astype("float32"))
    assert len({photo.shape for photo in photos}) > 8
    np.savez(tmp_path / "photos.npz", *photos)
    printed = without_thaw(WITHOUT_THAW, folder / saved.KERAS, tmp_path / "photos.npz", tmp_path / "said.npz")
    assert printed.split(" ", 1)[0] == "float32"
    assert "(None, None, None, 3) 83" in printed
    said = np.load(tmp_path / "said.npz")
    for number, photo in enumerate(photos):
        expected = own_prediction(model, preprocess, photo, 96)
        np.testing.assert_allclose(said[f"arr_{number}"], expected, atol=1e-5)


def test_the_tflite_file_gives_the_same_classes(mobilenet, flowers):
    _, _, folder = mobilenet
    both = [Saved.load(str(folder / name)) for name in (saved.KERAS, saved.TFLITE)]
    said = [np.array([one.probabilities(photo) for photo in flowers]) for one in both]
    assert (said[0].argmax(axis=1) == said[1].argmax(axis=1)).mean() >= 0.99
    assert np.abs(said[0] - said[1]).mean() < 0.005
    assert (folder / saved.TFLITE).stat().st_size < 8e6


def test_the_tflite_file_needs_no_operations_but_tensorflow_lite_s_own(mobilenet):
    _, _, folder = mobilenet
    names = {each["op_name"] for each in tf.lite.Interpreter(str(folder / saved.TFLITE))._get_ops_details()}
    assert "CONV_2D" in names
    assert not [name for name in names if name.startswith(("Flex", "CUSTOM"))]


def test_the_names_of_the_classes_are_in_both_files(mobilenet):
    _, _, folder = mobilenet
    for name in (saved.KERAS, saved.TFLITE):
        assert Saved.load(str(folder / name)).classes == tuple(CLASSES)
    assert Saved.load(str(folder)).path.name == saved.KERAS
    assert saved.labels_text(["two\nlines\u2028and more"]) == "two lines and more\n"


@pytest.mark.parametrize("page", ["docs/your-network.md", "lib/thaw/delivery/card.py"])
def test_the_code_of_the_docs_runs_without_thaw(page, mobilenet, flowers, tmp_path):
    from PIL import Image

    model, preprocess, folder = mobilenet
    for name in (saved.KERAS, saved.TFLITE):
        (tmp_path / name).symlink_to(folder / name)
    plain_names = ["daisy", "rose", "tulip", "aster", "lily"]
    (tmp_path / saved.LABELS).write_text(saved.labels_text(plain_names), encoding="utf-8")
    Image.fromarray(flowers[3]).save(tmp_path / "photo.jpg", quality=100)
    photo = np.asarray(Image.open(tmp_path / "photo.jpg"))
    expected = own_prediction(model, preprocess, photo, 96)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == (2 if page.startswith("docs") else 1)
    for code in blocks:
        printed = without_thaw("import sys; sys.modules['thaw'] = None\n" + code, cwd=tmp_path)
        if "tflite" in code:
            found = np.array(printed.strip(" [\n]").split(), float)
            assert found.shape == (5,)
            assert found.argmax() == expected.argmax()
        else:
            assert plain_names[expected.argmax()] in printed


@pytest.mark.parametrize("way", ["network", "tf", "torch", "caffe", "0-1", "none"])
def test_every_preprocessing_is_inside(way, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.REGISTRY, "small", small_network.SMALL)
    setup = small_network.setup(tiny, preprocessing=way)
    network = saved.plain(setup.model, setup.backbone.preprocess, 32)
    saved.save_keras(network, tiny.classes, tmp_path / saved.KERAS)
    loaded = keras.saving.load_model(tmp_path / saved.KERAS)
    photo = np.random.default_rng(1).integers(0, 256, (45, 31, 3), dtype=np.uint8)
    expected = own_prediction(setup.model, setup.backbone.preprocess, photo, 32)
    np.testing.assert_allclose(loaded(photo[None]).numpy()[0], expected, atol=1e-5)
    np.testing.assert_allclose(loaded.predict(photo[None], verbose=0)[0], expected, atol=1e-5)


def test_calling_a_loaded_network_changes_nothing_and_xla_is_not_asked_for(tiny, tmp_path, monkeypatch):
    """After Keras' layer Resizing, all layers would be in training mode, and BatchNorm would move."""
    monkeypatch.setitem(backbones.REGISTRY, "small", small_network.SMALL)
    setup = small_network.setup(tiny)
    saved.plain(setup.model, setup.backbone.preprocess, 32).save(tmp_path / "x.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = keras.saving.load_model(tmp_path / "x.keras")
    before = loaded.get_weights()
    photos = np.random.default_rng(1).integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)
    first, again = loaded(photos).numpy(), loaded(photos).numpy()
    np.testing.assert_array_equal(first, again)
    for old, new in zip(before, loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert loaded.jit_compile is False
    assert set(loaded.evaluate(photos, np.zeros(4), verbose=0, return_dict=True)) == {"accuracy", "loss"}


def test_what_was_trained_in_mixed_precision_computes_in_float32(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.REGISTRY, "small", small_network.SMALL)
    setup = small_network.setup(tiny, precision="mixed_bfloat16")
    try:
        network = saved.plain(setup.model, setup.backbone.preprocess, 32)
        assert keras.config.dtype_policy().name == "mixed_bfloat16", "the study's precision is left as it was"
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}
    assert {tensor.dtype for operation in network.operations for tensor in keras.tree.flatten(operation.output)} == {
        "float32"
    }
    photo = np.random.default_rng(1).integers(0, 256, (45, 31, 3), dtype=np.uint8)
    expected = own_prediction(setup.model, setup.backbone.preprocess, photo, 32)
    np.testing.assert_allclose(network(photo[None]).numpy()[0], expected, atol=0.02)


def test_a_delivered_network_can_be_the_backbone_of_another_study(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.REGISTRY, "small", small_network.SMALL)
    setup = small_network.setup(tiny)
    saved.save_keras(
        saved.plain(setup.model, setup.backbone.preprocess, 32), tiny.classes, path := tmp_path / saved.KERAS
    )
    own = Own.of(str(path))
    base = own.build(32)
    photo = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8).astype("float32")
    np.testing.assert_allclose(
        base(own.preprocess(photo)), setup.base(setup.backbone.preprocess(photo), training=False), atol=1e-5
    )
    again = saved.plain(add_head(base, 3), own.preprocess, 32)
    again.save(tmp_path / "again.keras")
    assert keras.saving.load_model(tmp_path / "again.keras").output_shape == (None, 3)


def test_layers_that_keras_does_not_export_become_public_ones(tmp_path):
    """ConvNeXt's and InceptionResNetV2's."""
    from keras.src.applications.convnext import LayerScale, StochasticDepth
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    photos = keras.Input((16, 16, 3))
    one, other = (keras.layers.Conv2D(4, 3, padding="same")(photos) for _ in range(2))
    features = StochasticDepth(0.3)(LayerScale(0.7, 4)(CustomScaleLayer(0.2)([one, other])))
    base = keras.Model(photos, keras.ops.relu(features))
    next(layer for layer in base.layers if isinstance(layer, LayerScale)).set_weights([np.array([0.5, -2, 1, 3])])
    model = add_head(base, 3)
    network = saved.plain(model, lambda photos: photos / 255.0, 16)
    network.save(tmp_path / "x.keras")
    loaded = keras.saving.load_model(tmp_path / "x.keras")
    assert {type(layer).__module__.split(".")[2] for layer in loaded.layers} == {"layers"}
    photo = np.random.default_rng(1).integers(0, 256, (45, 31, 3), dtype=np.uint8)
    expected = own_prediction(model, lambda photos: photos / 255.0, photo, 16)
    np.testing.assert_allclose(loaded(photo[None]).numpy()[0], expected, atol=1e-5)


def test_layers_that_change_photos_in_training_leave_a_loaded_network_in_inference_mode(tmp_path):
    """Keras calls them in training mode unless told otherwise, and all layers after them."""
    photos = keras.Input((16, 16, 3))
    features = keras.layers.RandomFlip()(keras.layers.RandomContrast(0.9)(keras.layers.Resizing(12, 12)(photos)))
    features = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(features))
    model = add_head(keras.Model(photos, keras.layers.Dropout(0.9)(features)), 3)
    saved.plain(model, lambda photos: photos / 255.0, 16).save(tmp_path / "x.keras")
    loaded = keras.saving.load_model(tmp_path / "x.keras")
    photo = np.random.default_rng(1).integers(0, 256, (45, 31, 3), dtype=np.uint8)
    expected = own_prediction(model, lambda photos: photos / 255.0, photo, 16)
    for _ in range(2):
        np.testing.assert_allclose(loaded(photo[None]).numpy()[0], expected, atol=1e-5)


# ---- wrong files --------------------------------------------------------------------------------


def archive(path, **files):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(name.replace("_", "."), content)
    return path


def test_a_wrong_file_is_refused(mobilenet, tmp_path):
    _, _, folder = mobilenet
    (tmp_path / "text.txt").write_text("no")
    (tmp_path / "text.keras").write_text("no")
    (tmp_path / "text.tflite").write_text("no")
    archive(tmp_path / "bare.keras", config_json="{}")
    lambda_layer = {"class_name": "Lambda", "module": "keras.layers", "config": {"name": "evil"}}
    archive(tmp_path / "code.keras", config_json=json.dumps(lambda_layer), labels_txt="a\n")
    archive(tmp_path / "empty.tflite", labels_txt="a\nb\n")
    fewer = tmp_path / "fewer.keras"
    with zipfile.ZipFile(folder / saved.KERAS) as source, zipfile.ZipFile(fewer, "w") as target:
        for name in source.namelist():
            target.writestr(name, "a\nb\n" if name == saved.LABELS else source.read(name))
    cut = tmp_path / "cut.keras"
    cut.write_bytes((folder / saved.KERAS).read_bytes()[:100_000])
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)]).save(
        tmp_path / "fixed.keras"
    )
    saved._add_labels(tmp_path / "fixed.keras", ["a"])
    for name, message in {
        "nowhere.keras": "no such file",
        "": "no such file (model.keras) in it",
        "text.txt": "no .keras or .tflite file",
        "text.keras": "holds no labels.txt",
        "text.tflite": "holds no labels.txt",
        "bare.keras": "holds no labels.txt",
        "code.keras": "Lambda",
        "empty.tflite": "cannot be loaded",
        "fewer.keras": "names 2 classes, and the network has 5",
        "cut.keras": "holds no labels.txt",
        "fixed.keras": "not photos of any size",
    }.items():
        with pytest.raises(UnsupportedNetwork, match=re.escape(message)) as raised:
            Saved.load(str(tmp_path / name))
        assert str(raised.value).startswith("MODEL = ")


def test_a_file_with_operations_that_could_write_is_refused(tmp_path):
    """TensorFlow's own operations, which some builds of the interpreter can run."""

    @tf.function(input_signature=[tf.TensorSpec((1, None, None, 3), tf.uint8)])
    def writes(photo):
        tf.raw_ops.WriteFile(filename=str(tmp_path / "written"), contents="x")
        return tf.zeros((1, 2)) * tf.cast(tf.reduce_mean(tf.cast(photo, tf.float32)), tf.float32)

    converter = tf.lite.TFLiteConverter.from_concrete_functions([writes.get_concrete_function()])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    path = tmp_path / "evil.tflite"
    path.write_bytes(converter.convert())
    saved._add_labels(path, ["a", "b"])
    with pytest.raises(UnsupportedNetwork, match="not TensorFlow Lite's own: FlexWriteFile"):
        saved.Saved.load(str(path))
    assert not (tmp_path / "written").exists()
