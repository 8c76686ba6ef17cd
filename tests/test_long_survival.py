"""A demo study that is killed thirty times: half an hour, under `make test-long`."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import nbformat
import psutil
import pypdfium2
import pytest
from conftest import ROOT, is_alive

from thaw.study.study import Study

KILLS = 30


def start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-u", "-m", "thaw", "report", "demo", "--outputs", folder / "outputs"]
    environment = os.environ | {"THAW_CACHE_DIR": str(folder / "cache")}
    log = (folder / "log.txt").open("a")
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
    )


def assert_whole(folder: Path) -> None:
    """Whatever can be seen below a folder is complete."""
    for path in folder.rglob("*"):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.suffix in (".csv", ".md", ".tex"):
            assert path.read_bytes().endswith(b"\n"), path
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".ipynb":
            nbformat.validate(nbformat.read(path, as_version=4))
        elif path.suffix == ".html":
            assert path.read_text(encoding="utf-8").rstrip().endswith("</html>"), path
        elif path.suffix == ".pdf":
            assert len(pypdfium2.PdfDocument(path)) > 1
        else:
            assert path.suffix in (".txt", ".log"), path  # why one has failed, and what libraries say meanwhile


def numbers(study: Study) -> dict[str, tuple]:
    """What must not depend on how often a study was stopped."""
    return {
        job.name: (
            run.record.test_accuracy,
            run.record.test_loss,
            run.record.trainable_parameters,
            run.history.drop(columns="seconds").to_csv(),
            run.predictions.to_csv(),
        )
        for job, (run,) in study.outcomes()[0].items()
    }


@pytest.mark.long
def test_a_demo_study_killed_thirty_times_ends_in_the_same_results(tmp_path, capsys):
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    began = time.monotonic()
    process = start(undisturbed)
    assert process.wait() == 0, (undisturbed / "log.txt").read_text()
    shown = kill_often(tmp_path / "killed", undisturbed, time.monotonic() - began)
    with capsys.disabled():
        print(f"\n{shown}")


def kill_often(folder: Path, undisturbed: Path, seconds: float) -> str:
    """Kill a study again and again, and compare it with one that took `seconds`; the figures in a line."""
    seed = random.randrange(10**6)
    random.seed(seed)
    killed = Study.load("demo", folder / "outputs", ROOT)
    folder.mkdir()
    finished: dict[str, int] = {}

    def look() -> None:
        assert_whole(killed.outputs)
        for job in killed.jobs:
            if job.name in finished:
                assert (job.directory / "record.json").stat().st_mtime_ns == finished[job.name], f"{job.name} ran twice"
            elif job.is_finished():
                finished[job.name] = (job.directory / "record.json").stat().st_mtime_ns

    began, kills = time.monotonic(), 0
    while True:
        process = start(folder)
        # From the first seconds on, but long enough on average for the study to get on.
        try:
            status = process.wait(None if kills == KILLS else random.uniform(1, 2 * seconds / KILLS + 20))
            break
        except subprocess.TimeoutExpired:
            below = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
            process.wait()
            for each in below:  # kernels see within a second or two that nobody waits for them
                while is_alive(each):
                    time.sleep(0.1)
            look()
    said = (folder / "log.txt").read_text()
    assert status == 0, said
    look()
    assert all(job.is_finished() for job in killed.jobs), "each with its notebook"
    assert numbers(killed) == numbers(Study.load("demo", undisturbed / "outputs", ROOT))
    assert not [path for path in killed.outputs.rglob("*") if ".part" in path.name or "damaged" in path.name]
    epochs = Counter(re.findall(r"  (.*): epoch (\d+) of", said))
    again = sum(count - 1 for count in epochs.values())
    return (
        f"seed {seed}: {kills} kills; {time.monotonic() - began:.0f} s, {seconds:.0f} s undisturbed; "
        f"{again} of {len(epochs)} epochs trained again; {said.count('going on from there')} times gone on in a phase"
    )
