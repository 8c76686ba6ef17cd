"""The command line: ``python -m thaw report PROFILE``, and the jobs of its graph."""

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import psutil

from thaw.disk import atomic as files
from thaw.disk import places
from thaw.errors import InvalidRecord, OutputNotWritable, ThawError, UnknownProfile, did_you_mean
from thaw.records.record import write_csv
from thaw.study import plan, search
from thaw.study.study import Study

SECONDS_TO_STOP = 10  # for the graph's processes to end by themselves


def main(arguments: list[str] | None = None) -> int:
    """Run a command; 0 if it went well, 1 after a message if not."""
    parser = argparse.ArgumentParser(
        prog="python -m thaw", description="How much of a pre-trained network should one unfreeze?"
    )
    parser.add_argument("--outputs", default="outputs", help="folder of all outputs (default: %(default)s)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("report", help="run a profile's study, and export its report")
    command.add_argument("profile")
    command.add_argument("--reason", default="", help="why this profile, for the report's first page")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--cores", default="all", help="processor cores to use (default: all)")
    where.add_argument(
        "--profile", dest="cluster", help="run on a cluster: a name in params/clusters, or Snakemake's own"
    )
    command.set_defaults(run=report)

    command = commands.add_parser("check", help="find what is wrong with a profile before anything is run")
    command.add_argument("profile")
    command.set_defaults(run=check)

    command = commands.add_parser("prepare", help="one job: photos, activations or a head that experiments share")
    command.add_argument("profile")
    command.add_argument("name", help="the part's name in the plan")
    command.add_argument("--threads", help="processor cores to use (default: all)")
    command.set_defaults(run=prepare)

    command = commands.add_parser("experiment", help="one job: an experiment of a profile")
    command.add_argument("profile")
    command.add_argument("name", help="the folder's name below runs/")
    command.add_argument("--threads", help="processor cores to use (default: all)")
    command.set_defaults(run=experiment)

    command = commands.add_parser("latency", help="one job: the latency of all configurations, with nothing beside it")
    command.add_argument("profile")
    command.set_defaults(run=latency)

    command = commands.add_parser("weights", help="one job: weights pre-trained on drawn pictures")
    command.add_argument("profile")
    command.add_argument("backbone")
    command.add_argument("--threads", help="processor cores to use (default: all)")
    command.set_defaults(run=weights)

    command = commands.add_parser("summary", help="one job: the summary notebook of a profile")
    command.add_argument("profile")
    command.add_argument("--reason", default="")
    command.set_defaults(run=summary)

    command = commands.add_parser("export", help="one job: a notebook as HTML or PDF")
    command.add_argument("notebook", type=Path)
    command.add_argument("output", type=Path)
    command.set_defaults(run=export)

    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except ThawError as error:
        print(f"\nthaw: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if options.run is report:  # and not its jobs, which are stopped as well
            print("\nthaw: stopped. The same command goes on from here.", file=sys.stderr)
        return 130


def report(options: argparse.Namespace) -> int:
    """Check everything, run the graph, and say where the report is; 1 if something is wrong or missing."""
    study = Study.load(options.profile, options.outputs)
    search.of(study)  # read at the very end, and so checked here
    files.check_writable(study.outputs)

    def busy():
        raise ThawError(f"{study.outputs}: another run of this study is at work. Wait for it, or stop it first.")

    for folder in (places.project(), study.outputs, places.cache()):
        if special := set("{}<>") & set(str(folder)):
            raise OutputNotWritable(
                f"{folder}: has a {min(special)} in its name, which means something to Snakemake. Give another."
            )
    signal.signal(signal.SIGTERM, _terminated)
    with files.locked([study.outputs / "study"], busy):
        return _report(study, options)


def _report(study: Study, options: argparse.Namespace) -> int:
    for wrong in study.set_aside_damaged():
        print(f"{wrong.split(' Delete')[0]} It is put aside as record.damaged.json, and run again.", flush=True)
    finished = len(study.finished())
    several = "s" * (len(study.jobs) != 1)
    print(f"{len(study.jobs)} experiment{several}, {finished} of them finished already.", flush=True)
    # In a process of its own: TensorFlow takes a gigabyte, and this one stays until the end.
    command = [sys.executable, "-m", "thaw", "--outputs", options.outputs, "check", options.profile]
    if finished < len(study.jobs) and subprocess.run(command).returncode:
        return 1  # it has said why
    settle_times(study)
    study.forget_failures()
    names = {job.name for job in study.jobs}
    failed: dict[str, str] = {}
    while run_graph(study, options, sorted(failed)):
        # What waited for the jobs that failed goes on without them.
        more = study.failures()
        photos = any(name.startswith("photos-") for name in more.keys() - names)  # without them there is no experiment
        if more.keys() <= failed.keys() or photos:
            raise ThawError(
                "not all of it could be done: see the messages above. What is finished is kept; the same command goes on from here."
            )
        failed = more
        print(f"Going on without {', '.join(sorted(failed))}.", flush=True)
    if study.is_search:
        found = search.table(study).drop(columns=["label", "at_edge"])
        print(f"What the validation photos favour:\n{found.to_string(index=False)}")
    else:
        print("The report:")
        for name in ("report.html", "report.pdf"):
            print(f"  {study.outputs / name}")
    if undone := failed.keys() & (names | {"latency"}):  # without what they share, experiments have made it themselves
        raise ThawError(
            f"the {'search' if study.is_search else 'report'} is of {len(study.finished())} of {len(study.jobs)} experiments. Not done: {', '.join(sorted(undone))}; "
            "it says why. The same command tries them again."
        )
    return 0


def settle_times(study: Study) -> None:
    """Give the files of a clone, whose times mean nothing, the order that their contents say.

    A report of just the records that are there is up to date; after that, Snakemake goes by times.
    """
    report = [study.outputs / name for name in ("latency.csv", "summary.ipynb", "report.html", "report.pdf")]
    if (study.outputs / ".snakemake").exists() or not all(path.is_file() for path in report):
        return
    from thaw.records import record
    from thaw.report import tables as report_tables
    from thaw.report.results import Results

    tables = [study.outputs / f"results.{kind}" for kind in ("csv", "md", "tex")]
    with contextlib.suppress(InvalidRecord, OSError, ValueError):  # records or a table are missing or damaged
        if tables[0].read_bytes() == record.as_csv(report_tables.run_table(Results.of(study))):
            for path in (report[0], report[1], *tables, *report[2:]):
                path.touch()


def check(options: argparse.Namespace) -> None:
    """Find what is wrong with a profile, and plan its jobs."""
    from thaw.study.execute import stderr_to

    study = Study.load(options.profile, options.outputs)
    with stderr_to(os.devnull):
        from thaw.study import check as preflight
    preflight.check(study)  # its downloads, if any, tell of their progress
    plan.plan(study)


def prepare(options: argparse.Namespace) -> None:
    """Make what experiments of a profile share."""
    from thaw.study.execute import Labelled, stderr_to

    limit_threads(options.threads)
    study = Study.load(options.profile, options.outputs)
    parts = {part.name: part for part in plan.plan(study).parts}
    if options.name not in parts:
        raise UnknownProfile(f"{options.name!r}: no part of {study.profile}. {did_you_mean(options.name, parts)}")
    part = parts[options.name]
    experiment = next(job.experiment for job in study.jobs if job.name == part.job)
    with study.noting_failure(part.name), stderr_to(os.devnull) as terminal:
        stream = Labelled(terminal, part.label)
        plan.prepare(part, experiment, lambda line: print(line, file=stream))
        if not all(map(os.path.exists, part.outputs)):
            raise ThawError(
                f"{part.label}: not kept, for want of room in {places.cache()}. Make room, or set THAW_CACHE_DIR to a folder "
                "on another disk."
            )


def run_graph(study: Study, options: argparse.Namespace, without: Sequence[str] = ()) -> int:
    """Run the Snakefile for a study, silent but for what its jobs print; Snakemake's exit code.

    Parameters
    ----------
    without : sequence of str
        The names of jobs that have failed, and are left out.
    """
    root = places.project()
    command = [sys.executable, "-m", "snakemake", "--snakefile", root / "Snakefile", "--directory", study.outputs]
    # Every file appears whole or not at all, and `files.locked` does better than a lock that outlives its process.
    command += ["--keep-going", "--ignore-incomplete", "--nolock", "--rerun-triggers", "mtime", "params"]
    if options.cluster:
        folder = root / "params" / "clusters" / options.cluster
        command += ["--profile", folder if folder.is_dir() else options.cluster]
    else:
        command += ["--cores", options.cores, "--scheduler", "greedy", "--quiet", "all"]
        # No more jobs at once than memory is free for.
        free = max(psutil.virtual_memory().available // 10**6, 3000)
        command += ["--default-resources", "mem_mb=3000", "--resources", f"mem_mb={free}"]
    settings = {"profile": str(study.path), "outputs": options.outputs, "reason": options.reason, "without": [*without]}
    # In a file: on a cluster, what a command line says passes through several shells.
    path = study.outputs / ".snakemake" / "config.json"
    files.write_atomic(path, lambda partial: partial.write_text(json.dumps(settings), encoding="utf-8"))
    command += ["--configfile", path]
    mark = {"THAW_RUN": secrets.token_hex(8)}
    graph = subprocess.Popen(command, env=os.environ | mark)
    try:
        return graph.wait()
    except KeyboardInterrupt as stop:
        for process in processes_with(mark) if stop.args else []:  # else the terminal has told them all
            process.send_signal(signal.SIGINT)
        end = time.monotonic() + SECONDS_TO_STOP
        while processes_with(mark) and time.monotonic() < end:
            time.sleep(0.2)
        for process in processes_with(mark):
            process.kill()
        raise


def processes_with(mark: dict[str, str]) -> list[psutil.Process]:
    """The processes with some environment variables: kernels have sessions of their own, and lose their parents."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # gone, or another user's
            if mark.items() <= process.environ().items():
                found.append(process)
    return found


def _terminated(*_) -> NoReturn:
    raise KeyboardInterrupt("terminated")


def limit_threads(threads: str | None) -> None:
    """Keep TensorFlow, here and in kernels started from here, to so many cores."""
    if threads:
        os.environ |= {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": "1"}


def experiment(options: argparse.Namespace) -> None:
    """Run one experiment of a profile."""
    from thaw.study.execute import execute

    limit_threads(options.threads)
    study = Study.load(options.profile, options.outputs)
    jobs = {job.name: job for job in study.jobs}
    if options.name not in jobs:
        raise UnknownProfile(f"{options.name!r}: no experiment of {study.profile}. {did_you_mean(options.name, jobs)}")
    job = jobs[options.name]
    parameters = job.experiment.model_dump(mode="json")
    waiting = partial(print, f"{job.label}: another process runs it; waiting for that.", flush=True)
    with files.locked([job.directory / "experiment"], waiting), study.noting_failure(job.name):
        executed = job.directory / "experiment.ipynb"
        if job.is_finished():
            return  # by a process that was waited for, or before the graph could note it
        execute(places.project() / "notebooks" / "experiment.ipynb", executed, parameters, job.label, study.hours)
    places.backup(job.experiment.digest).unlink(missing_ok=True)
    print(f"Experiment {len(study.finished())} of {len(jobs)} is finished: {job.label}.", flush=True)


def latency(options: argparse.Namespace) -> None:
    """Measure the latency of a profile's configurations."""
    from thaw.study.execute import Labelled, stderr_to

    study = Study.load(options.profile, options.outputs)
    with study.noting_failure("latency"), stderr_to(os.devnull) as terminal:
        from thaw.study.latency import measure

        stream = Labelled(terminal, "latency")
        measured = measure(study.configurations(), lambda line: print(line, file=stream))
        write_csv(measured, study.outputs / "latency.csv")


def weights(options: argparse.Namespace) -> None:
    """Pre-train a backbone on drawn pictures."""
    limit_threads(options.threads)
    from thaw.study.execute import stderr_to

    study = Study.load(options.profile, options.outputs)
    with study.noting_failure(f"weights-{options.backbone}"), stderr_to(os.devnull):
        from thaw.network import backbones

        backbones.drawn_weights(options.backbone)


def summary(options: argparse.Namespace) -> None:
    """Run the summary notebook of a profile."""
    from thaw.study.execute import execute

    study = Study.load(options.profile, options.outputs)
    own = study.path.parent == (places.project() / "params" / "profiles").resolve()
    profile = study.profile if own else str(study.path)  # no folder of this machine, if it need not be
    parameters = {"profile": profile, "outputs": options.outputs, "reason": options.reason}
    print("Now the summary.", flush=True)
    notebook, executed = places.project() / "notebooks" / "summary.ipynb", study.outputs / "summary.ipynb"
    execute(notebook, executed, parameters, "summary", study.hours)


def export(options: argparse.Namespace) -> None:
    """Export a notebook in the format of the output's suffix."""
    from thaw.report.export import export_html, export_pdf

    {".html": export_html, ".pdf": export_pdf}[options.output.suffix](options.notebook, options.output)


if __name__ == "__main__":
    sys.exit(main())
