"""Which photos train, validate and test."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from thaw.errors import InvalidParameter

PARTS = ("train", "validation", "test")
SHARES = (0.75, 0.15, 0.10)
BY_POSITION = "in the data set's own order"
FEWEST = 20  # photos: with fewer, hardly one would be left for the test


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


def shares_of(given: Sequence[str] | set[str]) -> dict[str, float]:
    """Give the shares into which the photos of `train` are divided: `train`, and the parts that are not given.

    Returns
    -------
    dict of str to float
        By part, in order; they sum to 1. ``{"train": 1.0}`` if all parts are given.
    """
    taken = {part: share for part, share in zip(PARTS, SHARES) if part == "train" or part not in given}
    return {part: share / sum(taken.values()) for part, share in taken.items()}


def by_hash(names: Sequence[str], labels: Sequence[str], given: Sequence[str]) -> list[str]:
    """Take the parts that are missing from `train`, by a hash of each photo's name.

    A photo's part depends on its own name: a photo that joins moves no other,
    and photos of one name stay together. The price is that shares are only met
    on average, in all and in each class. No rule can meet them exactly in each
    class and move nothing; the data checks say where a class came out badly.

    One exception: a class so small that it has no photo in a part gets one,
    the one in `train` with the highest hash. That one goes back if another
    photo of the class joins that has a place there by its own hash.

    Parameters
    ----------
    names : sequence of str, (photos,)
        The hash of each photo's content, or the name of its group.
    labels : sequence of str, (photos,)
    given : sequence of str, (photos,)
        The part that each photo was given by its owner; `train` for all if the owner gave none.

    Returns
    -------
    list of str, (photos,)
    """
    shares = shares_of(set(given))
    parts, ends = list(shares), np.cumsum(list(shares.values()))
    fractions = {name: fraction(name) for name, part in zip(names, given) if part == "train"}
    drawn = {
        name: parts[min(int(np.searchsorted(ends, number, "right")), len(parts) - 1)]
        for name, number in fractions.items()
    }
    members: dict[str, set[str]] = {label: set() for label in labels}
    for name, label, part in zip(names, labels, given):
        if part == "train":
            members[label].add(name)
    for label in sorted(members):
        for part in parts[1:]:
            left = [name for name in members[label] if drawn[name] == "train"]
            if len(left) > 1 and not any(drawn[name] == part for name in members[label]):
                drawn[max(left, key=lambda name: fractions[name])] = part
    return [drawn[name] if part == "train" else part for name, part in zip(names, given)]


def places_by_position(count: int) -> np.ndarray:
    """Give each photo its place from 0 to 1 in the data set's own order, (photos,)."""
    return (np.arange(count) + 0.5) / max(count, 1)


