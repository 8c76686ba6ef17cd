"""All configurations of a network at once: every pair, and the least to unfreeze that is enough.

Many comparisons have many chances of a false alarm. Here the largest of their
t values is compared with the largest that chance gives to all of them
together (max-T; Westfall and Young, 1993). With folds, chance flips the signs
of whole folds, each for all comparisons at once. Without, it flips those of
photos, and moves each configuration as a new run would. So comparisons that
are alike count little more than one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.stats import t as student
from statsmodels.stats.multitest import multipletests
from threadpoolctl import ThreadpoolController

from thaw.records.runs import IDENTITY, Run
from thaw.report.statistics.differences import (
    FLIPS,
    OVER_FOLDS,
    Difference,
    estimated,
    mcnemar,
    nothing_known,
    of_runs,
)
from thaw.report.statistics.folds import folds_of, has_folds, least_step, shares_right
from thaw.report.statistics.photos import ALPHA, Spreads, rightness, runs_of, spreads

AT_ONCE = 2_000_000  # numbers in one step of a large family
MOST = 100_000_000  # numbers in all steps: a larger family has fewer draws, down to `FEWEST`
FEWEST = 2_000
THREADS = ThreadpoolController()  # of products so small, threads that wait for each other cost a hundred times as much


def holm(p: Sequence[float]) -> np.ndarray:
    """Correct p values of different tests so that any false alarm occurs in at most 5 % of cases (Holm, 1979)."""
    return multipletests(p, method="holm")[1] if len(p) else np.array([])


@dataclass(frozen=True, eq=False)
class Family:
    """The configurations of one network, tested on the same photos; `Family.of` makes it for runs of any kind.

    Attributes
    ----------
    rows : DataFrame
        Some of `by_configuration`, of one network.
    runs : sequence of Run
    within : mapping of str to Spread, optional
        By default, what these runs say.
    """

    rows: pd.DataFrame
    runs: Sequence[Run]
    within: Spreads | None = None

    @classmethod
    def of(cls, rows: pd.DataFrame, runs: Sequence[Run], within: Spreads | None = None) -> Family:
        """Make the family of some rows, with or without folds."""
        return (FamilyOfFolds if has_folds(runs) else Family)(rows, runs, within)

    @property
    def correction(self) -> str:
        """How `corrected` corrects: 'max-T', or with few folds, where no flip is rare enough, 'Holm'."""
        return "max-T"

    @property
    def step_correction(self) -> str:
        """How `any_better` corrects: 'max-T', or with few folds 'Bonferroni'."""
        return "max-T"

    @cached_property
    def _right(self) -> list[np.ndarray]:
        return [rightness(runs_of(row, self.runs)) for _, row in self.rows.iterrows()]

    @cached_property
    def _means(self) -> np.ndarray:
        """The share of runs that classify a photo correctly, (configurations, photos)."""
        return np.stack([right.mean(axis=0) for right in self._right])

    @cached_property
    def _seeds(self) -> np.ndarray:
        return np.array([len(right) for right in self._right])

    @cached_property
    def _spreads(self) -> Spreads:
        return spreads(self.runs) if self.within is None else self.within

    @cached_property
    def _between(self) -> list[tuple[float, float, float]]:
        """What runs add to each pair of configurations; nothing where all have one seed."""
        name = self.rows["backbone"].iloc[0]
        seeds = [tuple(r.record.experiment.seed for r in runs_of(row, self.runs)) for _, row in self.rows.iterrows()]
        both = [(seeds[first], seeds[second]) for first, second in self.pairs.tolist()]
        found = {each: of_runs([(name, 1, each[0]), (name, -1, each[1])], self._spreads) for each in set(both)}
        return [found[each] for each in both]

    @cached_property
    def pairs(self) -> np.ndarray:
        """Every two positions in `rows`, (pairs, 2)."""
        return np.column_stack(np.triu_indices(len(self.rows), 1))

    @cached_property
    def _sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each pair's differences the sum over photos, and that of the squares."""
        first, second = self.pairs.T
        gram = self._means @ self._means.T
        squares = gram[first, first] + gram[second, second] - 2 * gram[first, second]
        return (self._means.sum(axis=1)[first] - self._means.sum(axis=1)[second]).round(9), squares.round(9)

    @cached_property
    def errors(self) -> np.ndarray:
        """The standard error of each pair if the two are alike; infinite where they do not differ at all."""
        variance = self._sums[1] / self._means.shape[1] ** 2 + np.array([runs for runs, _, _ in self._between])
        return np.sqrt(np.where(variance > 0, variance, np.inf))

    @cached_property
    def t(self) -> np.ndarray:
        """The t value of each pair."""
        return self._sums[0] / self._means.shape[1] / self.errors

    @cached_property
    def _moved(self) -> np.ndarray:
        """How far chance moves each configuration, (configurations, draws)."""
        rng = np.random.default_rng(0)
        draws = int(np.clip(MOST // max(len(self.pairs), 1), FEWEST, FLIPS))
        differ = np.ptp(self._means, axis=0) > 1e-9
        photos = (self._means - self._means.mean(axis=0))[:, differ].astype(np.float32)
        moved = np.empty((len(photos), draws), np.float32)
        step = max(1, AT_ONCE // max(photos.shape[1], 1))
        with THREADS.limit(limits=1):
            for start in range(0, draws, step):
                signs = rng.integers(0, 2, (photos.shape[1], min(step, draws - start)), np.int8)
                moved[:, start : start + step] = photos @ (2 * signs.astype(np.float32) - 1) / self._means.shape[1]
        if not any(whole for _, whole, _ in self._between):
            return moved
        shared = self._spreads[self.rows["backbone"].iloc[0], len({runs for runs, _, _ in self._between}) == 1]
        # How far runs truly move is an estimate, too: each draw has one that fits it (fiducial; Weerahandi, 1993).
        luck = rng.chisquare(shared.freedom, draws) / shared.freedom
        true = np.sqrt(np.maximum(0, shared.whole / luck - shared.flips))
        return moved + rng.normal(size=moved.shape) * true / np.sqrt(self._seeds)[:, None]

    def _alike(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each pair: on how many photos both have the same mean; and on how many all of their runs agree."""
        first, second = self.pairs.T
        same = sum(
            ((self._means == level).astype(np.float32) @ (self._means == level).T.astype(np.float32))[first, second]
            for level in np.unique(self._means)
        )
        always, never = ((self._means == level).astype(np.float32) for level in (1.0, 0.0))
        return same, (always @ always.T + never @ never.T)[first, second].astype(float)

    @cached_property
    def differences(self) -> list[Difference]:
        """Every pair as `difference` compares it."""
        photos, (first, second), (sums, squares) = self._means.shape[1], self.pairs.T, self._sums
        same, agree = self._alike()
        columns = []
        for kind in set(self._between):
            of_kind = np.array([between == kind for between in self._between])
            columns.append(
                (of_kind, estimated(sums[of_kind], squares[of_kind], (photos - same)[of_kind], photos, kind))
            )
        centre, error, freedom = np.empty((3, len(self.pairs)))
        for of_kind, found in columns:
            centre[of_kind], error[of_kind], freedom[of_kind] = found
        half = student.ppf(1 - ALPHA / 2, freedom) * error
        single = self._seeds.max() == 1
        each = mcnemar(sums, squares) if single else 2 * student.sf(np.abs(centre) / error, freedom)
        test = "McNemar's exact test" if single else "t test over photos and runs"
        table = np.column_stack([sums / photos + 0.0, centre - half, centre + half, error, freedom, each]).tolist()
        seeds = np.minimum(self._seeds[first], self._seeds[second]).tolist()
        return [
            Difference(mean, low, high, error, freedom, p, test, photos, fewest, 1 - alike)
            for (mean, low, high, error, freedom, p), fewest, alike in zip(table, seeds, (agree / photos).tolist())
        ]

    def corrected(self) -> np.ndarray:
        """Return the p value of each pair, corrected for all pairs: step by step from the largest t down."""
        order = np.argsort(np.abs(self.t), kind="stable")
        reached = np.zeros(len(order))
        for chance in self._chances(order, self._moved):
            largest = np.maximum.accumulate(np.abs(chance), axis=0)
            reached += (largest >= np.abs(self.t[order])[:, None] - 1e-6).sum(axis=1)
        p = np.empty(len(order))
        draws = self._moved.shape[1]
        p[order] = np.maximum.accumulate(((1 + reached) / (1 + draws))[::-1])[::-1]
        return p

    def _chances(self, which: np.ndarray, moved: np.ndarray):
        """Yield the t values of some pairs that chance gives, (pairs, draws), some draws at a time."""
        first, second = self.pairs[which].T
        errors = self.errors[which].astype(moved.dtype)[:, None]
        step = max(1, AT_ONCE // max(len(which), 1))
        for start in range(0, moved.shape[1], step):
            part = moved[:, start : start + step]
            yield (part[first] - part[second]) / errors

    def any_better(self, position: int, others: Sequence[int]) -> tuple[int, float]:
        """Ask whether any of some configurations is more accurate than one: which shows it most, and p for any."""
        which = [self._pair(position, other) for other in others]
        numbers, signs = (np.array(column) for column in zip(*which))
        t = signs * self.t[numbers]
        best = int(t.argmax())
        reached = sum(
            int(((signs[:, None] * chance).max(axis=0) >= t[best] - 1e-6).sum())
            for chance in self._chances(numbers, self._moved)
        )
        return others[best], (1 + reached) / (1 + self._moved.shape[1])

    def _pair(self, one: int, other: int) -> tuple[int, int]:
        """Return the number of a pair, and the sign that makes it the other less the one."""
        low, high = sorted((one, other))
        count = len(self.rows)
        return low * count - low * (low + 1) // 2 + high - low - 1, 1 if other == low else -1


@dataclass(frozen=True, eq=False)
class FamilyOfFolds(Family):
    """The configurations of one network, tested on the same folds.

    A flip of all folds' signs leaves the sum of a pair's squares as it is. So
    the sum divided by the root of that orders flips as Student's t does.
    """

    @cached_property
    def _folds(self) -> list[np.ndarray]:
        """For each fold, the share of runs that classify a photo correctly, (configurations, photos)."""
        order = list(self.rows[list(IDENTITY)].itertuples(index=False, name=None))
        runs = [run for run in self.runs if run.identity in set(order)]
        of_folds = [shares_right(group) for group in folds_of(runs).values()]
        return [np.stack([shares[each] for each in order]) for shares in of_folds]

    @cached_property
    def _means(self) -> np.ndarray:
        return np.hstack([np.empty((len(self.rows), 0)), *self._folds])

    @cached_property
    def _seeds(self) -> np.ndarray:
        return self.rows["seeds"].to_numpy()

    @cached_property
    def _between(self) -> list[tuple[float, float, float]]:
        return [(0.0, 0.0, np.inf)] * len(self.pairs)  # folds hold the runs

    @cached_property
    def _levels(self) -> np.ndarray:
        """The accuracy of each configuration on each fold, (configurations, folds)."""
        return np.column_stack([np.empty((len(self.rows), 0)), *(fold.mean(axis=1) for fold in self._folds)])

    @cached_property
    def _apart(self) -> np.ndarray:
        """How far each pair differs on each fold, (pairs, folds)."""
        return (self._levels[self.pairs[:, 0]] - self._levels[self.pairs[:, 1]]).round(12)

    @cached_property
    def errors(self) -> np.ndarray:
        """What the mean of each pair's differences is divided by; infinite where the two do not differ at all."""
        squares = (self._apart**2).sum(axis=1)
        return np.sqrt(np.where(squares > 0, squares, np.inf)) / max(len(self._folds), 1)

    @cached_property
    def t(self) -> np.ndarray:
        """What orders pairs and flips as Student's t does."""
        return self._apart.sum(axis=1) / max(len(self._folds), 1) / self.errors

    @cached_property
    def _moved(self) -> np.ndarray:
        """The mean of each configuration for all flips but the one that was seen, (configurations, flips).

        The second half are the opposite of the first, and of the one that was
        seen. Of very many folds there are some flips, drawn at random.
        """
        folds = len(self._folds)
        draws = int(np.clip(MOST // max(len(self.pairs), 1), FEWEST, FLIPS))
        if 2 ** (folds - 1) <= draws:
            flips = 1 - 2 * np.array(list(itertools.product((0, 1), repeat=folds)))[1:]
        else:
            flips = np.random.default_rng(0).choice((-1, 1), (2 * draws - 1, folds))
        return (self._levels - self._levels.mean(axis=0)) @ flips.T / max(folds, 1)

    @property
    def correction(self) -> str:
        """How `corrected` corrects: of 5 folds no flip is rarer than one in 16."""
        return "max-T" if ALPHA * 2 ** (len(self._folds) - 1) >= 1 else "Holm"

    @property
    def step_correction(self) -> str:
        """How `any_better` corrects."""
        return "max-T" if ALPHA * 2 ** len(self._folds) >= 1 else "Bonferroni"

    @cached_property
    def differences(self) -> list[Difference]:
        """Every pair as `difference` compares it."""
        folds, (photos_sums, squares) = len(self._folds), self._sums
        photos = self._means.shape[1]
        same, agree = self._alike()
        seeds = np.minimum(*self._seeds[self.pairs.T]).tolist()
        alike = agree / max(photos, 1)
        if folds < 2:
            return [nothing_known(photos, fewest, 1 - each, folds) for fewest, each in zip(seeds, alike.tolist())]
        mean = self._apart.mean(axis=1)
        still = np.ptp(self._apart, axis=1) < least_step([fold[0] for fold in self._folds], rightness)
        of_photos = estimated(photos_sums, squares, photos - same, photos, (0.0, 0.0, np.inf))
        of_folds = mean, self._apart.std(axis=1, ddof=1) / np.sqrt(folds), np.full(len(mean), folds - 1.0)
        centre, error, freedom = (np.where(still, *both) for both in zip(of_photos, of_folds))
        half = student.ppf(1 - ALPHA / 2, freedom) * error
        p = 2 * student.sf(np.abs(centre) / error, freedom)
        table = np.column_stack([mean + 0.0, centre - half, centre + half, error, freedom, p]).tolist()
        return [
            Difference(mean, low, high, error, freedom, p, OVER_FOLDS, photos, fewest, 1 - each, folds)
            for (mean, low, high, error, freedom, p), fewest, each in zip(table, seeds, alike.tolist())
        ]

    def corrected(self) -> np.ndarray:
        """Return the p value of each pair, corrected for all pairs: by flips of folds, or for few folds by Holm."""
        return super().corrected() if self.correction == "max-T" else holm([each.p for each in self.differences])

    def any_better(self, position: int, others: Sequence[int]) -> tuple[int, float]:
        """Ask whether any of some configurations is more accurate than one: which shows it most, and p for any."""
        if self.step_correction == "max-T":
            return super().any_better(position, others)
        p = []
        for other in others:
            number, sign = self._pair(position, other)
            effect = self.differences[number]
            p.append(effect.p / 2 if sign * effect.mean > 0 else 1 - effect.p / 2)
        best = int(np.argmin(p))
        return others[best], min(1.0, len(others) * p[best])


def pairwise(family: Family) -> pd.DataFrame:
    """Compare every two configurations, with p corrected for all pairs.

    All pairs form one family. So one may ask afterwards which configurations
    differ from the best, whichever that is.

    Returns
    -------
    DataFrame
        A pair a row: ``first`` and ``second`` (from the index of the rows),
        ``difference`` (a `Difference`), ``p`` (corrected), and ``separated``.
    """
    index = family.rows.index.to_numpy()
    pairs = pd.DataFrame({"first": index[family.pairs[:, 0]], "second": index[family.pairs[:, 1]]})
    p = family.corrected() if len(pairs) else np.array([])
    return pairs.assign(difference=pd.Series(family.differences if len(pairs) else [], dtype=object), p=p).assign(
        separated=p < ALPHA
    )


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


@dataclass(frozen=True)
class Step:
    """Whether any configuration that trains more is more accurate than one.

    Attributes
    ----------
    over : object
        Which shows it most: from the index of the rows.
    difference : Difference
        That one less the one asked of.
    p : float
        Of the one-sided test, corrected for all that train more.
    others : int
        How many those are.
    """

    over: object
    difference: Difference
    p: float
    others: int

    @property
    def clear(self) -> bool:
        """Whether training more clearly helps."""
        return self.p < ALPHA


def what_more_gains(family: Family, enough: Sequence) -> pd.Series:
    """Ask of each configuration, going `upwards`, whether any that trains more is more accurate.

    The order is fixed beforehand, and the steps end at the first without a
    clear gain. So any false alarm occurs in at most 5 % of cases (Maurer,
    Hothorn & Lehmacher, 1995).

    Parameters
    ----------
    family : Family
    enough : sequence
        The index of the rows at which the steps may end, such as `as_good_as_best`.

    Returns
    -------
    Series of Step
        Indexed like the rows. Empty if no row trains more than the first.
    """
    rows, steps = family.rows, {}
    for index, row in upwards(rows).iterrows():
        above = np.flatnonzero(rows["trainable_parameters"] > row["trainable_parameters"]).tolist()
        if not above:
            break
        position = rows.index.get_loc(index)
        over, p = family.any_better(position, above)
        number, sign = family._pair(position, over)
        effect = family.differences[number]
        if sign < 0:
            effect = opposite(effect)
        steps[index] = Step(rows.index[over], effect, p, len(above))
        if p >= ALPHA and index in enough:
            break
    return pd.Series(steps, dtype=object)


def opposite(effect: Difference) -> Difference:
    """Turn a difference round."""
    return replace(effect, mean=-effect.mean + 0.0, low=-effect.high, high=-effect.low)
