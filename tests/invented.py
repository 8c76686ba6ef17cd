"""Made-up studies for tests of words and verdicts, with any accuracy, time and latency."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from test_record import made_up_run

from thaw.records.runs import Run
from thaw.report.results import Results
from thaw.study.claims import Claims

ORIGINAL = Path(__file__).parent.parent / "params" / "original"
FROZEN, LAYERS, BLOCKS = "frozen", "layers", "blocks"
CONFIGURATIONS = [
    (FROZEN, 0, False),
    (FROZEN, 0, True),
    *((LAYERS, amount, False) for amount in (5, 10, 40)),
    *((BLOCKS, amount, False) for amount in (2, 4, 10)),
]
# Thousands of trainable parameters, for both networks, like MobileNet's in the original's table.
SIZES = {(FROZEN, 0): 5, (LAYERS, 5): 1058, (LAYERS, 10): 1593, (LAYERS, 40): 2937}
SIZES |= {(BLOCKS, 2): 1599, (BLOCKS, 4): 2137, (BLOCKS, 10): 3181}
BACKBONES = ("resnet50", "mobilenet")
CLAIMS = Claims.of(ORIGINAL, yaml.safe_load((ORIGINAL / "claims.yaml").read_text(encoding="utf-8")), BACKBONES)
Which = Callable[..., float]  # of backbone, strategy, amount and control


def invented(
    accuracy: Which,
    photos: int = 400,
    backbones=BACKBONES,
    seeds: int = 1,
    latency: Which | None = None,
    swap: float = 0.0,
    **figures: Which,
) -> Results:
    """Make up a finished study that names the original's claims.

    Parameters
    ----------
    accuracy : callable
        The share of test photos that a configuration classifies correctly.
        A better configuration is right on the same photos and on more, apart
        from `swap`.
    latency : callable, optional
        Milliseconds of a single photo; None: not measured.
    swap : float
        The share of photos that are right at random.
    **figures : callable
        Other fields of the records.
    """
    runs, calls = [], []
    rng = np.random.default_rng(0)
    for backbone in backbones:
        for strategy, amount, control in CONFIGURATIONS:
            which = (backbone, strategy, amount, control)
            tuned = 15 if control or strategy != FROZEN else 0
            for seed in range(seeds):
                right = np.arange(photos) < round(photos * accuracy(*which))
                right = np.where(rng.random(photos) < swap, rng.random(photos) < right.mean(), right)
                record, history, predictions = made_up_run(
                    seed, right, backbone=backbone, strategy=strategy, amount=amount, finetune_epochs=tuned
                )
                size = SIZES[strategy, amount] * (1000 if backbone == "mobilenet" else 7000)
                totals = {"mobilenet": 3_233_989, "resnet50": 23_597_957}
                changed = {"trainable_parameters": size, "total_parameters": totals[backbone]}
                changed["test_loss"] = -np.log([0.9 if ok else 0.2 for ok in right]).mean()
                changed |= {name: figure(*which) for name, figure in figures.items()}
                data = record.data | {"photos": {"train": 3000, "validation": 600, "test": photos, "available": 4000}}
                record = record.model_copy(update=changed | {"data": data | {"dataset": "tf_flowers"}})
                runs.append(Run(record=record, history=history, predictions=predictions))
            if latency is None:
                continue
            for call, photos_in_it, slower in (
                ("graph", 1, 1),
                ("predict", 1, 9),
                ("graph", 32, 20),
                ("predict", 32, 30),
            ):
                for number in range(10):
                    milliseconds = latency(*which) * slower * rng.normal(1, 0.002)
                    row = (backbone, strategy, amount, 5 + tuned, call, photos_in_it, number, milliseconds)
                    calls.append((*row, "abacus", 2))
    columns = ["backbone", "strategy", "amount", "epochs", "call", "photos", "round", "milliseconds", "device", "cores"]
    measured = pd.DataFrame(calls, columns=columns) if calls else None
    return Results(runs, measured, planned=len(runs), claims=CLAIMS)


def with_losses(results: Results, of_right: Which) -> Results:
    """Give photos a loss: the probability of the right class is about `of_right` for all photos of a configuration."""
    runs = []
    for run in results.runs:
        e = run.record.experiment
        chance = of_right(e.backbone, e.strategy, e.amount, e.control) + np.linspace(-0.05, 0.05, len(run.predictions))
        runs.append(run.model_copy(update={"predictions": run.predictions.assign(p_rose=chance)}))
    return replace(results, runs=runs)


WAYS = [
    *({"strategy": FROZEN, "finetune_epochs": epochs} for epochs in (0, 15)),
    *({"strategy": LAYERS, "amount": amount} for amount in (5, 20)),
    *({"strategy": BLOCKS, "amount": amount} for amount in (1, 3)),
    *({"strategy": BLOCKS, "amount": 3, name: value} for name, value in (("trains", "norm"), ("batchnorm", "frozen"))),
    {"strategy": BLOCKS, "amount": 3, "skip": 1, "keep": "best"},
    {"strategy": BLOCKS, "amount": 3, "finetune_learning_rate": 1e-3},  # named like another
    {"strategy": "pattern", "pattern": "(conv|$norm)_[0-9]+", "rate_decay": 0.5},
    {"strategy": "all", "gradual": True, "augmentation": "standard", "copies": 4, "class_weight": "balanced"},
    {"strategy": FROZEN, "augmentation": "standard", "copies": 4, "class_weight": "balanced"},
]
OWN = {"efficientnetv2b0": "EfficientNetV2B0", "/photos/own.keras": "own", "/other/own.keras": "own"}


def of_somebody_else(sizes: Sequence[int], networks: Sequence[str] = tuple(OWN)) -> Results:
    """Make up a study of somebody's own photos and networks: `WAYS` to unfreeze, so many test photos a class."""
    rng = np.random.default_rng(0)
    labels = np.repeat([f"class {number}" for number in range(len(sizes))], sizes)
    runs = []
    for backbone in networks:
        for number, way in enumerate(WAYS):
            right = rng.random(len(labels)) < 0.6 + 0.02 * number
            named = {"backbone": backbone, "amount": 0, "dataset": "folder:/photos/mine"} | way
            record, history, predictions = made_up_run(0, right, **named)
            data = {
                "dataset": "folder:/photos/mine",
                "version": "",
                "title": "mine",
                "description": "",
                "sha256": "0",
                "photos": {"train": 3000, "validation": 600, "test": len(labels), "available": 4000},
                "splits": "The parts are divided by a hash of each photo.",
                "left_out": [{"path": "a/*b*.jpg", "reason": "no photo"}],
            }
            changed = {"data": data, "network": {"title": OWN[backbone], "about": "a network"}}
            changed |= {"trainable_parameters": 10 + 5 * number, "total_parameters": 100}
            predictions = predictions[["key"]].assign(
                label=labels, predicted=np.where(right, labels, np.where(labels == "class 0", "class 1", "class 0"))
            )
            scores = pd.DataFrame(1 / len(sizes), predictions.index, [f"p_class {n}" for n in range(len(sizes))])
            record = record.model_copy(update=changed)
            runs.append(Run(record=record, history=history, predictions=predictions.join(scores)))
    return Results(runs, planned=len(runs))


def flat(*which) -> float:
    """Give all configurations the same accuracy."""
    return 0.9
