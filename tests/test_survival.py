"""Studies that are stopped, starved and run twice at once, at a size of seconds."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT, is_alive

from thaw import errors
from thaw.study.execute import execute
from thaw.study.profile import read_parameters
from thaw.study.study import Study
from thaw.training import activations

pytestmark = pytest.mark.process
TINY = read_parameters(ROOT / "tests" / "tiny.yaml") | {"study": {"deliver": "none"}}


class Project:
    """A copy of the project with a profile ``tiny``, configurations of MobileNet of its own, outputs and cache.

    Parameters
    ----------
    folder : Path
    amounts : iterable of int
        How many blocks each configuration unfreezes; 0 for a frozen base.
    profile : dict
        Entries of the profile that differ from ``tests/tiny.yaml``.
    harm : str
        Code that the experiment notebook runs after its imports.
    """

    def __init__(self, folder: Path, amounts, profile: dict | None = None, harm: str = ""):
        self.folder, self.outputs = folder, folder / "outputs"
        (folder / "params" / "profiles").mkdir(parents=True)
        (folder / "params" / "configurations").mkdir()
        shutil.copy(ROOT / "Snakefile", folder)
        shutil.copytree(ROOT / "notebooks", folder / "notebooks")
        self.profile("tiny", **(profile or {}))
        for amount in amounts:
            parameters = {"backbone": "mobilenet", "strategy": "blocks" if amount else "frozen", "amount": amount}
            path = folder / "params" / "configurations" / f"blocks-{amount}.yaml"
            path.write_text(yaml.safe_dump(parameters | ({} if amount else {"finetune_epochs": 0})), encoding="utf-8")
        path = folder / "notebooks" / "experiment.ipynb"
        notebook = nbformat.read(path, as_version=4)
        position = [cell.id for cell in notebook.cells].index("imports") + 1
        notebook.cells.insert(position, nbformat.v4.new_code_cell(harm))
        nbformat.write(notebook, path)
        self.environment = os.environ | {"THAW_CACHE_DIR": str(folder / "cache")}

    def profile(self, name: str, without=(), **parameters) -> None:
        path = self.folder / "params" / "profiles" / f"{name}.yaml"
        path.write_text(
            yaml.safe_dump({key: value for key, value in (TINY | parameters).items() if key not in without}),
            encoding="utf-8",
        )

    def start(self, profile: str = "tiny", stdout: int | IO = subprocess.PIPE) -> subprocess.Popen:
        """``report`` in a process group of its own, as a terminal has it."""
        command = [sys.executable, "-u", "-m", "thaw", "report", profile]
        pipes = {"stdout": stdout, "stderr": subprocess.STDOUT, "text": True}

        def as_in_a_terminal():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts with & ignores it

        how = {"cwd": self.folder, "env": self.environment, "start_new_session": True}
        return subprocess.Popen(command, preexec_fn=as_in_a_terminal, **how, **pipes)

    def report(self, profile: str = "tiny") -> tuple[int, str]:
        process = self.start(profile)
        said, _ = process.communicate()
        assert "Traceback" not in said, said
        return process.returncode, said

    def study(self, profile: str = "tiny") -> Study:
        return Study.load(profile, "outputs", self.folder)

    def results(self, profile: str = "tiny") -> dict[str, tuple]:
        """What each run has left, but for times, memory and the machine; by job, and fold if it has several."""
        finished, _ = self.study(profile).outcomes()
        measured = {"files", "training_seconds", "inference_ms_per_image", "peak_memory_mb", "activations", "commit"}
        return {
            f"{job.name} {run.record.experiment.fold or ''}": (
                run.record.model_dump(exclude=measured),
                run.history.drop(columns="seconds").to_csv(),
                run.predictions.to_csv(),
            )
            for job, found in finished.items()
            for run in found
        }

    def report_in_figures(self, profile: str = "tiny") -> tuple[pd.DataFrame, str]:
        """What a report leaves for programs, but for times, memory and what it was made from."""
        folder = self.study(profile).outputs
        rows = pd.read_csv(folder / "results.csv")
        rows = rows.loc[:, ~rows.columns.str.contains("seconds|memory|inference|latency")]
        answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        text = json.dumps(answer | {"made_from": ""}, indent=0)
        return rows, re.sub('"(training_seconds|milliseconds_a_photo)": .*', "", text)

    def trained(self, profile: str = "tiny") -> dict[str, object]:
        """How long each training took that is finished: one that is repeated takes another time."""
        study = self.study(profile)
        found = {choice.name: choice.read().to_csv() for choice in study.choices if choice.chosen()}
        for job in study.jobs:
            if job.folders:
                found |= {f"{job.name} {r.record.experiment.fold}": r.record.training_seconds for r in job.read()}
        return found


def until(process: subprocess.Popen, line: str) -> str:
    """What a process says up to a line."""
    said = ""
    for text in process.stdout:
        said += text
        if line in text:
            return said
    raise AssertionError(f"{line!r} was never said:\n{said}")


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    """Whether they end within so many seconds."""
    end = time.monotonic() + seconds
    while any(map(is_alive, processes)) and time.monotonic() < end:
        time.sleep(0.1)
    return not any(map(is_alive, processes))


def below(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


# What is killed. The kernels of a study on Linux are copies of one process; elsewhere they start by themselves.
KINDS = ("job", "Snakemake", "parent", "kernel", *["copied"] * (sys.platform == "linux"), "all")


def of_kind(process: subprocess.Popen, kind: str) -> list[psutil.Process]:
    """The processes of one kind that a command has started and that run now; itself for "parent" and "all"."""
    if kind in ("parent", "all"):
        return [psutil.Process(process.pid)]
    words = {"thaw": "job", "snakemake": "Snakemake", "ipykernel_launcher": "kernel", "thaw.study.kernels": "copied"}
    found = []
    for each in below(process):
        with contextlib.suppress(psutil.Error):
            of = words.get(each.cmdline()[2]) if each.cmdline()[1:2] == ["-m"] else None
            if of == "copied" and each.ppid() != process.pid:
                of = "kernel"
            if of == kind:
                found.append(each)
    return found


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
            assert path.read_bytes().rstrip().endswith(b"%%EOF"), path


class Disturbed:
    """``report`` that is killed and given again: what is finished stays, and no two graphs are at work at once."""

    def __init__(self, project: Project):
        self.project, self.log = project, project.folder / "said.txt"
        self.finished: dict[str, object] = {}
        self.start()

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def start(self) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            self.began = file.tell()  # what it says begins there
            self.process = self.project.start(stdout=file)
        while "finished already" not in self.said()[self.began :]:  # by then, nothing is left of the one before
            assert self.process.poll() is None, self.said()[self.began :]
            time.sleep(0.05)
        assert_whole(self.project.outputs)
        now = self.project.trained()
        assert self.finished == {name: now.get(name) for name in self.finished}, "neither lost nor repeated"
        self.finished = now

    def ends(self) -> bool:
        """Wait until it ends, with a report or with what is missing; whether that was a report."""
        status = self.process.wait()
        assert status in (0, 1) and ("Missing:" in self.said()[self.began :]) == bool(status), self.said()
        return status == 0

    def after(self, lines: int, kind: str) -> list[psutil.Process]:
        """Wait until so many lines are said and such processes run, or until it ends; give the processes."""
        lines, found = lines + self.said().count("\n"), []
        while self.process.poll() is None and not found:
            time.sleep(0.05)
            found = of_kind(self.process, kind) if self.said().count("\n") >= lines else []
        return found

    def kill(self, kind: str, chosen: psutil.Process) -> None:
        others = below(self.process)
        with contextlib.suppress(psutil.NoSuchProcess):
            os.killpg(chosen.pid, signal.SIGKILL) if kind == "all" else chosen.kill()
        if kind in ("parent", "all"):
            self.process.wait()
            self.start()
            assert not any(map(is_alive, others)), "one graph at a time"


def kill_often(project: Project, kinds: Iterable[str], most: int, rng: random.Random) -> list[str]:
    """Run ``report`` to its end, and kill a process of each kind in turn at random moments.

    Parameters
    ----------
    project : Project
    kinds : iterable of str
    most : int
        A process is killed after so many lines, at most, since the one before.
    rng : Random

    Returns
    -------
    list of str
        What was killed before the study was finished.
    """
    study, killed = Disturbed(project), []
    for kind in kinds:
        while not (found := study.after(rng.randint(1, most), kind)) and not study.ends():
            study.start()
        if not found:
            break
        study.kill(kind, rng.choice(found))
        killed.append(kind)
    for _ in range(3):
        if study.ends():
            break
        study.start()
    study.start()
    assert study.ends()
    assert "Traceback" not in study.said()
    left = [path for path in project.outputs.rglob("*") if ".part" in path.name or "damaged" in path.name]
    assert left == []
    return killed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, tuple]:
    """What the stopped study below must end in: its experiment alone, without the graph."""
    project = Project(tmp_path_factory.mktemp("undisturbed") / "project", [2], {"finetune_epochs": 3})
    for job in project.study().jobs:
        command = [sys.executable, "-m", "thaw", "experiment", "tiny", job.name, "--threads", "1"]
        subprocess.run(command, cwd=project.folder, env=project.environment, check=True, capture_output=True)
    return project.results()


def test_a_study_that_is_interrupted_and_killed_goes_on_to_the_same_results(tmp_path, undisturbed):
    project = Project(tmp_path / 'it\'s a `touch a` $(touch b) "&" name', [2], {"finetune_epochs": 3})
    first = project.start()
    until(first, "0 of them finished already")
    status, said = project.report()
    assert status == 1
    assert "another run of this study is at work" in said
    until(first, "epoch 3 of 4 (fine-tuning)")  # and so the epoch before it has been kept
    processes = below(first)
    assert of_kind(first, "kernel")
    began = time.monotonic()
    os.killpg(first.pid, signal.SIGINT)  # Ctrl-C
    said, _ = first.communicate(timeout=30)
    assert time.monotonic() - began < 20
    assert first.returncode == 130
    assert said.count("The same command goes on from here") == 1
    assert "Traceback" not in said
    assert gone(processes, 5), "nothing is left running"
    second = project.start()
    said = until(second, "is finished: blocks-")
    assert "going on from there" in said
    processes = below(second)
    os.killpg(second.pid, signal.SIGKILL)
    second.communicate()
    assert gone(processes, 20), "kernels see that nobody waits for them"
    status, said = project.report()
    assert status == 0, said
    assert "is finished:" not in said, "what was finished is not run again"
    assert project.results() == undisturbed
    assert not [path for path in tmp_path.rglob("*") if path.name in ("a", "b")], "the folder's name is but a name"
    notebook = nbformat.read(project.outputs / "tiny" / "summary.ipynb", as_version=4)
    assert str(tmp_path) not in str(notebook.metadata), "nothing of where it was made"
    left = [path for path in project.outputs.rglob("*") if ".part" in path.name or "damaged" in path.name]
    assert left == []


HARM = """
import os, signal, time
from thaw.training.optimizer import FusedAdam
if amount == 2:
    os.kill(os.getpid(), signal.SIGKILL)
