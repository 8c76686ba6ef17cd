"""The command line: ``thaw report PROFILE``, and the jobs of its graph."""

import contextlib
import functools
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, get_args

import click

from thaw.disk import budget, places, status
from thaw.disk.atomic import check_writable, write_atomic
from thaw.disk.locks import locked
from thaw.disk.streams import stderr_to
from thaw.errors import InvalidParameter, OutputNotWritable, ThawError, did_you_mean, explained, lacks
from thaw.experiment import Experiment
from thaw.network import backbones
from thaw.study import freshness, graph, plan, watch
from thaw.study.study import Study, fold_name


def _one_line(_, param: click.Parameter, value: str | None) -> str | None:
    """Refuse what could not be handed on: a folder's path passes through command lines, shells and messages."""
    if value and not places.printable(value):
        raise click.BadParameter(f"{value!r} has a line end or another character that a folder's name should not have.")
    return value


OUTPUTS = click.option(
    "--outputs", default="outputs", show_default=True, callback=_one_line, help="Folder of all outputs."
)
THREADS = click.option("--threads", type=click.IntRange(min=1), help="Processor cores to use.  [default: all]")


def on_study(command: Callable) -> Callable:
    """Give a command PROFILE and --outputs; it is handed the study, and the folder as it was given."""

    @click.argument("profile")
    @OUTPUTS
    @functools.wraps(command)
    def of_profile(profile: str, outputs: str, **options: Any) -> Any:
        with budget.in_use():
            return command(Study.load(profile, outputs), outputs, **options)

    return of_profile


@click.group()
@click.version_option(package_name="thaw")
def cli():
    """How much of a pre-trained network should one unfreeze?

    \b
    Example:
      thaw report demo
    """


@cli.command()
@click.argument("photos", callback=_one_line)
@click.option(
    "--backbone",
    "networks",
    multiple=True,
    default=["mobilenet"],
    show_default=True,
    callback=lambda context, option, values: [_one_line(context, option, value) for value in values],
    help="A network of keras.applications or a .keras file. Give it once for each network.",
)
@click.option(
    "--minutes", type=click.FloatRange(min=1, max=100_000), default=30, show_default=True, help="How long it may take."
)
@click.option("--name", callback=_one_line, help="The profile's name.  [default: the folder's]")
@click.option("--weights", callback=_one_line, help="imagenet, none or a file.  [default: imagenet]")
@click.option(
    "--preprocessing",
    type=click.Choice(get_args(Experiment.model_fields["preprocessing"].annotation)),
    default="network",
    help="How .keras files want their photos prepared.",
)
def init(photos, networks, minutes, name, weights, preprocessing):
    """Look at your photos, measure this machine, and write a profile.

    PHOTOS is a folder with a sub-folder for each class (also within train,
    val and test), or a CSV table with the columns path and label.

    \b
    Examples:
      thaw init ~/photos
      thaw init ~/photos --backbone mobilenet --backbone efficientnetv2b0 --minutes 60
    """
    _limit_threads(1)  # each job of a study has one core
    with stderr_to(os.devnull):
        from thaw.study.init import init
    init(photos, list(networks), minutes, name, weights, preprocessing, lambda line: print(line, flush=True))


@cli.command()
@on_study
@click.option("--cores", type=click.IntRange(min=1), help="Processor cores to use.  [default: all]")
@click.option("--cluster", help="Run on a cluster: a folder in params/clusters, or a profile of Snakemake's own.")
@click.option("--now", is_flag=True, help="Report what is finished, and run nothing else. Also while the study runs.")
def report(study, outputs, cores, cluster, now):
    """Run a profile's study and export its report.

    The same command goes on with a study that was stopped.

    \b
    Examples:
      thaw report quick
      thaw report paper --cluster slurm
    """
    if cores and cluster:
        raise click.UsageError("--cores and --cluster exclude each other: the cluster's settings say how many cores.")
    check_writable(study.outputs)
    for folder in (places.project(), study.outputs, places.cache()):
        if special := set("{}<>") & set(str(folder)):
            raise OutputNotWritable(
                f"{folder}: has a {min(special)} in its name, which means something to Snakemake. Give another folder."
            )

    jobs = graph.Graph(study, outputs, str(cores or "all"), cluster)
    if now:
        return _report_now(jobs)

    def busy():
        raise ThawError(f"{study.outputs}: another run of this study is at work. Wait for it, or stop it first.")

    signal.signal(signal.SIGTERM, _terminated)
    try:
        with jobs.alone(graph.STUDY, busy):
            return _report(study, jobs)
    except KeyboardInterrupt:
        click.echo("\nthaw: stopped. The same command goes on from here.", err=True)
        return 130


