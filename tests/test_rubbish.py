"""Whatever is given as parameters: it is valid, or what is wrong with it is said in a few words."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from thaw.__main__ import main
from thaw.errors import InvalidParameter, ThawError, UnknownProfile
from thaw.experiment import Experiment
from thaw.study.study import Study

KNOWN = [path.stem for path in (ROOT / "params" / "profiles").iterdir()]
GOOD = {"backbone": "mobilenet", "strategy": "blocks", "amount": 2}
quickly = settings(
    deadline=None, derandomize=True, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

VALID = {
    "backbone": ["resnet50", "mobilenet"],
    "strategy": ["frozen", "layers", "blocks"],
    "amount": [0, 1, 5],
    "dataset": ["tf_flowers", "caltech101:3.0.1", "imagenet_v2/top-images", "huggingface:mnist/plain_text:1.0.0"],
    "weights": ["imagenet", "none", "/a folder/w.h5"],
    "image_size": [32, 224],
    "head_epochs": [1, 5],
    "finetune_epochs": [0, 15],
    "head_learning_rate": [1e-3, "1e-3", 1],
    "precision": ["float32"],
    "seed": [0, 2**31 - 1],
    "max_examples": [None, 20],
    "output_dir": [None, "out", Path("out")],
}
ODD = st.sampled_from(
    [math.nan, math.inf, -math.inf, -0.0, 10**400, -(10**400), 2**63, True, b"x", {1}, object, 1j, range(3)]
    + ["", " ", "..", "../../x", "/etc/passwd", "C:/x", "a/../b", "a\nb", "\x00", "\x1b[31m", "\ud800", "x" * 10**5]
    + ["tf_flowers/..", "~/x", "a//b", "$(x)", "nan", "1e999", "٣", "🌷", "\u202e"]
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from([*Experiment.model_fields, "study", "image_sise", "self", "model_config", "__class__", "a\nb"])
PARAMETERS = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) | ANY for name, values in VALID.items()}
) | st.dictionaries(NAMES | st.text(max_size=10) | st.integers() | st.none() | st.tuples(), ANY, max_size=6)


def assert_experiment(made: Experiment) -> None:
    """What the rest of the program relies on."""
    assert made.strategy in VALID["strategy"]
    assert (made.amount == 0) == (made.strategy == "frozen")
    assert 0 <= made.amount <= 100_000
    assert 0 < made.head_learning_rate <= 1
    assert 0 < made.finetune_learning_rate <= 1
    assert 32 <= made.image_size <= 1024
    assert 0 <= made.seed < 2**31
    assert made.epochs >= 1
    for text in (made.backbone, made.dataset, made.weights, str(made.output_dir)):
        assert text
        assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in text)
        text.encode("utf-8")
    assert ".." not in made.dataset
    assert not Path(made.dataset).is_absolute()
    assert "~" not in made.dataset
    assert Experiment.of(made.model_dump(mode="json")) == made
    assert made.label


def assert_said(error: ThawError, *names: str) -> None:
    """A message that a terminal may show."""
    message = str(error)
    assert 0 < len(message) < 4000
    assert "Traceback" not in message
    assert "pydantic" not in message
    assert all(letter.isprintable() or letter == "\n" for letter in message)
    assert not names or any(name in message for name in names)


def of(parameters: dict) -> None:
    """Build an experiment of this, or be told what is wrong."""
    try:
        made = Experiment.of(parameters)
    except InvalidParameter as error:
        assert_said(error, *Experiment.model_fields, "no such parameter")
    else:
        assert_experiment(made)


@given(PARAMETERS, st.booleans())
@settings(quickly, max_examples=1000)
def test_parameters_are_valid_or_refused(parameters, complete):
    of((GOOD if complete else {}) | parameters)


def endless() -> list:
    """A list that holds itself."""
    made = []
    made.append(made)
    return made


@pytest.mark.parametrize(
    "parameters",
    [
        {"amount": 10**5000},  # which Python does not write out
        {10**5000: 10**5000},
        {"precision": [10**5000]},
        {"x" * 10**6: "x" * 10**6, "backbone": "x" * 10**6, "strategy": "x" * 10**6},
        {f"name{i}": 0 for i in range(5000)},
        {name: endless() for name in Experiment.model_fields},
    ],
    ids=range(6),
)
def test_parameters_that_no_message_could_hold(parameters):
    of(GOOD | parameters)


@pytest.mark.parametrize(
    "name",
    ["", "..", "../x", "/etc/x", "a/../b", "a//b", "C:/x", "a\\b", "a\nb", "~", "a b", "-x", "a/", "x" * 300, "é"],
)
def test_what_is_no_data_set_s_name(name):
    with pytest.raises(InvalidParameter, match="dataset = ") as caught:
        Experiment.of(GOOD | {"dataset": name})
    assert_said(caught.value, "dataset")


def bomb(levels: int = 30) -> str:
    """YAML whose last list would hold 10 ** levels items, if written out."""
    lists = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(["a0: &a0 [x]", *lists])


def merges(levels: int = 30) -> str:
    """YAML whose last mapping would take 10 ** levels merges."""
    maps = [f"a{i}: &a{i}\n  <<: [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(["a0: &a0 {x: 1}", *maps])


RUBBISH = [
    "",
    "\x00",
    "- a list",
    "plain",
    "a: [unclosed",
    "!!python/object/apply:os.system ['touch owned']",
    "dataset: !!python/object/apply:os.system ['touch owned']",
    "dataset: !!python/name:os.system",
    "dataset: !%1b%5b31m x",
    "study: !!python/object/new:os.system [x]",
    bomb(),
    f"{bomb()}\nstudy: *a29",
    f"{bomb()}\nstudy: {{seeds: *a29}}",
    f"{bomb()}\ndataset: *a29",
    f"{bomb()}\nprecision: *a29",
    f"{bomb()}\nseed: *a29",
    merges(),
    "study: &s {seeds: *s}",
    "study: &s [*s]",
    "dataset: &s [*s]",
    "dataset: tf_flowers\ndataset: mnist",
    "study: {seeds: [0], seeds: [1]}",
    "dataset: " + "[" * 20_000,
    "dataset: " + "{a: " * 20_000,
    "- " * 20_000,
    "image_size: " + "9" * 10_000,
    "image_size: 0x" + "f" * 10_000,
    "image_size: 1" + ":59" * 20_000,
    "image_size: 1" + ":59" * 20_000 + ".5",
    "a: 1\n" * 20_000,
    "study: {seeds: [" + "1," * 30_000 + "1]}",
    "dataset: 2001-99-99",
    'dataset: !!int ""',
    "dataset: !!bool maybe",
    "dataset: !!timestamp x",
    "dataset: !!float x",
    "dataset: !!binary '*'",
    "dataset: !!set {a, b}",
    "dataset: !!omap [a: 1]",
    "? [a, b]\n: 1",
    "? {a: b}\n: 1",
    "null: 1",
    "true: 1",
    "1.5: 1",
    "<<: 5",
    "<<: {dataset: '\\e'}",
    "? 2001-01-01\n: 1",
    "study: null",
    "study: {1: 2}",
    "study: {seeds: {1: [2]}}",
    "study: {seeds: {mobilenet: [], resnet50: []}}",
    "study: {seeds: [0, 0]}",
    "study: {seeds: [-1]}",
    "study: {seeds: [" + "x, " * 5000 + "]}",
    "study: {configurations: [../x]}",
    "study: {configurations: ['" + "x" * 100_000 + "']}",
    "study: {margin: .nan}",
    "study: {margin: 1e999}",
    "seed: 5",
    "output_dir: x",
    'weights: "a\\0b"',
    'weights: "a\\nb"',
    "image_size: .inf",
    "image_size: yes",
    "head_learning_rate: yes",
    "%TAG ! x:\n---\n!a b",
    "--- 1\n--- 2",
    "\ufeffdataset: tf_flowers",
]


def load(folder: Path, content: bytes, name: str = "mine.yaml") -> None:
    """Read a profile that holds this: a study, or an error that says what is wrong."""
    path = folder / name
    path.write_bytes(content)
    try:
        study = Study.load(str(path), folder)
    except ThawError as error:
        assert_said(error, "mine", "study", *Experiment.model_fields)
    else:
        assert study.jobs
        assert len({job.name for job in study.jobs}) == len(study.jobs)
        for job in study.jobs:
            assert_experiment(job.experiment)
            assert job.directory.parent == folder / "mine" / "runs"
    assert not (ROOT / "owned").exists()


@pytest.mark.parametrize("text", RUBBISH, ids=lambda text: ascii(text[:30]))
def test_profiles_of_rubbish(tmp_path, text):
    load(tmp_path, text.encode())


def test_a_name_given_twice_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("image_size: 64\nseed: 1\nimage_size: 224\n")
    with pytest.raises(InvalidParameter, match=r"mine\.yaml.*'image_size' again in line 3"):
        Study.load(str(tmp_path / "mine.yaml"), tmp_path)


@pytest.mark.parametrize("text, words", [(bomb(), "the alias in line 2"), ("<<: {seed: 1}", "the merge in line 1")])
def test_what_could_grow_without_limit_is_refused(tmp_path, text, words):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InvalidParameter, match=f"{words} is not allowed"):
        Study.load(str(tmp_path / "mine.yaml"), tmp_path)


@pytest.mark.parametrize(
    "text, words",
    [
        ("seed: 1\n" + "#" * 2**16, "65,544 bytes; allowed are 65,536"),
        ("\nseed: 1" + ":59" * 20_000, "the number in line 2 has 60,001 digits"),
    ],
)
def test_what_would_take_minutes_to_read_is_refused(tmp_path, text, words):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InvalidParameter, match=words):
        Study.load(str(tmp_path / "mine.yaml"), tmp_path)


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.dates()
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
EXTENT = st.fixed_dictionaries(
    {},
    optional={
        "seeds": st.lists(st.integers(0, 3), max_size=3) | st.fixed_dictionaries({"mobilenet": NESTED}) | NESTED,
        "configurations": st.lists(st.sampled_from(["mobilenet-frozen", "resnet50-blocks-2", "x"]), max_size=3)
        | NESTED,
        "margin": st.floats() | NESTED,
        "seed": NESTED,
    },
)
PROFILES = st.fixed_dictionaries(
    {},
    optional={
        name: st.sampled_from([v for v in values if not isinstance(v, Path)]) | NESTED for name, values in VALID.items()
    }
    | {"study": EXTENT | NESTED, "image_sise": NESTED},
)


@given(st.one_of(PROFILES, PROFILES, NESTED).map(lambda made: yaml.safe_dump(made, allow_unicode=True).encode()))
@settings(quickly, max_examples=100)
def test_profiles_of_any_structure(tmp_path, content):
    load(tmp_path, content)


MARKS = st.sampled_from([*"[]{}:,-?&*!|>%@`'\"#\n \t", "a: ", "- ", "&a ", "*a", "<<: ", "!!int ", "---\n", "\x85"])


@given(st.binary(max_size=60) | st.lists(MARKS | st.text(max_size=3), max_size=30).map(lambda p: "".join(p).encode()))
@settings(quickly, max_examples=500)
def test_profiles_of_any_bytes(tmp_path, content):
    load(tmp_path, content)


@pytest.mark.parametrize(
    "name", ["...yaml", ". .yaml", "-x.yaml", "a b.yaml", "a;b.yaml", "$(x).yaml", "{x}.yaml", "é.yaml", "a\nb.yaml"]
)
@pytest.mark.parametrize("kind", ["profiles", "configurations"])
def test_a_file_whose_name_is_not_fit_for_a_folder_s(tmp_path, monkeypatch, kind, name):
    shutil.copytree(ROOT / "params", tmp_path / "params")
    monkeypatch.chdir(tmp_path)
    text = "backbone: mobilenet\nstrategy: frozen\n" if kind == "configurations" else "image_size: 64\n"
    path = tmp_path / "params" / kind / name
    try:
        path.write_text(text)
    except OSError:
        pytest.skip("no file can have this name here")
    with pytest.raises(InvalidParameter, match="Allowed: up to 100 letters.*Rename the file") as caught:
        Study.load(str(path) if kind == "profiles" else "quick", tmp_path)
    assert_said(caught.value, repr(name)[1:-1])


@given(st.text(max_size=30) | st.sampled_from(["x" * 10**5, "a/" * 5000, "\x00", "..", "/", ""]))
@quickly
def test_profiles_that_are_not_there(name):
    assume(name not in KNOWN)  # Hypothesis tries words that it finds in the source, too
    with pytest.raises(UnknownProfile) as caught:
        Study.load(name)
    assert_said(caught.value, "PROFILE")


class Bomb:
    """Leaves a trace where it is unpickled."""

    exploded = False

    def __reduce__(self):
        return setattr, (Bomb, "exploded", True)


def test_nothing_that_is_read_is_unpickled(tmp_path, tiny, monkeypatch):
    from small_network import setup

    from thaw.disk import arrays as store
    from thaw.disk import places
    from thaw.errors import WeightsMismatch
    from thaw.network.pretrained import load_pretrained
    from thaw.training import phases

    harmful = {"kernel": np.array([Bomb()], dtype=object), "bias": np.array([Bomb()], dtype=object)}
    for name in ("mobilenet.h5", "mobilenet.weights.h5", "mobilenet.keras", "mobilenet.npz", "mobilenet.pkl"):
        with (tmp_path / name).open("wb") as file:
            np.savez(file, **harmful, about="{}")
        with pytest.raises(WeightsMismatch):
            load_pretrained("mobilenet", 32, str(tmp_path / name))
        assert store.find(tmp_path / name, {}, log=lambda _: None) is None

    # A head that says it is of just these data and weights, and holds a pickled object.
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "cache"))
    lines = []
    made = setup(tiny, lines.append, backbone="mobilenet", head_epochs=1)
    phases.train_head(made)
    (path,) = places.cache("checkpoints").glob("*.npz")
    with np.load(path) as kept:
        about = kept["about"]
    np.savez(path, **harmful, about=about)
    phases.train_head(made)
    assert any("is damaged: trained again" in line for line in lines)

    assert not Bomb.exploded
    np.load(tmp_path / "mobilenet.npz", allow_pickle=True)["bias"]
    assert Bomb.exploded, "the test itself"


WORDS = st.text(max_size=12) | st.sampled_from(
    ["", " ", "-", "--", "--outputs", "--cores", "-1", "0", "1e9", "9" * 30, "nan", "\x00", "\udcff", "\ud800", "a\nb"]
    + ["..", "/", "/dev/null", "/dev/full", "/proc/self/mem", "/nonexistent/x", "~nobody/x", "x" * 5000, "$(x)", "{}"]
    + ["pyproject.toml", "tests", "docs/paper.png", "params/profiles", "notebooks/experiment.ipynb", "README.md"]
    + ["x.keras", "pyproject.toml.keras", "--minutes=abc", "--name=../x", "--weights=none", "--image-size=7", "--help"]
)
COMMANDS = ["init", "report", "check", "probe", "blocks", "predict", "part", "rates", "fold", "experiment"]
COMMANDS += ["latency", "deliver", "summary", "export", "chek", ""]


@given(st.sampled_from(COMMANDS), st.lists(WORDS, max_size=4))
@settings(quickly, max_examples=100)
def test_whatever_is_typed_is_answered_in_a_few_words(capfd, command, words):
    status = main([command, *words])
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err
    assert status == 0 or said.err.strip(), "what is wrong is said"
    assert status in (0, 1, 2)
    assert status == 0 or len(said.err) < 12_000
