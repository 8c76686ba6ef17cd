"""Which photos each run classifies correctly, and how mean accuracies vary when photos and seeds are drawn again."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student

from thaw.records.runs import IDENTITY, Run

LEVEL = 0.95  # of every interval
ALPHA = 1 - LEVEL
RESAMPLES = 10_000


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


def resampled(
    groups: Sequence[Sequence[Run]], weights: Sequence[float], added: Any = (), resamples: int = RESAMPLES
) -> np.ndarray:
    """Draw photos and seeds again, and return a weighted sum of the mean accuracies of groups of runs.

    The configurations of a group have equal weights.

    - Photos are drawn once for all runs, since all were tested on the same
      photos (percentile bootstrap; Efron, 1979).
    - Seeds are too few to draw from. Instead each seed's deviation from the
      mean is multiplied by a random weight (Wu, 1986). Configurations with the
      same seeds share these weights. One seed alone adds nothing.
    - The two changes are added. Drawing photos within drawn seeds would count
      what depends on both three times (Owen, 2007); the sum counts it twice.
    - A few seeds say little about how much seeds vary. So the sum is widened
      by the ratio of Student's t to the normal distribution, with the degrees
      of freedom of Satterthwaite (1946).

    Parameters
    ----------
    groups : sequence of sequence of Run
    weights : sequence of float
        One a group; for a difference 1 and -1.
    added : array, (photos, groups)
        Made-up photos to add before drawing. For each photo: the share of
        each group's runs that classify it correctly.
    resamples : int

    Returns
    -------
    array, (resamples,)
    """
    rng = np.random.default_rng(0)
    runs = [run for group in groups for run in group]
    group_of = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    photos = np.vstack([rightness(runs).T, np.array(added, float).reshape(-1, len(groups))[:, group_of]])
    # Photos that the same runs classify correctly are alike: how often each kind is drawn is multinomial.
    kinds, counts = np.unique(photos, axis=0, return_counts=True)
    accuracies = rng.multinomial(len(photos), counts / len(photos), resamples) @ kinds / len(photos)
    observed = photos.mean(axis=0)
    drawn: dict[tuple, np.ndarray] = {}
    of_photos, of_seeds = np.zeros(resamples), np.zeros(resamples)
    for number, weight in enumerate(weights):
        configurations = by_identity(groups[number], np.flatnonzero(group_of == number))
        for of_configuration in configurations.values():
            by_seed = {runs[column].record.experiment.seed: column for column in of_configuration}
            seeds = tuple(sorted(by_seed))
            if seeds not in drawn:
                count = len(seeds)
                drawn[seeds] = rng.normal(size=(resamples, count)) / np.sqrt(count * max(count - 1, 1))
            columns = [by_seed[seed] for seed in seeds]
            deviations = observed[columns] - observed[columns].mean()
            of_photos += weight / len(configurations) * accuracies[:, columns].mean(axis=1)
            of_seeds += weight / len(configurations) * (drawn[seeds] @ deviations)
    if not of_seeds.any():
        return of_photos
    variance = of_photos.var() + of_seeds.var()
    fewest = min(len(seeds) for seeds in drawn if len(seeds) > 1)
    freedom = (fewest - 1) * (variance / of_seeds.var()) ** 2
    wider = student.ppf(1 - ALPHA / 2, freedom) / norm.ppf(1 - ALPHA / 2)
    middle = of_photos.mean()
    return middle + wider * (of_photos - middle + of_seeds)


def percentiles(draws: np.ndarray, alpha: float = ALPHA) -> tuple[float, float]:
    """Return the ends of the percentile interval of some draws."""
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)
