"""Run a study with Snakemake in stages: rates, experiments, latency, report, model. The Snakefile has the jobs.

One process coordinates: ``thaw report``. While it runs a stage, a file below
``.snakemake/coordinators`` names it, and whatever it starts carries the path of
that file in its environment. So two graphs are never at work on one study: what
is started ends itself when its coordinator is killed, or when the file is gone;
and the next coordinator, which holds the lock, first ends what is left.
"""

import contextlib
import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import psutil

from thaw.disk import places
from thaw.disk.atomic import remove_abandoned, write_atomic
from thaw.disk.locks import locked
from thaw.errors import ThawError
from thaw.study import freshness, plan, watch
from thaw.study.study import Study

CONTROL_GROUPS = Path("/sys/fs/cgroup")
SECONDS_TO_STOP = 10  # until what is left of a graph that was stopped is killed
RUN = "THAW_RUN"  # the variable with the path of the coordinator's file
STUDY, REPORT = "study", "report"  # what a coordinator holds the lock of: all of a study, or its report alone


@dataclass
class Graph:
    """The jobs of a study, and where they run."""

    study: Study  # loaded anew once its learning rates are chosen: then its experiments have them
    outputs: str  # the folder of all outputs, as it was given
    cores: str = "all"  # processor cores to use
    cluster: str | None = None  # in place of cores: a name in params/clusters, or a profile of Snakemake's own

    def make(self) -> dict[str, str]:
        """Run what is missing, and report what is there.

        Returns
        -------
        dict of str to str
            What is missing at the end, with the reason.
        """
        for folder, *_ in os.walk(self.study.outputs):  # what killed jobs left
            remove_abandoned(Path(folder))
        self.study.forget_failures()
        plan.forget(self.study)  # of a graph that was stopped
        if self.study.to_choose():
            self._make("rates", self.study.to_choose)
            self.study = Study.load(str(self.study.path), self.outputs)
        study = self.study
        if study.ready():
            self._make("experiments", study.waiting)
        plan.forget(study)
        if study.reportable():
            if not freshness.latency_is_current(study):
                with self.alone(REPORT):  # nothing beside it: no report either
                    (study.outputs / "latency.csv").unlink(missing_ok=True)
                    self.run("latency")
            deliver = study.settings.deliver and not freshness.model_is_current(study)
            if deliver:  # an old answer's card should not stand beside the new report, whatever fails
                freshness.card(study).unlink(missing_ok=True)
            self.report()
            if deliver:
                self.run("model")
        failures = study.failures()
        missing = {job.label: reason for job, reason in study.reasons().items()}
        if missing:  # a shared part that failed does not matter if all experiments are finished
            missing |= {name: failures[name] for name in failures if name.startswith("shared-")}
        if study.reportable():
            there = {"latency": freshness.latency_is_current(study), "report": freshness.report_is_current(study)}
            if study.settings.deliver:
                there["model"] = freshness.model_is_current(study)
            missing |= {what: study.why_missing(what) for what in there if not there[what]}
        return missing

    def report(self) -> None:
        """Make the report of what is finished now, unless there is one. It may be called while the study runs."""
        with self.alone(REPORT):
            if not freshness.report_is_current(self.study):
                freshness.remove_report(self.study)
                self.run("report")

    def check(self) -> bool:
        """Find what is wrong before anything runs, and download what is missing; whether all is well.

        In a process of its own: TensorFlow takes a gigabyte, and this process stays until the end.
        """
        command = [sys.executable, "-m", "thaw", "check", str(self.study.path), "--outputs", self.outputs]
        return _run(command, self._new(STUDY)) == 0

    def _make(self, stage: str, waiting: Callable[[], Collection]) -> None:
        """Run a stage; what a shared part that failed has left waiting can make what it needs itself."""
        self.run(stage)
        if waiting() and any(name.startswith("shared-") for name in self.study.failures()):
            self.run(stage, shared=False)

    def run(self, stage: str, shared: bool = True) -> bool:
        """Run one stage; whether all of it was done.

        Parameters
        ----------
        stage : {'rates', 'experiments', 'latency', 'report', 'model'}
        shared : bool
            Whether jobs of their own make what experiments share.
        """
        folder, root = self.study.outputs, places.project()
        command: list[str | Path] = [sys.executable, "-m", "snakemake"]
        command += [stage, "--snakefile", root / "Snakefile", "--directory", folder]
        # Files appear whole or not at all, and the study has a better lock: one that ends with its process.
        command += ["--keep-going", "--ignore-incomplete", "--nolock", "--rerun-triggers", "mtime"]
        if self.cluster:
            settings = root / "params" / "clusters" / self.cluster
            command += ["--profile", settings if settings.is_dir() else self.cluster]
        else:
            command += ["--cores", self.cores, "--scheduler", "greedy", "--quiet", "all"]
            # No more jobs at once than memory is free for.
            free = max(_free_memory() // 10**6, 3000)
            command += ["--default-resources", "mem_mb=3000", "--resources", f"mem_mb={free}"]
        config = json.dumps({"profile": str(self.study.path), "outputs": self.outputs, "shared": shared})
        # In a file: on a cluster, a command line passes through several shells.
        path = folder / ".snakemake" / f"config-{stage}.json"
        write_atomic(path, config)
        coordinator = self._new(REPORT if stage == REPORT else STUDY)
        here = stage == "experiments" and not self.cluster
        notebook = root / "notebooks" / "experiment.ipynb" if here else None
        done = _run([*command, "--configfile", path], coordinator, watch.of(self.study, stage), notebook) == 0
        if not done and not self.study.failures():  # no job has said why: Snakemake itself gave up
            logs = sorted((folder / ".snakemake" / "log").glob("*.log"))
            print("Snakemake could not run the jobs. It says why in", logs[-1] if logs else "no file.", flush=True)
        return done

    @property
    def _coordinators(self) -> Path:
        return (self.study.outputs / ".snakemake" / "coordinators").absolute()

    def _new(self, holds: str) -> Path:
        return self._coordinators / f"{holds}-{secrets.token_hex(8)}"

    @contextlib.contextmanager
    def alone(self, holds: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock of a study or of its report; first end what coordinators have left that were killed."""
        with locked([self.study.outputs / holds], waiting):
            for left in self._coordinators.glob(f"{holds}-*"):
                left.unlink(missing_ok=True)  # what they have left ends itself then, also on other machines
                if processes_with({RUN: str(left)}):
                    says = "An earlier run was killed. What it has left at work is stopped first."
                    _stop({RUN: str(left)}, says, told=True)
            yield


def _free_memory() -> int:
    """Give the bytes of memory that are free on this machine, or in the container that this runs in."""
    limits = [psutil.virtual_memory().available]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of both versions of Linux' control groups
        with contextlib.suppress(OSError, ValueError):  # there is none, or it is "max"
            limits.append(int((CONTROL_GROUPS / name).read_text(encoding="ascii")))
    return min(limits)


def _cache_of_others() -> dict[str, str]:
    """Where the user's own cache cannot be written to, Snakemake would give up: give it a folder in ours."""
    own = Path(platformdirs.user_cache_dir())
    with contextlib.suppress(OSError):
        own.mkdir(parents=True, exist_ok=True)
        if os.access(own, os.W_OK):
            return {}
    return {"XDG_CACHE_HOME": str(places.cache("of-others").absolute())}


def _run(
    command: Sequence[str | Path],
    coordinator: Path,
    watched: watch.Watch | None = None,
    notebook: Path | None = None,
) -> int:
    """Run a command; however it ends, or if this process is stopped, stop all that it has started.

    Parameters
    ----------
    command : sequence of str or Path
    coordinator : Path
        The file that is there meanwhile.
    watched : Watch, optional
        Shows the progress.
    notebook : Path, optional
        What jobs run in kernels.
    """
    mark = {RUN: str(coordinator)}
    # Jobs run in other folders: the cache's path has to be absolute.
    environment = os.environ | _cache_of_others() | mark | {"THAW_CACHE_DIR": str(places.cache().absolute())}
    write_atomic(coordinator, json.dumps({"host": platform.node(), "process": os.getpid()}))
    try:
        with watched or contextlib.nullcontext() as output, _copies(notebook, environment) as offer:
            process = subprocess.Popen(command, env=environment | offer, stdout=output, stderr=output)
            try:
                while watched and process.poll() is None:
                    watched.look()
                    time.sleep(watch.INTERVAL)
                status = process.wait()
            except KeyboardInterrupt as stop:
                if watched:
                    watched.stop()  # and so the terminal is as it was
                _stop(mark, "Stopping. Finished epochs are kept. Ctrl-C once more ends it at once.", not stop.args)
                raise
        if processes_with(mark):
            coordinator.unlink()
            _stop(mark, "Snakemake was killed. The jobs that it has left at work are stopped.", told=True)
        return status
    finally:
        coordinator.unlink(missing_ok=True)


def _copies(notebook: Path | None, environment: dict[str, str]) -> contextlib.AbstractContextManager[dict[str, str]]:
    """Offer kernels for a notebook, if there is one."""
    if not notebook:
        return contextlib.nullcontext({})
    from thaw.study import kernels  # takes half a second to import, which few commands need

    return kernels.offered(notebook, environment)


def _stop(mark: dict[str, str], says: str, told: bool) -> None:
    """Stop processes: first politely, and after some seconds or a second Ctrl-C at once.

    Parameters
    ----------
    mark : dict
        What their environment holds.
    says : str
        What is said first.
    told : bool
        Whether they have been told: by the terminal, as on Ctrl-C, or since their coordinator's file is gone.
    """
    try:
        print(f"\n{says}", file=sys.stderr, flush=True)
        for each in processes_with(mark) if not told else []:
            with contextlib.suppress(psutil.Error):
                each.send_signal(signal.SIGINT)
        end = time.monotonic() + SECONDS_TO_STOP
        while processes_with(mark) and time.monotonic() < end:
            time.sleep(0.2)
    finally:
        end = time.monotonic() + SECONDS_TO_STOP
        while (left := processes_with(mark)) and time.monotonic() < end:  # until they are gone
            for each in left:
                with contextlib.suppress(psutil.Error):
                    each.kill()
            time.sleep(0.05)


def processes_with(mark: dict[str, str]) -> list[psutil.Process]:
    """Find processes by their environment: kernels have sessions of their own, and may have lost their parents."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # gone, or another user's
            if mark.items() <= process.environ().items():
                found.append(process)
    return found


def end_with_coordinator() -> None:
    """Have this process end, politely, when the coordinator that started it is gone; from the start if it is already.

    A process that no coordinator has started goes on.
    """
    if not (path := os.environ.get(RUN)):
        return

    def watching() -> None:
        while _coordinates(Path(path)):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(SECONDS_TO_STOP)
        os._exit(1)

    if not _coordinates(Path(path)):
        raise ThawError("the run of the study that has started this job is over. The job ends, too.")
    threading.Thread(target=watching, daemon=True).start()


def _coordinates(coordinator: Path) -> bool:
    """Whether a coordinator is at work, as far as it can be seen: from other machines its file alone."""
    try:
        told = json.loads(coordinator.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError):  # a disk that does not answer for a moment
        return True
    if told["host"] != platform.node():
        return True
    with contextlib.suppress(psutil.Error):
        return psutil.Process(told["process"]).status() != psutil.STATUS_ZOMBIE
    return False
