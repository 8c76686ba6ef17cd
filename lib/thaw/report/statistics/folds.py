"""What varies from fold to fold, and what the folds of a study say together.

Each fold was tested by a network of its own, trained on other photos with
another seed. So what differs between folds holds all that varies by chance:
test photos, training photos and runs. An interval is Student's t over the
means of the folds. That folds share training photos is not in it; Bayle,
Bayle, Janson and Mackey (2020) show when that is right, and Bengio and
Grandvalet (2004) that it is not always. The tests measure how often the
intervals cover, in simulated studies and with real features.

What it speaks of is the procedure, trained on this share of the photos, and
not one network (Bates, Hastie & Tibshirani, 2023).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from thaw.records.runs import IDENTITY, Run
from thaw.report.statistics.photos import ALPHA, Measure, by_identity, rightness


def has_folds(runs: Sequence[Run]) -> bool:
    """Whether runs were tested on folds."""
    return any(run.record.experiment.fold is not None for run in runs)


def folds_of(runs: Sequence[Run], in_common: bool = True) -> dict[int, list[Run]]:
    """Group runs by fold, in order; by default only those folds that all of the configurations have."""
    groups: dict[int, list[Run]] = {}
    for run in runs:
        if (fold := run.record.experiment.fold) is not None:
            groups.setdefault(fold, []).append(run)
    configurations = len({run.identity for run in runs})
    return {
        fold: groups[fold]
        for fold in sorted(groups)
        if not in_common or len({run.identity for run in groups[fold]}) == configurations
    }


def by_photo(runs: Sequence[Run]) -> pd.DataFrame:
    """Return the share of a configuration's runs that classify a photo correctly.

    Returns
    -------
    DataFrame, (configurations, photos)
        Indexed by `IDENTITY`; the columns are the photos' keys, fold after
        fold. NaN where a configuration was not tested on a photo.
    """
    tables = []
    for group in folds_of(runs, in_common=False).values() if has_folds(runs) else [runs]:
        shares = shares_right(group)
        index = pd.MultiIndex.from_tuples(list(shares), names=IDENTITY)
        tables.append(pd.DataFrame(np.stack(list(shares.values())), index, group[0].correct.index))
    identities = list(dict.fromkeys(run.identity for run in runs))
    return pd.concat(tables, axis=1).reindex(pd.MultiIndex.from_tuples(identities, names=IDENTITY))


def shares_right(runs: Sequence[Run]) -> dict[tuple, np.ndarray]:
    """Return by configuration the share of its runs that classify a photo correctly; all tested on the same photos."""
    return {each: np.mean(rows, axis=0) for each, rows in by_identity(runs, rightness(runs)).items()}


def of_record(get: Callable[[Any], Any]) -> Measure:
    """Make a measure of a quantity of which each `Record` has one."""
    return lambda runs: np.array([[get(run.record)] for run in runs], float)


def photo_means(runs: Sequence[Run], measure: Measure) -> list[np.ndarray]:
    """Return for each fold of one configuration the mean over seeds of a measure of each photo."""
    return [measure(group).mean(axis=0) for group in folds_of(runs).values()]


def levels_of(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean over the photos of each fold, (folds,)."""
    return np.array([part.mean() for part in parts])


def least_step(parts: Sequence[np.ndarray], measure: Measure) -> float:
    """Return by how much folds have to differ to differ at all: an accuracy by half a photo.

    One photo of 36 and one of 37 are the same number of photos.
    """
    return 0.5 / min(map(len, parts)) if measure is rightness else 1e-9


def vary(levels: np.ndarray, step: float = 1e-9) -> bool:
    """Whether levels differ from fold to fold. If they do not, Student's t has no error to go by."""
    return len(levels) > 1 and float(np.ptp(levels)) >= step


def error_over(levels: np.ndarray) -> float:
    """Return the standard error of the mean of what the folds say."""
    return float(levels.std(ddof=1) / np.sqrt(len(levels)))


def interval_over(levels: np.ndarray, alpha: float = ALPHA) -> tuple[float, float]:
    """Return Student's t interval over folds."""
    half = student.ppf(1 - alpha / 2, len(levels) - 1) * error_over(levels)
    return float(levels.mean() - half), float(levels.mean() + half)
