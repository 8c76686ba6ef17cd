"""The progress of a study in a terminal: how many experiments are finished, what runs now, and the time left."""

from __future__ import annotations

import contextlib
import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from thaw.disk import status
from thaw.study.study import Job, Study, fold_name

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
    stage : {'rates', 'experiments', 'latency', 'report', 'model'}
    console : Console
    """

    def __init__(self, study: Study, stage: str, console: Console):
        self.study, self.stage, self.console = study, stage, console
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.clock = Clock(study)
        self.began, self.rest = time.monotonic(), ""

    def __enter__(self) -> IO[str]:
        """Start; return the file that the output of the graph is to go to."""
        for left in status_file(self.study, "").parent.glob("*") if self.stage not in STAGES else ():
            left.unlink(missing_ok=True)  # by jobs that were killed
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
        if self.stage == "rates":
            all_jobs, what, left = len(self.study.choices), "choices of learning rates", None
            finished = sum(choice.path.is_file() for choice in self.study.choices)
        else:
            self.clock.note(told)
            all_jobs, what, left = len(self.study.jobs), "experiments", self.clock.seconds_left()
            finished = len(self.study.finished())
        head = Table.grid(padding=(0, 2))
        head.add_row(f"{finished} of {all_jobs} {what}", ProgressBar(all_jobs, finished, width=30), in_words(left))
        running = Table.grid(padding=(0, 2))
        for name, facts in told.items():
            running.add_row(f"  {facts.get('label', name)}", *_cells(facts))
        return Group(head, running)


def _cells(facts: Mapping[str, Any]) -> list[str]:
    """Say what one job is at: its phase, how far, and its accuracy so far."""
    phase, epochs = facts.get("phase", "starting"), facts.get("epochs")
    if "fold" in facts:
        phase = f"fold {facts['fold']}, {phase}"
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
        self.running: dict[str, list[dict[str, Any]]] = {}  # what they told when we looked last, each fold by itself
        self.at_once = 1

    def note(self, told: Mapping[str, dict[str, Any]]) -> None:
        """Take up what jobs tell now, by their names."""
        for job in self.study.finished():
            if job.name not in self.finished:
                seconds = self.finished[job.name] = _seconds(job)
                if (told_last := self.running.get(job.name)) and self.study.settings.spread == "configurations":
                    started = told_last[0].get("started", time.time())
                    self.besides[job.name] = max(time.time() - started - sum(seconds), 0.0)
        self.running = {job.name: facts for job in self.study.unfinished() if (facts := _of_job(job, told))}
        self.at_once = max(self.at_once, sum(map(len, self.running.values())))

    def seconds_left(self) -> float | None:
        """Estimate the seconds until the last experiment ends; None if too little was measured yet."""
        rates = self._rates()
        besides = statistics.mean(self.besides.values() or [0.0])
        left = []
        for job in self.study.unfinished():
            done = _done(job, self.running.get(job.name, []))
            seconds = 0.0 if job.name in self.running else besides
            for phase, (epochs, work) in enumerate(_phases(job)):
                rate = rates.get((_network(job), phase)) or rates.get(("", phase))
                if rate is None and epochs > done[phase]:
                    return None
                seconds += (epochs - done[phase]) * work * (rate or 0.0)
            left.append(seconds)
        longest = left if self.study.settings.spread == "configurations" else []
        return max([*longest, sum(left) / self.at_once]) if left else None

    def _rates(self) -> dict[tuple[str, int], float]:
        """Measure the seconds of an epoch for one unit of work, by network and phase; "" is the mean of all."""
        measured: dict[tuple[str, int], list[float]] = {}
        for job in self.study.jobs:
            for phase, (epochs, work) in enumerate(_phases(job)):
                rates = [
                    facts["seconds"] / work
                    for facts in self.running.get(job.name, [])
                    if "seconds" in facts and phase == (1 if _in_fold(job, facts)[1] else 0)
                ]
                if epochs and job.name in self.finished:
                    rates = [self.finished[job.name][phase] / epochs / work]
                for network in (_network(job), ""):
                    measured.setdefault((network, phase), []).extend(rates)
        return {which: statistics.mean(rates) for which, rates in measured.items() if rates}


def _network(job: Job) -> str:
    """Name a job's network and precision: an epoch takes each its own time."""
    return f"{job.experiment.backbone} {job.experiment.precision}"


def _of_job(job: Job, told: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Give what a job tells, and what its folds tell where they are jobs of their own."""
    names = [job.name, *(fold_name(job, fold) for fold in job.experiment.tested_folds)]
    return [told[name] for name in names if name in told]


def _epochs(job: Job) -> tuple[int, int]:
    """Give the epochs of the head alone and of fine-tuning, on one fold."""
    experiment = job.experiment
    return (
        (experiment.epochs, 0)
        if experiment.strategy == "frozen"
        else (experiment.head_epochs, experiment.finetune_epochs)
    )


def _phases(job: Job) -> list[tuple[int, int]]:
    """Give the epochs of the head alone and of fine-tuning, on all folds, each with the work of one epoch."""
    (head, finetune), folds = _epochs(job), len(job.experiment.tested_folds) or 1
    return [(folds * head, 1), (folds * finetune, min(job.effort, WHOLE) or 1)]


def _in_fold(job: Job, facts: Mapping[str, Any]) -> list[int]:
    """Count the epochs that an experiment has finished of the fold that it is at, of each phase."""
    head, finetune = _epochs(job)
    epoch = min(facts.get("epoch", 0), head + finetune)
    return [min(epoch, head), max(epoch - head, 0)]


def _done(job: Job, running: Sequence[Mapping[str, Any]]) -> list[int]:
    """Count the epochs that an experiment has finished, of each phase."""
    folds = len(job.experiment.tested_folds) - len(job.unfinished_folds())
    done = [_in_fold(job, facts) for facts in running]
    return [
        min(folds * epochs + sum(each[phase] for each in done), _phases(job)[phase][0])
        for phase, epochs in enumerate(_epochs(job))
    ]


def _seconds(job: Job) -> list[float]:
    """Read how long the phases of a finished experiment took."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(job.record.read_text(encoding="utf-8"))
        folds = job.experiment.tested_folds  # its record may hold more
        each_of = [each for each in record.get("folds", ()) if each["parameters"]["fold"] in folds] or [record]
        seconds = [each["training_seconds"] for each in each_of]
        return [float(sum(each[phase] for each in seconds)) for phase in ("head", "finetune")]
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
