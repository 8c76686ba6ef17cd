"""Differences between groups of configurations, on the same test photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binom
from scipy.stats import t as student

from thaw.records.runs import Run
from thaw.report.statistics.folds import error_over, folds_of, has_folds, least_step, levels_of, vary
from thaw.report.statistics.photos import ALPHA, Measure, Spreads, by_identity, rightness, spreads
from thaw.report.statistics.power import POWER

FLIPS = 10_000  # draws of a test that flips signs
OVER_FOLDS = "t test over folds"


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of accuracy, from -1 to 1; or of another measure.

    Attributes
    ----------
    mean : float
        The first runs minus the second.
    low, high, error : float
        The ends of its interval, and its standard error.
    freedom : float
        How much is known of the error: degrees of freedom of Student's t.
    p, test : float, str
        The p value of the test for no difference, and its name.
    photos, seeds : int
        What it was measured on; the fewest seeds of any configuration in it,
        or of any fold of it.
    disagree : float
        The share of photos on which the two sides differ.
    folds : int
        On how many folds it was measured; 0 without folds.
    """

    mean: float
    low: float
    high: float
    error: float
    freedom: float
    p: float
    test: str
    photos: int
    seeds: int
    disagree: float
    folds: int = 0

    @property
    def these_runs(self) -> bool:
        """Whether it speaks of these runs only: with one seed, nothing shows how far runs vary. Folds show it."""
        return self.seeds == 1 and not self.folds

    @property
    def known(self) -> bool:
        """Whether anything is: of fewer than two folds in common nothing is."""
        return self.detectable <= 1

    @property
    def sign(self) -> int:
        """1 or -1 where interval and test both show a difference, else 0."""
        if self.p >= ALPHA or self.low <= 0 <= self.high:
            return 0
        return 1 if self.mean > 0 else -1

    def equivalence(self, margin: float) -> float:
        """Return the p value of two one-sided tests for a difference inside ``±margin`` (Schuirmann, 1987)."""
        return float(student.sf((margin - abs(self.low + self.high) / 2) / self.error, self.freedom))

    @property
    def narrow(self) -> tuple[float, float]:
        """Its 90% interval: inside ``±margin`` exactly where `equivalence` gives less than 5%."""
        middle, half = (self.low + self.high) / 2, student.ppf(1 - ALPHA, self.freedom) * self.error
        return float(middle - half), float(middle + half)

    def outside(self, margin: float) -> float:
        """Return the p value for a difference outside ``±margin``."""
        return min(1.0, 2 * (1 - self.equivalence(margin)))

    @property
    def detectable(self) -> float:
        """The difference that a comparison like this one finds in 8 of 10 studies (Bloom, 1995)."""
        return float(student.ppf([1 - ALPHA / 2, POWER], self.freedom).sum() * self.error)


def difference(
    first: Sequence[Run], second: Sequence[Run], within: Spreads | None = None, measure: Measure = rightness
) -> Difference:
    """Compare two groups of runs; the configurations of a group have equal weights.

    - With folds, each fold is a measurement of the difference, and the
      interval and the test are Student's t over those that all configurations
      have (see `thaw.report.statistics.folds`). Of fewer than two nothing is
      known. If all folds say the same, it is the interval over their photos.

    Without folds:

    - The interval is of the mean over photos. Two photos of the usual
      difference are added, one on each side: for two runs this is the
      interval of Bonett and Price (2012).
    - Of networks with several seeds, the interval and the test also hold what
      a configuration moves by from run to run (`spreads`), with Student's t
      and the degrees of freedom of Satterthwaite (1946).
    - With one seed the test is McNemar's exact test (1947), or for several
      configurations the sign-flip test (Fisher, 1935), of which McNemar's is
      the case of two runs.

    Parameters
    ----------
    first, second : sequence of Run
        At least one each, tested on the same photos.
    within : mapping of str to Spread, optional
        By network; by default, what these runs say of it.
    measure : callable
        `rightness`, `losses`, or with folds what `of_record` makes.

    Raises
    ------
    ValueError
        If they were not tested on the same photos.
    """
    runs = [*first, *second]
    if has_folds(runs):
        return _over_folds(first, second, measure)
    values = measure(runs)
    photos, weights = _weighed(first, second, values)
    seeds = min(len(seeds_of) for *_, seeds_of in weights)
    sums, squares = photos.sum(), (photos**2).sum()
    nonzero = np.count_nonzero(np.abs(photos) > 1e-9)
    within = spreads(runs, measure) if within is None else within
    between = of_runs(weights, within)
    centre, error, freedom = estimated(sums, squares, nonzero, len(photos), between)
    p, test = 2 * student.sf(abs(centre) / error, freedom), "t test over photos"
    if between[1]:
        test += " and runs"
    elif measure is rightness and len(runs) == 2:
        p, test = mcnemar(sums, squares), "McNemar's exact test"
    elif measure is rightness:
        p, test = _sign_flips(photos), "sign-flip test"
    half = student.ppf(1 - ALPHA / 2, freedom) * error
    disagree = float((values != values[0]).any(axis=0).mean())
    ends = (float(centre - half), float(centre + half), float(error), float(freedom))
    return Difference(float(sums / len(photos)) + 0.0, *ends, float(p), test, len(photos), seeds, disagree)


