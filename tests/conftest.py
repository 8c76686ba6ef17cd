"""What several tests share."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from thaw.disk.locks import locked

ROOT = Path(__file__).parent.parent
TINY = ROOT / "tests" / "tiny.yaml"

has_flowers = pytest.mark.skipif(
    not (
        os.environ.get("TFDS_DATA_DIR")
        and any(Path(os.environ["TFDS_DATA_DIR"]).glob("tf_flowers/*/dataset_info.json"))
    ),
    reason="needs TF Flowers: set TFDS_DATA_DIR",
)
has_weights = pytest.mark.skipif(
    not all(
        Path(os.environ.get("THAW_WEIGHTS_DIR") or "/nowhere", f"{name}.h5").is_file()
        for name in ("resnet50", "mobilenet")
    ),
    reason="needs ImageNet weights: set THAW_WEIGHTS_DIR",
)


SLOWEST = ("test_survival", "test_notebooks", "test_training", "test_slurm")  # files, minutes each


PROCESSES = {"first_study", "lab"}  # fixtures that start whole processes


def pytest_collection_modifyitems(items):
    """Sort the slowest files to the front, so that none is left over at the end; mark what starts processes."""
    for item in items:
        if PROCESSES.intersection(item.fixturenames) or item.get_closest_marker("long"):
            item.add_marker("process")
    items.sort(key=lambda item: SLOWEST.index(item.path.stem) if item.path.stem in SLOWEST else len(SLOWEST))


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory) -> Path:
    """A folder for what is made once in a session."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def first_study(of_all_workers) -> Path:
    """Run ``report tests/tiny.yaml`` once; give the folder of its ``outputs``, its ``cache`` and what it ``said``."""
    folder = of_all_workers / "first"
    with locked([folder]):
        if not (folder / "said").exists():
            command = [
                sys.executable,
                "-m",
                "thaw",
                "report",
                TINY,
                "--outputs",
                folder / "outputs",
            ]
            environment = os.environ | {"THAW_CACHE_DIR": str(folder / "cache")}
            run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            assert run.returncode == 0, run.stdout + run.stderr
            (folder / "said").write_text(run.stderr + run.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Give the test session a cache of its own."""
    path = tmp_path_factory.mktemp("cache")
    os.environ["THAW_CACHE_DIR"] = str(path)
    return path


@pytest.fixture(autouse=True)
def in_project(monkeypatch):
    """Tests start in the project's root, as its commands do."""
    monkeypatch.chdir(ROOT)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; one that has ended, but that its parent has not asked after, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def quick_corrections(monkeypatch):
    """statsmodels collects garbage in each correction for many tests: a fifth of a second."""
    monkeypatch.setattr("gc.collect", lambda *_: 0)


def made_up_data(size: int):
    """Random photos, `size` pixels square: eight train, four validate, four test."""
    from thaw.data.photos import Data

    rng = np.random.default_rng(0)
    return Data(
        rng.integers(0, 256, (16, size, size, 3), dtype=np.uint8),
        np.array([*range(8), *range(4), *range(4)]) % 3,
        np.array([f"photo-{i}" for i in range(16)]),
        *np.split(np.arange(16), [8, 12]),
        classes=("daisy", "rose", "tulip"),
        provenance={"dataset": "made up", "sha256": f"random-{size}"},
    )


@pytest.fixture
def tiny():
    """A data set of random photos, 32 pixels square."""
    return made_up_data(32)


@functools.cache
def orthogonal(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A kernel that keeps a signal's size: tenths of a second each."""
    import keras

    return keras.initializers.Orthogonal(seed=seed)(shape).numpy()


def enliven(base) -> None:
    """Give a network random weights that a signal survives: photos make a difference at its end."""
    import keras

    rng = np.random.default_rng(0)
    for layer in base.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            kernel = rng.normal(0, 0.3, layer.kernel.shape)
            kernel[1, 1] += 1
            layer.kernel.assign(kernel)
        elif isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(orthogonal(tuple(layer.kernel.shape), int(rng.integers(2**31))))
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.beta.assign(rng.normal(0.2, 0.3, layer.beta.shape))
