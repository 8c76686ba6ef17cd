"""Every network of `keras.applications` keeps the contract."""

import keras
import pytest
from contract import check_backbone

from thaw.network import backbones

QUICK = ("mobilenetv3small", "vgg16", "convnexttiny")
LONG = [name for name in backbones.names() if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in LONG)])
def test_a_network_builds_is_covered_by_its_blocks_trains_the_same_wherever_it_is_cut_and_can_be_saved(name):
    check_backbone(name)


def test_the_names_are_those_of_keras():
    """A class of keras.applications is a network if it builds one; the names are written down for speed."""
    there = {name.lower() for name in dir(keras.applications) if name[0].isupper()}
    assert set(backbones.names()) == there
    for module, builders in backbones.MODULES.items():
        found = getattr(keras.applications, module)
        assert callable(found.preprocess_input)
        for builder in builders.split():
            assert callable(getattr(found, builder, None) or getattr(keras.applications, builder))
