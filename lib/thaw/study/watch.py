"""The progress of a study in a terminal: how many experiments are finished, what runs now, and the time left."""

from __future__ import annotations

import contextlib
import json
import re
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from thaw.disk import status
from thaw.study.study import Job, Study

INTERVAL = 0.5  # seconds between two looks
EPOCH = re.compile(r"\d\d:\d\d:\d\d  .*: epoch \d+ of \d+ ")  # a job's line; the table below shows the same
WHOLE = 150  # layers of a whole network, roughly
STAGES = {
    "latency": "Measuring the latency of each network",
    "report": "Writing the report",
    "model": "Training the network to keep, on all photos",
}


def status_file(study: Study, name: str) -> Path:
    """Give the path of the file in which a running job tells of its progress."""
    return study.outputs / ".snakemake" / "progress" / f"{name}.json"


class Watch:
    """What a terminal shows while one stage of a study's graph runs.

    The jobs' output goes to a file, which is shown line by line above a table
    of what runs now. A pipe would break if this process were killed, and the
    jobs with it.

    Parameters
    ----------
    study : Study
    stage : {'experiments', 'latency', 'report', 'model'}
    console : Console
    """

    def __init__(self, study: Study, stage: str, console: Console):
        self.study, self.stage, self.console = study, stage, console
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.clock = Clock(study)
        self.began, self.rest = time.monotonic(), ""

    def __enter__(self) -> IO[str]:
        """Start; return the file that the output of the graph is to go to."""
        for left in status_file(self.study, "").parent.glob("*"):  # by jobs that were killed
            left.unlink(missing_ok=True)
        path = self.study.outputs / ".snakemake" / f"{self.stage}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.output = path.open("w", encoding="utf-8")
        self.log = path.open(encoding="utf-8", errors="replace")
        self.live.start()
        self.look()
        return self.output

    def __exit__(self, *_) -> None:
        """Show the last lines, and leave the terminal as it was."""
        self.stop()
        self.output.close()
        self.log.close()

    def stop(self) -> None:
        """Show what was printed up to now, and nothing from now on."""
        if self.live.is_started:
            self._show_lines()
            self.live.stop()

    def look(self) -> None:
        """Bring the terminal up to date."""
        self._show_lines()
        self.live.update(self._table(), refresh=True)

    def _show_lines(self) -> None:
        *lines, self.rest = (self.rest + self.log.read()).split("\n")
        for line in lines:
            if not EPOCH.match(line):
                self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Group | Text:
        if self.stage in STAGES:
            return Text(f"{STAGES[self.stage]}: {time.monotonic() - self.began:.0f} s")
        told = {path.stem: status.read(path) for path in sorted(status_file(self.study, "").parent.glob("*.json"))}
        self.clock.note(told)
        finished, all_jobs = len(self.study.finished()), len(self.study.jobs)
        head = Table.grid(padding=(0, 2))
        head.add_row(
            f"{finished} of {all_jobs} experiments",
            ProgressBar(all_jobs, finished, width=30),
            in_words(self.clock.seconds_left()),
        )
        running = Table.grid(padding=(0, 2))
        for name, facts in told.items():
            running.add_row(f"  {facts.get('label', name)}", *_cells(facts))
        return Group(head, running)


def _cells(facts: Mapping[str, Any]) -> list[str]:
    """Say what one job is at: its phase, how far, and its accuracy so far."""
    phase, epochs = facts.get("phase", "starting"), facts.get("epochs")
    far = f"epoch {min(facts['epoch'] + 1, epochs)} of {epochs}" if epochs else ""
    if not epochs and "share" in facts:
        far = f"{facts['share']:.0%}"
    accuracy = facts.get("validation_accuracy")
    return [phase, far, "" if accuracy is None else f"validation {accuracy:.1%}"]


