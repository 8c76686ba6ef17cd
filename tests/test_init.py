"""`thaw init`: from a folder of photos to a profile that fits the minutes at hand."""

import shutil

import keras
import numpy as np
import pytest
import yaml
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from thaw.data.source import find_source
from thaw.errors import DataNotFound, InvalidParameter, ThawError
from thaw.experiment import Experiment
from thaw.network import backbones
from thaw.study import check, estimate
from thaw.study.init import LADDER, _divided, _quoted, choose, init
from thaw.study.study import Study
from thaw.training import machine

PHOTOS = {"train": 3000, "validation": 600, "test": 400}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of its own to write profiles into."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "params" / "configurations", root / "params" / "configurations")
    (root / "params" / "profiles").mkdir()
    monkeypatch.chdir(root)
    return root


def photos(folder, classes=("red one", "grün"), each=40):
    generator = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for photo in range(each):
            pixels = generator.integers(0, 256, (100, 120, 3), np.uint8)
            pixels[..., number] //= 2
            Image.fromarray(pixels).save(folder / name / f"{photo}.png")
    return folder


@given(st.lists(st.floats(1, 1e5), min_size=len(LADDER), max_size=len(LADDER)), st.floats(1, 1e5))
def test_the_most_work_that_fits_is_chosen(costs, limit):
    costs = sorted(costs, reverse=True)

    def seconds(choice):
        cost = costs[LADDER.index(choice)] if choice in LADDER else costs[-1]  # one division costs no more than folds
        return cost * ((choice.max_examples or 4000) / 4000)  # times 1 exactly

    choice = choose(LADDER, seconds, limit, PHOTOS)
    if costs[-1] <= limit:
        assert seconds(choice) <= limit
        assert choice == next(rung for rung, cost in zip(LADDER, costs, strict=True) if cost <= limit)
    else:
        assert 260 <= choice.max_examples < 4000, "fewer photos, and enough to train on"


@pytest.mark.parametrize(
    "classes, divided, folds",
    [({"a": 60, "b": 60}, False, 5), ({"a": 60, "b": 3}, False, 3), ({"a": 60, "b": 60}, True, 0)],
)
def test_folds_are_as_many_as_the_smallest_class_and_the_owner_s_parts_allow(tmp_path, classes, divided, folds):
    parts = ("train", "test") if divided else ("",)
    for name, count in classes.items():
        for part in parts:
            photos(tmp_path / part, [name], count)
    source = find_source(f"folder:{tmp_path}")
    assert source.divided == divided
    choice = _divided(LADDER[5], source)
    assert choice.folds == folds
    assert choice.tested == (folds or 1), "runs of each configuration"


@given(st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1) | st.sampled_from(["no", "On"]))
def test_any_path_passes_through_yaml(path):
    written = f"networks: [{_quoted(path)}, x]\nof: {{{_quoted(path)}: {_quoted('folder:/' + path)}}}"
    assert yaml.safe_load(written) == {"networks": [path, "x"], "of": {path: f"folder:/{path}"}}


@pytest.mark.parametrize("classes", [2, 100])
def test_of_few_photos_each_class_keeps_some(classes):
    least = choose(LADDER, lambda choice: 1e9, 60, PHOTOS, classes)
    assert least.max_examples == {2: 267, 100: 667}[classes], "200 or 5 of a class to train on"


def test_files_are_found_where_the_command_runs(tmp_path, project, monkeypatch):
    """A profile's relative paths start at the project's root; those of a command line where it is typed."""
    seen = {}
    monkeypatch.setattr(backbones, "get", lambda network, *_: seen.update(network=network))
    monkeypatch.setattr("thaw.study.init.find_source", lambda *_, **__: 1 / 0)
    (project / "mine.keras").touch()
    (project / "params" / "other.keras").touch()
    folder = photos(tmp_path / "photos", each=1)
    for here, typed, named in (
        (project, "mine.keras", "mine.keras"),
        (project / "params", "other.keras", str(project / "params" / "other.keras")),
        (project / "params", "mine.keras", "mine.keras"),
    ):
        monkeypatch.chdir(here)
        with pytest.raises(ZeroDivisionError):
            init(str(folder), [typed], 5, None, None, "tf", print)
        assert seen["network"] == named


def test_a_network_whose_last_blocks_compute_nothing_is_measured_all_the_same(tmp_path):
    inputs = keras.Input((64, 64, 3))
    features = keras.layers.Conv2D(8, 3, strides=4)(keras.layers.Rescaling(1 / 255)(inputs))
    for _ in range(3):
        features = keras.layers.PReLU(shared_axes=[1, 2])(features)
    keras.Model(inputs, features).save(tmp_path / "mine.keras")
    experiment = Experiment.of({"backbone": str(tmp_path / "mine.keras"), "strategy": "frozen", "image_size": 64})
    assert 0 < estimate.measure(experiment, 3).backward < 1000


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_folder_becomes_a_profile_that_a_study_can_run(tmp_path, project, monkeypatch, precision):
    lines = []
    monkeypatch.setattr(machine, "fastest_precision", lambda: precision)
    folder = photos(tmp_path / "My photos")
    path = init(str(folder), ["MobileNet"], 600, None, "none", "network", lines.append)
    assert path == project / "params" / "profiles" / "My-photos.yaml"
    text = "\n".join(lines)
    assert "80 photos in 2 classes (40 photos each)" in text
    assert "120 x 100 pixels" in text
    assert "thaw report My-photos" in text
    study = Study.load("My-photos", tmp_path / "outputs")
    assert {job.experiment.backbone for job in study.jobs} == {"mobilenet"}
    assert {job.experiment.dataset for job in study.jobs} == {f"folder:{folder}"}
    assert {job.experiment.weights for job in study.jobs} == {"none"}
    assert {job.experiment.precision for job in study.jobs} == {precision}
    assert {job.experiment.image_size for job in study.jobs} == {96}, "the photos have no more pixels"
    content = path.read_text(encoding="utf-8")
    assert all(
        "#" in line for line in content.splitlines() if line.startswith(("image_size", "max_examples", "precision"))
    )
    assert yaml.safe_load(content)["study"]["networks"] == ["mobilenet"]
    assert {len(job.experiment.tested_folds) for job in study.jobs} == {8}, "all that there is time for"
    assert study.settings.learning_rates and not any("learning_rate:" in line for line in content.splitlines())
    with pytest.raises(InvalidParameter, match="there is such a profile"):
        init(str(folder), ["mobilenet"], 5, None, "none", "network", lines.append)


