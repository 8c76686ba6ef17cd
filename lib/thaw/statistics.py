"""What the numbers can bear: intervals and paired tests."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

LEVEL = 0.95  # of every interval
ALPHA = 1 - LEVEL


def wilson(correct, photos) -> tuple:
    """The interval of an accuracy (Wilson, 1927).

    Parameters
    ----------
    correct, photos : float or array
        Photos named rightly (their mean over seeds, where there are several),
        and photos in all.

    Returns
    -------
    low, high : float or array
        From 0 to 1, at the level `LEVEL`.
    """
    return proportion_confint(correct, photos, alpha=ALPHA, method="wilson")


def by_configuration(table: pd.DataFrame) -> pd.DataFrame:
    """One row a configuration: means over its seeds, and the interval of its test accuracy.

    Parameters
    ----------
    table : DataFrame
        A run a row, as `thaw.record.table` gives it.

    Returns
    -------
    DataFrame
        In the order of `table`, with ``seeds`` counted, and ``test_low`` and
        ``test_high``, Wilson's interval for the mean accuracy on so many photos.
    """
    identity = ["backbone", "strategy", "amount", "label", "epochs", "control"]
    means = table.groupby(identity, sort=False).mean(numeric_only=True).drop(columns="seed").reset_index()
    means["seeds"] = table.groupby(identity, sort=False).size().to_numpy()
    means["test_low"], means["test_high"] = wilson(means["test_correct"], means["test_photos"])
    return means


@dataclass(frozen=True)
class Comparison:
    """Two sets of predictions on the same photos.

    Attributes
    ----------
    difference : float
        The accuracy of the first less that of the second, from -1 to 1.
    only_first, only_second : int
        Photos that only the one of them names rightly.
    p : float
        Of McNemar's exact test.
    """

    difference: float
    only_first: int
    only_second: int
    p: float


def compare(first: pd.DataFrame, second: pd.DataFrame) -> Comparison:
    """Compare two runs photo by photo with McNemar's exact test (McNemar, 1947).

    Parameters
    ----------
    first, second : DataFrame
        Predictions, as `thaw.evaluation.predict` gives them.

    Raises
    ------
    ValueError
        If they are not of the same photos.
    """
    both = first.merge(second, on="key", suffixes=("_first", "_second"), validate="one_to_one")
    if not len(both) == len(first) == len(second):
        raise ValueError("The predictions are not of the same photos: they cannot be compared in pairs.")
    right = [(both[f"label_{which}"] == both[f"predicted_{which}"]).to_numpy() for which in ("first", "second")]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    neither_or_both = [int((right[0] & right[1]).sum()), int((~right[0] & ~right[1]).sum())]
    contingency = np.array([[neither_or_both[0], only_first], [only_second, neither_or_both[1]]])
    p = float(mcnemar(contingency, exact=True).pvalue)
    return Comparison((only_first - only_second) / len(both), only_first, only_second, p)


@dataclass(frozen=True)
class Difference:
    """A mean difference of accuracy, from -1 to 1.

    Attributes
    ----------
    mean, low, high : float
        The difference and its interval.
    p : float
        Of the sign-flip test: how often chance alone would give as large a one.
    photos : int
        On how many photos it was measured.
    """

    mean: float
    low: float
    high: float
    p: float
    photos: int

    @property
    def sign(self) -> int:
        """1 or -1 where interval and test both say that there is a difference, else 0."""
        if self.p >= ALPHA or self.low <= 0 <= self.high:
            return 0
        return 1 if self.mean > 0 else -1


def difference(first: Sequence[pd.DataFrame], second: Sequence[pd.DataFrame], resamples: int = 10_000) -> Difference:
    """The accuracy of some runs less that of others, on the photos they share.

    Each photo's difference is the share of the first runs that name it rightly
    less the share of the second. For the interval, photos are drawn again with
    replacement (percentile bootstrap; Efron, 1979). For the test, the signs of
    the differences are flipped at random (Fisher, 1935).

    Parameters
    ----------
    first, second : sequence of DataFrame
        Predictions, as `thaw.evaluation.predict` gives them.
    resamples : int
        How many times photos are drawn, and signs are flipped.
    """
    shares = [pd.concat([_right(run) for run in runs], axis=1, join="inner").mean(axis=1) for runs in (first, second)]
    photos = (shares[0] - shares[1]).dropna().to_numpy()
    rng = np.random.default_rng(0)
    # Few different values: how often each is drawn is multinomial.
    values, counts = np.unique(photos, return_counts=True)
    means = rng.multinomial(len(photos), counts / len(photos), resamples) @ values / len(photos)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    sizes = np.abs(photos[photos != 0])
    flipped = rng.choice([-1.0, 1.0], (resamples, len(sizes))) @ sizes
    extreme = np.abs(flipped) >= abs(photos.sum()) - 1e-9
    return Difference(
        float(photos.mean()), float(low), float(high), float((1 + extreme.sum()) / (1 + resamples)), len(photos)
    )


def _right(predictions: pd.DataFrame) -> pd.Series:
    """Whether each photo is named rightly, by its key."""
    table = predictions.set_index("key")
    return table["label"] == table["predicted"]