class Clock:
    """The time left, from the epochs of finished and of running experiments.

    An epoch of the head takes each network its own time. A fine-tuning epoch
    takes longer the more layers train (`Job.effort`).
    """

    def __init__(self, study: Study):
        self.study = study
        self.finished: dict[str, list[float]] = {}  # seconds of the head and of fine-tuning, by the experiment's name
        self.besides: dict[str, float] = {}  # seconds of all else, of those that have ended while we looked
        self.running: dict[str, dict[str, Any]] = {}  # what they told when we looked last
        self.at_once = 1

    def note(self, told: Mapping[str, dict[str, Any]]) -> None:
        """Take up what jobs tell now, by their names."""
        for job in self.study.finished():
            if job.name not in self.finished:
                seconds = self.finished[job.name] = _seconds(job)
                if started := self.running.get(job.name, {}).get("started"):
                    self.besides[job.name] = max(time.time() - started - sum(seconds), 0.0)
        self.running = {job.name: told[job.name] for job in self.study.unfinished() if job.name in told}
        self.at_once = max(self.at_once, len(self.running))

    def seconds_left(self) -> float | None:
        """Estimate the seconds until the last experiment ends; None if too little was measured yet."""
        rates = self._rates()
        besides = statistics.mean(self.besides.values() or [0.0])
        left = []
        for job in self.study.unfinished():
            done = _done(job, self.running.get(job.name, {}))
            seconds = 0.0 if job.name in self.running else besides
            for phase, (epochs, work) in enumerate(_phases(job)):
                rate = rates.get((job.experiment.backbone, phase)) or rates.get(("", phase))
                if rate is None and epochs > done[phase]:
                    return None
                seconds += (epochs - done[phase]) * work * (rate or 0.0)
            left.append(seconds)
        return max(*left, sum(left) / self.at_once) if left else None

    def _rates(self) -> dict[tuple[str, int], float]:
        """Measure the seconds of an epoch for one unit of work, by network and phase; "" is the mean of all."""
        measured: dict[tuple[str, int], list[float]] = {}
        for job in self.study.jobs:
            facts = self.running.get(job.name, {})
            for phase, (epochs, work) in enumerate(_phases(job)):
                if epochs and job.name in self.finished:
                    rate = self.finished[job.name][phase] / epochs / work
                elif "seconds" in facts and phase == (1 if _done(job, facts)[1] else 0):
                    rate = facts["seconds"] / work
                else:
                    continue
                for backbone in (job.experiment.backbone, ""):
                    measured.setdefault((backbone, phase), []).append(rate)
        return {which: statistics.mean(rates) for which, rates in measured.items()}


def _phases(job: Job) -> list[tuple[int, int]]:
    """Give the epochs of the head alone and of fine-tuning, each with the work of one epoch."""
    experiment = job.experiment
    if experiment.strategy == "frozen":
        return [(experiment.epochs, 1), (0, 1)]
    return [(experiment.head_epochs, 1), (experiment.finetune_epochs, min(job.effort, WHOLE))]


def _done(job: Job, facts: Mapping[str, Any]) -> list[int]:
    """Count the epochs that a running experiment has finished, of each phase."""
    (head, _), (finetune, _) = _phases(job)
    epoch = min(facts.get("epoch", 0), head + finetune)
    return [min(epoch, head), max(epoch - head, 0)]


def _seconds(job: Job) -> list[float]:
    """Read how long the phases of a finished experiment took."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        seconds = json.loads(job.record.read_text(encoding="utf-8"))["training_seconds"]
        return [float(seconds["head"]), float(seconds["finetune"])]
    return [0.0, 0.0]


def in_words(seconds: float | None) -> str:
    """Say how much time is left, as roughly as it is known."""
    if seconds is None:
        return ""
    if seconds < 60:
        return "less than a minute left"
    minutes = round(seconds / 60)
    return f"about {minutes} min left" if minutes < 100 else f"about {minutes / 60:.0f} hours left"


def of(study: Study, stage: str) -> Watch | None:
    """Give what shows a stage's progress, if standard output is a terminal that can move its cursor."""
    console = Console()
    return Watch(study, stage, console) if console.is_terminal and not console.is_dumb_terminal else None