@pytest.mark.parametrize(
    "flags, gpu, fastest, suits",
    [
        ("fpu avx512_bf16 fma", False, "mixed_bfloat16", True),
        ("fpu amx_bf16", False, "mixed_bfloat16", True),
        ("Features : fp bf16", False, "mixed_bfloat16", True),
        ("fpu avx2 fma", False, "float32", False),
        (None, False, "float32", True),
        ("fpu avx512_bf16", True, "float32", True),
    ],
)
def test_16_bits_are_for_processors_that_have_them(monkeypatch, flags, gpu, fastest, suits):
    def read(path, **_):
        if flags is None:
            raise FileNotFoundError(path)
        return flags

    monkeypatch.setattr(machine.Path, "read_text", read)
    monkeypatch.setattr(machine.tf.config, "list_physical_devices", lambda kind: ["a GPU"] * gpu)
    assert machine.fastest_precision() == fastest
    assert machine.suits("mixed_bfloat16") == suits and machine.suits("mixed_float16") == gpu


@pytest.mark.parametrize("fixed", [False, True])
def test_a_table_and_a_network_of_one_s_own_become_a_profile_that_its_check_accepts(tmp_path, project, fixed):
    folder = photos(tmp_path / "it's #1 {a}", each=40)
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    lines = ["path;label;group", *(f"{path};{path.split('/')[0]};{number // 2}" for number, path in enumerate(paths))]
    (folder / "My table.csv").write_text("\n".join(lines), encoding="utf-8")
    inputs = keras.Input((32, 32, 3))
    features = keras.layers.Conv2D(4, 4, strides=4, activation="relu")(inputs)
    features = keras.layers.Reshape((8, 8, 4))(features) if fixed else features
    keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(features))).save(project / "mine.keras")
    init(str(folder / "My table.csv"), ["mine.keras"], 60, None, None, "tf", lambda line: None)
    study = Study.load("My-table", tmp_path / "outputs")
    assert {job.experiment.dataset for job in study.jobs} == {f"table:{folder / 'My table.csv'}"}
    assert {job.experiment.preprocessing for job in study.jobs} == {"tf"}
    assert {job.experiment.image_size for job in study.jobs} == {32 if fixed else 96}, "a network may have one size"
    assert "mine-all-layers" in {job.configuration for job in study.jobs}
    assert not any("last-2-blocks" in job.configuration for job in study.jobs), "it has one block"
    check.check(study)


@pytest.mark.parametrize(
    "folder, options, error, words",
    [
        ("nowhere", {}, DataNotFound, "nowhere"),
        ("one", {}, ThawError, "one"),
        ("fine", {"networks": ["mobilnet"]}, ThawError, "Did you mean 'mobilenet'"),
        ("fine", {"weights": "nowhere.h5"}, ThawError, "'nowhere.h5': there is no such file"),
        ("fine", {"name": "a/b"}, InvalidParameter, "--name = 'a/b'"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_measured(
    tmp_path, project, monkeypatch, folder, options, error, words
):
    photos(tmp_path / "one", classes=["only"])
    photos(tmp_path / "fine", each=12)
    monkeypatch.setattr(estimate, "measure", lambda *_: pytest.fail("measured"))
    settings = {"networks": ["mobilenet"], "minutes": 5, "name": None, "weights": "none", "preprocessing": "network"}
    with pytest.raises(error, match=words):
        init(str(tmp_path / folder), log=lambda line: None, **settings | options)
    assert not list((project / "params" / "profiles").iterdir())


def test_more_work_takes_longer():
    first = Experiment.of({"backbone": "mobilenet", "strategy": "blocks", "amount": 2, "image_size": 64})
    speeds = {"mobilenet": estimate.measure(first, 3)}

    def seconds(at_once=1, seeds=1, tried=(0, 0), **changes):
        experiments = [first.model_copy(update={"seed": seed} | changes) for seed in range(seeds)]
        return estimate.seconds(experiments, PHOTOS, speeds, 1.0, at_once, tried)

    base = seconds()
    assert base > 0
    for more in (
        {"amount": 6},
        {"image_size": 128},
        {"finetune_epochs": 30},
        {"seeds": 2},
        {"strategy": "all", "amount": 0},
        {"augmentation": "standard"},
        {"folds": 5},
        {"folds": 5, "choosing_folds": 2, "tried": (5, 3)},
    ):
        assert seconds(**more) > base, more
    assert seconds(folds=10) > 1.5 * seconds(folds=5)
    assert seconds(folds=7, choosing_folds=2, tried=(5, 3)) > seconds(folds=7, choosing_folds=2)
    assert seconds(max_examples=1000) < base
    assert seconds(strategy="frozen", amount=0) < base
    assert seconds(seeds=4, at_once=2) < seconds(seeds=4)
