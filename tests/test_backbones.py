"""The networks and their weights."""

import hashlib
import json

import numpy as np
import pytest
from conftest import has_weights

from thaw.errors import UnknownBackbone, WeightsMismatch, WeightsNotFound
from thaw.experiment import Experiment
from thaw.network import backbones, pretrained, unfreezing
from thaw.network.head import add_head
from thaw.network.pretrained import find_weights, load_pretrained

VGG16 = backbones.Backbone(
    name="vgg16",
    title="VGG16",
    module="keras.applications.vgg16",
    builder="VGG16",
    block=r"(block\d)_",
    about="a plain chain of convolutions in five blocks",
)


def test_a_third_backbone_is_an_entry_in_the_registry(monkeypatch, tiny):
    monkeypatch.setitem(backbones.REGISTRY, "vgg16", VGG16)
    base, _ = load_pretrained("vgg16", 32, "none")
    assert list(VGG16.blocks(base)) == ["block1", "block2", "block3", "block4", "block5"]
    chosen = unfreezing.unfrozen(base, VGG16, Experiment.of({"backbone": "vgg16", "strategy": "blocks", "amount": 1}))
    assert [layer.name for layer in chosen] == ["block5_conv1", "block5_conv2", "block5_conv3", "block5_pool"]
    assert VGG16.preprocess(np.full((1, 2, 2, 3), 255.0, np.float32)).max() < 255
    assert add_head(base, 3).output_shape == (None, 3)


def test_an_unknown_backbone():
    with pytest.raises(UnknownBackbone, match="'mobilenetv5'.*Did you mean 'mobilenetv2'"):
        load_pretrained("mobilenetv5", 32, "none")


