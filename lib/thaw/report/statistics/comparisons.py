"""Paired comparisons of configurations on the same test photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import norm, permutation_test, rankdata
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from thaw.records.record import Run
from thaw.report.statistics.resampling import ALPHA, RESAMPLES, by_identity, percentiles, resampled, rightness, runs_of


@dataclass(frozen=True)
class Difference:
    """A difference of accuracy, from -1 to 1.

    Attributes
    ----------
    mean : float
        The accuracy of the first runs minus that of the second.
    low, high, error : float
        The ends of its interval, and its standard error.
    p, test : float, str
        The p value of the test for no difference, and its name.
    photos, seeds : int
        What it was measured on; the fewest seeds of any configuration in it.
    disagree : float
        The share of photos on which not all runs are right, and not all wrong.
    draws : array, (resamples,)
        The distribution of the difference, for `equivalence`; empty where a
        large table of differences does without.
    """

    mean: float
    low: float
    high: float
    error: float
    p: float
    test: str
    photos: int
    seeds: int
    disagree: float
    draws: np.ndarray = field(repr=False)

    @property
    def sign(self) -> int:
        """1 or -1 where interval and test both show a difference, else 0."""
        if self.p >= ALPHA or self.low <= 0 <= self.high:
            return 0
        return 1 if self.mean > 0 else -1

    def equivalence(self, margin: float) -> float:
        """Return the p value of two one-sided tests for a difference inside ``±margin`` (Schuirmann, 1987)."""
        if not len(self.draws):
            raise ValueError("This difference was made without draws: compare the two again with `difference`.")
        outside = max((self.draws >= margin).sum(), (self.draws <= -margin).sum())
        return float((1 + outside) / (1 + len(self.draws)))


def difference(first: Sequence[Run], second: Sequence[Run], *, resamples: int = RESAMPLES) -> Difference:
    """Compare the accuracy of two groups of runs; the configurations of a group have equal weights.

    - One run against one: McNemar's exact test (1947), and the interval of
      Bonett & Price (2012). This is the adjusted Wald interval: one photo is
      added on each side.
    - Several configurations of one seed each: the sign-flip test (Fisher,
      1935), of which McNemar's test is the case of two runs. The interval is
      by `resampled`, with two photos of the usual difference added.
    - Several seeds: both test and interval by `resampled`.

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
    sign = 1
    if list(by_identity(second, second)) < list(by_identity(first, first)):
        # One order for both directions, so that both use the same draws and give the same answer.
        first, second, sign = second, first, -1
    right = rightness([*first, *second])
    parts = right[: len(first)], right[len(first) :]
    photos = parts[0].mean(axis=0) - parts[1].mean(axis=0)
    count = right.shape[1]
    counts = [len(group) for runs in (first, second) for group in by_identity(runs, runs).values()]
    mean = _mean_by_configuration(first, parts[0]) - _mean_by_configuration(second, parts[1])
    disagree = float((right != right[0]).any(axis=0).mean())

    def found(draws: np.ndarray, p: float, test: str) -> Difference:
        low, high = percentiles(sign * draws)
        error = float(draws.std())
        return Difference(
            sign * mean + 0.0, low, high, error, float(p), test, count, min(counts), disagree, sign * draws
        )

    if len(first) == len(second) == 1:
        only = [int((photos > 0).sum()), int((photos < 0).sum())]
        p = mcnemar([[0, only[0]], [only[1], 0]], exact=True).pvalue
        shares = [(n + 1) / (count + 2) for n in only]
        centre, spread = shares[0] - shares[1], shares[0] + shares[1]
        error = np.sqrt((spread - centre**2) / (count + 2))
        return found(centre + error * _normal(resamples), p, "McNemar's exact test")
    # The size of an added photo: the usual difference on photos that the two sides do not share. 1 for single runs.
    size = np.sqrt((photos[photos != 0] ** 2).mean()) if photos.any() else 1.0
    draws = resampled([first, second], [1, -1], added=[[size, 0], [0, size]], resamples=resamples)
    if max(counts) == 1:
        sizes = np.abs(photos[photos != 0])
        flipped = np.random.default_rng(0).choice([-1.0, 1.0], (resamples, len(sizes))) @ sizes
        p = (1 + (np.abs(flipped) >= abs(photos.sum()) - 1e-9).sum()) / (1 + resamples)
        return found(draws, p, "sign-flip test")
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    p = min(1.0, 2 * (1 + tail) / (1 + resamples))
    seeds = " and seeds" if min(counts) > 1 else ", and over seeds where there are several"
    return found(draws, p, f"bootstrap over photos{seeds}")


@cache
def _normal(count: int) -> np.ndarray:
    """Return values spread like the normal distribution."""
    return norm.ppf((np.arange(count) + 0.5) / count)


def _mean_by_configuration(runs: Sequence[Run], right: np.ndarray) -> float:
    return float(np.mean([np.mean(group) for group in by_identity(runs, right.mean(axis=1)).values()]))