def _report_now(jobs: graph.Graph) -> int:
    study = jobs.study
    if not study.reportable():
        raise ThawError(
            f"{study.outputs}: there is nothing to report yet. One experiment has to finish, or three folds of one."
        )
    jobs.report()
    if not freshness.report_is_current(study):
        gone_on = "the study has gone on meanwhile. Run the command again."
        raise ThawError(study.why_missing("report", gone_on))
    print(f"The report of {len(study.finished())} of {len(study.jobs)} experiments:", study.outputs / "report.html")
    return 0


def _report(study: Study, jobs: graph.Graph) -> int:
    for wrong in study.set_aside_damaged():
        kept = "The record is kept as record.damaged.json, and the run is repeated."
        print(f"{wrong.split(' Delete')[0]} {kept}", flush=True)
    several = "s" * (len(study.jobs) != 1)
    print(f"{len(study.jobs)} experiment{several}, {len(study.finished())} of them finished already.", flush=True)
    if study.to_choose():
        left, choices = len(study.to_choose()), len(study.choices)
        print(f"Learning rates come first: {left} of {choices} configurations have yet to choose theirs.", flush=True)
    if (study.ready() or study.to_choose()) and not jobs.check():
        return 1  # it has said why
    missing = jobs.make()
    study = jobs.study
    if study.reportable() and "report" not in missing:
        print("The report:", *(study.outputs / name for name in ("report.html", "report.pdf")), sep="\n  ")
    if study.reportable() and study.settings.deliver and "model" not in missing:
        print("The network, to use:", study.outputs / "model", sep="\n  ")
    if missing:
        reasons = {what: reason.splitlines()[0].removeprefix(f"{what}: ") for what, reason in missing.items()}
        lines = "".join(f"\n  {what}: {reason}" for what, reason in reasons.items())
        raise ThawError(
            f"{len(study.finished())} of {len(study.jobs)} experiments are finished. Missing:{lines}\n"
            "What is finished is kept. The same command tries the rest again."
        )
    return 0


def _terminated(*_) -> NoReturn:
    raise KeyboardInterrupt("terminated")


@cli.command()
@on_study
def check(study, outputs):
    """Find what is wrong with a profile before anything runs.

    \b
    Example:
      thaw check paper
    """
    print("Checking the data, the weights and the networks.", flush=True)
    with stderr_to(os.devnull):
        from thaw.study import check
    check.check(study)  # if it downloads anything, it shows the progress
    networks = ", ".join(dict.fromkeys(job.experiment.backbone for job in study.jobs))
    data = ", ".join(dict.fromkeys(job.experiment.dataset for job in study.jobs))
    print(f"ok: {len(study.jobs)} experiments with {networks} on {data}; {len(study.finished())} are finished.")


@cli.command()
@on_study
def probe(study, outputs):
    """Predict how much to unfreeze, before anything is fine-tuned.

    The photos pass once through each network of the profile as it is. At the
    end of each block, simple classifiers show how well its features tell the
    classes apart. It takes minutes; the report of the study says later whether
    the prediction was right.

    \b
    Example:
      thaw probe quick
    """
    check_writable(study.outputs)
    for backbone in sorted({job.experiment.backbone for job in study.jobs}, key=backbones.order):
        with stderr_to(os.devnull):
            made = plan.probed(study, backbone, lambda line: print(line, flush=True))
        print(f"\n{made.title}: {made.photos:,} photos to train and validate, {made.when}\n")
        print(made.table().to_string(index=False), f"{made.words}\n", sep="\n\n", flush=True)


@cli.command()
@click.argument("backbone", callback=_one_line)
@click.option("--image-size", type=click.IntRange(32, 1024), default=224, show_default=True, help="Side in pixels.")
def blocks(backbone, image_size):
    """List a network's blocks: what the strategy 'blocks' counts.

    BACKBONE is the name of a network of keras.applications, or the path of a
    .keras file.

    \b
    Examples:
      thaw blocks mobilenetv2
      thaw blocks my-network.keras --image-size 128
    """
    from thaw.experiment import is_file

    with stderr_to(os.devnull):
        from thaw.network import blocks as of_network

        network = backbones.get(backbone if is_file(backbone) else backbone.lower(), "none")
        base = of_network.named(network, image_size)
    print(of_network.as_text(base, network))


