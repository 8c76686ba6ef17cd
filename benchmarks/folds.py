"""What folds cost: ten in one process, against ten runs from nothing, of Thaw and of plain Keras.

    python benchmarks/folds.py                         # MobileNet's rows, 1,200 photos of 96 pixels
    python benchmarks/folds.py --photos 3670 --size 224 --only mobilenet-blocks-4

Each run is a process of its own with an empty cache. Of the ten separate runs one is measured and counted ten times.
Prints a row a configuration, as soon as it is measured; training losses of the last fold are those of plain Keras on
the same photos.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from compare import environment

from thaw.study.study import Study

HERE = Path(__file__).parent
FOLDS = 10


def main() -> None:
    """Print a line for each configuration, and one for all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=1200, help="how many (default: %(default)s)")
    parser.add_argument("--size", type=int, default=96, help="in pixels (default: %(default)s)")
    parser.add_argument("--epochs", type=int, nargs=2, default=(2, 3), help="of the two phases (default: 2 3)")
    parser.add_argument("--only", default="mobilenet", help="configurations whose name holds this")
    options = parser.parse_args()
    jobs = [job for job in Study.load("quick").jobs if options.only in job.configuration and not job.experiment.control]
    head, finetune = options.epochs
    changes = {"max_examples": options.photos, "image_size": options.size, "head_epochs": head, "output_dir": None}
    print("| | ten folds, s | ten times one run | ten times plain Keras | beside training, s a fold | loss, plain | ")
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    total = [0.0, 0.0, 0.0]
    for job in jobs:
        frozen = job.experiment.strategy == "frozen"
        alone = job.experiment.model_copy(update=changes | {"finetune_epochs": 0 if frozen else finetune})
        folds = seconds_of("thaw_run.py", alone.model_copy(update={"folds": FOLDS}))
        one, plain = (seconds_of(script, alone) for script in ("thaw_run.py", "plain.py"))
        walls = [folds["wall"], FOLDS * one["wall"], FOLDS * plain["wall"]]
        total = [before + now for before, now in zip(total, walls)]
        print(line(job.configuration, walls, f"{folds['beside_training']:.2f}", f"{one['train_loss']:.4f}, "
                   f"{plain['train_loss']:.4f}"), flush=True)  # fmt: skip
    print(line("**all**", total, "", ""))


def line(name: str, walls: list[float], beside: str, losses: str) -> str:
    """Write a row: seconds, and how many times as long the others take."""
    folds, runs, plain = walls
    cells = [name, f"{folds:,.0f}", *(f"{wall:,.0f} ({wall / folds:.1f})" for wall in (runs, plain)), beside, losses]
    return f"| {' | '.join(cells)} |"


def seconds_of(script: str, experiment) -> dict:
    """Measure one process, from its start to its end."""
    began = time.perf_counter()
    parameters = experiment.model_dump_json(exclude={"output_dir"})
    done = subprocess.run(
        [sys.executable, HERE / script, parameters], env=environment(script), capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{script} {parameters} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1]) | {"wall": time.perf_counter() - began}


if __name__ == "__main__":
    main()
