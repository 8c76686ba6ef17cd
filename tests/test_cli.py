"""Bad input ends in a clear message and a non-zero exit before anything is trained."""

import re
import socket
import subprocess
import sys
import time
from argparse import Namespace

import pytest
import yaml
from conftest import ROOT

from thaw.__main__ import cli, main
from thaw.errors import ThawError
from thaw.study import check, plan
from thaw.study.graph import Graph
from thaw.study.profile import read_parameters
from thaw.study.study import Study

TINY = read_parameters(ROOT / "tests" / "tiny.yaml")
VISIBLE = [name for name, command in cli.commands.items() if not command.hidden]


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """Nothing here may get as far as the graph. Checks run in this process, which has loaded TensorFlow."""
    monkeypatch.setattr("thaw.study.graph._run", lambda command, *_: main(list(map(str, command[3:]))))
    monkeypatch.setattr(Graph, "run", lambda *_, **__: pytest.fail("the graph was started"))


def report(capfd, tmp_path, profile: str | dict) -> str:
    if isinstance(profile, dict):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(TINY | profile), encoding="utf-8")
        profile = str(path)
    assert main(["report", profile, "--outputs", str(tmp_path / "outputs")]) == 1
    shown = capfd.readouterr()
    assert "Traceback" not in shown.out + shown.err
    return shown.err


def test_users_see_what_is_for_them_with_an_example_of_each(capfd):
    assert VISIBLE == ["init", "report", "check", "probe", "blocks", "predict", "clean"]
    for name in VISIBLE:
        assert main([name, "--help"]) == 0
        shown = capfd.readouterr().out
        assert re.search(rf"^ +thaw {name} ", shown, re.M), "an example has a line of its own"
        assert "\\b" not in shown
    assert main(["--help"]) == 0
    assert "latency" not in capfd.readouterr().out
    assert main(["--version"]) == 0
    assert "version 0" in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["chek", "demo"], "Did you mean 'check'?"),
        (["report", "demo", "--core", "2"], "--cores"),
        (["report", "demo", "--cores", "0"], "'--cores': 0 is not in the range"),
        (["report", "demo", "--cores", "many"], "'many' is not a valid integer"),
        (["report", "demo", "--cores", "2", "--cluster", "slurm"], "--cores and --cluster exclude each other"),
        (["report", "demo", "--outputs", "a\nb"], "'a\\nb' has a line end"),
        (["report", "demo", "--outputs", "a\udcffb"], "--outputs"),
        (["experiment", "demo", "x", "--threads", "abc"], "'abc' is not a valid integer"),
        (["report"], "Missing argument 'PROFILE'"),
    ],
    ids=str,
)
def test_bad_arguments(capfd, arguments, words):
    assert main(arguments) == 2
    assert words in capfd.readouterr().err


@pytest.mark.parametrize(
    "error, words, traceback",
    [
        (OSError(28, "No space left on device", "/no/such/file"), "the disk is full: ", False),
        (MemoryError(), "not enough memory", False),
        (ZeroDivisionError("division by zero"), "thaw: ZeroDivisionError: division by zero. Thaw does not", True),
    ],
)
def test_a_traceback_is_never_the_only_answer(capfd, monkeypatch, error, words, traceback):
    def fail(*_):
        raise error

    monkeypatch.setattr("thaw.__main__.Study.load", fail)
    assert main(["check", "demo"]) == 1
    said = capfd.readouterr().err
    assert words in said
    assert ("Traceback" in said) == traceback
    assert said.rstrip().splitlines()[-1:] == [line for line in said.splitlines() if line.startswith("thaw: ")]


