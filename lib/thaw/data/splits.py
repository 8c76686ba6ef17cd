"""Which photos train, validate and test."""

import numpy as np

SHARES = (0.75, 0.15, 0.10)  # train, validation, test


def by_position(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split a data set by its own order: the first 75 % train, the next 15 % validate, the last 10 % test.

    TFDS orders photos by a hash of their keys: the order is random, but the
    same everywhere.

    Parameters
    ----------
    count : int
        How many photos there are.

    Returns
    -------
    train, validation, test : array of int64
        Positions of photos, as TFDS' own ``train[:75%]``, ... rounds them.
    """
    ends = np.round(np.cumsum(SHARES) * count).astype(int)
    train, validation, test = np.split(np.arange(count, dtype=np.int64), ends[:-1])
    return train, validation, test
