"""What the numbers can bear: intervals, paired tests, and what so many photos could show at all.

All comparisons are of runs on the same test photos. Two things are left to
chance in an accuracy: which photos were drawn for the test, and the seed of
the run. With one seed only the first can be told from the data.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import binom, bootstrap, norm
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from thaw.records.runs import Run, runs_table

LEVEL = 0.95  # of every interval
ALPHA = 1 - LEVEL
POWER = 0.80
RESAMPLES = 10_000
CONFIGURATION = ["backbone", "strategy", "amount", "epochs"]  # what tells one from another, the seed apart


# ---- one configuration --------------------------------------------------------------------------


def wilson(correct, photos, alpha: float = ALPHA) -> tuple:
    """The interval of an accuracy (Wilson, 1927).

    Parameters
    ----------
    correct, photos : float or array
        Photos named rightly, and photos in all.
    alpha : float
        How often it may miss.

    Returns
    -------
    low, high : float or array
        From 0 to 1.
    """
    return proportion_confint(correct, photos, alpha=alpha, method="wilson")


def accuracy_interval(runs: Sequence[Run], alpha: float = ALPHA) -> tuple[float, float]:
    """The interval of a configuration's accuracy.

    Of one run: `wilson`. Of one with several seeds: for their mean, by
    `resampled`, with two right and two wrong photos added (Agresti & Coull,
    1998), lest it vanish where no photo, or every one, is named rightly.

    Parameters
    ----------
    runs : sequence of Run
        One a seed.
    alpha : float
        How often it may miss.

    Returns
    -------
    low, high : float
        From 0 to 1.
    """
    if len(runs) == 1:
        right = rightness(runs)[0]
        return wilson(right.sum(), right.size, alpha)
    return _percentiles(resampled([runs], [1], added=[[1], [1], [0], [0]]), alpha)


def gap_interval(train: float, train_photos: int, validation: float, validation_photos: int) -> tuple[float, float]:
    """The interval of training less validation accuracy (Newcombe, 1998, method 10, for independent samples).

    Parameters
    ----------
    train, validation : float
        Accuracies from 0 to 1.
    train_photos, validation_photos : int
        On so many photos.
    """
    counts = (train * train_photos, train_photos, validation * validation_photos, validation_photos)
    return confint_proportions_2indep(*counts, method="newcomb", compare="diff", alpha=ALPHA)


def loss_interval(runs: Sequence[Run]) -> tuple[float, float]:
    """The percentile interval of the mean test loss in nats, photos drawn again (Efron, 1979)."""
    losses = [-np.log(np.clip([row[f"p_{row['label']}"] for row in photos], 1e-7, 1)) for photos in map(_rows, runs)]
    mean = np.mean(losses, axis=0)
    if np.ptp(mean) == 0:
        return float(mean[0]), float(mean[0])
    rng = np.random.default_rng(0)
    result = bootstrap((mean,), np.mean, confidence_level=LEVEL, method="percentile", n_resamples=2000, rng=rng)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _rows(run: Run) -> list[dict]:
    return run.predictions.sort_values("key").to_dict("records")


def by_configuration(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a configuration: means over its seeds, and the interval of its test accuracy.

    Returns
    -------
    DataFrame
        In the order of `runs`: the columns of `thaw.records.runs.runs_table`, with
        ``seeds`` counted, ``test_sd`` the standard deviation of test accuracy
        over seeds (NaN of one), and ``test_low`` and ``test_high``.
    """
    groups = runs_table(runs).groupby([*CONFIGURATION, "label", "control"], sort=False)
    means = groups.mean(numeric_only=True).drop(columns="seed")
    means["seeds"], means["test_sd"] = groups.size(), groups["test_accuracy"].std()
    means = means.reset_index()
    intervals = [accuracy_interval(runs_of(row, runs)) for _, row in means.iterrows()]
    means["test_low"], means["test_high"] = zip(*intervals)
    return means


def runs_of(row: pd.Series, runs: Sequence[Run]) -> list[Run]:
    """The runs of a configuration, by seed."""
    like = [r for r in runs if all(getattr(r.record.experiment, name) == row[name] for name in CONFIGURATION)]
    return sorted(like, key=lambda run: run.record.experiment.seed)


# ---- comparisons --------------------------------------------------------------------------------


