"""Parameters: what is allowed, and what is said of what is not."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.errors import InvalidParameter, did_you_mean
from thaw.experiment import Experiment, parameters_in
from thaw.study.study import Study

GOOD = {"backbone": "mobilenet", "strategy": "blocks", "amount": 2}


@pytest.mark.parametrize(
    "bad, words",
    [
        ({"strategy": "block"}, ["'block'", "Did you mean 'blocks'?", "frozen, layers"]),
        ({"finetune_epoch": 3}, ["finetune_epoch: no such parameter", "Did you mean 'finetune_epochs'?"]),
        ({"amount": -1}, ["amount = -1", "greater than or equal to 0"]),
        ({"amount": 0}, ["amount = 0", "needs 1 or more"]),
        ({"strategy": "frozen"}, ["amount = 2", "Set amount to 0"]),
        ({"head_epochs": 0}, ["head_epochs = 0", "greater than or equal to 1"]),
        ({"finetune_epochs": 0}, ["finetune_epochs = 0", "nothing would be fine-tuned"]),
        ({"image_size": 16}, ["image_size = 16", "32"]),
        ({"image_size": 96.5}, ["image_size = 96.5"]),
        ({"head_learning_rate": 2.0}, ["head_learning_rate = 2.0", "1"]),
        ({"finetune_learning_rate": -1e-5}, ["finetune_learning_rate = -1e-05", "greater than 0"]),
        ({"head_learning_rate": float("nan")}, ["head_learning_rate = nan"]),
        ({"precision": "bfloat16"}, ["Did you mean 'mixed_bfloat16'?"]),
        ({"max_examples": 5}, ["max_examples = 5", "20"]),
        ({"seed": "one"}, ["seed = 'one'"]),
        ({"backbone": None}, ["backbone = None"]),
        ({"dataset": "../flowers"}, ["dataset = '../flowers'", "Give one of TFDS"]),
        ({"weights": "a\nb.h5"}, ["weights = 'a\\nb.h5'", "rename the file"]),
        ({"output_dir": "a\x00b"}, ["output_dir = 'a\\x00b'", "control character"]),
        ({"head_learning_rate": True}, ["head_learning_rate = True", "not a number"]),
        ({1: 2}, ["1: no such parameter"]),
        ({"strategy": "frozen", "amount": 0, "trains": "norm"}, ["trains = 'norm'", "Set trains to everything"]),
        ({"strategy": "frozen", "amount": 0, "batchnorm": "frozen"}, ["batchnorm = 'frozen'", "unfreezes nothing"]),
        ({"strategy": "all"}, ["amount = 2", "does not count"]),
        ({"strategy": "all", "amount": 0, "skip": 1}, ["skip = 1", "does not count"]),
        ({"strategy": "pattern", "amount": 0}, ["pattern = None", "needs a regular expression"]),
        ({"pattern": "conv"}, ["pattern = 'conv'", "no other strategy takes one"]),
        ({"strategy": "pattern", "amount": 0, "pattern": "("}, ["pattern = '('", "not a regular expression"]),
        ({"copies": 4}, ["copies = 4", "without augmentation"]),
        ({"gradual": True, "finetune_epochs": 1}, ["gradual = True", "2 finetune_epochs or more"]),
        ({"rate_decay": 0}, ["rate_decay = 0", "greater than 0"]),
        ({"preprocessing": "01"}, ["preprocessing = '01'", "0-1, caffe, network, none, tf, torch"]),
        ({"dataset": "folder:"}, ["dataset = 'folder:'", "has no path"]),
        ({"dataset": "table:photos.txt"}, ["table:FILE.csv"]),
        ({"dataset": "/home/me/photos"}, ["For your own photos give folder:PATH"]),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(bad, words):
    with pytest.raises(InvalidParameter) as caught:
        Experiment.of(GOOD | bad)
    for word in words:
        assert word in str(caught.value)


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(InvalidParameter) as caught:
        Experiment.of({"backbone": "mobilenet", "strategy": "layers", "amount": 3, "batch_size": 0, "weight": "none"})
    assert "batch_size = 0" in str(caught.value)
    assert "Did you mean 'weights'?" in str(caught.value)


def test_a_rate_that_yaml_reads_as_text_is_a_number():
    assert Experiment.of(GOOD | {"finetune_learning_rate": "1e-5"}).finetune_learning_rate == 1e-5


@pytest.mark.parametrize(
    "parameters, label, epochs, control",
    [
        (GOOD, "Strategy B (2 blocks)", 20, False),
        (GOOD | {"strategy": "layers", "amount": 1}, "Strategy A (1 layer)", 20, False),
        ({"backbone": "resnet50", "strategy": "frozen", "finetune_epochs": 0}, "Frozen, 5 epochs", 5, False),
        ({"backbone": "resnet50", "strategy": "frozen"}, "Frozen, 20 epochs", 20, True),
    ],
)
def test_labels(parameters, label, epochs, control):
    experiment = Experiment.of(parameters)
    assert (experiment.label, experiment.epochs, experiment.control) == (label, epochs, control)
    assert experiment.plain


@pytest.mark.parametrize(
    "parameters, label, phrase, short",
    [
        ({}, "Strategy B (2 blocks)", "the last 2 blocks", "B-2"),
        ({"skip": 3}, "Strategy B (2 blocks before the last 3)", "the 2 blocks before the last 3", "B-2/3"),
        ({"strategy": "all", "amount": 0}, "All layers", "all layers", "all"),
        (
            {"strategy": "pattern", "amount": 0, "pattern": "^conv"},
            "Layers like ^conv",
            "the layers like ^conv",
            "^conv",
        ),
        (
            {"trains": "norm", "batchnorm": "frozen"},
            "Strategy B (2 blocks), normalization layers only, BatchNorm's statistics frozen",
            "the last 2 blocks (normalization layers only, BatchNorm's statistics frozen)",
            "B-2 norm BN frozen",
        ),
        (
            {"augmentation": "standard", "copies": 4, "rate_decay": 0.5},
            "Strategy B (2 blocks), rates times 0.5 a block, 4 sets of augmented photos",
            "the last 2 blocks (rates times 0.5 a block, 4 sets of augmented photos)",
            "B-2 ×0.5 standard 4×",
        ),
    ],
)
def test_a_configuration_is_named_by_all_that_sets_it_apart(parameters, label, phrase, short):
    experiment = Experiment.of(GOOD | parameters)
    assert (experiment.label, experiment.phrase, experiment.short) == (label, phrase, short)
    assert experiment.plain == (not parameters)


def test_runs_of_one_configuration_differ_in_their_seed_alone():
    first, other_seed, other = (Experiment.of(GOOD | more) for more in ({}, {"seed": 1}, {"keep": "best"}))
    assert first.configuration == other_seed.configuration != other.configuration
    assert len({first.digest, other_seed.digest, other.digest}) == 3


def test_a_network_s_name_is_read_in_any_case_and_a_file_s_path_as_it_is():
    assert Experiment.of(GOOD | {"backbone": "MobileNetV2"}).backbone == "mobilenetv2"
    assert Experiment.of(GOOD | {"backbone": "Mine/Best.keras"}).backbone == "Mine/Best.keras"


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.lists(st.integers())),
        max_size=5,
    )
)
def test_rubbish_never_gets_through_nor_breaks_anything(rubbish):
    with pytest.raises(InvalidParameter):
        Experiment.of({"strategy": "blocks"} | rubbish | {"batch_size": 0})


def test_the_parameters_of_a_notebook_are_its_plain_values():
    namespace = {
        "backbone": "mobilenet",
        "amount": 2,
        "output_dir": None,
        "study": {"seeds": [0]},
        "_i1": "x",
        "In": [],
        "print": print,
    }
    assert parameters_in(namespace) == {"backbone": "mobilenet", "amount": 2, "output_dir": None}


def test_did_you_mean_names_all_that_is_allowed():
    assert (
        did_you_mean("blocs", ["frozen", "layers", "blocks"])
        == "Did you mean 'blocks'? Allowed: blocks, frozen, layers."
    )
    assert did_you_mean("zzz", ["b", "a"]) == "Allowed: a, b."


@pytest.mark.parametrize("dataset", ["tf_flowers", "caltech101:3.0.1", "imagenet_v2/top-images:3.0.0", "kaggle:mnist"])
def test_names_of_data_sets(dataset):
    assert Experiment.of(GOOD | {"dataset": dataset}).dataset == dataset


class WithOneMore(Experiment):
    """What `Experiment` becomes when a parameter joins."""

    made_up: int = 7


def test_a_parameter_that_joins_changes_no_digest_unless_it_is_used():
    assert WithOneMore.of(GOOD).digest == Experiment.of(GOOD).digest
    assert WithOneMore.of(GOOD | {"made_up": 8}).digest != Experiment.of(GOOD).digest


@pytest.mark.parametrize("model", [Experiment, WithOneMore])
def test_the_committed_runs_are_found_as_they_are(model, monkeypatch):
    monkeypatch.setattr("thaw.study.study.Experiment", model)
    monkeypatch.setattr("thaw.records.record.Experiment", model)
    jobs = Study.load("paper").jobs
    there = {path.name for path in Path("outputs", "paper", "runs").iterdir()}
    assert {job.directory.name for job in jobs} == there
    for job in jobs:
        of_folds = {experiment.fold: experiment.digest for experiment in job.experiment.in_turn()}
        for run in job.read():
            assert run.record.experiment.digest == of_folds[run.record.experiment.fold]
