"""Run a study with Snakemake in three stages: experiments, latency, report. The Snakefile has the jobs."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from thaw.disk import places
from thaw.disk.atomic import write_atomic
from thaw.errors import ThawError
from thaw.study import freshness, plan
from thaw.study.study import NOT_RUN, Study

SECONDS_TO_STOP = 10  # until what is left of a graph that was stopped is killed


@dataclass(frozen=True)
class Graph:
    """The jobs of a study, and where they run.

    Attributes
    ----------
    study : Study
    outputs : str
        The folder of all outputs, as it was given.
    cores : str
        Processor cores to use, or ``all``.
    cluster : str or None
        A name in ``params/clusters``, or a profile of Snakemake's own. Then
        `cores` does not count.
    """

    study: Study
    outputs: str
    cores: str = "all"
    cluster: str | None = None

    def make(self) -> None:
        """Run what is missing, and report what is there.

        Raises
        ------
        ThawError
            If anything is missing at the end: all of it, with reasons.
        """
        study = self.study
        study.forget_failures()
        plan.forget(study)  # of a graph that was stopped
        if study.unfinished():
            self.run("experiments")
            plan.forget(study)
        if not study.is_search and study.finished():
            if not freshness.latency_is_current(study):
                (study.outputs / "latency.csv").unlink(missing_ok=True)
                self.run("latency")
            if not freshness.report_is_current(study):
                freshness.remove_report(study)
                self.run("report")
        if missing := self.missing():
            lines = "".join(f"\n  {what}: {reason.splitlines()[0]}" for what, reason in missing.items())
            raise ThawError(
                f"{len(study.finished())} of {len(study.jobs)} experiments are finished. Missing:{lines}\n"
                "What is finished is kept. The same command tries the rest again."
            )

    def missing(self) -> dict[str, str]:
        """What is not there, with the reason."""
        study = self.study
        failures = study.failures()
        missing = {job.label: failures.pop(job.name, NOT_RUN) for job in study.unfinished()}
        if not study.is_search:
            if not (study.outputs / "latency.csv").is_file():
                missing["latency"] = failures.pop("latency", NOT_RUN)
            if not freshness.report_is_current(study):
                missing["report"] = failures.pop("report", "see the messages above")
        return missing

    def run(self, stage: str) -> bool:
        """Run one stage; whether all of it was done.

        Parameters
        ----------
        stage : {'experiments', 'latency', 'report'}
        """
        folder, root = self.study.outputs, places.project()
        command = [sys.executable, "-m", "snakemake", stage, "--snakefile", root / "Snakefile", "--directory", folder]
        # Files appear whole or not at all, and the study has a better lock: one that ends with its process.
        command += ["--keep-going", "--ignore-incomplete", "--nolock", "--rerun-triggers", "mtime"]
        if self.cluster:
            settings = root / "params" / "clusters" / self.cluster
            command += ["--profile", settings if settings.is_dir() else self.cluster]
        else:
            command += ["--cores", self.cores, "--scheduler", "greedy", "--quiet", "all"]
            # No more jobs at once than memory is free for.
            free = max(psutil.virtual_memory().available // 10**6, 3000)
            command += ["--default-resources", "mem_mb=3000", "--resources", f"mem_mb={free}"]
        config = json.dumps({"profile": str(self.study.path), "outputs": self.outputs})
        # In a file: on a cluster, a command line passes through several shells.
        path = folder / ".snakemake" / "config.json"
        write_atomic(path, lambda partial: partial.write_text(config, encoding="utf-8"))
        return _run([*command, "--configfile", path]) == 0


def _run(command: list[str | Path]) -> int:
    """Run a command; if this process is stopped, stop all that the command has started."""
    mark = {"THAW_RUN": secrets.token_hex(8)}
    # Jobs run in other folders: the cache's path has to be absolute.
    process = subprocess.Popen(command, env=os.environ | mark | {"THAW_CACHE_DIR": str(places.cache().absolute())})
    try:
        return process.wait()
    except KeyboardInterrupt as stop:
        if stop.args:  # not by Ctrl-C, which the terminal has sent to all of them
            for each in processes_with(mark):
                each.send_signal(signal.SIGINT)
        end = time.monotonic() + SECONDS_TO_STOP
        while processes_with(mark) and time.monotonic() < end:
            time.sleep(0.2)
        for each in processes_with(mark):
            each.kill()
        raise


def processes_with(mark: dict[str, str]) -> list[psutil.Process]:
    """Find processes by their environment: kernels have sessions of their own, and may have lost their parents."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # gone, or another user's
            if mark.items() <= process.environ().items():
                found.append(process)
    return found
