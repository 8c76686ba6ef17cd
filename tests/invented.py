"""Made-up studies for tests of words and verdicts, with any accuracy, time and latency."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from test_record import made_up_run

from thaw.data import splits
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
    folds: int = 0,
    wobble: float = 0.0,
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
    folds : int
        Divide the photos into so many folds, and test on each in turn; 0: none.
    wobble : float
        The standard deviation of an accuracy from fold to fold, beside that of the photos.
    **figures : callable
        Other fields of the records.
    """
    runs, calls = [], []
    rng = np.random.default_rng(0)
    for backbone in backbones:
        for strategy, amount, control in CONFIGURATIONS:
            which = (backbone, strategy, amount, control)
            tuned = 15 if control or strategy != FROZEN else 0
            for seed, fold in product(range(seeds), range(folds) if folds else [None]):
                share = np.clip(accuracy(*which) + rng.normal(0, wobble), 0, 1) if wobble else accuracy(*which)
                keys = np.arange(photos) if fold is None else np.arange(fold, photos, folds)
                right = np.arange(len(keys)) < round(len(keys) * share)
                right = np.where(rng.random(len(keys)) < swap, rng.random(len(keys)) < right.mean(), right)
                of_fold = {"folds": folds, "fold": fold} if folds else {}
                record, history, predictions = made_up_run(
                    seed * (folds or 1) + (fold or 0),
                    right,
                    backbone=backbone,
                    strategy=strategy,
                    amount=amount,
                    finetune_epochs=tuned,
                    **of_fold,
                )
                predictions["key"] = [f"photo-{key}" for key in keys]
                size = SIZES[strategy, amount] * (1000 if backbone == "mobilenet" else 7000)
                totals = {"mobilenet": 3_233_989, "resnet50": 23_597_957}
                changed = {"trainable_parameters": size, "total_parameters": totals[backbone]}
                changed["test_loss"] = -np.log([0.9 if ok else 0.2 for ok in right]).mean()
                changed |= {name: figure(*which) for name, figure in figures.items()}
                parts = {"train": 3000, "validation": 600, "test": len(keys), "available": 4000}
                if folds:
                    parts |= {"validation": max(1, photos * 15 // 100), "available": photos}
                    parts["train"] = photos - parts["validation"] - len(keys)
                data = record.data | {"photos": parts, "dataset": "tf_flowers"}
                if folds:
                    data["splits"] = splits.fold_sentence(folds, "in the data set's own order")
                record = record.model_copy(update=changed | {"data": data})
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
    return Results(runs, measured, planned=len(runs) // (folds or 1), claims=CLAIMS)


def with_losses(results: Results, of_right: Which) -> Results:
    """Give photos a loss: the probability of the right class is about `of_right` for all photos of a configuration."""
    runs = []
    for run in results.runs:
        e = run.record.experiment
        chance = of_right(e.backbone, e.strategy, e.amount, e.control) + np.linspace(-0.05, 0.05, len(run.predictions))
        runs.append(run.model_copy(update={"predictions": run.predictions.assign(p_rose=chance)}))
    return replace(results, runs=runs)


def with_rates(results: Results, best: Which, care: Which, folds: int = 10, choosing: int = 2) -> Results:
    """Give a study trials of learning rates: each has its best, and loses `care` a power of ten beside it.

    A loss above 2 has diverged.
    """
    rows = []
    for _, row in results.rows.iterrows():
        which = row["backbone"], row["strategy"], row["amount"], row["control"]
        grids = {"head_learning_rate": (3e-3, 1.0, [1e-3, 3e-3, 1e-2])}
        if row["strategy"] != FROZEN:
            grids["finetune_learning_rate"] = best(*which), care(*which), [3e-5, 1e-4, 3e-4]
        for name, (lowest, loses, values) in grids.items():
            loss = np.array([0.3 + loses * np.log10(value / lowest) ** 2 for value in values])
            for value, each in zip(values, loss):
                found = {"loss": each, "accuracy": 0.9, "photos": 80, "epochs": 15, "seconds": 60.0}
                found |= {"diverged": each > 2, "extended": False, "chosen": each == loss.min()}
                named = {"backbone": row["backbone"], "configuration": f"{row['backbone']} {row['short']}"}
                rows.append(named | {"label": row["label"], "parameter": name, "value": value} | found)
    planned = {name: tuple(range(choosing, folds)) for name in results.backbones}
    return replace(results, rates=pd.DataFrame(rows), planned_folds=planned)


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


def of_somebody_else(sizes: Sequence[int], networks: Sequence[str] = tuple(OWN), folds: int = 0) -> Results:
    """Make up a study of somebody's own photos and networks: `WAYS` to unfreeze, so many test photos a class.

    With `folds` the photos are divided into them, and each is tested in its own.
    """
    rng = np.random.default_rng(0)
    labels = np.repeat([f"class {number}" for number in range(len(sizes))], sizes)
    runs = []
    for backbone in networks:
        for (number, way), fold in product(enumerate(WAYS), range(folds) if folds else [None]):
            names = labels if fold is None else labels[fold::folds]
            right = rng.random(len(names)) < 0.6 + 0.02 * number
            named = {"backbone": backbone, "amount": 0, "dataset": "folder:/photos/mine"} | way
            of_fold = {"folds": folds, "fold": fold} if folds else {}
            record, history, predictions = made_up_run(fold or 0, right, **named, **of_fold)
            parts = "The parts are divided by a hash of each photo."
            data = {
                "dataset": "folder:/photos/mine",
                "version": "",
                "title": "mine",
                "description": "",
                "sha256": "0",
                "photos": {"train": 3000, "validation": 600, "test": len(names), "available": 4000},
                "splits": splits.fold_sentence(folds, "by a hash of their contents, each class evenly")
                if folds
                else parts,
                "left_out": [{"path": "a/*b*.jpg", "reason": "no photo"}],
            }
            blocks = {"stem": 10, "block 1": 30, "block 2": 60}  # one way trains biases alone
            trains = {"block 2": 60} if number > 1 else {}
            trains = dict.fromkeys(blocks, 2) if way.get("trains") else trains
            strip = {"blocks": blocks, "trains": trains}
            changed = {"data": data, "network": {"title": OWN[backbone], "about": "a network", **strip}}
            changed |= {"trainable_parameters": 10 + 5 * number, "total_parameters": 100}
            predictions = pd.DataFrame(
                {
                    "key": [f"photo-{key}" for key in range(len(labels))[fold or 0 :: folds or 1]],
                    "label": names,
                    "predicted": np.where(right, names, np.where(names == "class 0", "class 1", "class 0")),
                }
            )
            scores = pd.DataFrame(1 / len(sizes), predictions.index, [f"p_class {n}" for n in range(len(sizes))])
            record = record.model_copy(update=changed)
            runs.append(Run(record=record, history=history, predictions=predictions.join(scores)))
    return Results(runs, planned=len(runs) // (folds or 1))


def flat(*which) -> float:
    """Give all configurations the same accuracy."""
    return 0.9