@cli.command()
@click.argument("model", callback=_one_line)
@click.argument("photos", nargs=-1, required=True)
@click.option("--csv", "form", flag_value="csv", help="Print CSV: path, class, probability.")
@click.option("--json", "form", flag_value="json", help="Print JSON, with the probability of each class.")
def predict(model, photos, form):
    """Say what a network that a study has left sees in photos.

    MODEL is the folder outputs/<profile>/model, or a file in it: model.keras
    or model.tflite. PHOTOS are files, or folders with photos in them.

    \b
    Examples:
      thaw predict outputs/quick/model photo.jpg
      thaw predict outputs/quick/model holiday/ --csv > holiday.csv
    """
    with stderr_to(os.devnull) as terminal:
        from thaw.delivery.predict import Predictions
        from thaw.network.saved import Saved

        warn = functools.partial(print, file=terminal, flush=True)
        found = Predictions(Saved.load(model), click.echo, warn, form or "table")
        found.predict(photos)
    return 1 if found.unreadable else 0


@cli.command()
@click.option("--yes", is_flag=True, help="Delete it without asking.")
@click.option("--all", "everything", is_flag=True, help="Also what was trained of runs that have not finished.")
def clean(yes, everything):
    """Show what is in the cache, and delete it.

    All of it can be made again. Runs that have not finished go on from what
    the cache holds of them: only --all deletes that, too. What a study uses
    stays. Records, reports and networks are in outputs, and stay as well.

    \b
    Examples:
      thaw clean
      thaw clean --yes
    """
    from thaw.study import clean

    table = clean.rows()
    if not table:
        print(f"{places.cache()} is empty.")
        return
    print(f"In {places.cache()}:\n\n{clean.as_text(table)}\n")
    going = [row for row in table if everything or not row.unfinished]
    if len(going) < len(table):
        print("Unfinished runs stay, so that their studies can go on. --all deletes them, too.")
    if not going or not (yes or click.confirm(f"Delete {sum(row.size for row in going) / 1e6:,.1f} MB?")):
        return
    print(f"{clean.delete(going) / 1e6:,.1f} MB were freed.")


@cli.command(hidden=True)
@on_study
@click.argument("name")
@THREADS
def part(study, outputs, name, threads):
    """Make what experiments share: NAME is a part's name in the plan."""
    _limit_threads(threads)
    parts = plan.plan(study, study.jobs).parts  # also if an experiment has finished since the graph was made
    if name not in parts:
        raise InvalidParameter(f"{name!r}: no part of {study.profile}. {did_you_mean(name, parts)}")
    with _at_work(study, name, parts[name].label) as log:
        plan.make(study, parts[name], log)


@cli.command(hidden=True)
@on_study
@click.argument("name")
@THREADS
def rates(study, outputs, name, threads):
    """Choose the learning rates of a configuration: NAME is its file's name below rates/."""
    from thaw.study.rates import choose

    _limit_threads(threads)
    choice = study.choice(name)
    with locked([choice.path]), _at_work(study, choice.name, choice.label) as log:
        if choice.chosen() is None:  # by a process that was waited for
            choose(choice, log)


@cli.command(hidden=True)
@on_study
@click.argument("name")
@click.argument("number", type=click.IntRange(0))
@THREADS
def fold(study, outputs, name, number, threads):
    """Train and test one fold of an experiment: NAME is its folder's name below runs/."""
    from thaw.records import runs

    _limit_threads(threads)
    job = study.job(name)
    title, label = fold_name(job, number), f"{job.label}, fold {number}"
    with locked([runs.of_fold(job.directory, number)]), _at_work(study, title, label) as log:
        from thaw.study import run

        run.only_fold(job.experiment, job.directory, number, log)
    write_atomic(plan.marker(study, title), "")


@cli.command(hidden=True)
@on_study
@click.argument("name")
@THREADS
def experiment(study, outputs, name, threads):
    """Run one experiment: NAME is its folder's name below runs/."""
    from thaw.study.execute import execute

    _limit_threads(threads)
    job = study.job(name)

    def waiting():
        print(f"{job.label}: another process runs it; waiting for that.", flush=True)

    with locked([job.directory / "experiment"], waiting), study.noting_failure(job.name):
        if job.is_finished():
            return  # by a process that was waited for, or before the graph could note it
        notebook = places.project() / "notebooks" / "experiment.ipynb"
        job.notebook.unlink(missing_ok=True)  # that of an earlier record
        print(
            f"Experiment starts: {job.label} ({len(study.finished())} of {len(study.jobs)} are finished).", flush=True
        )
        with status.telling(watch.status_file(study, job.name), job.label):
            execute(notebook, job.notebook, job.experiment.model_dump(mode="json"), job.label, study.settings.hours)
    print(f"Experiment {len(study.finished())} of {len(study.jobs)} is finished: {job.label}.", flush=True)


