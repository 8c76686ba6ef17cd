"""Blocks, as they are found in the graph."""

import keras
import numpy as np
import pytest
from conftest import ROOT
from keras import layers

from thaw.__main__ import main
from thaw.errors import InvalidParameter
from thaw.network import backbones, blocks, graph
from thaw.network.pretrained import load_pretrained


def found(name, size=32):
    backbone = backbones.get(name)
    base = backbone.build(size)
    graph.name_operations(base)
    return base, backbone.blocks(base)


def test_residual_blocks_stem_and_closing_layers_of_mobilenetv2():
    _, of = found("mobilenetv2")
    assert list(of) == ["Conv1", "expanded_conv", *(f"block_{number}" for number in range(1, 17)), "Conv_1"]
    assert [layer.name for layer in of["Conv1"]] == ["Conv1", "bn_Conv1", "Conv1_relu"]
    begin = [layer.name.removeprefix("block_3_") for layer in of["block_3"]][:4]
    assert begin == ["expand", "expand_BN", "expand_relu", "pad"]
    assert [layer.name for layer in of["Conv_1"]] == ["Conv_1", "Conv_1_bn", "out_relu"]


def test_squeeze_and_excite_is_inside_its_block():
    _, of = found("efficientnetv2b0")
    assert next(iter(of)) == "stem" and list(of)[-1] == "top"
    assert "block4a_se_excite" in [layer.name for layer in of["block4a"]]
    assert [layer.name for layer in of["block4a"]][-1] == "block4a_project_bn"


def test_normalization_before_a_residual_block_belongs_to_it_and_that_at_the_end_to_the_last_block():
    _, of = found("resnet50v2")
    assert [layer.name for layer in of["conv3_block1"]][:2] == ["conv3_block1_preact_bn", "conv3_block1_preact_relu"]
    assert [layer.name for layer in list(of.values())[-1]][-2:] == ["post_bn", "post_relu"]


def test_groups_of_names_in_a_chain():
    _, of = found("vgg16")
    assert list(of) == ["block1", "block2", "block3", "block4", "block5"]
    assert [layer.name for layer in of["block5"]] == ["block5_conv1", "block5_conv2", "block5_conv3", "block5_pool"]


def test_graph_finds_the_same_residual_blocks_as_the_registry_s_expression():
    base, typed = found("resnet50")
    in_graph = blocks.find(base)
    assert list(in_graph)[1:] == list(typed)
    assert [in_graph[name] for name in typed] == list(typed.values())


def test_a_layer_with_weights_is_a_block_where_names_say_nothing():
    chain = keras.Sequential(
        [keras.Input((16, 16, 3)), layers.Conv2D(2, 3), layers.BatchNormalization(), layers.ReLU(), layers.Conv2D(2, 3)]
    )
    graph.name_operations(chain._functional)
    of = blocks.find(chain._functional)
    assert {name: len(members) for name, members in of.items()} == {"conv2d_op1": 3, "conv2d_op4": 1}


def test_the_table_counts_from_the_end():
    base, of = found("mobilenetv3small")
    rows = blocks.table(base, backbones.get("mobilenetv3small"))
    assert rows["block"].tolist() == list(of)
    assert rows["last"].tolist() == list(range(len(of), 0, -1))
    assert rows["parameters"].sum() == base.count_params() == rows["parameters_from_here"].iloc[0]
    assert rows["parameters_from_here"].iloc[-1] == rows["parameters"].iloc[-1]
    whole = graph.multiply_adds(base, [graph.steps(base)[-1].name])
    assert rows["multiply_adds"].sum() == whole > 1e6


def test_separable_and_nested_layers_count():
    """Keras' SeparableConv2D has two kernels, and ConvNeXt's stem is a network of its own."""
    photos = keras.Input((8, 8, 3))
    separable = keras.Model(photos, layers.SeparableConv2D(5, 3, padding="same", name="last")(photos))
    assert graph.multiply_adds(separable, ["last"]) == 64 * (9 * 3 + 3 * 5)
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 2, 2)], name="last")
    assert graph.multiply_adds(keras.Model(photos, inner(photos)), ["last"]) == 16 * 4 * 3 * 4


@pytest.mark.parametrize("name, least", [("inceptionv3", 75), ("xception", 71), ("mobilenetv2", 32)])
def test_photos_that_are_too_small(name, least):
    assert backbones.get(name).least == least
    if least > 32:
        with pytest.raises(InvalidParameter, match=rf"image_size = {least - 1}: \w+ needs {least} pixels.*Set image_"):
            load_pretrained(name, least - 1, "none")


def test_the_command(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["blocks", "VGG16", "--image-size", "32"]) == 0
    said = capsys.readouterr().out
    assert "5 blocks of 13 layers with weights" in said
    assert "block5" in said and "7,079,424" in said
    assert main(["blocks", "mobilnet"]) == 1
    assert "Did you mean 'mobilenet'" in capsys.readouterr().err


def test_imagenet_weights_of_efficientnet_act_as_in_keras_own_network(monkeypatch, tmp_path):
    """Keras adds a layer without weights where it loads these: a division by the root of the deviations."""
    import keras.src.applications.efficientnet as module

    random = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(32, 32, 3))
    layer = next(layer for layer in random.layers if isinstance(layer, layers.Normalization))
    layer.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(1)])
    path = tmp_path / "efficientnetb0.weights.h5"
    random.save_weights(path)
    monkeypatch.setattr(module.file_utils, "get_file", lambda *_, **__: str(path))
    expected = keras.applications.EfficientNetB0(weights="imagenet", include_top=False, input_shape=(32, 32, 3))
    assert any(layer.name.startswith("rescaling") for layer in expected.layers[3:5]), "the layer in question"
    monkeypatch.setenv("THAW_WEIGHTS_DIR", str(tmp_path))
    base, _ = load_pretrained("efficientnetb0", 32, "imagenet")
    photos = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(base(photos), expected(photos), rtol=1e-3, atol=1e-6)
    assert not np.allclose(base(photos), random(photos), rtol=1e-2, atol=1e-6)