def places_by_class(names: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Give each photo a place from 0 to 1, such that each class is spread evenly over all places.

    Parameters
    ----------
    names : sequence of str, (photos,)
        The hash of each photo's content, or the name of its group. Photos of
        one name have one place.
    labels : sequence of str, (photos,)

    Returns
    -------
    array of float, (photos,)
        Photos are ordered by a hash of their names. Each class begins at
        another place, so that what is left over of small classes does not all
        fall on the same folds.
    """
    photos = pd.DataFrame({"name": names, "label": labels})
    groups = photos.groupby("name").agg(label=("label", "min"), size=("label", "size"))
    groups["order"] = [fraction(name) for name in groups.index]
    groups = groups.sort_values("order")
    of_class = groups.groupby("label")["size"]
    begin = groups["label"].map({label: number for number, label in enumerate(sorted(set(labels)))})
    first = of_class.cumsum() - groups["size"] + (begin + 0.5) / photos["label"].nunique()
    place = np.minimum(first + (groups["size"] - 1) / 2, of_class.transform("sum") - 1e-6) / of_class.transform("sum")
    return place.loc[photos["name"]].to_numpy()


def in_fold(places: np.ndarray, folds: int, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide photos for one of several folds.

    The fold tests. The 15 % of the photos before it, counted in a circle,
    validate, and the rest trains. So the last of ten folds is the division of
    `by_position`.

    Parameters
    ----------
    places : array of float, (photos,)
        As `places_by_position` or `places_by_class` gives them.
    folds, fold : int
        How many there are; which one, from 0.

    Returns
    -------
    train, validation, test : array of int64
    """
    after = (places - fold / folds + 1e-9) % 1  # how far behind the fold's beginning
    test = after < 1 / folds
    validation = ~test & (after >= 1 - SHARES[1])
    return np.flatnonzero(~test & ~validation), np.flatnonzero(validation), np.flatnonzero(test)


def for_choosing(places: np.ndarray, folds: int, choosing: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide photos to choose something: the first folds validate, and all others train.

    Returns
    -------
    train, validation : array of int64
    """
    chosen = places + 1e-9 < choosing / folds
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def fewest(places: np.ndarray, labels: Sequence[str]) -> tuple[str, int]:
    """Find the class with the fewest photos that can be divided, and how many: photos of one group count once."""
    counts = pd.Series(places).groupby(np.asarray(labels)).nunique().sort_values(kind="stable")
    return str(counts.index[0]), int(counts.iloc[0])


def check_folds(places: np.ndarray, labels: Sequence[str], folds: int, dataset: str) -> None:
    """See that each class has a photo for each fold, and that each fold can train, validate and test.

    Parameters
    ----------
    places : array of float, (photos,)
    labels : sequence of str, (photos,)
    folds : int
    dataset : str
        Its name, for the message.

    Raises
    ------
    InvalidParameter
    """
    (name, count), of_photos = fewest(places, labels), np.asarray(labels)
    classes = set(labels)
    empty = [
        fold
        for fold in range(folds)
        for train, validation, test in [in_fold(places, folds, fold)]
        if not (len(validation) and len(test) and classes <= set(of_photos[train]))
    ]
    if count < folds:
        several = "s" * (count > 1)
        kind = f"photo{several}" if count == (of_photos == name).sum() else f"group{several} of photos"
        raise InvalidParameter(
            f"folds = {folds}: class {name!r} of {dataset!r} has {count} {kind}. Each class needs one for each fold. "
            "Give fewer folds (3 or more), or none, or add photos to the class, or leave it out."
        )
    if empty:
        raise InvalidParameter(
            f"folds = {folds}: fold {empty[0]} of {dataset!r} would have no photos to test or to validate, or none of "
            "a class to train on: groups of photos stay together, and some are large. Give fewer folds (3 or more), or "
            "none."
        )


def fold_sentence(folds: int, how: str) -> str:
    """Say in a sentence how photos are divided into folds."""
    return (
        f"All photos are divided into {folds} folds, {how}. Each time one fold tests, the {SHARES[1]:.0%} "
        "of the photos before it validate, and the rest trains."
    )


def fraction(name: str) -> float:
    """Map a name to a number from 0 to 1 by its SHA-256: the same everywhere, and as good as random.

    Photos are ordered by the hash itself. The number is of another hash: the first photos are of every part.
    """
    return int.from_bytes(hashlib.sha256(f"part of {name}".encode()).digest()[:8], "big") / 2**64


def first(photos: pd.DataFrame, count: int) -> pd.DataFrame:
    """Take some photos of every class and part: the first of each in the data set's order.

    Parameters
    ----------
    photos : DataFrame
        A photo a row, with label and part.
    count : int
        How many to take. If there are as many, each class has at least one photo in each part it had one in.
    """
    cells = photos.groupby(["label", "part"], sort=False)["label"]
    rank = cells.cumcount()
    turn = pd.DataFrame({"later": rank > 0, "depth": (rank + 0.5) / cells.transform("size")})
    chosen = turn.sort_values(["later", "depth"], kind="stable").index[:count]
    return photos.loc[chosen.sort_values()].reset_index(drop=True)
