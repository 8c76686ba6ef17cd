"""What is shown while a study runs: in a terminal, in a notebook, and when it is stopped."""

import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import is_alive, made_up_data
from rich.console import Console
from small_network import SMALL, setup

from thaw.__main__ import main
from thaw.disk import status
from thaw.network import backbones
from thaw.study import graph
from thaw.study.study import Study
from thaw.study.watch import Clock, Watch, in_words
from thaw.training import phases, progress


@pytest.fixture
def study(tmp_path) -> Study:
    """Three experiments of one network: a frozen base, 2 and 4 blocks."""
    path = tmp_path / "mine.yaml"
    parameters = {"dataset": "demo_flowers", "weights": "none", "image_size": 32, "head_epochs": 2}
    settings = {"configurations": ["mobilenet-frozen", "mobilenet-blocks-2", "mobilenet-blocks-4"]}
    path.write_text(yaml.safe_dump(parameters | {"finetune_epochs": 3, "study": settings}), encoding="utf-8")
    return Study.load(str(path), tmp_path)


def finish(job, head: float, finetune: float) -> None:
    job.directory.mkdir(parents=True)
    seconds = {"activations": 1.0, "head": head, "finetune": finetune}
    job.record.write_text(json.dumps({"training_seconds": seconds}), encoding="utf-8")


def test_a_job_and_what_it_starts_tell_of_their_progress_until_it_ends(tmp_path):
    path = tmp_path / "progress" / "a.json"
    status.tell(share=0.1)  # nobody wants to know
    with status.telling(path, "the job"):
        command = "from thaw.disk import status; status.tell(share=0.5)"
        subprocess.run([sys.executable, "-c", command], check=True)
        status.tell(phase="fine-tuning")
        facts = status.read(path)
        assert facts.pop("started") <= time.time()
        assert facts == {"label": "the job", "share": 0.5, "phase": "fine-tuning"}
    assert status.read(path) == {}
    assert list(path.parent.iterdir()) == []


def test_training_tells_its_epoch_and_accuracy(tmp_path, monkeypatch):
    told, write = [], status._write
    monkeypatch.setitem(backbones.REGISTRY, "small", SMALL)
    monkeypatch.setattr(status, "_write", lambda path, facts: (told.append(facts), write(path, facts)))
    with status.telling(tmp_path / "a.json", "a"):
        history = phases.train(setup(made_up_data(32), strategy="blocks", amount=1, activations="keep")).history
    epochs = list({facts["epoch"]: facts for facts in told if "validation_accuracy" in facts}.values())
    assert [facts["epoch"] for facts in epochs] == [1, 2, 3, 4]
    assert [facts["validation_accuracy"] for facts in epochs] == history["validation_accuracy"].tolist()
    assert all(facts["seconds"] > 0 for facts in epochs)
    started = [facts["phase"] for facts in told if "phase" in facts]
    assert list(dict.fromkeys(started)) == ["frozen part", "head alone", "fine-tuning"]


def test_a_bar_in_a_notebook_is_one_short_output(monkeypatch):
    class Handle(list):
        def update(self, bar):
            self.append(bar._repr_html_())

    shown = Handle()
    monkeypatch.setattr(progress, "_display", lambda bar: shown)
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = progress.Bar("fine-tuning", 1000)
    for done in range(1, 1001):
        now[0] += 0.01
        bar.advance(done, "epoch 1 of 1")
    bar.end()
    assert len(shown) <= 11, "once in a second"
    assert "about 5 s left" in shown[4], shown
    assert 'value="1000" max="1000"' in shown[-1]
    assert shown[-1].endswith("fine-tuning: 100%, epoch 1 of 1, 10.0 s")


def test_a_terminal_shows_what_runs_and_is_left_as_it_was(study):
    blocks = study.jobs[1]
    finish(study.jobs[0], head=1.0, finetune=0.0)
    watch = Watch(study, "experiments", Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None))
    with watch as output:
        print("12:00:00  mobilenet-blocks-2, seed 0: epoch 3 of 5 (fine-tuning): training 1%", file=output)
        print("thaw: the disk is full", file=output, flush=True)
        with status.telling(study.outputs / ".snakemake" / "progress" / f"{blocks.name}.json", blocks.label):
            status.tell(phase="fine-tuning", epoch=3, epochs=5, validation_accuracy=0.853, seconds=80.0)
            watch.look()
    shown = watch.console.file.getvalue()
    assert "1 of 3 experiments" in shown
    assert re.search(r"mobilenet-blocks-2, seed 0 +fine-tuning +epoch 4 of 5 +validation 85.3%", shown)
    # Two epochs of 80 s are left of these, and three of the four blocks, with twice the layers: on one core.
    assert "about 11 min left" in shown
    assert "thaw: the disk is full" in shown
    assert "training 1%" not in shown, "the table says it"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is back"


