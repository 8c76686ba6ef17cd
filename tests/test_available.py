"""Which profile is taken where none is asked for."""

import os
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from thaw.study import available


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine with no data set and no weights."""
    for name in ("TFDS_DATA_DIR", "THAW_WEIGHTS_DIR", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def put_flowers(folder):
    version = folder / "tf_flowers" / "3.0.1"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text("{}")


def test_quick_where_everything_is_on_disk(bare, monkeypatch):
    put_flowers(bare / "data")
    monkeypatch.setenv("TFDS_DATA_DIR", str(bare / "data"))
    (bare / "weights").mkdir()
    for name in available.WEIGHTS:
        (bare / "weights" / f"{name}.h5").touch()
    monkeypatch.setenv("THAW_WEIGHTS_DIR", str(bare / "weights"))
    monkeypatch.setattr(available, "reachable", lambda urls: pytest.fail("asked the network for what is on disk"))
    assert available.choose() == ("quick", "TF Flowers and the ImageNet weights are there or can be fetched.")


def test_quick_where_everything_can_be_fetched(bare, monkeypatch):
    monkeypatch.setattr(available, "reachable", set)
    assert available.choose()[0] == "quick"


def test_demo_says_what_is_missing(bare, monkeypatch):
    put_flowers(bare / "tensorflow_datasets")
    monkeypatch.setattr(available, "reachable", lambda urls: {url for url in urls if "resnet" in url})
    assert available.choose() == (
        "demo",
        "the ImageNet weights of mobilenet are neither on this machine nor to be fetched.",
    )


def test_a_network_that_swallows_requests_costs_seconds(bare, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes the connection and never answers
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setattr(available, "PHOTOS_URL", url)
        monkeypatch.setattr(available, "WEIGHTS_URL", url)
        monkeypatch.setattr(available, "PATIENCE", 0.5)
        began = time.monotonic()
        profile, reason = available.choose()
        assert profile == "demo" and reason.startswith("TF Flowers, the ImageNet weights")
        assert time.monotonic() - began < 3


def test_it_runs_without_any_environment(bare):
    """On the bare interpreter, with nothing importable but the standard library."""
    for arguments, expected in ([], "quick"), (["paper"], "paper \n"):
        put = bare / "tensorflow_datasets" / "tf_flowers"
        if not put.exists():
            put_flowers(bare / "tensorflow_datasets")
            (bare / ".keras" / "models").mkdir(parents=True)
            for path in available.WEIGHTS.values():
                (bare / ".keras" / "models" / os.path.basename(path)).touch()
        command = [sys.executable, "-I", "-S", ROOT / "lib" / "thaw" / "study" / "available.py", *arguments]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert shown.startswith(expected)