def _weighed(first: Sequence[Run], second: Sequence[Run], values: np.ndarray) -> tuple[np.ndarray, list[tuple]]:
    """Return each photo's difference, and of each configuration its network, weight and seeds."""
    photos, weights = np.zeros(values.shape[1]), []
    for side, group, part in ((1, first, values[: len(first)]), (-1, second, values[len(first) :])):
        configurations = by_identity(group, zip(group, part))
        for identity, of_configuration in configurations.items():
            photos += side / len(configurations) * np.mean([row for _, row in of_configuration], axis=0)
            seeds_of = tuple(sorted(run.record.experiment.seed for run, _ in of_configuration))
            weights.append((identity[0], side / len(configurations), seeds_of))
    return photos, weights


def over_photos(first: Sequence[Run], second: Sequence[Run]) -> Difference:
    """Compare the accuracy of two groups of runs over the photos of all folds that they have together.

    That is for too few folds to say anything themselves: it speaks of these
    runs only.
    """
    parts, (count, seeds, differing, _) = _in_folds(first, second, rightness)
    pooled = np.concatenate(parts)
    centre, error, freedom = _pooled(pooled)
    p, half = _sign_flips(pooled), student.ppf(1 - ALPHA / 2, freedom) * error
    ends = (float(centre - half), float(centre + half), float(error), float(freedom), float(p))
    return Difference(float(pooled.mean()) + 0.0, *ends, "sign-flip test", count, seeds, differing)


def _in_folds(first: Sequence[Run], second: Sequence[Run], measure: Measure) -> tuple[list[np.ndarray], tuple]:
    """Return each photo's difference, by fold; and of all of them: photos, seeds, the share that differ, folds."""
    parts, seeds, differing = [], [], 0
    for fold in folds_of([*first, *second]):
        left, right = ([run for run in side if run.record.experiment.fold == fold] for side in (first, second))
        values = measure([*left, *right])
        photos, weights = _weighed(left, right, values)
        parts.append(photos)
        seeds.append(min(len(seeds_of) for *_, seeds_of in weights))
        differing += int((values != values[0]).any(axis=0).sum())
    count = sum(map(len, parts))
    return parts, (count, min(seeds, default=1), differing / max(count, 1), len(parts))


def _pooled(photos: np.ndarray) -> tuple:
    """Return the estimate of a mean over photos, its standard error and its degrees of freedom, without runs."""
    sums, squares, nonzero = photos.sum(), (photos**2).sum(), np.count_nonzero(np.abs(photos) > 1e-9)
    return estimated(sums, squares, nonzero, len(photos), (0.0, 0.0, np.inf))


def _over_folds(first: Sequence[Run], second: Sequence[Run], measure: Measure) -> Difference:
    """Compare two groups of runs on the folds that all of their configurations have."""
    parts, of_all = _in_folds(first, second, measure)
    if len(parts) < 2:
        return nothing_known(*of_all)
    levels = levels_of(parts)
    centre, error, freedom = levels.mean(), error_over(levels), len(levels) - 1
    if not vary(levels, least_step(parts, measure)):
        centre, error, freedom = _pooled(np.concatenate(parts))
    half = student.ppf(1 - ALPHA / 2, freedom) * error
    p = 2 * student.sf(abs(centre) / error, freedom)
    ends = (float(centre - half), float(centre + half), float(error), float(freedom), float(p))
    return Difference(float(levels.mean()) + 0.0, *ends, OVER_FOLDS, *of_all)


def nothing_known(photos: int, seeds: int, disagree: float, folds: int) -> Difference:
    """Return what fewer than two folds say of a difference."""
    error = float(1 / student.ppf(1 - ALPHA / 2, 1))
    return Difference(0.0, -1.0, 1.0, error, 1.0, 1.0, OVER_FOLDS, photos, seeds, disagree, folds)