def test_the_time_left_is_said_once_something_was_measured(study):
    frozen, two, four = study.jobs
    clock = Clock(study)
    clock.note({})
    assert clock.seconds_left() is None
    clock.note({frozen.name: {"started": time.time() - 12}})
    assert clock.seconds_left() is None
    finish(frozen, head=2.0, finetune=0.0)  # a second an epoch, and ten for all else
    clock.note({two.name: {"epoch": 2, "seconds": 1.0}})
    assert clock.seconds_left() is None, "no fine-tuning epoch yet"
    clock.note({two.name: {"epoch": 3, "seconds": 10.0}})
    assert clock.seconds_left() == pytest.approx(2 * 10 + 10 + 2 * 1 + 3 * 20, abs=1)
    clock.note({two.name: {"epoch": 4, "seconds": 10.0}, four.name: {}})
    assert clock.seconds_left() == pytest.approx(62), "two at once: the longer one"
    finish(two, head=2.0, finetune=60.0)
    clock.note({four.name: {"epoch": 4, "seconds": 30.0}})
    assert clock.seconds_left() == pytest.approx((20 / 20 + 30 / 40) / 2 * 40)
    finish(four, head=2.0, finetune=60.0)
    clock.note({})
    assert clock.seconds_left() is None


@pytest.mark.parametrize(
    "seconds, words",
    [(None, ""), (20, "less than a minute left"), (700, "about 12 min left"), (9000, "about 2 hours left")],
)
def test_the_time_left_is_as_rough_as_it_is_known(seconds, words):
    assert in_words(seconds) == words


STUBBORN = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("at work", flush=True)
time.sleep(60)
"""
COORDINATOR = """
import sys
from pathlib import Path
from thaw.study import graph
graph.SECONDS_TO_STOP = 50
graph._run([sys.executable, "-c", sys.argv[1]], Path(sys.argv[2]))
"""


def coordinate(child: str, coordinator: Path) -> tuple[subprocess.Popen, psutil.Process]:
    """Start a command that runs a child; wait until that is at work."""
    process = subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, child, coordinator],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"THAW_CACHE_DIR": str(coordinator.parent / "cache")},
        # Where the suite runs in the background, its shell has told it to ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "at work\n"
    (started,) = psutil.Process(process.pid).children()
    return process, started


def test_ctrl_c_is_answered_at_once_and_a_second_one_ends_it(tmp_path):
    process, child = coordinate(STUBBORN, tmp_path / "coordinator")
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline().startswith("Stopping.")
    assert is_alive(child)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert not is_alive(child)
    assert not (tmp_path / "coordinator").exists()


JOB = """
import time
from thaw.study import graph
graph.end_with_coordinator()
print("at work", flush=True)
time.sleep(60)
"""


def test_a_job_ends_with_the_command_that_started_it_also_if_that_is_killed(tmp_path):
    process, job = coordinate(JOB, tmp_path / "coordinator")
    process.kill()
    process.wait()
    assert psutil.wait_procs([job], timeout=20)[1] == []


def test_the_next_command_stops_what_is_left_of_one_that_was_killed(tmp_path, study, monkeypatch, capfd):
    monkeypatch.setattr(graph, "SECONDS_TO_STOP", 2)
    left = study.outputs.absolute() / ".snakemake" / "coordinators" / "study-1"
    process, child = coordinate(STUBBORN, left)
    process.kill()
    process.wait()
    others = graph.Graph(study, str(study.outputs.parent))
    with others.alone(graph.REPORT):
        assert is_alive(child), "of another lock"
    with others.alone(graph.STUDY):
        assert not is_alive(child) and not left.exists()
    assert "An earlier run was killed" in capfd.readouterr().err


def test_a_job_does_not_begin_once_the_run_that_handed_it_in_is_over(tmp_path, monkeypatch, capfd):
    """On a cluster, it may have waited in the queue. On another machine, only the file tells."""
    coordinator = tmp_path / "study-1"
    monkeypatch.setenv(graph.RUN, str(coordinator))
    assert main(["check", "demo"]) == 1
    assert "is over. The job ends, too" in capfd.readouterr().err
    coordinator.write_text(json.dumps({"host": "another", "process": 1}), encoding="utf-8")
    assert graph._coordinates(coordinator)
    coordinator.write_text(json.dumps({"host": platform.node(), "process": 2**22 + 1}), encoding="utf-8")
    assert not graph._coordinates(coordinator)
