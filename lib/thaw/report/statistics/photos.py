"""What each run makes of each test photo, and how far a configuration moves from one run to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from thaw.records.runs import IDENTITY, Run

LEVEL = 0.95  # of every interval
ALPHA = 1 - LEVEL


def by_identity(runs: Sequence[Run], values: Iterable) -> dict[tuple, list]:
    """Group values, one a run, by the configuration of the run."""
    groups: dict[tuple, list] = {}
    for run, value in zip(runs, values):
        groups.setdefault(run.identity, []).append(value)
    return groups


def runs_of(row: pd.Series, runs: Sequence[Run]) -> list[Run]:
    """Return the runs of one configuration, by seed."""
    identity = tuple(row[name] for name in IDENTITY)
    return sorted((r for r in runs if r.identity == identity), key=lambda run: run.record.experiment.seed)


def rightness(runs: Sequence[Run]) -> np.ndarray:
    """Say for each run which test photos it classifies correctly.

    Returns
    -------
    array of bool, (runs, photos)

    Raises
    ------
    ValueError
        If the runs were not tested on the same photos.
    """
    if not all(run.correct.index.equals(runs[0].correct.index) for run in runs):
        raise ValueError("The predictions are not of the same photos: they cannot be compared in pairs.")
    return np.stack([run.correct.to_numpy() for run in runs])


def losses(runs: Sequence[Run]) -> np.ndarray:
    """Return each run's loss on each test photo, in nats.

    Returns
    -------
    array, (runs, photos)
    """
    values = []
    for photos in (run.predictions.sort_values("key") for run in runs):
        scores = photos.filter(regex="^p_")
        of_label = scores.to_numpy()[range(len(photos)), scores.columns.get_indexer("p_" + photos["label"])]
        values.append(-np.log(np.clip(of_label, 1e-7, 1)))
    return np.stack(values)


Measure = Callable[[Sequence[Run]], np.ndarray]  # to (runs, photos): `rightness` or `losses`


@dataclass(frozen=True)
class Spread:
    """How far the mean over all photos moves from one run of a configuration to its next.

    Attributes
    ----------
    whole : float
        The variance of the runs' means.
    flips : float
        What single photos that change by chance have in it.
    freedom : int
        How many deviations `whole` was estimated from.
    """

    whole: float
    flips: float
    freedom: int

    @property
    def run(self) -> float:
        """The variance that is the run's own."""
        return max(0.0, self.whole - self.flips)


Spreads = Mapping[tuple[str, bool], Spread]  # of a network, and whether beside other runs with the same seeds


def spreads(runs: Sequence[Run], measure: Measure = rightness) -> dict[tuple[str, bool], Spread]:
    """Estimate for each network how far its configurations move from run to run; without those of one seed.

    Of folds there is nothing to estimate: how they differ holds the runs, too.

    The estimate is pooled over the configurations of a network: a few seeds of
    one say little. Two runs also differ on single photos by chance, which the
    spread over photos holds already. So that is taken off here: the estimate
    of a random effect in an analysis of variance (Satterthwaite, 1946).

    Runs with the same seed start from the same head and see the photos in the
    same order, and so move together. A second estimate, for differences
    between configurations with the same seeds, is without what they share.
    """
    groups: dict[tuple, list[np.ndarray]] = {}
    for of_configuration in by_identity(runs, runs).values():
        by_seed = {run.record.experiment.seed: run for run in of_configuration if run.record.experiment.fold is None}
        if len(by_seed) > 1:
            seeds = tuple(sorted(by_seed))
            ordered = [by_seed[seed] for seed in seeds]
            groups.setdefault((ordered[0].record.experiment.backbone, seeds), []).append(measure(ordered).astype(float))
    found: dict[tuple[str, bool], list[tuple[float, float, int]]] = {}
    for (backbone, _), values in groups.items():
        means = np.stack([each.mean(axis=1) for each in values])  # (configurations, seeds)
        flips = float(np.mean([each.var(axis=0, ddof=1).mean() / each.shape[1] for each in values]))
        deviations = means - means.mean(axis=1, keepdims=True)
        count, seeds = means.shape
        for shared in (False, True):
            own = deviations - deviations.mean(axis=0) if shared and count > 1 else deviations
            freedom = (count - 1 if shared and count > 1 else count) * (seeds - 1)
            found.setdefault((backbone, shared), []).append((float((own**2).sum()) / freedom, flips, freedom))
    pooled = {}
    for key, each in found.items():
        whole, flips, weights = np.array(each).T
        estimate, by_chance = (float(np.average(column, weights=weights)) for column in (whole, flips))
        pooled[key] = Spread(estimate, by_chance, int(weights.sum()))
    return pooled


def most_confused(predictions: pd.DataFrame) -> tuple[list[str], int, int]:
    """Find the two classes that are taken for each other most often, how often, and the number of all mistakes.

    Without a mistake there are no classes.
    """
    wrong = predictions[predictions["label"] != predictions["predicted"]]
    if wrong.empty:
        return [], 0, 0
    pairs = pd.Series([tuple(sorted(pair)) for pair in zip(wrong["label"], wrong["predicted"])]).value_counts()
    return list(pairs.index[0]), int(pairs.iloc[0]), len(wrong)
