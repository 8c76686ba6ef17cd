"""Intervals of single quantities: accuracies, gaps, losses and latencies."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import bootstrap
from scipy.stats import t as student
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from thaw.records.runs import IDENTITY, NAMES, Run, runs_table
from thaw.report.statistics.folds import has_folds, interval_over, least_step, levels_of, of_record, photo_means, vary
from thaw.report.statistics.photos import ALPHA, LEVEL, Spreads, losses, rightness, runs_of, spreads

lead = of_record(lambda record: record.train_accuracy - record.validation_accuracy)


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

    With folds it is Student's t over the folds; if all of them say the same,
    `wilson` on the photos of all. For one run this is `wilson`. For several seeds it is the interval of their
    mean over photos and runs, with Student's t. Two correct and two wrong
    photos are added first (Agresti & Coull, 1998). Otherwise it would have no
    width where every photo, or none, is classified correctly.

    Parameters
    ----------
    runs : sequence of Run
        One a seed, or a fold and seed.
    alpha : float
        How often the interval may miss.
    within : mapping of str to Spread, optional
        How far runs move, by network; by default, what these runs say of it.

    Returns
    -------
    low, high : float
        From 0 to 1.
    """
    if has_folds(runs):
        parts = photo_means(runs, rightness)
        levels, all_photos = levels_of(parts), np.concatenate(parts)
        if not vary(levels, least_step(parts, rightness)):
            return wilson(all_photos.sum(), all_photos.size, alpha)
        low, high = interval_over(levels, alpha)
        return max(0.0, low), min(1.0, high)
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


def _gap(runs: Sequence[Run]) -> tuple[float, float, float]:
    """Return how far training is ahead of validation, with its interval (Newcombe, 1998, method 10)."""
    photos = runs[0].record.data["photos"]
    train, validation = (
        float(np.mean([getattr(run.record, f"{part}_accuracy") for run in runs])) for part in ("train", "validation")
    )
    counts = (train * photos["train"], photos["train"], validation * photos["validation"], photos["validation"])
    low, high = confint_proportions_2indep(*counts, method="newcomb", compare="diff", alpha=ALPHA)
    return train - validation, low, high


def gap_difference(first: Sequence[Run], second: Sequence[Run]) -> tuple[float, float, float]:
    """Return the difference of two configurations' gaps with its interval, without folds (Zou & Donner, 2008).

    It takes the photos of both as independent. They are the same photos, so
    that the interval is rather too wide. With folds, `difference` compares
    the `lead` of each.

    Returns
    -------
    difference, low, high : float
    """
    (gap, low, high), (other, other_low, other_high) = _gap(first), _gap(second)
    middle = gap - other
    below = np.hypot(gap - low, other_high - other)
    return middle, float(middle - below), float(middle + np.hypot(high - gap, other - other_low))


def loss_interval(runs: Sequence[Run]) -> tuple[float, float]:
    """Return the interval of a configuration's mean test loss in nats, with Student's t.

    It is over folds, if they differ; else over photos.
    """
    parts = photo_means(runs, losses) if has_folds(runs) else [losses(runs).mean(axis=0)]
    if vary(levels := levels_of(parts)):
        return interval_over(levels)
    values = np.concatenate(parts)
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
    """Return a row for each configuration: means over its seeds and folds, and the interval of its test accuracy.

    Returns
    -------
    DataFrame
        In the order of `runs`: the columns of `thaw.records.record.runs_table`
        without seed and fold, with the photos of all folds together;
        ``folds``, how many, 0 without; ``seeds``, the fewest of any fold;
        ``test_sd``, the standard deviation of test accuracy over folds, or
        without folds over seeds (NaN for one seed); ``test_low`` and
        ``test_high``.
    """
    configuration = [*IDENTITY, *NAMES]
    table = runs_table(runs)
    of_fold = table.groupby([*configuration, "fold"], sort=False, dropna=False)
    folds = of_fold.mean(numeric_only=True).drop(columns="seed").assign(seeds=of_fold.size()).reset_index()
    groups = folds.groupby(configuration, sort=False)
    means = groups.mean(numeric_only=True).drop(columns="fold")
    means["seeds"], means["folds"] = groups["seeds"].min(), groups["fold"].count()
    means[["test_photos", "test_correct"]] = groups[["test_photos", "test_correct"]].sum()
    over_seeds = table.groupby(configuration, sort=False)["test_accuracy"].std()
    means["test_sd"] = groups["test_accuracy"].std().where(means["folds"] > 0, over_seeds)
    means = means.reset_index()
    within = spreads(runs)
    intervals = [accuracy_interval(runs_of(row, runs), within=within) for _, row in means.iterrows()]
    means["test_low"], means["test_high"] = zip(*intervals)
    return means