def rightness(runs: Sequence[Run]) -> np.ndarray:
    """Whether each run names each test photo rightly.

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
    groups: Sequence[Sequence[Run]],
    weights: Sequence[float],
    added: Sequence[Sequence[float]] = (),
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """A weighted sum of the mean accuracies of groups of runs, with photos and seeds drawn again.

    Every configuration of a group weighs the same. Photos are drawn once for
    all runs, since all were tested on the same (percentile bootstrap; Efron,
    1979). Seeds, of which there are too few to draw from, move their mean by
    their deviations from it times random weights (Wu, 1986), the same for all
    configurations that were run with the same seeds. The two changes are added
    up; to draw photos within drawn seeds would count what depends on both
    three times (Owen, 2007), this does it twice. Since few seeds tell little
    of how much seeds vary, the sum is widened as Student's t is against the
    normal distribution, with the degrees of freedom of Satterthwaite (1946).
    A configuration with one seed shows nothing of how much seeds vary, and
    adds nothing for it.

    Parameters
    ----------
    groups : sequence of sequence of Run
    weights : sequence of float
        One a group; for a difference 1 and -1.
    added : sequence of (groups,)
        Made-up photos to add before photos are drawn: of each, the share
        of a group's runs that name it rightly.
    resamples : int

    Returns
    -------
    array, (resamples,)
    """
    rng = np.random.default_rng(0)
    runs = [run for group in groups for run in group]
    group_of = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    photos = np.vstack([rightness(runs).T, np.array(added, float).reshape(-1, len(groups))[:, group_of]])
    # Photos that the same runs name rightly are alike: how often each kind is drawn is multinomial.
    kinds, counts = np.unique(photos, axis=0, return_counts=True)
    accuracies = rng.multinomial(len(photos), counts / len(photos), resamples) @ kinds / len(photos)
    observed = photos.mean(axis=0)
    drawn: dict[tuple, np.ndarray] = {}
    of_photos, of_seeds = np.zeros(resamples), np.zeros(resamples)
    for number, weight in enumerate(weights):
        configurations = _by_identity(groups[number], np.flatnonzero(group_of == number))
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


def _percentiles(draws: np.ndarray, alpha: float = ALPHA) -> tuple[float, float]:
    low, high = np.quantile(draws, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """A difference of accuracy, from -1 to 1.

    Attributes
    ----------
    mean : float
        The accuracy of the first runs less that of the second.
    p : float
        Of the test that there is none.
    test : str
        Its name.
    photos, seeds : int
        What it was measured on; the fewest seeds of any configuration in it.
    disagree : float
        The share of photos that not all runs name alike.
    draws : array, (resamples,)
        The distribution of the difference that the intervals are taken from.
    """

    mean: float
    p: float
    test: str
    photos: int
    seeds: int
    disagree: float
    draws: np.ndarray = field(repr=False)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """At the level `LEVEL`."""
        return _percentiles(self.draws)

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.interval[0]

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.interval[1]

    @property
    def sign(self) -> int:
        """1 or -1 where interval and test both say that there is a difference, else 0."""
        if self.p >= ALPHA or self.low <= 0 <= self.high:
            return 0
        return 1 if self.mean > 0 else -1

    def equivalence(self, margin: float) -> float:
        """The p of two one-sided tests that the difference is inside ``±margin`` (Schuirmann, 1987)."""
        outside = max((self.draws >= margin).sum(), (self.draws <= -margin).sum())
        return float((1 + outside) / (1 + len(self.draws)))


def difference(first: Sequence[Run], second: Sequence[Run], resamples: int = RESAMPLES) -> Difference:
    """The accuracy of some runs less that of others, configurations weighing the same.

    - One run against one: McNemar's exact test (1947), and the interval of
      Bonett & Price (2012): adjusted Wald, with one photo added to each side
      that only the one or the other names rightly.
    - Several configurations of one seed each: signs of the photos' differences
      flipped at random (Fisher, 1935), of which McNemar's test is the case of
      two runs; the interval by `resampled`, with two photos of the usual
      difference added in the same way.
    - Several seeds: test and interval both by `resampled`.

    Parameters
    ----------
    first, second : sequence of Run
        At least one each, tested on the same photos.
    resamples : int

    Raises
    ------
    ValueError
        If they were not tested on the same photos.
    """
    if list(_by_identity(second, second)) < list(_by_identity(first, first)):
        # Asked either way round, a comparison has one answer: the same draws.
        other = difference(second, first, resamples)
        return replace(other, mean=0.0 - other.mean, draws=-other.draws)
    right = rightness([*first, *second])
    parts = right[: len(first)], right[len(first) :]
    photos = parts[0].mean(axis=0) - parts[1].mean(axis=0)
    count = right.shape[1]
    counts = [len(group) for runs in (first, second) for group in _by_identity(runs, runs).values()]
    seeds = min(counts)
    disagree = float((right != right[0]).any(axis=0).mean())
    mean = float(_mean_by_configuration(first, parts[0]) - _mean_by_configuration(second, parts[1]))
    if len(first) == len(second) == 1:
        only = [int((photos > 0).sum()), int((photos < 0).sum())]
        p = float(mcnemar([[0, only[0]], [only[1], 0]], exact=True).pvalue)
        shares = [(n + 1) / (count + 2) for n in only]
        centre, spread = shares[0] - shares[1], shares[0] + shares[1]
        error = np.sqrt((spread - centre**2) / (count + 2))
        draws = centre + error * _normal(resamples)
        return Difference(mean, p, "McNemar's exact test", count, seeds, disagree, draws)
    # For two single runs it would be 1; photos that several runs differ on count by as much as they do.
    size = np.sqrt((photos[photos != 0] ** 2).mean()) if photos.any() else 1.0
    draws = resampled([first, second], [1, -1], added=[[size, 0], [0, size]], resamples=resamples)
    if max(counts) == 1:
        sizes = np.abs(photos[photos != 0])
        flipped = np.random.default_rng(0).choice([-1.0, 1.0], (resamples, len(sizes))) @ sizes
        p = (1 + (np.abs(flipped) >= abs(photos.sum()) - 1e-9).sum()) / (1 + resamples)
        return Difference(mean, float(p), "sign-flip test", count, seeds, disagree, draws)
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    p = min(1.0, 2 * (1 + tail) / (1 + resamples))
    name = (
        "bootstrap over photos and seeds" if seeds > 1 else "bootstrap over photos, and seeds where there are several"
    )
    return Difference(mean, float(p), name, count, seeds, disagree, draws)


@cache
def _normal(count: int) -> np.ndarray:
    """So many values that are spread like the normal distribution."""
    return norm.ppf((np.arange(count) + 0.5) / count)


def _by_identity(runs: Sequence[Run], of: Iterable) -> dict[tuple, list]:
    """What belongs to each of some runs, by their configuration."""
    groups: dict[tuple, list] = {}
    for run, one in zip(runs, of):
        groups.setdefault(tuple(getattr(run.record.experiment, name) for name in CONFIGURATION), []).append(one)
    return groups


def _mean_by_configuration(runs: Sequence[Run], right: np.ndarray) -> float:
    return float(np.mean([np.mean(group) for group in _by_identity(runs, right.mean(axis=1)).values()]))


def holm(p: Sequence[float]) -> np.ndarray:
    """p values of a family of tests, corrected so that it calls one falsely in at most 5 % of cases (Holm, 1979)."""
    return multipletests(p, method="holm")[1] if len(p) else np.array([])


def pairwise(rows: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    """Every two of these configurations compared, p corrected by `holm` over all of them.

    All pairs are one family, so that it may be asked afterwards which
    differ from the best, whichever turned out to be it.

    Parameters
    ----------
    rows : DataFrame
        Some of `by_configuration`.
    runs : sequence of Run

    Returns
    -------
    DataFrame
        A pair a row: ``first`` and ``second`` (from the index of `rows`),
        ``difference`` (a `Difference`), ``p`` (corrected), and ``separated``.
    """
    pairs = list(combinations(rows.index, 2))
    effects = [difference(*(runs_of(rows.loc[index], runs) for index in pair)) for pair in pairs]
    p = holm([effect.p for effect in effects])
    return pd.DataFrame(
        {
            "first": [pair[0] for pair in pairs],
            "second": [pair[1] for pair in pairs],
            "difference": effects,
            "p": p,
            "separated": p < ALPHA,
        }
    )


def as_good_as_best(rows: pd.DataFrame, pairs: pd.DataFrame) -> list:
    """The index of all rows that are not shown to be worse than any other, the most accurate first.

    Parameters
    ----------
    rows : DataFrame
        Some of `by_configuration`.
    pairs : DataFrame
        As `pairwise` gives them.
    """
    apart = pairs[pairs["separated"]]
    worse = {pair.second if pair.difference.mean > 0 else pair.first for pair in apart.itertuples()}
    top = rows["test_accuracy"].idxmax()
    return [top, *(index for index in rows.index if index != top and index not in worse)]


def upwards(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows from the fewest trainable parameters up, of equal ones the longer trained first."""
    return rows.sort_values(["trainable_parameters", "epochs"], ascending=[True, False])