@pytest.mark.parametrize(
    "streams, status",
    [("> /dev/full", 1), ("2> /dev/full", 0), ("> /dev/full 2> /dev/full", 1), (">&- 2>&- <&-", 0), ("| true", 0)],
)
def test_nobody_has_to_listen(streams, status):
    command = f"{sys.executable} -m thaw blocks --help {streams}"
    process = subprocess.Popen(command, shell=True, cwd=ROOT, stdout=-1, stderr=-1, text=True)
    _, said = process.communicate()
    assert process.returncode == status
    assert "Traceback" not in said and "Exception" not in said
    assert ("the disk is full" in said) == (streams == "> /dev/full")


def test_check_says_that_all_is_well_and_hashes_the_photos_once_for_all_experiments(monkeypatch, capfd, tmp_path):
    hashed, digest = [], check.source.content_digest
    monkeypatch.setattr(check.source, "content_digest", lambda found: hashed.append(found) or digest(found))
    monkeypatch.setattr("psutil.virtual_memory", lambda: Namespace(total=1000, available=10**10))
    assert main(["check", str(ROOT / "tests" / "tiny.yaml"), "--outputs", str(tmp_path)]) == 0
    said = capfd.readouterr().out
    assert "ok: 3 experiments with resnet50, mobilenet on " in said
    assert len(hashed) == 1
    assert "what 3 experiments say of " in said, "8 test photos times 5 classes are more than the memory holds"


def test_photos_that_the_disk_cannot_hold_are_refused_before_anything_is_decoded(monkeypatch, capfd, tmp_path):
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))
    free = Namespace(total=10**6, used=0, free=10**5)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
    assert main(["check", str(ROOT / "tests" / "tiny.yaml"), "--outputs", str(tmp_path / "outputs")]) == 1
    said = capfd.readouterr().err
    assert "80 photos take 0.0 GB" in said and "Set max_examples to 32 or less" in said
    assert not list(tmp_path.rglob("*.npy"))
    (tmp_path / "activations" / "of another study").mkdir(parents=True)
    (tmp_path / "activations" / "of another study" / "a.npy").write_bytes(bytes(2 * 10**5))
    assert main(["check", str(ROOT / "tests" / "tiny.yaml"), "--outputs", str(tmp_path / "outputs")]) == 0, "it may go"