def test_weights_from_a_path_come_with_their_description(tmp_path):
    import keras

    saved = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(32, 32, 3))
    path = tmp_path / "mine.weights.h5"
    saved.save_weights(path)
    about = {
        "title": "Mine",
        "official": False,
        "description": "Made for a test.",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    path.with_name("mine.json").write_text(json.dumps(about), encoding="utf-8")
    base, provenance = load_pretrained("mobilenet", 64, str(path))
    assert all(np.array_equal(a, b) for a, b in zip(base.get_weights(), saved.get_weights()))
    assert provenance["title"] == "Mine"
    assert len(provenance["tensors_sha256"]) == 64

    path.with_name("mine.json").write_text(json.dumps(about | {"sha256": "0" * 64}), encoding="utf-8")
    with pytest.raises(WeightsMismatch, match="another file"):
        load_pretrained("mobilenet", 64, str(path))


def test_weights_that_are_not_there():
    with pytest.raises(WeightsNotFound, match="'nowhere.h5': there is no such file.*imagenet"):
        load_pretrained("mobilenet", 32, "nowhere.h5")
    with pytest.raises(WeightsNotFound, match="'imagnet'.*Did you mean 'imagenet'"):
        load_pretrained("mobilenet", 32, "imagnet")


def test_a_relative_path_of_weights_starts_at_the_project_wherever_a_command_runs(tmp_path, monkeypatch):
    (tmp_path / "params" / "profiles").mkdir(parents=True)
    (tmp_path / "mine.h5").touch()
    monkeypatch.chdir(tmp_path / "params")
    assert find_weights("mobilenet", "mine.h5")[0] == tmp_path / "mine.h5"


def test_weights_of_a_network_with_a_longer_name_are_not_taken_for_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("THAW_WEIGHTS_DIR", raising=False)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5").touch()
    assert [pretrained.on_disk(name) for name in ("mobilenetv2", "mobilenet", "mobilenetv3small")] == [
        True,
        False,
        False,
    ]
    (tmp_path / "models" / "mobilenet_1_0_224_tf_no_top.h5").touch()
    assert pretrained.on_disk("mobilenet")


@pytest.mark.parametrize("rubbish", [b"", b"not HDF5 at all"])
def test_weights_that_do_not_fit(tmp_path, rubbish):
    path = tmp_path / "wrong.h5"
    path.write_bytes(rubbish)
    with pytest.raises(WeightsMismatch, match="not weights of Keras"):
        load_pretrained("mobilenet", 32, str(path))


def test_weights_of_another_network_do_not_fit(monkeypatch, tmp_path):
    monkeypatch.setitem(backbones.REGISTRY, "vgg16", VGG16)
    path = tmp_path / "resnet50.h5"  # in a folder of ImageNet weights, under a wrong name
    VGG16.build(32).save_weights(tmp_path / "vgg16.weights.h5")
    (tmp_path / "vgg16.weights.h5").rename(path)
    monkeypatch.setenv("THAW_WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(WeightsMismatch, match="does not fit ResNet50"):
        load_pretrained("resnet50", 32, "imagenet")


def test_keras_own_weights_are_the_224_pixel_ones_at_every_size(monkeypatch):
    """Keras has other ImageNet weights for MobileNet at 128 pixels."""
    import keras

    asked = []

    def instead_of_a_download(weights, include_top, input_shape):
        asked.append((weights, input_shape))
        return original(weights=None, include_top=include_top, input_shape=input_shape)

    import keras.applications.mobilenet as module

    original = module.MobileNet
    monkeypatch.setattr(module, "MobileNet", instead_of_a_download)
    monkeypatch.setattr(pretrained, "on_disk", lambda name: True)
    monkeypatch.delenv("THAW_WEIGHTS_DIR", raising=False)
    base, provenance = load_pretrained("mobilenet", 128, "imagenet")
    assert ("imagenet", (224, 224, 3)) in asked
    assert isinstance(base, keras.Model)
    assert base.input_shape == (None, 128, 128, 3)
    assert provenance["official"]


HALF = """
import os, pathlib, sys
folder = pathlib.Path(os.environ["KERAS_HOME"], "models")
folder.mkdir()
(folder / f"{sys.argv[1]}_1_0_224_tf_no_top.h5").write_bytes(b"half")
"""


@pytest.mark.parametrize("end, left", [("raise OSError('no route to host')", []), ("", [b"half"])])
def test_half_of_a_download_is_never_taken_for_weights(monkeypatch, tmp_path, end, left):
    """Keras writes to a file's own name, and of MobileNet's it knows no hash."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("THAW_WEIGHTS_DIR", raising=False)
    monkeypatch.setattr(pretrained, "_DOWNLOAD", HALF + end)
    monkeypatch.setattr(backbones.Backbone, "build", lambda *_, **__: "built")
    if left:
        assert pretrained._download(backbones.get("mobilenet")) == "built"
    else:
        with pytest.raises(WeightsNotFound, match="no route to host"):
            pretrained._download(backbones.get("mobilenet"))
    assert [path.read_bytes() for path in (tmp_path / "models").iterdir()] == left
    assert pretrained.on_disk("mobilenet") == bool(left)


def test_weights_that_cannot_be_fetched(monkeypatch):
    import keras.applications.mobilenet as module

    original = module.MobileNet

    def offline(weights, **keywords):
        if weights:
            raise OSError("URL fetch failure")
        return original(weights=None, **keywords)

    monkeypatch.setattr(module, "MobileNet", offline)
    monkeypatch.delenv("THAW_WEIGHTS_DIR", raising=False)
    with pytest.raises(WeightsNotFound, match="URL fetch failure.*THAW_WEIGHTS_DIR"):
        load_pretrained("mobilenet", 64, "imagenet")


def test_weights_of_the_demo_are_read_as_they_are_on_disk():
    base, provenance = load_pretrained("mobilenet", 96, "demo")
    assert all(np.array_equal(tensor, tensor.astype(np.float16)) for tensor in base.get_weights())
    assert all(tensor.dtype == np.float32 and np.ptp(tensor) > 0 for tensor in base.get_weights())
    assert "16 bits" in provenance["title"]
    assert not provenance["official"]


@has_weights
def test_weights_of_the_demo_are_the_imagenet_weights_rounded():
    rounded, _ = load_pretrained("mobilenet", 96, "demo")
    base, _ = load_pretrained("mobilenet", 96, "imagenet")
    for exact, tensor in zip(base.get_weights(), rounded.get_weights(), strict=True):
        assert np.array_equal(exact.astype(np.float16), tensor)


def test_a_network_without_weights_of_the_demo():
    with pytest.raises(WeightsNotFound, match="weights = 'demo': .*none of ResNet50.*mobilenet"):
        load_pretrained("resnet50", 64, "demo")


@pytest.mark.parametrize(
    "name, weights",
    [
        ("mobilenet", "demo"),
        pytest.param("mobilenet", "imagenet", marks=has_weights),
        pytest.param("resnet50", "imagenet", marks=has_weights),
    ],
)
def test_pretrained_weights_give_features_that_tell_photos_apart(name, weights):
    base, provenance = load_pretrained(name, 64, weights)
    photos = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    features = base(backbones.get(name).preprocess(photos)).numpy()
    assert np.isfinite(features).all()
    assert features.std() > 0
    assert not np.allclose(features[0], features[1])
    assert {"title", "official", "description", "tensors_sha256"} <= set(provenance)