def what_more_gains(rows: pd.DataFrame, candidates: Sequence, runs: Sequence[Run]) -> pd.Series:
    """Going `upwards`: how much more accurate than each candidate all are, taken together, that train more.

    It goes up while that is shown at 5 %. Tests in an order that is fixed
    beforehand, each made only if the one before has shown something, call any
    of them falsely in at most 5 % of cases (Maurer, Hothorn & Lehmacher,
    1995).

    Parameters
    ----------
    rows : DataFrame
        Those of one network, of `by_configuration`.
    candidates : sequence
        The index of some of them, such as `as_good_as_best`.
    runs : sequence of Run

    Returns
    -------
    Series of Difference
        A step each, indexed like `rows`; the last is the first that is not
        shown. Empty where no row trains more than the first candidate.
    """
    steps = {}
    for index, row in upwards(rows.loc[list(candidates)]).iterrows():
        above = rows[rows["trainable_parameters"] > row["trainable_parameters"]]
        if above.empty:
            break
        more = [run for _, other in above.iterrows() for run in runs_of(other, runs)]
        steps[index] = difference(more, runs_of(row, runs))
        if steps[index].sign <= 0:
            break
    return pd.Series(steps, dtype=object)


# ---- what could be shown ------------------------------------------------------------------------


def power(photos: int, disagree: float, gain: float) -> float:
    """How often McNemar's exact test finds a difference of two runs.

    Exact: over the number of photos on which the two differ, binomial, and
    over how many of these speak for the better, binomial again.

    Parameters
    ----------
    photos : int
    disagree : float
        The share of photos that only one of the two names rightly.
    gain : float
        The true difference of accuracy, at most `disagree`.
    """
    m = np.arange(photos + 1)
    most = binom.ppf(ALPHA / 2, m, 0.5)  # so few for the worse one, or fewer, is a difference
    most = np.where(binom.cdf(most, m, 0.5) > ALPHA / 2, most - 1, most)
    against = (1 - gain / disagree) / 2
    found = binom.cdf(most, m, against) + binom.sf(m - most - 1, m, against)
    return float((binom.pmf(m, photos, disagree) * found).sum())