def of_runs(weights: Sequence[tuple[str, float, tuple]], within: Spreads) -> tuple[float, float, float]:
    """Return what runs add to the variance of a weighted sum of configurations; nothing for networks of one seed.

    Parameters
    ----------
    weights : sequence of (str, float, tuple)
        Of each configuration: its network, weight and seeds.
    within : mapping
        As `spreads` returns it.

    Returns
    -------
    variance, uncertainty, freedom : float
        The variance; the estimate whose error decides how well it is known;
        and that one's degrees of freedom.
    """
    variance, parts = 0.0, []
    for backbone in dict.fromkeys(network for network, *_ in weights):
        of_network = [(weight, seeds) for network, weight, seeds in weights if network == backbone]
        total, fewest = sum(weight for weight, _ in of_network), min(len(seeds) for _, seeds in of_network)
        factor = sum(weight**2 / len(seeds) for weight, seeds in of_network)
        # What runs of one seed share cancels in a difference within a network. Else it counts as if it were all.
        shared = abs(total) < 1e-9 and len({seeds for _, seeds in of_network}) == 1
        factor = factor if shared else max(factor, total**2 / fewest)
        if (spread := within.get((backbone, shared))) is None:
            continue  # its configurations have one seed each
        variance += factor * spread.run
        parts.append((factor * spread.whole, spread.freedom))
    whole = sum(part for part, _ in parts)
    error = sum(part**2 / freedom for part, freedom in parts)
    return variance, whole, whole**2 / error if error else np.inf


def estimated(sums, squares, nonzero, photos: int, between: tuple[float, float, float]) -> tuple:
    """Return the estimate of a mean difference, its standard error and its degrees of freedom.

    Parameters
    ----------
    sums, squares, nonzero : float or array
        Over photos: the sum of the differences, of their squares, and how
        many differ from 0.
    photos : int
    between : tuple
        As `of_runs` returns it.
    """
    variance, whole, freedom = between
    added = 2 * np.where(nonzero > 0, squares / np.maximum(nonzero, 1), 1.0)
    centre = sums / (photos + 2)
    of_photos = ((squares + added) / (photos + 2) - centre**2) / (photos + 2)
    total = of_photos + variance
    if not whole:
        return centre, np.sqrt(total), np.full_like(total, np.inf)
    known = total**2 / (whole**2 / freedom + of_photos**2 / max(photos - 1, 1))
    return centre, np.sqrt(total), known


def mcnemar(sums, squares):
    """Return the p value of McNemar's exact test, from the sums over photos of differences (-1, 0, 1) and squares."""
    fewer = np.rint((squares - np.abs(sums)) / 2)
    return np.minimum(1.0, 2 * binom.cdf(fewer, np.rint(squares), 0.5))


def _sign_flips(photos: np.ndarray) -> float:
    """Return how often flipped signs give a sum as large. Photos that differ by the same are flipped together."""
    sizes, counts = np.unique(np.abs(photos[np.abs(photos) > 1e-9]).round(9), return_counts=True)
    rng = np.random.default_rng(0)
    flipped = sum((size * (2 * rng.binomial(count, 0.5, FLIPS) - count) for size, count in zip(sizes, counts)), 0.0)
    return float((1 + np.sum(np.abs(flipped + np.zeros(FLIPS)) >= abs(photos.sum()) - 1e-6)) / (1 + FLIPS))


def matched(first: Sequence[Run], second: Sequence[Run], by: Sequence[str]) -> tuple[list[Run], list[Run]]:
    """Keep the runs whose values of some parameters also occur on the other side: all runs where `by` is empty."""

    def key(run: Run) -> tuple:
        return tuple(getattr(run.record.experiment, name) for name in by)

    both = {key(run) for run in first} & {key(run) for run in second}
    return [run for run in first if key(run) in both or not by], [run for run in second if key(run) in both or not by]


def like_pairs(first: pd.DataFrame, second: pd.DataFrame, factor: float) -> list[tuple[pd.Series, pd.Series]]:
    """Pair each first row with the second row of its network that trains most nearly as many parameters."""
    pairs = []
    for _, row in first.iterrows():
        others = second[second["backbone"] == row["backbone"]]
        factors = np.exp(np.abs(np.log(others["trainable_parameters"] / row["trainable_parameters"])))
        if len(factors) and factors.min() <= factor:
            pairs.append((row, others.loc[factors.idxmin()]))
    return pairs


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


def remaining_gain(
    tuned: Sequence[Run], short: Sequence[Run], control: Sequence[Run], within: Spreads | None = None
) -> Remaining:
    """Compare the fine-tuned runs of a network with its short frozen base and with its control.

    The interval of the share is Fieller's (1954): all shares that the two
    gains, and how they vary together, do not exclude.
    """
    gain, rest = difference(tuned, short, within), difference(tuned, control, within)
    if gain.sign <= 0:
        return Remaining(gain, rest)
    lost = difference(control, short, within).error ** 2
    a, b = gain.mean, rest.mean
    together = (gain.error**2 + rest.error**2 - lost) / 2
    freedom = gain.freedom if gain.folds else np.inf
    bound = min(student.ppf(1 - ALPHA / 2, freedom), 0.999 * a / gain.error) ** 2  # the gain is shown: a small error
    square, linear, constant = a**2 - bound * gain.error**2, a * b - bound * together, b**2 - bound * rest.error**2
    root = np.sqrt(max(linear**2 - square * constant, 0.0))
    return Remaining(gain, rest, b / a, float((linear - root) / square), float((linear + root) / square))
