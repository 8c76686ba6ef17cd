"""The benchmarks, at a size of seconds."""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT, has_flowers, has_weights


@pytest.mark.process
@has_flowers
@has_weights
def test_plain_keras_and_thaw_come_to_the_same_losses():
    parameters = {"backbone": "mobilenet", "strategy": "blocks", "amount": 1, "image_size": 64, "batch_size": 16}
    parameters |= {
        "dataset": "tf_flowers",
        "weights": "imagenet",
        "max_examples": 80,
        "precision": "float32",
        "seed": 3,
    }
    parameters |= {"head_epochs": 1, "finetune_epochs": 2, "head_learning_rate": 1e-2, "finetune_learning_rate": 1e-4}
    parameters["activations"] = "keep"  # whatever this machine's disk and processor are like
    runs = []
    for script in ("plain.py", "thaw_run.py"):
        command = [sys.executable, ROOT / "benchmarks" / script, json.dumps(parameters)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        runs.append(json.loads(done.stdout))
    plain, ours = runs
    assert ours["cached"] == {"head": True, "finetune": True}
    assert ours["disk_mb"] > 0
    for name in ("train_loss", "validation_loss"):
        assert ours[name] == pytest.approx(plain[name], rel=1e-3)
    assert len(ours["finetune"]) == len(plain["finetune"]) == 2


@pytest.mark.process
def test_growth_is_measured_in_seconds_and_megabytes():
    command = [sys.executable, ROOT / "benchmarks" / "growth.py", "--only", "seeds", "--n", "1", "3"]
    done = subprocess.run([*command, "--rows", "read and compare"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    header, _, row = done.stdout.splitlines()[:3]
    assert header == "| seeds | 1 | 3 |"
    assert re.fullmatch(r"\| read and compare \| [\d.]+ s, \d+ MB \| [\d.]+ s, [\d,]+ MB( \(-?[\d.]+\))? \|", row)
