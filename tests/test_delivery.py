"""The network that a study leaves: which one, trained on what, with what card, and made again only if need be."""

import json
import shutil
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import TINY
from invented import BLOCKS, invented, of_somebody_else

from thaw.data.augmentation import with_copies
from thaw.data.photos import photos_of
from thaw.delivery import card
from thaw.delivery import deliver as delivering
from thaw.delivery.deliver import Choice, deliver
from thaw.disk.atomic import folder_whole
from thaw.disk.hashes import sha256_of
from thaw.errors import Diverged, InvalidParameter, InvalidRecord, ThawError
from thaw.network.saved import Saved
from thaw.report.answer import Answer
from thaw.report.display import markdown
from thaw.report.results import Results
from thaw.study import freshness
from thaw.study.study import Study


@pytest.fixture
def study(first_study, tmp_path):
    """A copy of the finished tiny study, network and all."""
    shutil.copytree(first_study / "outputs", tmp_path / "outputs", ignore=shutil.ignore_patterns(".snakemake"))
    return Study.load(str(TINY), tmp_path / "outputs")


def about(study) -> dict:
    return json.loads((study.outputs / "model" / "model.json").read_text(encoding="utf-8"))


def with_setting(study, **settings):
    return replace(study, settings=study.settings.model_copy(update=settings))


# ---- which one ----------------------------------------------------------------------------------


def test_the_recommended_is_the_cheapest_choice_of_a_network_that_is_clearly_better():
    for better in ("resnet50", "mobilenet"):

        def accuracy(backbone, strategy, amount, control, better=better):
            return 0.6 + 0.2 * (strategy == BLOCKS) + 0.1 * (backbone == better)

        results = invented(accuracy)
        row = results.recommended
        assert (row["backbone"], row["strategy"]) == (better, BLOCKS)
        assert row["configuration"] == results.cheapest(better)["configuration"]
    assert invented(lambda *_: 0.8).recommended["backbone"] == "mobilenet", "of equal ones the one that trains less"


def test_the_report_says_which_network_is_left():
    results = invented(lambda *_: 0.8)
    assert "folder model" not in Answer(results).write("choice")
    text = Answer(replace(results, delivers="recommended")).write("choice")
    assert f"**{markdown(results.recommended['phrase'])} of MobileNet**" in text
    assert "The advised network is trained once more" in text
    assert text.endswith("left in [the folder model](model/README.md).")
    one = replace(invented(lambda *_: 0.8, backbones=("mobilenet",)), delivers="recommended")
    assert "The network of the cheapest choice is trained once more" in Answer(one).write("choice")
    named = Answer(replace(results, delivers="resnet50-<b>")).write("choice")
    assert "The network of resnet50&#45;&#60;b&#62; is trained once more" in named


def test_a_profile_names_another_or_none(study, tmp_path):
    results = Results.of(study)
    assert Choice.of(study, results).row["configuration"] == results.recommended["configuration"]
    named = Choice.of(with_setting(study, deliver="mobilenet-blocks-2"), results)
    assert (named.name, named.experiment.strategy, named.experiment.amount) == ("mobilenet-blocks-2", "blocks", 2)
    profile = yaml.safe_load(TINY.read_text(encoding="utf-8"))
    for given, meant in (("none", None), (None, None), ("mobilenet-frozen", "mobilenet-frozen")):
        profile["study"]["deliver"] = given
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
        assert Study.load(str(tmp_path / "mine.yaml")).settings.deliver == meant
    profile["study"]["deliver"] = "mobilenet-blocks-3"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    with pytest.raises(InvalidParameter, match="no configuration of this study. Did you mean 'mobilenet-blocks-2'"):
        Study.load(str(tmp_path / "mine.yaml"))


def test_a_configuration_without_results_cannot_be_delivered(study):
    job = next(job for job in study.jobs if job.configuration == "mobilenet-blocks-2")
    shutil.rmtree(job.directory)
    with pytest.raises(InvalidRecord, match=r"'mobilenet-blocks-2': has no results to deliver \(it has not been run\)"):
        deliver(with_setting(study, deliver="mobilenet-blocks-2"))


# ---- what a study leaves ------------------------------------------------------------------------


