"""The same experiment by Thaw's library, alone and from nothing: what `experiment.ipynb` does, without its pictures.

    python benchmarks/thaw_run.py '{"backbone": "resnet50", "strategy": "blocks", "amount": 2, ...}'

Prints its times in seconds, its losses, its peak memory and disk, and what was trained on kept activations, as JSON.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

began = time.perf_counter()

from thaw.data import photos
from thaw.experiment import Experiment
from thaw.training import evaluation, machine, phases, setup

experiment = Experiment.of(json.loads(sys.argv[1]))
with tempfile.TemporaryDirectory() as cache:
    os.environ["THAW_CACHE_DIR"] = cache
    setup.set_keras(experiment)
    imported = time.perf_counter()
    photos.photos_of(experiment)
    decoded = time.perf_counter()
    made = setup.Setup.of(experiment, lambda line: print(line, file=sys.stderr))
    beside = []  # of each fold, or of the one run, the seconds that are no training
    for each in experiment.in_turn():
        fold_began = time.perf_counter()
        trained = phases.train(part := made.of_fold(each))
        test_began = time.perf_counter()
        evaluation.predict(trained.network, trained.test, part.data)
        ended = time.perf_counter()
        beside.append(ended - fold_began - trained.history["seconds"].sum())
    files = list(Path(cache, "activations").rglob("*.npy"))
    disk = sum(path.stat().st_size for path in files)
    notes = [json.loads(path.with_suffix(".json").read_text())["about"] for path in files]

history = trained.history
by_phase = {phase: history.loc[history["phase"] == phase, "seconds"].tolist() for phase in ("head", "finetune")}
spent = trained.seconds["activations"] + sum(map(sum, by_phase.values()))
print(
    json.dumps(
        {
            "start": imported - began + test_began - decoded - spent,
            "photos": decoded - imported,
            "activations": trained.seconds["activations"],
            "activations_a_photo": max(
                ((note["seconds"] - note["first_batch_seconds"]) / max(len(made.data) - 32, 1) for note in notes),
                default=0.0,
            ),
            **by_phase,
            "test": ended - test_began,
            "beside_training": min(beside),
            "whole": ended - began,
            "train_loss": history["train_loss"].iloc[-1],
            "validation_loss": history["validation_loss"].iloc[-1],
            "peak_memory_mb": machine.peak_memory_mb(),
            "disk_mb": disk / 1e6,
            "cached": {phase: note["cached"] for phase, note in trained.activations.items()},
        }
    )
)