if amount == 3:
    time.sleep(3600)
if amount == 6:
    update = FusedAdam.update_step
    FusedAdam.update_step = lambda self, gradient, *rest: update(self, gradient * float("nan"), *rest)
"""


def test_what_fails_is_named_and_the_rest_is_reported_with_another_study_beside(tmp_path):
    """Hardly any activations fit the disk. The other study shares what can be shared."""
    project = Project(tmp_path / "project", [0, 2, 3, 6], {"study": {"hours": 40 / 3600}}, HARM)
    project.environment["THAW_DISK_GB"] = "0.0015"
    project.profile("other", study={"configurations": ["blocks-0"]})
    other = project.start("other")
    status, said = project.report()
    said_by_other, _ = other.communicate()
    assert other.returncode == 0 and "Traceback" not in said_by_other, said_by_other
    assert status == 1, said
    (locked,) = project.results("other").values()
    (same,) = project.results("tiny").values()
    assert locked[1:] == same[1:], "the same frozen base, whoever made what it needs"
    reasons = {2: "kernel died", 3: "more than 0.0111111 hours", 6: "diverged: after epoch 2"}
    study = project.study()
    finished, missing = study.outcomes()
    assert {job.experiment.amount for job in finished} == {0}
    assert {job.experiment.amount for job in missing} == set(reasons)
    html = BeautifulSoup((study.outputs / "report.html").read_text(encoding="utf-8"), "html.parser")
    html = " ".join(html.get_text(" ").split())
    for job, reason in missing.items():
        amount = job.experiment.amount
        assert reasons[amount] in reason
        assert job.label in said
        assert reasons[amount] in said
        assert " ".join(reason.splitlines()[0].split()) in html
        assert f"{job.experiment.label}: {'diverged' if amount == 6 else 'not finished'}" in html
    assert "2 of 4 experiments are finished. Missing:" in said
    assert pd.read_csv(study.outputs / "results.csv")["amount"].tolist() == [0], "what diverged is in no comparison"
    (diverged,) = (job for job in missing if job.experiment.amount == 6)
    record = json.loads((diverged.directory / "record.json").read_text(encoding="utf-8"))
    assert record["diverged"] == 2
    assert record["test_accuracy"] is None
    assert record["trainable_parameters"] > 0
    assert (diverged.directory / "experiment.ipynb").exists()


@pytest.mark.long
def test_what_failed_is_tried_again_once_it_is_mended(tmp_path):
    project = Project(tmp_path / "project", [0, 2, 6], harm=HARM)
    status, said = project.report()
    assert status == 1
    assert "2 of 3 experiments are finished. Missing:" in said
    shutil.copy(ROOT / "notebooks" / "experiment.ipynb", project.folder / "notebooks" / "experiment.ipynb")
    status, said = project.report()
    assert status == 0 and "2 of them finished already" in said and said.count("is finished:") == 1, said
    study = project.study()
    text = (study.outputs / "report.html").read_text(encoding="utf-8")
    assert "not finished" not in text
    assert "diverged" in text
    assert study.failures() == {}


@pytest.mark.parametrize(
    "name, message, words",
    [
        (
            "ResourceExhaustedError",
            "{{function_node x}} OOM when allocating tensor with shape[4096,224]",
            "not enough memory",
        ),
        ("MemoryError", "", "not enough memory"),
        ("OSError", "[Errno 28] No space left on device: 'a'", "the disk is full"),
        ("RuntimeError", "Unable to close (file write failed: errno = 28, error message = 'x')", "the disk is full"),
        ("OSError", "[Errno 28] No space left on device: '/no/such/file'", "the disk is full: "),
        ("OSError", "[Errno 27] File too large", "the disk is full"),
        ("OSError", "[Errno 24] Too many open files: 'a'", "ulimit -n"),
        ("RuntimeError", "can't start new thread", "no more processes or threads"),
        ("OSError", "[Errno 30] Read-only file system: 'a'", "cannot be written to"),
        ("ZeroDivisionError", "division by zero", "division by zero). Thaw does not know this error"),
    ],
)
def test_errors_of_others_are_put_in_words(name, message, words):
    text = errors.explained(name, message)
    assert words.replace(")", "") in text
    assert "\n" not in text
    assert len(text) < 500
    assert errors.lacks(f"{name}: {message}") == (name != "ZeroDivisionError")


def test_a_kernel_that_dies_for_lack_of_something_says_of_what(tmp_path, monkeypatch):
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(
                "import os, sys\nos.write(2, b'OSError: [Errno 24] Too many open files\\n')\nos.abort()"
            )
        ]
    )
    nbformat.write(notebook, tmp_path / "a.ipynb")
    with pytest.raises(errors.ThawError, match="a: the notebook's kernel died: too many files are open at once. Allow"):
        execute(tmp_path / "a.ipynb", tmp_path / "b.ipynb", {}, "a", hours=1)
    counts = iter([3, 4])
    monkeypatch.setattr("thaw.study.execute._kills_for_memory", lambda: next(counts))
    with pytest.raises(errors.ThawError, match="a: the notebook's kernel was killed by the system: memory ran out. Cl"):
        execute(tmp_path / "a.ipynb", tmp_path / "b.ipynb", {}, "a", hours=1)


PROVIDE = """
import sys
sys.path.insert(0, "tests")
from conftest import made_up_data
from small_network import setup
from thaw.network import unfreezing
from thaw.training import activations
parameters = {"backbone": "mobilenet", "strategy": "blocks", "amount": 2, "image_size": 64, "activations": "keep"}
made = setup(made_up_data(64), print, **parameters)
unfreezing.unfreeze(made.base, [])
print("ready", flush=True)
sys.stdin.readline()
kept, why = activations.cached(made, [["conv_pw_11_relu"], ["pooled"]])
print(sorted(kept))
"""


def test_two_processes_that_want_the_same_activations_make_them_once(tmp_path, monkeypatch):
    monkeypatch.setenv("THAW_CACHE_DIR", str(tmp_path))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    both = [subprocess.Popen([sys.executable, "-c", PROVIDE], **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0] for process in both]
    assert all("['conv_pw_11_relu', 'pooled']" in text for text in said)
    assert sum("has seen all 16 photos once" in text for text in said) == 1
    assert not list(activations.root().rglob("*.part*"))


def test_an_interrupted_notebook_is_no_failure(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("raise KeyboardInterrupt")])
    nbformat.write(notebook, tmp_path / "a.ipynb")
    with pytest.raises(KeyboardInterrupt):
        execute(tmp_path / "a.ipynb", tmp_path / "b.ipynb", {}, "a", hours=1)
    assert sorted(path.name for path in tmp_path.glob("*.ipynb")) == ["a.ipynb"]


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int):
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("needs to mount a small disk (tmpfs), which takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, leave: int) -> None:
    free = shutil.disk_usage(folder).free
    (folder / "filler").write_bytes(bytes(free - leave))


def test_a_full_output_disk_is_said_before_anything_is_run(tmp_path):
    project = Project(tmp_path / "project", [1])
    with small_disk(project.outputs, 4):
        fill(project.outputs, 200_000)
        status, said = project.report()
    assert status == 1
    assert "cannot be written to (No space left on device)" in said
    assert "epoch" not in said


def test_a_full_cache_costs_time_and_no_run(tmp_path):
    """Photos and activations fit, the backup of 13 MB does not."""
    project = Project(tmp_path / "project", [1])
    (job,) = project.study().jobs
    command = [sys.executable, "-m", "thaw", "experiment", "tiny", job.name]
    with small_disk(project.folder / "cache", 14):
        run = subprocess.run(command, cwd=project.folder, env=project.environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "the disk is full" in run.stderr
    assert np.isfinite(job.read()[0].record.test_loss)


FILLS = """
import shutil
from pathlib import Path
from thaw.study import run

