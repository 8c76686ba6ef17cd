"""How time and memory grow with photos, classes, configurations, folds and seeds.

    python benchmarks/growth.py                                # all of docs/growth.md, an hour and 10 GB of disk
    python benchmarks/growth.py --only configurations --n 16 60

Each measurement is a process of its own. Seconds are those that the processor worked for it, of the user and of the
system, without the time to import libraries: another load of the machine hardly changes them. Megabytes are the peak
of the process, or of the largest that it has started; Python's libraries are some 200 of them, TensorFlow another 500.
Photos are made up, and so are the records of studies: nothing is trained but what the rows say.

Behind each figure stands the exponent from the one before: 1 is linear, 2 is quadratic.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
THAW = [sys.executable, "-m", "thaw"]
SETTINGS = {"dataset": "demo_flowers", "weights": "demo", "image_size": 32, "head_epochs": 2, "finetune_epochs": 2}
CLASSES = 10  # of the folder of photos
TESTED = 2000  # test photos of the invented studies
FLOOR = 0.2  # seconds: below, an exponent says nothing


@dataclass(frozen=True)
class Axis:
    """Something that grows: how large it is to be, how to prepare it, and what is measured of it, in turn."""

    sizes: tuple[int, ...]
    prepare: Callable[[Path, int], None]
    steps: dict[str, Callable[[Path, int], object]]


def main() -> None:
    """Print a table for each axis."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=AXES, default=list(AXES), help="what grows")
    parser.add_argument("--n", nargs="+", type=int, help="how large, in place of the sizes of docs/growth.md")
    parser.add_argument("--rows", nargs="+", help="which rows of the tables: those that they rest on, too")
    parser.add_argument("--step", nargs=3, metavar=("AXIS", "ROW", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        axis, row, folder = options.step
        print(json.dumps(measured(AXES[axis].steps.get(row, AXES[axis].prepare), Path(folder), options.n[0])))
        return
    for axis in options.only:
        sizes = options.n or AXES[axis].sizes
        rows = [row for row in AXES[axis].steps if row in (options.rows or AXES[axis].steps)]
        print(table(axis, rows, {n: measure(axis, rows, n) for n in sizes}), flush=True)


def measure(axis: str, rows: list[str], n: int) -> dict[str, dict[str, float]]:
    """Prepare one size and measure its rows, each in a process of its own: seconds and megabytes."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        project(Path(folder))
        environment = os.environ | {"THAW_CACHE_DIR": f"{folder}/cache"}
        for row in ("", *rows):
            command = [sys.executable, Path(__file__).resolve(), "--n", str(n), "--step", axis, row, folder]
            done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                sys.exit(f"{axis}, {n}: {row or 'preparing'} failed")
            found[row] = json.loads(done.stdout.splitlines()[-1])
            print(f"{axis} {n:,}, {row or 'prepared'}: {found[row]}", file=sys.stderr, flush=True)
    return found


def measured(step: Callable[[Path, int], object], folder: Path, n: int) -> dict[str, float]:
    """Run a step in this process; seconds and megabytes, and where the step gives a size that."""
    if step not in COMMANDS:
        libraries(step)
    who = resource.RUSAGE_CHILDREN if step in COMMANDS else resource.RUSAGE_SELF
    before = resource.getrusage(who)
    size = step(folder, n)
    after = resource.getrusage(who)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {"seconds": round(seconds, 3), "megabytes": round(after.ru_maxrss / 1000)}
    return found | {"size": size} if isinstance(size, float) else found


def table(axis: str, rows: list[str], found: dict[int, dict[str, dict[str, float]]]) -> str:
    """Write a table: a row a step, a column a size."""
    lines = [f"| {axis} | {' | '.join(f'{n:,}' for n in found)} |", "|---|" + "--:|" * len(found)]
    for row in rows:
        cells = []
        for before, n in zip((None, *found), found):
            now = found[n][row]
            if "size" in now:
                cells.append(f"{now['size']:,.1f} MB")
                continue
            cells.append(f"{now['seconds']:,.1f} s, {now['megabytes']:,.0f} MB")
            if before and found[before][row]["seconds"] >= FLOOR:
                slope = math.log(now["seconds"] / found[before][row]["seconds"]) / math.log(n / before)
                cells[-1] += f" ({slope:.1f})"
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def libraries(step: Callable[[Path, int], object]) -> None:
    """Import what takes seconds, before the clock starts."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import thaw.report.tables

    if step in TRAINING:
        import thaw.study.run  # noqa: F401


def project(folder: Path) -> None:
    """Make a folder a project of its own."""
    (folder / "params" / "profiles").mkdir(parents=True)
    (folder / "params" / "configurations").mkdir()
    for name in ("notebooks", "Snakefile"):
        (folder / name).symlink_to(ROOT / name)


# ---- photos --------------------------------------------------------------------------------------


def photos(folder: Path, n: int, classes: int = CLASSES) -> None:
    """Write photos of 48 x 36 pixels, all different."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(classes):
        (folder / "photos" / f"class {number:04}").mkdir(parents=True)
    for number in range(n):
        small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        small[..., 0] = 250 * (number % classes) // classes
        image = Image.fromarray(small).resize((48, 36), Image.Resampling.BICUBIC)
        image.save(folder / "photos" / f"class {number % classes:04}" / f"{number}.jpg", quality=80)


def experiment(folder: Path, **parameters):
    """Make the experiment on the folder of photos: a frozen MobileNet."""
    from thaw.experiment import Experiment

    own = {"dataset": f"folder:{folder}/photos", "backbone": "mobilenet", "strategy": "frozen", "activations": "keep"}
    return Experiment.of(SETTINGS | own | {"finetune_epochs": 0} | parameters)


def look(folder: Path, n: int) -> None:
    """Find the photos, hash and decode each, check them."""
    from thaw.data import checks, source

    found = source.find_source(f"folder:{folder}/photos", "official", "refuse")
    checks.findings(found.listing(), found.left_out, found.ignored)


def decode(folder: Path, n: int) -> None:
    """Decode all photos into the cache."""
    from thaw.data.photos import photos_of

    photos_of(experiment(folder))


def divide(folder: Path, n: int) -> None:
    """Read the photos from the cache, and divide them into ten folds."""
    from thaw.data.photos import photos_of

    data = photos_of(experiment(folder, folds=10))
    for fold in range(10):
        data.in_fold(10, fold).listing()


def one_pass(folder: Path, n: int) -> None:
    """Compute what the frozen network makes of each photo."""
    from thaw.training import phases
    from thaw.training.setup import Setup

    setup = Setup.of(experiment(folder), log=str)
    phases.provide_activations(setup, [setup.experiment])


def features(folder: Path, n: int) -> None:
    """Look for photos that are nearly alike in two parts, and for wrong labels, by what the network makes of them."""
    from thaw.data import checks
    from thaw.training import phases
    from thaw.training.setup import Setup

    setup = Setup.of(experiment(folder), log=str)
    checks.findings_of_features(setup.data.files, phases.pooled_features(setup))


def head(folder: Path, n: int) -> None:
    """Train a head on what was kept, test it, and save the record."""
    from thaw.study.run import run_all
    from thaw.training.setup import Setup

    run_all(Setup.of(experiment(folder), log=str), folder / "run")


def notebook(folder: Path, n: int) -> None:
    """Run the notebook of an experiment, with its figures, from the beginning."""
    command("papermill", folder / "notebooks" / "experiment.ipynb", folder / "run.ipynb",
            "-y", json.dumps(experiment(folder, output_dir=folder / "notebook").model_dump(mode="json")))  # fmt: skip


def command(*words) -> None:
    """Run a Python module; what it says is shown if it fails."""
    done = subprocess.run([sys.executable, "-m", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


# ---- invented studies ----------------------------------------------------------------------------


def study(folder: Path, configurations: int = 16, tested: int = TESTED, classes: int = 5, finished: bool = True, **how):
    """Write a profile, and the records of all its experiments, as if they had finished."""
    import numpy as np
    import pandas as pd
    import yaml

    from thaw.study.study import Study

    ways = [{"strategy": "frozen"}, {"strategy": "frozen", "finetune_epochs": 0}]
    ways += [
        {"strategy": "layers", "amount": amount, "rate_decay": decay}
        for decay in (1.0, *np.arange(0.9, 0.2, -0.1).round(1).tolist())
        for amount in range(1, 84)
    ]
    if configurations > len(ways):
        sys.exit(f"{configurations} configurations: at most {len(ways)} here")
    for number, way in enumerate(ways[:configurations]):
        path = folder / "params" / "configurations" / f"mobilenet-{number:04}.yaml"
        path.write_text(yaml.safe_dump({"backbone": "mobilenet"} | way))
    text = yaml.safe_dump(SETTINGS | {"study": {"deliver": "none"} | how})
    (folder / "params" / "profiles" / "invented.yaml").write_text(text)
    os.chdir(folder)
    made = Study.load("invented")
    calls = pd.DataFrame([("mobilenet", 32, "float32", "graph", 1, number, 2 + number / 100) for number in range(20)])
    made.outputs.mkdir(parents=True)
    calls.columns = ["backbone", "image_size", "precision", "call", "photos", "round", "milliseconds"]
    calls.assign(device="abacus", cores=2).to_csv(made.outputs / "latency.csv", index=False)
    rng = np.random.default_rng(0)
    for job in made.jobs if finished else ():
        invent(job, rng, tested, [f"class {number:04}" for number in range(classes)])


def invent(job, rng, tested: int, classes: list[str]) -> None:
    """Write the record of one job: 80 to 90 % of the photos are classified correctly."""
    import numpy as np
    import pandas as pd

    from thaw.records import runs
    from thaw.records.record import Record

    labels = np.arange(tested) % len(classes)
    for e in job.experiment.in_turn():
        rows = np.arange(tested) if e.fold is None else np.arange(e.fold, tested, e.folds)
        share = 0.8 + 0.1 * min(e.amount, 40) / 40
        right = rng.random(len(rows)) < share
        said = np.where(right, labels[rows], (labels[rows] + rng.integers(1, len(classes), len(rows))) % len(classes))
        scores = rng.dirichlet(np.ones(len(classes)), len(rows)) * 0.2
        scores[np.arange(len(rows)), said] += 0.8
        table = {"key": [f"{row}.jpg" for row in rows], "label": np.take(classes, labels[rows])}
        table = pd.DataFrame(table | {"predicted": np.take(classes, said)})
        table = table.join(pd.DataFrame(scores.astype(np.float32), columns=[f"p_{name}" for name in classes]))
        tuned = e.epochs - e.head_epochs
        history = pd.DataFrame({"epoch": range(1, e.epochs + 1), "seconds": 1.0, "learning_rate": 1e-3})
        history.insert(1, "phase", ["head"] * e.head_epochs + ["finetune"] * tuned)
        for name in ("train", "validation"):
            history[f"{name}_accuracy"] = np.linspace(0.5, share, e.epochs)
            history[f"{name}_loss"] = np.linspace(1.0, 0.5, e.epochs)
        counts = {"train": 6 * tested, "validation": tested, "test": len(rows), "available": 8 * tested}
        data = {"dataset": "demo_flowers", "version": "", "title": "invented", "description": "", "sha256": "0"}
        data |= {"photos": counts, "splits": "At random.", "left_out": [], "ignored": [], "classes": classes}
        record = Record.of(
            e,
            history,
            data=data,
            training_seconds={"activations": 1.0, "head": 2.0, "finetune": float(e.amount)},
            activations={"head": {"frontier": ["pooled"], "cached": True, "why": "few", "megabytes": 1.0}},
            network={"title": "MobileNet", "about": "a chain of depthwise-separable blocks"},
            trainable_parameters=5000 + 30_000 * e.amount,
            total_parameters=3_233_989,
            test_accuracy=float(right.mean()),
            test_loss=float(-np.log(np.clip(scores[np.arange(len(rows)), labels[rows]], 1e-7, 1)).mean()),
            peak_memory_mb=1000.0,
            weights={"title": "none", "description": "", "official": False, "tensors_sha256": "0"},
            device={"name": "abacus", "cores": 1, "gpus": 0},
        )
        alone = e.fold is None or len(job.experiment.in_turn()) == 1
        runs.save(job.directory if alone else runs.of_fold(job.directory, e.fold), record, history, table)
    if len(job.experiment.in_turn()) > 1:
        runs.gather(job.directory, job.experiment)
    (job.directory / "experiment.ipynb").write_text("{}")


def load(folder: Path, n: int) -> None:
    """Read the profile and all configurations: each job does."""
    from thaw.study.study import Study

    Study.load("invented")


def read(folder: Path, n: int) -> None:
    """Read all records."""
    from thaw.study.study import Study

    Study.load("invented").outcomes()


def compare(folder: Path, n: int) -> None:
    """Compare all configurations, and find the cheapest choice."""
    from thaw.report.results import Results
    from thaw.study.study import Study

    results = Results.of(Study.load("invented"))
    print(results.recommended["label"], [len(pairs) for pairs in results.pairs.values()])


def check(folder: Path, n: int) -> None:
    """Run `thaw check`."""
    command("thaw", "check", "invented")


def graph(folder: Path, n: int) -> None:
    """Let Snakemake make the graph of all experiments, as if none had finished."""
    import shutil

    from thaw.study.study import Study

    made = Study.load("invented")
    runs = made.outputs / "runs"
    runs.rename(folder / "kept")
    config = json.dumps({"profile": str(made.path), "outputs": "outputs", "shared": True})
    path = folder / "config.json"
    path.write_text(config)
    command("snakemake", "experiments", "--snakefile", folder / "Snakefile", "--directory", made.outputs, "--dry-run",
            "--cores", "2", "--scheduler", "greedy", "--quiet", "all", "--configfile", path)  # fmt: skip
    shutil.rmtree(runs, ignore_errors=True)
    (folder / "kept").rename(runs)


def summary(folder: Path, n: int) -> None:
    """Run `thaw summary`: all statistics, figures and tables."""
    command("thaw", "summary", "invented")


def html(folder: Path, n: int) -> None:
    """Export the HTML."""
    command("thaw", "export", "invented", "html")


def pdf(folder: Path, n: int) -> None:
    """Export the PDF."""
    command("thaw", "export", "invented", "pdf")


TRAINING = {decode, divide, one_pass, features, head}  # with TensorFlow
COMMANDS = {notebook, check, graph, summary, html, pdf}  # with processes of their own


def outputs(folder: Path) -> Path:
    """Give the folder of the study."""
    return folder / "outputs" / "invented"


def size_of(*names: str) -> Callable[[Path, int], float]:
    """Make a step that gives the size of some files together, in MB."""
    return lambda folder, n: (
        sum(path.stat().st_size for name in names for path in outputs(folder).glob(name) if path.is_file()) / 1e6
    )


RECORDS = {"records on disk": size_of("runs/*/*")}
REPORT = {
    "report: statistics, figures, tables": summary,
    "report as HTML": html,
    "report as PDF": pdf,
    "size of the HTML": size_of("report.html"),
    "size of the PDF": size_of("report.pdf"),
}
STUDY = RECORDS | {"read the records": read, "read and compare": compare} | REPORT
AXES = {
    "photos": Axis(
        (1000, 10_000, 100_000),
        photos,
        {
            "first look: hash, decode, check": look,
            "second look": look,
            "decode into the cache": decode,
            "divide into ten folds": divide,
            "one pass of the frozen network": one_pass,
            "duplicates and labels by its features": features,
            "a head, its test and record": head,
        },
    ),
    "test photos": Axis((1000, 10_000, 100_000), lambda folder, n: study(folder, tested=n), STUDY),
    "classes": Axis(
        (5, 50, 200, 1000),
        lambda folder, n: photos(folder, max(6 * n, 2000), n),
        {"first look: hash, decode, check": look, "an experiment's notebook": notebook},
    ),
    "classes of a study": Axis((5, 50, 200, 1000), lambda folder, n: study(folder, 8, classes=n), STUDY),
    "configurations": Axis(
        (16, 60, 150, 500),
        study,
        {"read the profile": load, "thaw check": check, "Snakemake's graph": graph} | STUDY,
    ),
    "seeds": Axis((1, 5, 10, 30), lambda folder, n: study(folder, seeds=list(range(n))), STUDY),
    "folds": Axis((3, 5, 10, 30), lambda folder, n: study(folder, folds=n), STUDY),
}


if __name__ == "__main__":
    main()