@cli.command(hidden=True)
@on_study
def latency(study, outputs):
    """Measure the latency of each network of a study."""
    from thaw.records.runs import write_csv
    from thaw.study.execute import Labelled

    def waiting():
        print("latency: another study measures on this machine; waiting for that.", flush=True)

    machine = places.cache() / f"latency-{platform.node()}"
    with locked([machine], waiting), study.noting_failure("latency"), stderr_to(os.devnull) as terminal:
        from thaw.study.latency import measure

        stream = Labelled(terminal, "latency")
        measured = measure(study.networks(), lambda line: print(line, file=stream))
        write_csv(measured, study.outputs / "latency.csv")


@cli.command(hidden=True)
@on_study
@THREADS
def deliver(study, outputs, threads):
    """Train the network that a study leaves, on all photos."""
    from thaw.study.execute import Labelled

    _limit_threads(threads)
    with locked([study.outputs / "model"]), study.noting_failure("model"), stderr_to(os.devnull) as terminal:
        from thaw.delivery.deliver import deliver

        stream = Labelled(terminal, "model")
        deliver(study, lambda line: print(line, file=stream))


@cli.command(hidden=True)
@on_study
def summary(study, outputs):
    """Run the summary notebook of a study."""
    from thaw.study.execute import execute

    own = study.path.parent == (places.project() / "params" / "profiles").resolve()
    # A profile of the project by its name: the report should not show folders of this machine.
    parameters = {"profile": study.profile if own else str(study.path), "outputs": outputs}
    print("Now the summary.", flush=True)
    notebook, executed = places.project() / "notebooks" / "summary.ipynb", study.outputs / "summary.ipynb"
    made_from = freshness.made_from(study)  # before anything is read
    with study.noting_failure("report"):
        execute(notebook, executed, parameters, "summary", study.settings.hours, made_from=made_from)


@cli.command(hidden=True)
@on_study
@click.argument("form", type=click.Choice(["html", "pdf"]))
def export(study, outputs, form):
    """Export the executed summary of a study as an HTML or a PDF file."""
    from thaw.report.export import export_html, export_pdf

    with study.noting_failure(f"report.{form}"):
        export = {"html": export_html, "pdf": export_pdf}[form]
        export(study.outputs / "summary.ipynb", study.outputs / f"report.{form}")


@contextlib.contextmanager
def _at_work(study: Study, name: str, label: str) -> Iterator[Callable[[str], None]]:
    """Note it if a job fails, tell of its progress, and give what prints its lines, each under the label."""
    from thaw.study.execute import Labelled

    telling = status.telling(watch.status_file(study, name), label)
    with study.noting_failure(name), telling, stderr_to(os.devnull) as terminal:
        stream = Labelled(terminal, label)
        yield lambda line: print(line, file=stream)


def _limit_threads(threads: int | None) -> None:
    """Keep TensorFlow, here and in kernels started from here, to so many cores."""
    if threads:
        os.environ |= {"TF_NUM_INTRAOP_THREADS": str(threads), "TF_NUM_INTEROP_THREADS": "1"}


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code: 0 if it went well, 1 or 2 after a message if not."""
    _settle()
    try:
        graph.end_with_coordinator()
        code = cli.main(arguments, "thaw", standalone_mode=False) or 0
        sys.stdout.flush()  # whether the disk behind it is full is told only now
        return code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ThawError as error:
        return _said(str(error))
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough
        return _said()
    except Exception as error:
        name, message = type(error).__name__, str(error)
        if not lacks(f"{name}: {message}"):
            traceback.print_exc()
        return _said(explained(name, message))


def _settle() -> None:
    """Let this process and those it starts open the files they may, and give it the standard streams it may lack."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed: a file opened later would take its number
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # there is none on Windows

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # by default 256 on a Mac, and more are allowed


def _said(message: str = "") -> int:
    """Say why a command has failed, as far as anybody can hear it; the exit code."""
    with contextlib.suppress(OSError):
        if message:
            click.echo(f"\nthaw: {message}", err=True)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # Python would try again at its end, and show a traceback
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return 1


if __name__ == "__main__":
    sys.exit(main())
