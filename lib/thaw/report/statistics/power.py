"""What a test set of a given size could show at all."""

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import binom

from thaw.report.statistics.photos import ALPHA

POWER = 0.80


def power(photos: int, disagree: float, gain: float) -> float:
    """Return how often McNemar's exact test finds a true difference between two runs.

    The result is exact. The number of photos on which the two runs differ is
    binomial. Given that number, how many of them favour the better run is
    binomial again.

    Parameters
    ----------
    photos : int
    disagree : float
        The share of photos that only one of the two runs classifies correctly.
    gain : float
        The true difference of accuracy, at most `disagree`.
    """
    m = np.arange(photos + 1)
    most = binom.ppf(ALPHA / 2, m, 0.5)  # significant if the worse run wins on this many photos, or fewer
    most = np.where(binom.cdf(most, m, 0.5) > ALPHA / 2, most - 1, most)
    against = (1 - gain / disagree) / 2
    found = binom.cdf(most, m, against) + binom.sf(m - most - 1, m, against)
    return float((binom.pmf(m, photos, disagree) * found).sum())


def detectable(photos: int, disagree: float) -> float:
    """Return the smallest difference between two runs that is found with a power of 80 %; NaN if there is none.

    Parameters
    ----------
    photos : int
    disagree : float
        As for `power`. If this is too small, it is set to the difference
        itself: a difference is easiest to find where the better run is right
        wherever the other one is.

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
    """Return the smallest difference that comparisons like these find with a power of 80 %; NaN if there is none.

    For single runs this is `detectable` at the median disagreement. For
    several seeds, and for folds, it is `Difference.detectable` of the median pair. Neither is
    corrected for the number of pairs.

    Parameters
    ----------
    pairs : DataFrame
        As `thaw.report.statistics.pairwise` returns them.
    """
    effects = list(pairs["difference"])
    if all(effect.these_runs for effect in effects):
        return detectable(effects[0].photos, float(np.median([effect.disagree for effect in effects])))
    middle = sorted(effects, key=lambda effect: effect.error)[len(effects) // 2]
    return middle.detectable
