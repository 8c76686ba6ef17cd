"""Intervals of single quantities: accuracies, gaps, losses and latencies."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import bootstrap
from scipy.stats import t as student
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from thaw.records.runs import IDENTITY, NAMES, Run, runs_table
from thaw.report.statistics.photos import ALPHA, LEVEL, Spreads, losses, rightness, runs_of, spreads

Gap = tuple[float, int, float, int]  # accuracy and photos of training, then of validation


def wilson(correct, photos, alpha: float = ALPHA) -> tuple:
    """Return the interval of an accuracy (Wilson, 1927).

    Parameters
    ----------
    correct, photos : float or array
        Photos that are classified correctly, and all photos.
    alpha : float
        How often the interval may miss.

    Returns
    -------
    low, high : float or array
        From 0 to 1.
    """
    return proportion_confint(correct, photos, alpha=alpha, method="wilson")


def accuracy_interval(runs: Sequence[Run], alpha: float = ALPHA, within: Spreads | None = None) -> tuple[float, float]:
    """Return the interval of a configuration's accuracy.

    For one run this is `wilson`. For several seeds it is the interval of their
    mean over photos and runs, with Student's t. Two correct and two wrong
    photos are added first (Agresti & Coull, 1998). Otherwise it would have no
    width where every photo, or none, is classified correctly.

    Parameters
    ----------
    runs : sequence of Run
        One a seed.
    alpha : float
        How often the interval may miss.
    within : mapping of str to Spread, optional
        How far runs move, by network; by default, what these runs say of it.

    Returns
    -------
    low, high : float
        From 0 to 1.
    """
    right = rightness(runs)
    if len(runs) == 1:
        return wilson(right[0].sum(), right[0].size, alpha)
    photos = np.concatenate([right.mean(axis=0), [1, 1, 0, 0]])
    of_photos = photos.var() / len(photos)
    backbone = runs[0].record.experiment.backbone
    spread = (spreads(runs) if within is None else within)[backbone, False]
    total = of_photos + spread.run / len(runs)
    known = (spread.whole / len(runs)) ** 2 / spread.freedom + of_photos**2 / (len(photos) - 1)
    half = student.ppf(1 - alpha / 2, total**2 / known) * np.sqrt(total)
    return max(0.0, float(photos.mean() - half)), min(1.0, float(photos.mean() + half))


def gap_interval(train: float, train_photos: int, validation: float, validation_photos: int) -> tuple[float, float]:
    """Return the interval of training minus validation accuracy.

    Newcombe (1998), method 10, for independent samples.

    Parameters
    ----------
    train, validation : float
        Accuracies from 0 to 1.
    train_photos, validation_photos : int
        How many photos each was measured on.
    """
    counts = (train * train_photos, train_photos, validation * validation_photos, validation_photos)
    return confint_proportions_2indep(*counts, method="newcomb", compare="diff", alpha=ALPHA)


def gap_difference(first: Gap, second: Gap) -> tuple[float, float, float]:
    """Return the difference of two gaps with its interval, from the intervals of both (Zou & Donner, 2008).

    It takes the photos of both as independent. They are the same photos, so
    that the interval is rather too wide.

    Parameters
    ----------
    first, second : tuple
        As `gap_interval` takes them.

    Returns
    -------
    difference, low, high : float
    """
    gaps = [gap[0] - gap[2] for gap in (first, second)]
    (low, high), (other_low, other_high) = gap_interval(*first), gap_interval(*second)
    middle = gaps[0] - gaps[1]
    below = np.hypot(gaps[0] - low, other_high - gaps[1])
    return middle, float(middle - below), float(middle + np.hypot(high - gaps[0], gaps[1] - other_low))


def loss_interval(runs: Sequence[Run]) -> tuple[float, float]:
    """Return the interval of a configuration's mean test loss in nats, over photos, with Student's t."""
    values = losses(runs).mean(axis=0)
    if len(values) == 1:
        return float(values[0]), float(values[0])
    half = student.ppf(1 - ALPHA / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def ratio_of_medians(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Return how many times as long the first takes, with its interval; rounds are drawn again in pairs.

    Parameters
    ----------
    first, second : array, (rounds,)
        Times of the same rounds.

    Returns
    -------
    ratio, low, high : float
    """

    def ratio(a, b, axis=-1):
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    settings = {"confidence_level": LEVEL, "method": "percentile", "n_resamples": 2000}  # Efron (1979)
    found = bootstrap(
        (first, second), ratio, rng=np.random.default_rng(0), paired=True, vectorized=True, **settings
    ).confidence_interval
    return float(ratio(first, second)), float(found.low), float(found.high)


def by_configuration(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row for each configuration: means over its seeds, and the interval of its test accuracy.

    Returns
    -------
    DataFrame
        In the order of `runs`: the columns of `thaw.records.record.runs_table`;
        ``seeds``, how many; ``test_sd``, the standard deviation of test
        accuracy over seeds (NaN for one seed); ``test_low`` and ``test_high``.
    """
    groups = runs_table(runs).groupby([*IDENTITY, *NAMES], sort=False)
    means = groups.mean(numeric_only=True).drop(columns="seed")
    means["seeds"], means["test_sd"] = groups.size(), groups["test_accuracy"].std()
    means = means.reset_index()
    within = spreads(runs)
    intervals = [accuracy_interval(runs_of(row, runs), within=within) for _, row in means.iterrows()]
    means["test_low"], means["test_high"] = zip(*intervals)
    return means