_predict = run.evaluation.predict

def _filling(*arguments):
    folder = Path(output_dir).parents[2]
    (folder / "filler").write_bytes(bytes(shutil.disk_usage(folder).free - {leave}))
    return _predict(*arguments)

if not list(Path(output_dir).parents[2].glob("was-full")):
    (Path(output_dir).parents[2] / "was-full").touch()
    run.evaluation.predict = _filling
"""


@pytest.mark.parametrize("leave", [0, *(pytest.param(left, marks=pytest.mark.long) for left in (4000, 9000, 60_000))])
def test_a_disk_that_fills_while_results_are_written_costs_nothing_that_was_trained(tmp_path, leave):
    project = Project(tmp_path / "project", [1], harm=FILLS.replace("{leave}", str(leave)))
    (job,) = project.study().jobs
    command = [sys.executable, "-m", "thaw", "experiment", "tiny", job.name]
    how = {"cwd": project.folder, "env": project.environment, "capture_output": True, "text": True}
    with small_disk(project.outputs, 4):
        full = subprocess.run(command, **how)
        assert full.returncode == 1
        assert "Traceback" not in full.stderr
        assert re.search("the disk is full: .* MB are free in .*Make room.*'/.+'", full.stderr), full.stderr
        assert not job.is_finished()
        (project.outputs / "filler").unlink()
        again = subprocess.run(command, **how)
        assert again.returncode == 0, again.stderr
        assert ": epoch " not in again.stderr, "nothing is trained twice"
        assert job.is_finished()
