"""Networks of the user's own, from ``.keras`` files."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from conftest import made_up_data
from contract import check_cover, losses
from keras import layers

from thaw.disk import hashes
from thaw.errors import InvalidParameter, UnknownBackbone, UnsupportedNetwork, WeightsMismatch, WeightsNotFound
from thaw.experiment import Experiment
from thaw.network import backbones, graph, unfreezing
from thaw.network.head import add_head
from thaw.network.pretrained import load_pretrained
from thaw.training import phases
from thaw.training.setup import Setup


def features(photos, prepared=True):
    """A small network with what Keras' networks have: a residual block with ``+``, normalization, a chain."""
    x = layers.Rescaling(1 / 127.5, -1)(photos) if prepared else photos
    x = layers.Conv2D(8, 3, 2, "same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = x + layers.Conv2D(8, 1, activation="relu")(layers.LayerNormalization()(x))
    return layers.Conv2D(12, 3, 2, "same", activation="relu", name="last")(x)


def model(size=32, prepared=True, classifier=True, inner=False):
    photos = keras.Input((size, size, 3))
    if inner:
        between = keras.Input((size, size, 3))
        x = keras.Model(between, features(between, prepared), name="inner")(photos, training=False)
    else:
        x = features(photos, prepared)
    if classifier:
        x = layers.GlobalAveragePooling2D()(x)
        x = layers.Dropout(0.2)(x)
        x = layers.Dense(4)(x)
        x = layers.Softmax()(x)
    return keras.Model(photos, x)


def own_loss(wanted, given):
    return keras.ops.mean((wanted - given) ** 2)


def saved(network, path):
    network.save(path)
    return str(path)


PHOTOS = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)


def test_a_file_is_read_again_only_if_it_has_changed(tmp_path, monkeypatch):
    """A study asks for its networks some hundred times, and a file may have half a gigabyte."""
    path = saved(model(), tmp_path / "mine.keras")
    first = backbones.get(path)
    monkeypatch.setattr(hashes, "sha256", lambda file: "read again")
    assert backbones.get(path) == first
    saved(model(classifier=False), tmp_path / "mine.keras")
    assert backbones.get(path).sha256 == "read again"


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("classifier", [False, True])
def test_a_file_becomes_one_graph_without_its_classifier(tmp_path, inner, classifier):
    network = model(inner=inner, classifier=classifier)
    if inner:  # it was trained before, with a loss of the user's own
        network.get_layer("inner").compile("adam", loss=own_loss)
    path = saved(network, tmp_path / "mine.keras")
    base, provenance = load_pretrained(path, 32, "imagenet")
    assert base.output_shape == (None, 8, 8, 12)
    assert not any(isinstance(layer, keras.Model) for layer in base.layers)
    whole = network.get_layer("inner") if inner else network
    expected = keras.Model(whole.inputs[0], whole.get_layer("last").output)
    np.testing.assert_allclose(base(PHOTOS), expected(PHOTOS, training=False), rtol=1e-5, atol=1e-6)
    assert provenance["title"] == "those in its file"
    assert not provenance["official"]
    backbone = backbones.get(path)
    found = backbone.blocks(base)
    check_cover(base, found)
    assert len(found) == 3
    np.testing.assert_array_equal(backbone.preprocess(PHOTOS), PHOTOS)
    assert "residual additions" in backbone.describe(base)


def test_a_network_of_the_user_trains_the_same_wherever_it_is_cut(tmp_path):
    path = saved(model(), tmp_path / "mine.keras")
    base, _ = load_pretrained(path, 32, "imagenet")
    whole = add_head(base, 3)
    for amount in (0, 1, 2):
        parameters = {"backbone": path, "strategy": "blocks" if amount else "frozen", "amount": amount}
        unfreezing.unfreeze(base, unfreezing.unfrozen(base, backbones.get(path), Experiment.of(parameters)))
        cut, uncut = losses(whole, PHOTOS, np.array([0, 2]))
        np.testing.assert_allclose(cut, uncut, rtol=1e-5)
        assert uncut[0] != uncut[1]


