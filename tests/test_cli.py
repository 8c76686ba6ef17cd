"""Bad input ends in a clear message and a non-zero exit before anything is trained."""

import subprocess
from argparse import Namespace

import pytest
import yaml
from conftest import ROOT
from thaw.__main__ import main, run_graph
from thaw.study import available, plan
from thaw.study.study import Study, read_parameters

TINY = read_parameters(ROOT / "tests" / "tiny.yaml")


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    """Nothing here may get as far as the graph; what is checked before is checked in this process, which has TensorFlow."""
    run = subprocess.run

    def in_this_process(command, **how):
        thaw = "thaw" in command
        return Namespace(returncode=main(list(map(str, command[3:])))) if thaw else run(command, **how)

    monkeypatch.setattr("thaw.__main__.subprocess.run", in_this_process)
    monkeypatch.setattr("thaw.__main__.run_graph", lambda study, options: pytest.fail("the graph was started"))


def report(capfd, tmp_path, profile: str | dict) -> str:
    if isinstance(profile, dict):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(TINY | profile), encoding="utf-8")
        profile = str(path)
    assert main(["--outputs", str(tmp_path / "outputs"), "report", profile]) == 1
    shown = capfd.readouterr()
    assert "Traceback" not in shown.out + shown.err
    return shown.err


@pytest.mark.parametrize(
    "profile, words",
    [
        ("papr", ["PROFILE = 'papr'", "Did you mean 'paper'?"]),
        ({"image_size": 8}, ["image_size = 8", "greater than or equal to 32"]),
        ({"batchsize": 8}, ["batchsize: no such parameter", "'batch_size'"]),
        ({"dataset": "demo_flower"}, ["dataset = 'demo_flower'", "Did you mean 'demo_flowers'?"]),
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
    assert "does not fit MobileNet" in report(capfd, tmp_path, {"weights": str(tmp_path / "bad.h5")})


def test_an_output_folder_that_cannot_be_written_to(capfd, tmp_path):
    (tmp_path / "outputs").write_text("a file in its place")
    assert "cannot be written to" in report(capfd, tmp_path, {})


@pytest.mark.parametrize("name", ["a{b}", "a<b>"])
def test_folders_that_mean_something_to_snakemake(capfd, tmp_path, name):
    assert "means something to Snakemake" in report(capfd, tmp_path / name, "demo")


@pytest.mark.parametrize("profile", ["paper", "quick"])
def test_real_data_that_is_not_there_is_an_error_and_no_fall_back(capfd, tmp_path, monkeypatch, profile):
    for name in ("TFDS_DATA_DIR", "THAW_WEIGHTS_DIR", "HOME", "KERAS_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(available, "reachable", lambda urls: set())
    shown = report(capfd, tmp_path, profile)
    assert "TF Flowers" in shown and "weights of resnet50" in shown and "neither on this machine" in shown
    assert "TFDS_DATA_DIR" in shown and "THAW_WEIGHTS_DIR" in shown and "PROFILE=demo" in shown


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


def test_a_shared_part_that_could_not_be_kept_is_a_failure_with_its_reason(capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "mine.yaml"
    extent = {"configurations": ["mobilenet-blocks-2", "mobilenet-blocks-4"]}
    path.write_text(yaml.safe_dump(TINY | {"weights": "none", "study": extent}), encoding="utf-8")
    outputs = tmp_path / "outputs"
    study = Study.load(str(path), outputs)
    head = next(part.name for part in plan.plan(study).parts if part.kind == "head")
    monkeypatch.setattr(plan, "prepare", lambda *_: None)  # as if the disk were full
    assert main(["--outputs", str(outputs), "prepare", str(path), head]) == 1
    assert "not kept, for want of room" in study.failures()[head] and "THAW_CACHE_DIR" in capfd.readouterr().err


@pytest.mark.parametrize("cluster", ["slurm", "a/folder"])
def test_a_cluster_sets_what_the_graph_may_use(tmp_path, monkeypatch, cluster):
    """The cores and memory of this machine are no limit then."""
    commands = []
    monkeypatch.setattr(
        "thaw.__main__.subprocess.Popen", lambda command, env: commands.append(command) or Namespace(wait=lambda: 0)
    )
    options = Namespace(cluster=cluster, cores="all", outputs=str(tmp_path), reason="")
    run_graph(Study.load("demo", tmp_path), options)
    (command,) = (list(map(str, command)) for command in commands)
    expected = str(ROOT / "params" / "clusters" / "slurm") if cluster == "slurm" else cluster
    assert command[command.index("--profile") + 1] == expected
    assert {"--cores", "--resources", "--default-resources"}.isdisjoint(command)
