"""Intervals of single quantities: accuracies, gaps, losses and latencies."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import bootstrap
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from thaw.records.runs import IDENTITY, NAMES, Run, runs_table
from thaw.report.statistics.resampling import ALPHA, LEVEL, percentiles, resampled, rightness, runs_of


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


def accuracy_interval(runs: Sequence[Run], alpha: float = ALPHA) -> tuple[float, float]:
    """Return the interval of a configuration's accuracy.

    For one run this is `wilson`. For several seeds it is the interval of their
    mean by `resampled`. Two correct and two wrong photos are added first
    (Agresti & Coull, 1998). Otherwise the interval would have no width where
    every photo, or none, is classified correctly.

    Parameters
    ----------
    runs : sequence of Run
        One a seed.
    alpha : float
        How often the interval may miss.

    Returns
    -------
    low, high : float
        From 0 to 1.
    """
    if len(runs) == 1:
        right = rightness(runs)[0]
        return wilson(right.sum(), right.size, alpha)
    return percentiles(resampled([runs], [1], added=[[1], [1], [0], [0]]), alpha)


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


def loss_interval(runs: Sequence[Run]) -> tuple[float, float]:
    """Return the interval of a configuration's mean test loss in nats, with photos drawn again."""
    losses = []
    for photos in (run.predictions.sort_values("key") for run in runs):
        scores = photos.filter(regex="^p_")
        of_label = scores.to_numpy()[range(len(photos)), scores.columns.get_indexer("p_" + photos["label"])]
        losses.append(-np.log(np.clip(of_label, 1e-7, 1)))
    mean = np.mean(losses, axis=0)
    if np.ptp(mean) == 0:
        return float(mean[0]), float(mean[0])
    return _bootstrap((mean,), np.mean)


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

    return float(ratio(first, second)), *_bootstrap((first, second), ratio, paired=True, vectorized=True)


def _bootstrap(values: tuple[np.ndarray, ...], statistic: Callable, **options: bool) -> tuple[float, float]:
    """Return the percentile interval of a statistic (Efron, 1979)."""
    settings = {"confidence_level": LEVEL, "method": "percentile", "n_resamples": 2000}
    found = bootstrap(values, statistic, rng=np.random.default_rng(0), **settings, **options).confidence_interval
    return float(found.low), float(found.high)


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
    intervals = [accuracy_interval(runs_of(row, runs)) for _, row in means.iterrows()]
    means["test_low"], means["test_high"] = zip(*intervals)
    return means