def detectable(photos: int, disagree: float) -> float:
    """The smallest difference of two runs that is found with a power of 80 %; NaN where none is.

    Parameters
    ----------
    photos : int
    disagree : float
        As for `power`. Where so little disagreement is not enough, it is as
        large as the difference itself: that the one is right wherever the
        other is makes a difference easiest to find.

    Returns
    -------
    float
        From 0 to 1.
    """
    if power(photos, 1.0, 1.0) < POWER:
        return float("nan")
    if disagree <= 0 or power(photos, disagree, disagree) < POWER:
        return float(brentq(lambda gain: power(photos, gain, gain) - POWER, 1e-6, 1, xtol=1e-5))
    return float(brentq(lambda gain: power(photos, disagree, gain) - POWER, 0, disagree, xtol=1e-5))


def detectable_from(pairs: pd.DataFrame) -> float:
    """The smallest difference that comparisons like these find with a power of 80 %, before `holm`; NaN where none is.

    Of single runs by `detectable`, at the median disagreement; of several
    seeds 2.8 median standard errors (Bloom, 1995).
    """
    effects = list(pairs["difference"])
    if all(effect.seeds == 1 for effect in effects):
        return detectable(effects[0].photos, float(np.median([effect.disagree for effect in effects])))
    errors = [effect.draws.std() for effect in effects]
    return float((norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER)) * np.median(errors))


# ---- latency ------------------------------------------------------------------------------------


def median_interval(values: np.ndarray) -> tuple[float, float]:
    """The percentile interval of a median (Efron, 1979), (rounds,) to its ends."""
    result = bootstrap(
        (values,),
        np.median,
        confidence_level=LEVEL,
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def ratio_of_medians(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """How many times the one takes as long as the other, with its interval, rounds drawn again in pairs.

    Parameters
    ----------
    first, second : array, (rounds,)
        Of the same rounds.

    Returns
    -------
    ratio, low, high : float
    """

    def ratio(a, b, axis=-1):
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    options = {"paired": True, "confidence_level": LEVEL, "method": "percentile", "n_resamples": 2000}
    result = bootstrap((first, second), ratio, rng=np.random.default_rng(0), vectorized=True, **options)
    return float(ratio(first, second)), float(result.confidence_interval.low), float(result.confidence_interval.high)
