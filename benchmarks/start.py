"""What an experiment costs beside its training: with a kernel of its own, and with one that is a copy.

    python benchmarks/start.py                    # three configurations of the demo, some minutes

Seconds that all processors of the machine worked, less the seconds of training: nothing else may run meanwhile. What
experiments share (photos, activations, the head) is made before. Each way is measured twice, in turn.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import psutil

from thaw.disk import places
from thaw.study import kernels
from thaw.study.study import Job, Study

CONFIGURATIONS = ("mobilenet-frozen", "mobilenet-layers-5", "mobilenet-blocks-4")


def main() -> None:
    """Print a line for each configuration."""
    with tempfile.TemporaryDirectory() as folder:
        of_one_core = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # as in a study's jobs
        environment = os.environ | of_one_core | {"THAW_CACHE_DIR": f"{folder}/cache"}
        study = Study.load("demo", f"{folder}/outputs")
        jobs = [next(job for job in study.jobs if job.configuration == name) for name in CONFIGURATIONS]
        with kernels.offered(places.project() / "notebooks" / "experiment.ipynb", environment) as offer:
            for job in jobs:  # what they share is made, and what copies have is imported
                cost(job, folder, environment | offer)
            ways = {"a kernel of its own": environment, "a copy": environment | offer}
            rows = {job: {way: [] for way in ways} for job in CONFIGURATIONS}
            for _ in range(2):
                for job in jobs:
                    for way, variables in ways.items():
                        rows[job.configuration][way].append(cost(job, folder, variables))
    print(f"| processor seconds beside training | {' | '.join(ways)} |\n|---|{'--:|' * len(ways)}")
    for name, row in rows.items():
        print(f"| {name} |", *(f"{', '.join(f'{each:.1f}' for each in row[way])} |" for way in ways))


def cost(job: Job, folder: str, environment: dict[str, str]) -> float:
    """Run an experiment anew; the processor seconds that it took beside its training."""
    shutil.rmtree(job.directory, ignore_errors=True)
    command = [sys.executable, "-m", "thaw", "experiment", "demo", job.name]
    began = worked()
    subprocess.run(
        [*command, "--outputs", f"{folder}/outputs", "--threads", "1"], env=environment, check=True, capture_output=True
    )
    return worked() - began - sum(json.loads(job.record.read_text(encoding="utf-8"))["training_seconds"].values())


def worked() -> float:
    """Give the seconds that the machine's processors have worked since it started."""
    times = psutil.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