def test_a_study_leaves_its_network(study, first_study):
    folder, found = study.outputs / "model", about(study)
    assert "The network, to use:" in (first_study / "said").read_text(encoding="utf-8")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*found["files"], "README.md", "model.json"])
    assert list(found["files"].values()) == sha256_of(folder / name for name in found["files"])
    photos = found["network"]["photos"]
    assert (photos["train"], photos["validation"], photos["test"]) == (68, 12, 0), "all of the 80 photos"
    assert len(pd.read_csv(folder / "history.csv")) == found["network"]["epoch"]
    assert found["tested"]["photos"] == 8
    networks = [Saved.load(str(folder / name)) for name in ("model.keras", "model.tflite")]
    assert {network.classes for network in networks} == {tuple(found["network"]["classes"])}
    photo = np.random.default_rng(0).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    np.testing.assert_allclose(*(network.probabilities(photo) for network in networks), atol=0.02)
    text = (folder / "README.md").read_text(encoding="utf-8")
    for name, digest in found["files"].items():
        assert f"| `{name}`" in text
        assert digest in text
    accuracy, low, high = (f"{100 * found['tested'][name]:.1f}%" for name in ("accuracy", "low", "high"))
    assert f"**{accuracy}**" in text
    assert f"95% interval: {low} to {high}" in text