def test_another_image_size(tmp_path):
    path = saved(model(32), tmp_path / "mine.keras")
    base, _ = load_pretrained(path, 64, "imagenet")
    assert base.input_shape == (None, 64, 64, 3)
    small, _ = load_pretrained(path, 32, "imagenet")
    assert all(np.array_equal(a, b) for a, b in zip(base.get_weights(), small.get_weights(), strict=True))
    photos = keras.Input((32, 32, 3))
    fixed = keras.Model(photos, layers.Conv2D(3, 3)(layers.Reshape((16, 64, 3))(photos)))
    path = saved(fixed, tmp_path / "fixed.keras")
    with pytest.raises(UnsupportedNetwork, match=r"image_size = 64 .*own size is 32 x 32 pixels"):
        load_pretrained(path, 64, "imagenet", "none")


def test_a_sequential_network_and_any_size(tmp_path):
    network = keras.Sequential(
        [
            keras.Input((48, 48, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(6, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(5, activation="relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    path = saved(network, tmp_path / "chain.keras")
    base, _ = load_pretrained(path, 64, "imagenet")
    assert base.output_shape == (None, 29, 29, 6)
    assert len(backbones.get(path).blocks(base)) == 2, "a layer with weights is a block"
    photos = keras.Input((None, None, 3))
    path = saved(keras.Model(photos, features(photos)), tmp_path / "any.keras")
    assert load_pretrained(path, 40, "imagenet")[0].input_shape == (None, 40, 40, 3)


def test_what_photos_a_network_expects_is_known_or_asked_for(tmp_path):
    path = saved(model(prepared=False), tmp_path / "mine.keras")
    with pytest.raises(InvalidParameter, match="does not say how photos.*'tf'.*'torch'.*'caffe'.*'0-1'.*'none'"):
        load_pretrained(path, 32, "imagenet")
    assert load_pretrained(path, 32, "imagenet", "tf")[0].output_shape == (None, 8, 8, 12)
    white = np.full((1, 2, 2, 3), 255.0, np.float32)
    expected = {"tf": 1.0, "0-1": 1.0, "none": 255.0, "torch": (1 - 0.485) / 0.229, "caffe": 255 - 103.939}
    for way, value in expected.items():
        assert np.asarray(backbones.get(path, way).preprocess(white.copy()))[0, 0, 0, 0] == pytest.approx(
            value, rel=1e-4
        )
    assert np.asarray(backbones.get("mobilenetv2", "0-1").preprocess(white.copy())).max() == 1
    assert np.asarray(backbones.get("mobilenetv3small").preprocess(white.copy())).max() == 255


@keras.saving.register_keras_serializable()
class Mine(layers.Layer):
    def call(self, inputs):
        return inputs


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.inside = layers.Conv2D(3, 3)

    def call(self, inputs):
        return self.inside(inputs)


def refused(kind):
    photos = keras.Input((32, 32, 3))
    conv = layers.Conv2D(3, 3, padding="same")
    if kind == "subclassed":
        network = Subclassed()
        network(PHOTOS)
        return network
    if kind == "grey":
        photos = keras.Input((32, 32, 1))
    makes = {
        "custom": lambda: Mine()(conv(photos)),
        "lambda": lambda: layers.Lambda(lambda x: 2 * x)(conv(photos)),
        "shared": lambda: conv(conv(photos)),
        "grey": lambda: conv(photos),
        "two outputs": lambda: [conv(photos), layers.MaxPooling2D()(photos)],
        "tokens": lambda: layers.MultiHeadAttention(1, 2)(*[layers.Reshape((-1, 3))(conv(photos))] * 2),
        "nothing": lambda: layers.MaxPooling2D()(photos),
    }
    return keras.Model(photos, makes[kind]())


@pytest.mark.parametrize(
    "kind, words",
    [
        ("custom", "not Keras' own: Mine.*Rebuild"),
        ("subclassed", "not Keras' own: Subclassed"),
        ("lambda", "a Lambda layer.*Write it with Keras' own layers"),
        ("shared", "is used twice.*without shared layers"),
        ("grey", r"\(None, 32, 32, 1\).*needs one input of RGB"),
        ("two outputs", "2 outputs"),
        ("tokens", "does not end in a feature map"),
        ("nothing", "nothing to train"),
    ],
)
def test_what_is_refused_says_what_to_do(tmp_path, kind, words):
    path = saved(refused(kind), tmp_path / "mine.keras")
    with pytest.raises(UnsupportedNetwork, match=words) as refusal:
        load_pretrained(path, 32, "imagenet", "none")
    assert str(refusal.value).count("backbone = ") == 1


@pytest.mark.parametrize("content", [None, b"", b"rubbish", b"PK\x03\x04 and no more"])
def test_a_file_that_is_no_network(tmp_path, content):
    path = tmp_path / "mine.keras"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnknownBackbone, match="no such file" if content is None else "not a .keras file"):
        backbones.get(str(path))


# Files that others have made to do harm

FUNCTION = {"class_name": "function", "registered_name": None}
CLASSES = {  # what the convolution becomes, and what is said of it
    "os": ({"class_name": "system", "module": "os", "registered_name": "x"}, "not Keras' own: system"),
    "builtins": ({"class_name": "eval", "module": "builtins", "registered_name": "x"}, "not Keras' own: eval"),
    "no text": ({"class_name": ["x"], "module": 5}, "not Keras' own"),
    "nested": ({"class_name": "Lambda", "module": "keras.layers", "config": [1]}, "a Lambda layer"),
    "saved model": ({"class_name": "TFSMLayer", "module": "keras.layers"}, "a TFSMLayer layer"),
    "pickle": ({"class_name": "TorchModuleWrapper", "module": "keras.layers"}, "a TorchModuleWrapper layer"),
    "a file's words": (
        {"class_name": "StringLookup", "module": "keras.layers", "config": {"vocabulary": "/etc/passwd"}},
        "a StringLookup layer.*another file",
    ),
}
SETTINGS = {  # what is changed in the convolution's configuration
    "a download": ({"activation": FUNCTION | {"module": "keras.utils", "config": "get_file"}}, "own: get_file"),
    "no safe mode": (
        {"activation": FUNCTION | {"module": "keras.config", "config": "enable_unsafe_deserialization"}},
        "own: enable_unsafe",
    ),
    "a loader": ({"activation": FUNCTION | {"module": "keras.src.saving.saving_api", "config": "load_model"}}, "own: "),
    "eval": ({"activation": FUNCTION | {"module": "builtins", "config": "eval"}}, "cannot load it"),
    "code": ({"activation": {"class_name": "__lambda__", "config": {"value": ["4wE=", None, None]}}}, "__lambda__"),
    "a process": ({"activation": {"class_name": "__typespec__", "module": "subprocess", "config": []}}, "__typespec__"),
    "huge": ({"filters": 10**9}, r"28000000000 weights, and the file has [\d,]+ bytes"),
    "endless": ({"filters": 10**400}, "weights, and the file has"),
    "less than none": ({"filters": -4}, "cannot load it"),
}
CONTENTS = {  # the file's whole configuration
    "deep": ("[" * 100_000, "not a .keras file"),
    "deeper": ('{"class_name":' * 100_000, "not a .keras file"),
    "a list": ("[1, 2]", "not a .keras file"),
    "nothing": ("null", "not a .keras file"),
    "empty": ("{}", "cannot load it"),
    "no text": (b"\xff\xfe\x00", "not a .keras file"),
    "a bomb": (b" " * (2**26 + 1), "config.json has 67,108,865 bytes"),
}


def virtual(folder: Path, group: h5py.Group) -> None:
    layout = h5py.VirtualLayout((3, 3, 3, 4), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "x", (3, 3, 3, 4))
    group.create_virtual_dataset("0", layout)


KERNELS = {  # what the convolution's kernel becomes
    "external link": (lambda folder, group: group.__setitem__("0", h5py.ExternalLink("secret.h5", "x")), "elsewhere"),
    "soft link": (lambda folder, group: group.__setitem__("0", h5py.SoftLink("/layers")), "leads elsewhere"),
    "external data": (
        lambda folder, group: group.create_dataset("0", (3, 3, 3, 4), "f4", external=[(folder / "secret.h5", 0, 432)]),
        "'layers/conv2d/vars/0' is read from another file",
    ),
    "virtual data": (virtual, "is read from another file"),
    "huge": (
        lambda folder, group: group.create_dataset("0", (900, 1000, 1000), "f4", chunks=(1, 1000, 1000)),
        r"3,6[\d,]+ bytes of weights in a file of",
    ),
    "not a number": (lambda folder, group: group.create_dataset("0", data=np.full((3, 3, 3, 4), np.nan)), "no numbers"),
    "infinite": (lambda folder, group: group.create_dataset("0", data=np.full((3, 3, 3, 4), np.inf)), "are infinite"),
    "text": (lambda folder, group: group.create_dataset("0", data=np.full((3, 3, 3, 4), b"x")), "cannot load it"),
    "another shape": (lambda folder, group: group.create_dataset("0", data=np.ones((3, 3, 3, 5))), "cannot load it"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, bytes]:
    """The parts of a small network's file."""
    photos = keras.Input((32, 32, 3))
    path = tmp_path_factory.mktemp("plain") / "mine.keras"
    keras.Model(photos, layers.Conv2D(4, 3, name="conv2d")(layers.Rescaling(1 / 255)(photos))).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def hostile(plain, kind, name, folder) -> dict[str, bytes | str]:
    """Make the parts of a hostile network's file."""
    parts, configuration = dict(plain), json.loads(plain["config.json"])
    convolution = configuration["config"]["layers"][2]
    if kind is CONTENTS:
        parts["config.json"] = kind[name][0]
        return parts
    if kind is CLASSES:
        convolution |= kind[name][0]
    elif kind is SETTINGS:
        convolution["config"] |= kind[name][0]
    else:
        content = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(content, "r+") as weights:
            del weights["layers/conv2d/vars/0"]
            kind[name][0](folder, weights["layers/conv2d/vars"])
        parts["model.weights.h5"] = content.getvalue()
    return parts | {"config.json": json.dumps(configuration)}


HOSTILE = [(kind, name) for kind in (CLASSES, SETTINGS, CONTENTS, KERNELS) for name in kind]


@pytest.mark.parametrize("kind, name", HOSTILE, ids=[name for _, name in HOSTILE])
def test_a_hostile_network_is_refused_before_it_does_anything(tmp_path, plain, kind, name):
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["x"] = np.ones((3, 3, 3, 4), np.float32)
    path = tmp_path / "mine.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, content in hostile(plain, kind, name, tmp_path).items():
            archive.writestr(part, content)
    with pytest.raises((UnsupportedNetwork, UnknownBackbone), match=kind[name][1]):
        load_pretrained(str(path), 32, "imagenet")


def test_weights_that_expand_or_are_missing_are_refused(tmp_path, plain):
    for weights, said in (
        (bytes(2**27), "times as many or more"),
        (plain["model.weights.h5"][:2000], "not weights of Keras"),
    ):
        with zipfile.ZipFile(tmp_path / "mine.keras", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", plain["config.json"])
            archive.writestr("model.weights.h5", weights)
        with pytest.raises(UnsupportedNetwork, match=said):
            load_pretrained(str(tmp_path / "mine.keras"), 32, "imagenet")


@pytest.mark.parametrize("name", [name for name, (_, said) in KERNELS.items() if "load" not in said])
def test_hostile_weights_of_a_network_that_is_known_are_refused(tmp_path, name):
    network = backbones.get("mobilenet").build(32)
    network.save_weights(tmp_path / "mine.weights.h5")
    with h5py.File(tmp_path / "mine.weights.h5", "r+") as weights:
        del weights["layers/conv2d/vars/0"]
        if name in ("not a number", "infinite"):
            weights["layers/conv2d/vars/0"] = np.full((3, 3, 3, 32), np.inf if name == "infinite" else np.nan)
        else:
            KERNELS[name][0](tmp_path, weights["layers/conv2d/vars"])
    with pytest.raises(WeightsMismatch, match=f"weights = .*{KERNELS[name][1]}"):
        load_pretrained("mobilenet", 32, str(tmp_path / "mine.weights.h5"))


def test_the_content_names_a_network_and_not_its_folder(tmp_path):
    path = saved(model(), tmp_path / "mine.keras")
    (tmp_path / "elsewhere").mkdir()
    other = shutil.copy(path, tmp_path / "elsewhere" / "mine.keras")
    first, second = (load_pretrained(name, 32, "imagenet")[1] for name in (path, str(other)))
    assert first == second
    again = load_pretrained(saved(model(), path), 32, "imagenet")[1]
    assert again["network_sha256"] != first["network_sha256"]
    assert again["tensors_sha256"] != first["tensors_sha256"]


def test_weights_of_a_file(tmp_path):
    network = model()
    path = saved(network, tmp_path / "mine.keras")
    own, random = (load_pretrained(path, 32, weights)[0] for weights in ("imagenet", "none"))
    assert not np.array_equal(own.get_layer("last").kernel, random.get_layer("last").kernel)
    keras.Model(network.inputs, network.get_layer("last").output).save_weights(tmp_path / "own.weights.h5")
    loaded, _ = load_pretrained(path, 32, str(tmp_path / "own.weights.h5"))
    assert np.array_equal(own.get_layer("last").kernel, loaded.get_layer("last").kernel)
    with pytest.raises(WeightsMismatch, match="holds a network.*Set backbone to"):
        load_pretrained("mobilenet", 32, path)
    with pytest.raises(WeightsNotFound, match="'demo'"):
        load_pretrained(path, 32, "demo")


def test_a_tensor_of_an_operation_with_several(tmp_path):
    photos = keras.Input((32, 32, 3))
    first, second = keras.ops.split(layers.Conv2D(8, 3, padding="same")(photos / 255.0), 2, axis=-1)
    network = keras.Model(photos, layers.Conv2D(4, 3, padding="same", name="last")(first) + second)
    base, _ = load_pretrained(saved(network, tmp_path / "split.keras"), 32, "imagenet")
    whole = add_head(base, 3)
    unfreezing.unfreeze(base, [base.get_layer("last")])
    assert len(graph.cut(whole).frontier) == 2
    cut, uncut = losses(whole, PHOTOS, np.array([0, 1]))
    np.testing.assert_allclose(cut, uncut, rtol=1e-5)


def test_an_experiment_with_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "cache"))
    path = saved(model(inner=True), tmp_path / "my network.keras")
    monkeypatch.setattr("thaw.training.setup.photos_of", lambda _: made_up_data(32))
    experiment = Experiment.of(
        {"backbone": path, "strategy": "blocks", "amount": 1, "image_size": 32, "batch_size": 4, "activations": "keep"}
        | {"head_epochs": 1, "finetune_epochs": 1}
    )
    made = Setup.of(experiment, lambda line: None)
    result = phases.train(made)
    assert np.isfinite(result.history["train_loss"]).all()
    assert all(note["cached"] for note in result.activations.values())
    assert made.pretrained["network_file"] == "my network.keras"


def test_the_study_s_precision_and_not_that_of_the_file(tmp_path):
    path = saved(model(), tmp_path / "mine.keras")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        base, _ = load_pretrained(path, 32, "imagenet")
        assert base.output.dtype == "bfloat16"
        assert all(weight.dtype == "float32" for weight in base.weights)
        halved = saved(model(), tmp_path / "halved.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    exact, _ = load_pretrained(path, 32, "imagenet")
    np.testing.assert_allclose(base(PHOTOS), exact(PHOTOS), rtol=0.1, atol=0.05)
    assert load_pretrained(halved, 32, "imagenet")[0].output.dtype == "float32"


def test_augmentation_inside_a_network_is_off_where_it_is_frozen(tmp_path):
    photos = keras.Input((32, 32, 3))
    x = layers.RandomFlip()(layers.Rescaling(1 / 255)(photos))
    network = keras.Model(photos, layers.Conv2D(4, 3, name="last")(x))
    base, _ = load_pretrained(saved(network, tmp_path / "mine.keras"), 32, "imagenet")
    whole = add_head(base, 3)
    unfreezing.unfreeze(base, [base.get_layer("last")])
    np.testing.assert_array_equal(base(PHOTOS, training=True), base(PHOTOS, training=False))
    assert next(iter(graph.cut(whole).frontier)).startswith("random_flip")
    unfreezing.unfreeze(base, base.layers)
    plain = base(PHOTOS, training=False)
    assert not all(np.allclose(base(PHOTOS, training=True), plain) for _ in range(20)), "some photo is flipped"
    assert not graph.cut(whole).has_frozen_part