def matched(first: Sequence[Run], second: Sequence[Run], by: Sequence[str]) -> tuple[list[Run], list[Run]]:
    """Keep the runs whose values of some parameters also occur on the other side: all runs where `by` is empty."""

    def key(run: Run) -> tuple:
        return tuple(getattr(run.record.experiment, name) for name in by)

    both = {key(run) for run in first} & {key(run) for run in second}
    return [run for run in first if key(run) in both or not by], [run for run in second if key(run) in both or not by]


def holm(p: Sequence[float]) -> np.ndarray:
    """Correct p values so that any false alarm occurs in at most 5 % of cases (Holm, 1979)."""
    return multipletests(p, method="holm")[1] if len(p) else np.array([])


# ---- all configurations of a network ------------------------------------------------------------


def pairwise(rows: pd.DataFrame, runs: Sequence[Run]) -> pd.DataFrame:
    """Compare every two of these configurations, with p corrected by `holm` over all pairs.

    All pairs form one family. So one may ask afterwards which configurations
    differ from the best, whichever that is.

    Parameters
    ----------
    rows : DataFrame
        Some of `by_configuration`.
    runs : sequence of Run

    Returns
    -------
    DataFrame
        A pair a row: ``first`` and ``second`` (from the index of `rows`),
        ``difference`` (a `Difference` without draws), ``p`` (corrected), and
        ``separated``.
    """
    pairs = pd.DataFrame(combinations(rows.index, 2), columns=["first", "second"])
    effects = []
    for pair in pairs.itertuples(index=False):
        effect = difference(*(runs_of(rows.loc[index], runs) for index in pair))
        effects.append(replace(effect, draws=np.empty(0)))  # there may be thousands of pairs
    p = holm([effect.p for effect in effects])
    return pairs.assign(difference=pd.Series(effects, dtype=object), p=p, separated=p < ALPHA)


def as_good_as_best(rows: pd.DataFrame, pairs: pd.DataFrame) -> list:
    """Return the index of all rows that are not shown to be worse than another, with the most accurate first.

    Parameters
    ----------
    rows, pairs : DataFrame
        Some of `by_configuration`, and their `pairwise` comparisons.
    """
    apart = pairs[pairs["separated"]]
    worse = {pair.second if pair.difference.mean > 0 else pair.first for pair in apart.itertuples()}
    top = rows["test_accuracy"].idxmax()
    return [top, *(index for index in rows.index if index != top and index not in worse)]


def upwards(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort rows from the fewest trainable parameters up; ties: the one trained longer comes first."""
    return rows.sort_values(["trainable_parameters", "epochs"], ascending=[True, False])


def what_more_gains(rows: pd.DataFrame, candidates: Sequence, runs: Sequence[Run]) -> pd.Series:
    """Compare each candidate, going `upwards`, with all configurations together that train more parameters.

    The steps go on while each shows a gain at 5 %. The order is fixed
    beforehand, and a test is made only if the one before it showed a gain. So
    any false alarm occurs in at most 5 % of cases (Maurer, Hothorn &
    Lehmacher, 1995).

    Parameters
    ----------
    rows : DataFrame
        The rows of one network from `by_configuration`.
    candidates : sequence
        The index of some of them, such as `as_good_as_best`.
    runs : sequence of Run

    Returns
    -------
    Series of Difference
        A step each, indexed like `rows`; the last one is the first that shows
        no gain. Empty if no row trains more than the first candidate.
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


@dataclass(frozen=True)
class Remaining:
    """How much of fine-tuning's gain remains against a base that was frozen for as many epochs.

    Attributes
    ----------
    over_short, over_control : Difference
        Fine-tuned configurations against the base frozen for the head's
        epochs, and against the control.
    share, low, high : float or None
        The second gain divided by the first, with its interval. None where the
        first is not shown to be a gain: there is nothing to take a share of.
    """

    over_short: Difference
    over_control: Difference
    share: float | None = None
    low: float | None = None
    high: float | None = None


def remaining_gain(tuned: Sequence[Run], short: Sequence[Run], control: Sequence[Run]) -> Remaining:
    """Compare the fine-tuned runs of a network with its short frozen base and with its control."""
    over_short, over_control = difference(tuned, short), difference(tuned, control)
    if over_short.sign <= 0:
        return Remaining(over_short, over_control)
    gains = [resampled([tuned, short, control], weights) for weights in ([1, -1, 0], [1, 0, -1])]
    shown = gains[0] > 0  # nearly all of them, since the gain is shown
    low, high = percentiles(gains[1][shown] / gains[0][shown])
    return Remaining(over_short, over_control, over_control.mean / over_short.mean, low, high)


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float] | None:
    """Return Spearman's coefficient and its p, exact for up to seven values; None where one side is constant."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    ranks = rankdata(x), rankdata(y)

    def statistic(order, axis=-1):
        return (order * ranks[1]).sum(axis=axis)  # grows with the coefficient

    options = {"permutation_type": "pairings", "n_resamples": 10_000, "vectorized": True}
    result = permutation_test((ranks[0],), statistic, rng=0, **options)
    return float(np.corrcoef(*ranks)[0, 1]), float(result.pvalue)