def test_what_is_there_is_not_made_again(study, monkeypatch):
    assert freshness.model_is_current(study)
    assert not freshness.model_is_current(with_setting(study, deliver="mobilenet-blocks-2"))
    before = about(study)
    job = next(job for job in study.jobs if job.experiment.backbone == "mobilenet")
    notes = study.outputs / "probe-mobilenet.json"
    notes.write_text(notes.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert not freshness.model_is_current(study), "the card may say something else now"
    monkeypatch.setattr(delivering, "_network", lambda *_: pytest.fail(f"trained again, with {job}"))
    said = []
    deliver(study, said.append)
    assert said == [f"{before['configuration']} is trained already: only its card is written again"]
    assert freshness.model_is_current(study)
    assert about(study)["files"] == before["files"]


@pytest.mark.parametrize("name", ["model.keras", "labels.txt", "README.md", "model.json"])
def test_a_file_that_is_missing_or_changed_is_made_again(study, name):
    path = study.outputs / "model" / name
    if name != "README.md":  # whose text nobody reads
        path.write_bytes(path.read_bytes()[1:])
        assert not freshness.model_is_current(study)
    path.unlink()
    assert not freshness.model_is_current(study)


def test_nothing_is_left_half_written(study, monkeypatch):
    before = about(study)
    (study.outputs / "model" / "labels.txt").write_text("another\n", encoding="utf-8")

    def diverge(setup):
        raise Diverged("diverged")

    monkeypatch.setattr(delivering.phases, "train", diverge)
    with pytest.raises(Diverged):
        deliver(study, lambda line: None)
    assert about(study) == before, "what was there is kept"
    assert [path.name for path in study.outputs.glob(".model.*")] in ([], [".model.lock"])


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder"
    for content in ("first", "second"):
        with folder_whole(path) as unfinished:
            assert list(unfinished.iterdir()) == []
            (unfinished / "file").write_text(content)
        assert (path / "file").read_text() == content
    with pytest.raises(ZeroDivisionError), folder_whole(path) as unfinished:
        (unfinished / "file").write_text("third")
        raise ZeroDivisionError
    assert (path / "file").read_text() == "second"
    path.replace(tmp_path / ".folder.before")  # as if killed between two renames
    (tmp_path / ".folder.part").mkdir()
    with pytest.raises(ZeroDivisionError), folder_whole(path):
        raise ZeroDivisionError
    assert (path / "file").read_text() == "second"
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("what", ["photos", "weights"])
def test_other_photos_or_weights_than_the_study_s_are_refused(study, monkeypatch, what):
    shutil.rmtree(study.outputs / "model")
    choice = Choice.of(study, Results.of(study))
    data = photos_of(choice.experiment)
    changed = replace(data, provenance=data.provenance | ({"sha256": "0"} if what == "photos" else {}))
    monkeypatch.setattr(delivering, "photos_of", lambda experiment: changed)
    weights = "0" if what == "weights" else choice.record.weights["tensors_sha256"]
    setup = Namespace(pretrained={"tensors_sha256": weights})
    monkeypatch.setattr(delivering.Setup, "of", lambda *_: setup)
    with pytest.raises(ThawError, match=f"the {what} are others than those of the study's runs"):
        deliver(study, lambda line: None)
    assert not (study.outputs / "model").exists()


def test_no_folder_of_this_machine_is_given_away():
    own = invented(lambda *_: 0.8).experiment.model_copy(
        update={"dataset": "folder:/home/me/flowers", "backbone": "/home/me/own.keras", "weights": "/home/me/x.h5"}
    )
    shown = delivering._without_folders(own)
    assert (shown["dataset"], shown["backbone"], shown["weights"]) == ("folder:flowers", "own.keras", "x.h5")
    tfds = own.model_copy(update={"dataset": "cassava/set:1.0.0", "backbone": "mobilenet", "weights": "imagenet"})
    shown = delivering._without_folders(tfds)
    assert (shown["dataset"], shown["backbone"], shown["weights"]) == ("cassava/set:1.0.0", "mobilenet", "imagenet")


# ---- the photos ---------------------------------------------------------------------------------


def test_what_would_test_trains_too(tiny):
    found = replace(tiny, provenance=tiny.provenance | {"photos": {"available": 16}}).without_test()
    assert found.train.tolist() == [*range(8), *range(12, 16)]
    assert found.validation.tolist() == tiny.validation.tolist()
    assert len(found.test) == 0
    assert found.digest == tiny.digest, "activations are shared with the study's runs"
    assert found.provenance["photos"] == {"available": 16, "train": 12, "validation": 4, "test": 0}
    copied = with_copies(found, "flip", 2)
    assert copied.epochs.tolist() == [(16 * (1 + copy) + found.train).tolist() for copy in range(2)]
    assert copied.labels[copied.epochs[1]].tolist() == tiny.labels[found.train].tolist()


# ---- the card -----------------------------------------------------------------------------------

HOSTILE = ["<script>alert(1)</script>", "$(touch x) `id`", "a | b\n@files", "[link](http://x.y) **bold**", '"quoted"']


def test_no_name_of_a_class_means_anything_in_the_card():
    results = of_somebody_else([30, 20, 10, 5, 5], folds=3)
    row = results.recommended
    record = results.of_row(row)[0].record
    record = record.model_copy(update={"data": record.data | {"title": HOSTILE[0], "description": "from /photos/mine"}})
    described = {
        "profile": "mine",
        "experiment": record.experiment.model_dump(mode="json"),
        "files": {"model.keras": "0" * 64},
        "tested": {
            "accuracy": 0.9,
            "low": 0.8,
            "high": 0.95,
            "runs": 3,
            "folds": 3,
            "photos": 70,
            "recall": dict.fromkeys(HOSTILE, 0.5),
            "photos_of_class": dict.fromkeys(HOSTILE, 14),
        },
        "network": {
            "title": "own",
            "parameters": 100,
            "classes": HOSTILE,
            "image_size": 64,
            "epoch": 20,
            "photos": {"train": 60, "validation": 10, "test": 0, "available": 70},
            "validation_accuracy": 0.9,
            "same_class": [10, 10],
            "versions": {"keras": "3.15.1"},
        },
    }
    text = card.write(record, row, described)
    for bad in ("<script", "$(", "`id`", "[link]", "**bold", "a | b"):
        assert bad not in text
    assert text.count("\n@") == 0
    assert "3 folds" in text
    assert "/photos/mine" not in text, "where the photos are concerns nobody else"
    assert "not known to Thaw" in text
    tables = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert tables == [4] * (2 + len(HOSTILE)) + [3] * 3
    assert text.count("# ") >= 7


def test_the_profiles_of_the_project_deliver_what_they_recommend():
    delivers = {name: Study.load(name).settings.deliver for name in ("demo", "quick", "paper")}
    assert delivers == {"demo": "recommended", "quick": "recommended", "paper": "mobilenet-layers-10"}