def test_a_dry_run_of_make_does_not_run_the_study():
    shown = subprocess.run(["make", "-n", "report"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0
    assert 'thaw report "demo"' in shown.stdout
    assert "finished" not in shown.stdout


@pytest.mark.parametrize(
    "profile, words",
    [
        ("papr", ["PROFILE = 'papr'", "Did you mean 'paper'?"]),
        ({"image_size": 8}, ["image_size = 8", "greater than or equal to 32"]),
        ({"batchsize": 8}, ["batchsize: no such parameter", "'batch_size'"]),
        ({"dataset": "tf_flower"}, ["dataset = 'tf_flower'", "Did you mean 'tf_flowers'?"]),
        ({"weights": "no/such/file.h5"}, ["no/such/file.h5", "there is no such file"]),
        ({"study": {"configurations": ["resnet50"]}}, ["'resnet50'", "no such configuration", "resnet50-"]),
    ],
    ids=str,
)
def test_a_bad_profile(capfd, tmp_path, profile, words):
    shown = report(capfd, tmp_path, profile)
    for word in words:
        assert word in shown


def test_weights_that_do_not_fit(capfd, tmp_path):
    (tmp_path / "bad.h5").write_bytes(b"not weights")
    assert "not weights of Keras" in report(capfd, tmp_path, {"weights": str(tmp_path / "bad.h5")})


def test_an_output_folder_that_cannot_be_written_to(capfd, tmp_path):
    (tmp_path / "outputs").write_text("a file in its place")
    assert "cannot be written to" in report(capfd, tmp_path, {})


@pytest.mark.parametrize("name", ["a{b}", "a<b>"])
def test_folders_that_mean_something_to_snakemake(capfd, tmp_path, name):
    assert "means something to Snakemake" in report(capfd, tmp_path / name, "demo")


@pytest.mark.parametrize("profile", ["paper", "quick"])
def test_real_data_that_is_not_there_is_an_error_and_no_fall_back(capfd, tmp_path, monkeypatch, profile):
    for name in ("THAW_WEIGHTS_DIR", "HOME", "KERAS_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(check.source, "on_disk", lambda dataset: False)  # TFDS_DATA_DIR counts where TFDS is imported
    asked = []
    monkeypatch.setattr(check, "_answers", lambda *address: asked.append(address))
    shown = report(capfd, tmp_path, profile)
    assert "the data set tf_flowers" in shown
    assert "weights of resnet50" in shown
    assert "not on this machine" in shown
    assert "TFDS_DATA_DIR" in shown
    assert "THAW_WEIGHTS_DIR" in shown
    assert "PROFILE=demo" in shown
    assert len(asked) == 1


def test_a_network_that_swallows_requests_costs_seconds():
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes the connection and never answers
        began = time.monotonic()
        assert not check._answers(f"http://127.0.0.1:{server.getsockname()[1]}/", 0.5)
        assert time.monotonic() - began < 3


def test_an_amount_larger_than_the_network_has(capfd, tmp_path, monkeypatch):
    project = tmp_path / "project"
    (project / "params" / "profiles").mkdir(parents=True)
    (project / "params" / "configurations").mkdir()
    (project / "params" / "profiles" / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"study": {}}), encoding="utf-8")
    (project / "params" / "configurations" / "much.yaml").write_text(
        "backbone: mobilenet\nstrategy: blocks\namount: 14\n", encoding="utf-8"
    )
    monkeypatch.chdir(project)
    assert "amount = 14: MobileNet has 13 blocks" in report(capfd, tmp_path, "tiny")


def test_a_shared_part_that_fails_leaves_its_reason(capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "mine.yaml"
    settings = {"configurations": ["mobilenet-blocks-2", "mobilenet-blocks-4"]}
    path.write_text(yaml.safe_dump(TINY | {"weights": "none", "study": settings}), encoding="utf-8")
    outputs = tmp_path / "outputs"
    study = Study.load(str(path), outputs)
    (shared,) = plan.plan(study, study.jobs).parts

    def fail(*_):
        raise ThawError("no luck today")

    monkeypatch.setattr(plan, "make", fail)
    assert main(["part", str(path), shared, "--outputs", str(outputs)]) == 1
    assert study.failures()[shared] == "no luck today"
    assert "no luck today" in capfd.readouterr().err


@pytest.mark.parametrize("cluster", ["slurm", "a/folder"])
def test_a_cluster_sets_what_the_graph_may_use(tmp_path, monkeypatch, cluster):
    """The cores and memory of this machine are no limit then."""
    monkeypatch.undo()
    commands = []
    monkeypatch.setattr("thaw.study.graph._run", lambda command, *_: commands.append(command) or 0)
    assert Graph(Study.load("demo", tmp_path), str(tmp_path), "all", cluster).run("experiments")
    (command,) = (list(map(str, command)) for command in commands)
    expected = str(ROOT / "params" / "clusters" / "slurm") if cluster == "slurm" else cluster
    assert command[command.index("--profile") + 1] == expected
    assert {"--cores", "--resources", "--default-resources"}.isdisjoint(command)


def test_a_container_s_memory_limits_what_runs_at_once(tmp_path, monkeypatch):
    monkeypatch.undo()
    commands = []
    monkeypatch.setattr("thaw.study.graph._run", lambda command, *_: commands.append(list(map(str, command))) or 0)
    monkeypatch.setattr("thaw.study.graph.CONTROL_GROUPS", tmp_path)
    made = Graph(Study.load("demo", tmp_path), str(tmp_path))
    for text in ("max", "3500000000"):
        (tmp_path / "memory.max").write_text(f"{text}\n")
        assert made.run("experiments")
    without, limited = (int(command[command.index("--resources") + 1].removeprefix("mem_mb=")) for command in commands)
    assert limited == min(without, 3500)
