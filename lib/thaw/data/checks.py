"""Checks of the photos themselves: what a report could not be trusted with, and what to do about it.

Each check is a function with a code and a title. It looks at the listing of
the photos and gives what it found, with figures and a few examples, and what
to do; or nothing. A check whose columns the listing does not have does not
apply: photos of TFDS are in no files of their own.

What single photos are checked for follows CleanVision (dark, light, little
information, odd sizes), with its thresholds. What is said of whole classes and
parts is what a network could learn instead of the subject, or would be tested
on after it was trained on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from thaw.data.splits import PARTS, in_fold

EXAMPLES = 5
FEW = 20  # training photos of a class
FEW_TO_TEST = 5  # test photos of a class
IMBALANCE = 3  # times: the largest class over the smallest
DARK, LIGHT = 0.32 * 255, 0.95 * 255  # brightness of the 99 % and 5 % points: CleanVision's thresholds
FLAT = 8  # brightness between these points: less than that shows nothing
NARROW = 0.35  # the short side over the long one: CleanVision's threshold
TINY = 32  # pixels of the shorter side
OFTEN = 0.1  # what is true of more than a tenth of the photos is no exception (CleanVision's rule)
APART = 0.9  # probability that a photo of one class is larger (wider, ...) than one of the others
MOSTLY = 0.8  # of a class' photos have one format or size, and at most the rest to 1 of the others'
ENOUGH = 10  # photos of a class: with fewer, they may be alike by chance
NEAR = 0.9  # cosine of two photos' features, from their mean: of the pairs in TF Flowers above it, all show one scene
SURE = 0.9  # probability of another class than the label's
FOLDS = 5
MOST = 10_000  # photos that are checked for wrong labels
MOST_CLASSES = 100  # the largest, that are checked for them: a classifier's time grows with photos times classes
BLOCK = 2**25  # similarities computed at once


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes
    ----------
    code, title : str
        Which check, for example 'D3' and 'Few photos of a class'.
    found, do : str
        What was found, and what to do about it.
    """

    code: str
    title: str
    found: str
    do: str


Check = Callable[[pd.DataFrame], tuple[str, str] | None]
CHECKS: dict[str, tuple[str, Check, tuple[str, ...]]] = {}  # by code: title, check, the columns it needs


def _check(code: str, title: str, *needs: str):
    def register(check: Check) -> Check:
        CHECKS[code] = title, check, needs
        return check

    return register


def findings(
    photos: pd.DataFrame, left_out: Sequence[dict[str, str]] = (), ignored: Sequence[str] = ()
) -> list[Finding]:
    """Check photos by what their files say.

    Parameters
    ----------
    photos : DataFrame
        A photo a row: path, label, part, and as far as known group, sha256, width, height, format, p5 and p99. What
        `Source.listing` gives, or `Data.listing`.
    left_out : sequence of dict
        path and reason of each photo that could not be read.
    ignored : sequence of str
        Files that were taken for no photos.

    Returns
    -------
    list of Finding
        In the order of their codes.
    """
    photos = photos.copy(deep=False)
    photos.attrs = {"left_out": list(left_out), "ignored": list(ignored)}
    found = [
        Finding(code, title, *said)
        for code, (title, check, needs) in CHECKS.items()
        if set(needs) <= set(photos.columns) and (said := check(photos))
    ]
    return sorted(found, key=lambda finding: int(finding.code[1:]))


def by_fold(photos: pd.DataFrame, places: np.ndarray, folds: int) -> pd.DataFrame:
    """Divide a listing of photos into folds in place of three parts: each fold is a part, which tests in its turn.

    Parameters
    ----------
    photos : DataFrame
        A photo a row.
    places : ndarray of float, (photos,)
        Where each is, from 0 to 1: see `thaw.data.splits.in_fold`.
    folds : int
    """
    number = np.floor(places * folds + 1e-9).astype(int)
    return photos.assign(part=[f"fold {fold}" for fold in number], place=places)


def _parts(photos: pd.DataFrame) -> list[str]:
    """Name the parts in order: three, or the folds."""
    return [f"fold {number}" for number in range(photos["part"].nunique())] if "place" in photos else list(PARTS)


def findings_of_features(photos: pd.DataFrame, features: np.ndarray) -> list[Finding]:
    """Check photos by what a pre-trained network makes of them.

    Parameters
    ----------
    photos : DataFrame
        A photo a row: path, label, and part where there are three.
    features : ndarray of float, (photos, channels)
        The pooled output of the frozen network, in the same order.

    Returns
    -------
    list of Finding
    """
    features = np.asarray(features, np.float32)
    return [
        Finding(code, title, *said)
        for code, (title, check) in OF_FEATURES.items()
        if ("part" in photos or check is not _near_duplicates) and (said := check(photos, features))
    ]


def as_table(found: Iterable[Finding]) -> pd.DataFrame:
    """Put findings into a table: code, title, found, do."""
    rows = [(finding.code, finding.title, finding.found, finding.do) for finding in found]
    return pd.DataFrame(rows, columns=["code", "title", "found", "do"])


def as_text(found: Iterable[Finding]) -> str:
    """Put findings into lines for a terminal."""
    return "\n".join(f"  {finding.code} {finding.title}: {finding.found} {finding.do}" for finding in found)


def changes(before: pd.DataFrame, now: pd.DataFrame) -> str:
    """Say in a sentence how photos changed between two listings; empty if they did not.

    Parameters
    ----------
    before, now : DataFrame
        A photo a row: path, label, part and, if known, sha256. A photo is known by its hash, or else by its path: one
        that only got another name has not changed.
    """
    key = "sha256" if "sha256" in before and "sha256" in now else "path"
    old, new = (photos.drop_duplicates(key).set_index(key, drop=False) for photos in (before, now))
    both = old.index.intersection(new.index)
    relabelled = both[(old.loc[both, "label"] != new.loc[both, "label"]).to_numpy()]
    moved = both[(old.loc[both, "part"] != new.loc[both, "part"]).to_numpy()]
    said = [
        _counted(names, what)
        for names, what in (
            (new.loc[new.index.difference(old.index)], "added"),
            (old.loc[old.index.difference(new.index)], "removed"),
            (new.loc[relabelled], "relabelled"),
            (new.loc[moved], "moved to another part"),
        )
        if len(names)
    ]
    return f"Since then, {'; '.join(said)}." if said else ""


def _counted(photos: pd.DataFrame, what: str) -> str:
    were = "was" if len(photos) == 1 else "were"
    return f"{_many(len(photos), 'photo')} {were} {what} ({_examples(photos['path'], 3)})"


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def _examples(names: Iterable[object], most: int = EXAMPLES, between: str = ", ") -> str:
    """List a few names in one line, and say how many more there are."""
    texts = [str(name) for name in names]
    return between.join(texts[:most]) + (f" and {len(texts) - most:,} more" if len(texts) > most else "")


@_check("D1", "Photos that cannot be read", "path")
def _unreadable(photos: pd.DataFrame) -> tuple[str, str] | None:
    left_out = photos.attrs["left_out"]
    if not left_out:
        return None
    named = _examples([f"{photo['path']}: {photo['reason']}" for photo in left_out], between="; ")
    return f"{_many(len(left_out), 'photo')} left out. {named}.", "Repair or replace them, or remove them."


@_check("D2", "Files that are no photos", "path")
def _ignored(photos: pd.DataFrame) -> tuple[str, str] | None:
    ignored = photos.attrs["ignored"]
    if not ignored:
        return None
    return (
        f"{_many(len(ignored), 'file')} ignored: {_examples(ignored)}.",
        "If there are photos among them, put them into a class folder, as JPEG or PNG.",
    )


@_check("D3", "Few photos of a class", "label", "part")
def _few(photos: pd.DataFrame) -> tuple[str, str] | None:
    trained, tested = _trained_and_tested(photos)
    train, test = trained[trained < FEW], tested[tested < FEW_TO_TEST]
    if train.empty and test.empty:
        return None
    once, together = (" in a fold", " in all folds together") if "place" in photos else ("", "")
    said = [
        f"fewer than {least} photos {what} {_many(len(few), 'class', 'classes')}{where}: "
        f"{_examples(f'{label} ({count})' for label, count in few.sort_values().items())}"
        for few, least, what, where in ((train, FEW, "train", once), (test, FEW_TO_TEST, "test", together))
        if len(few)
    ]
    return f"{_upper('; '.join(said))}.", "Add photos. What is said of these classes alone is hardly more than chance."


@_check("D4", "Classes of different sizes", "label")
def _imbalance(photos: pd.DataFrame) -> tuple[str, str] | None:
    counts = photos["label"].value_counts()
    most, least = counts.index[0], counts.index[-1]
    times = counts[most] / counts[least]
    if times < IMBALANCE:
        return None
    return (
        f"{most!r} has {counts[most]:,} photos, {least!r} has {counts[least]:,}: {times:.1f} times fewer. "
        f"Always saying {most!r} would be right for {counts[most] / len(photos):.0%} of the photos.",
        "Read balanced accuracy and the recall of each class beside accuracy, and try class_weight: balanced.",
    )


@_check("D5", "A class divided unevenly", "label", "part")
def _uneven(photos: pd.DataFrame) -> tuple[str, str] | None:
    from scipy import stats

    counts = _counts(photos)
    totals = counts.sum(axis=1)
    whole = counts.sum() / counts.to_numpy().sum()
    # What chance gives as rarely as once in a thousand data sets.
    level = 0.001 / counts.size
    odd = [
        f"{label}: {counts.loc[label, part] / totals[label]:.0%} of {totals[label]:,} photos in {part} "
        f"({whole[part]:.0%} of all photos)"
        for part in counts
        for label, probability in zip(counts.index, _two_sided(stats.binom, counts[part], totals, whole[part]))
        if probability < level
    ]
    if not odd:
        return None
    return f"{_examples(odd, 3)}.", "Check how the parts were chosen: each class should have a like share in each part."


@_check("D6", "The same photo more than once", "path", "label", "sha256")
def _repeated(photos: pd.DataFrame) -> tuple[str, str] | None:
    copies = photos[photos.duplicated("sha256")]
    if copies.empty:
        return None
    first = photos.drop_duplicates("sha256").set_index("sha256")["path"]
    pairs = (f"{path} = {first[sha256]}" for path, sha256 in zip(copies["path"], copies["sha256"]))
    return (
        f"{len(copies):,} of {_many(len(photos), 'photo')} repeat the content of another: {_examples(pairs)}.",
        "Keep one of each: a photo that counts twice makes the results look surer than they are.",
    )


def _with_several(photos: pd.DataFrame, column: str) -> pd.Series:
    """Name the photos that are there with several values of a column, by their hash: the paths of each."""
    values = photos.groupby("sha256")[column].nunique()
    several = photos[photos["sha256"].isin(values.index[values > 1])].sort_values(["sha256", "path"])
    return several.groupby("sha256")["path"].agg(" = ".join)


@_check("D7", "The same photo under two labels", "path", "label", "sha256")
def _conflict(photos: pd.DataFrame) -> tuple[str, str] | None:
    named = _with_several(photos, "label")
    if named.empty:
        return None
    return (
        f"{_many(len(named), 'photo')} with more than one label: {_examples(named)}.",
        "Decide on one label and remove the other file: no network can be right about both.",
    )


@_check("D8", "The same photo in two parts", "path", "part", "sha256")
def _across(photos: pd.DataFrame) -> tuple[str, str] | None:
    named = _with_several(photos, "part")
    if named.empty:
        return None
    return (
        f"{_many(len(named), 'photo')} in more than one part: {_examples(named)}.",
        "Remove all but one: a network is not tested by what it was trained on.",
    )


@_check("D9", "A group in two parts", "part", "group")
def _torn(photos: pd.DataFrame) -> tuple[str, str] | None:
    grouped = photos[photos["group"] != ""]
    parts = grouped.groupby("group")["part"].nunique()
    torn = parts.index[parts > 1]
    if not len(torn):
        return None
    return (
        f"{_many(len(torn), 'group')} in more than one part: {_examples(torn)}.",
        "Leave out the column split, or give all photos of a group the same: what belongs together looks alike, "
        "and makes the test too easy.",
    )


@_check("D10", "A class with photos of another size or shape", "label", "width", "height")
def _another_size(photos: pd.DataFrame) -> tuple[str, str] | None:
    said = []
    for name, values in (
        ("pixels", photos["width"] * photos["height"]),
        ("width over height", photos["width"] / photos["height"]),
    ):
        for label, share in _larger(values, photos["label"]).items():
            if max(share, 1 - share) >= APART and (own := photos["label"] == label).sum() >= ENOUGH:
                medians = values[own].median(), values[~own].median()
                said.append(f"{label}: {name} {_figure(medians[0])} at the median, {_figure(medians[1])} elsewhere")
    sizes = photos["width"].astype(str) + " x " + photos["height"].astype(str)
    said += [f"{share} of {label} are {size}, {others} elsewhere" for label, size, share, others in _own(photos, sizes)]
    if not said:
        return None
    return (
        f"{_examples(said, 3)}.",
        "A network may learn the size instead of the subject. Take photos of all classes in one way, "
        "or bring them to one size and shape.",
    )


@_check("D11", "A class with photos of another format", "label", "format")
def _another_format(photos: pd.DataFrame) -> tuple[str, str] | None:
    own = _own(photos, photos["format"])
    said = [f"{share} of {label} are {name}, {others} elsewhere" for label, name, share, others in own]
    if not said:
        return None
    return (
        f"{_examples(said, 3)}.",
        "Each format leaves traces that a network can learn instead of the subject. Save all photos in one way.",
    )


@_check("D12", "Odd photos", "path", "width", "height", "p5", "p99")
def _odd(photos: pd.DataFrame) -> tuple[str, str] | None:
    short = photos[["width", "height"]].min(axis=1)
    flat = photos["p99"] - photos["p5"] < FLAT
    kinds = {
        "blank": flat,
        "very dark": (photos["p99"] < DARK) & ~flat,
        "very light": (photos["p5"] > LIGHT) & ~flat,
        f"smaller than {TINY} pixels": short < TINY,
        "very narrow": short / photos[["width", "height"]].max(axis=1) < NARROW,
    }
    said = [
        f"{which.sum():,} {name} ({_examples(photos.loc[which, 'path'], 3)})"
        for name, which in kinds.items()
        if which.any() and (name == "blank" or which.mean() <= OFTEN)
    ]
    return (f"{_upper('; '.join(said))}.", "Look at them, and remove those that show nothing.") if said else None


def _near_duplicates(photos: pd.DataFrame, features: np.ndarray) -> tuple[str, str] | None:
    """Find photos of which another part has almost the same, by the cosine of their features from the mean."""
    centred = features - features.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    pairs: list[tuple[float, int, int]] = []
    parts = _parts(photos)
    for number, part in enumerate(parts[1:], start=1):
        rows = np.flatnonzero(photos["part"] == part)
        others = np.flatnonzero(photos["part"].isin(parts[:number]))
        if not len(rows) or not len(others):
            continue
        for some in np.array_split(rows, -(-len(rows) * len(others) // BLOCK)):
            alike = centred[some] @ centred[others].T
            nearest = alike.argmax(axis=1)
            pairs += zip(alike.max(axis=1), some, others[nearest])
    near = sorted((pair for pair in pairs if pair[0] >= NEAR), reverse=True)
    if not near:
        return None
    paths, part = photos["path"].to_numpy(), photos["part"].to_numpy()
    where = "nearly as in another fold"  # each of them is tested
    if parts == list(PARTS):
        tested = sum(part[row] == "test" for _, row, _ in near)
        where = f"in validation or test ({tested:,} in test) nearly as in another part"
    named = (f"{paths[row]} ({part[row]}) and {paths[other]} ({part[other]})" for _, row, other in near)
    return (
        f"{_many(len(near), 'photo')} {where}: {_examples(named)}.",
        "If they show the same thing, remove one of each pair, or keep them in one part: by a column group in a table.",
    )


def _mislabelled(photos: pd.DataFrame, features: np.ndarray) -> tuple[str, str] | None:
    """Find confident mistakes of classifiers that have not seen the photo.

    A photo counts if the probability of another class is at least `SURE`, and at least as high as that class' own
    photos have on average: confident learning's rule (Northcutt, Jiang and Chuang, 2021). Of many photos and classes
    some are checked, `MOST` and `MOST_CLASSES`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    counts = photos["label"].value_counts()[:MOST_CLASSES]
    kept = np.flatnonzero(photos["label"].isin(counts.index[counts >= FOLDS]))[:MOST]
    names, labels = np.unique(photos["label"].to_numpy()[kept], return_inverse=True)
    if len(names) < 2 or np.bincount(labels).min() < FOLDS:
        return None
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with threadpool_limits(1):  # threads that wait for each other would cost forty times what they save
        probabilities = cross_val_predict(model, features[kept], labels, cv=folds, method="predict_proba")
    own = np.array([probabilities[labels == number, number].mean() for number in range(len(names))])
    said = probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1)
    wrong = np.flatnonzero((said != labels) & (sure >= np.maximum(own[said], SURE)))
    if not len(wrong):
        return None
    paths = photos["path"].to_numpy()[kept]
    named = (
        f"{paths[row]} ({names[labels[row]]}, looks like {names[said[row]]}: {sure[row]:.0%})"
        for row in wrong[np.argsort(-sure[wrong], kind="stable")]
    )
    return (
        f"{len(wrong):,} of {_many(len(kept), 'photo')}: {_examples(named)}.",
        "Look at them. Correct the labels that are wrong, and leave those that are only hard.",
    )


OF_FEATURES = {  # by code: title, check
    "D13": ("Nearly the same photo in two parts", _near_duplicates),
    "D14": ("Photos that look mislabelled", _mislabelled),
}


def _counts(photos: pd.DataFrame) -> pd.DataFrame:
    """Count the photos of each class in each part, (classes, parts)."""
    return pd.crosstab(photos["label"], photos["part"]).reindex(columns=_parts(photos), fill_value=0)


def _trained_and_tested(photos: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Count the photos of each class that train, with folds in the fold with the fewest, and those that test."""
    counts = _counts(photos)
    if "place" not in photos:
        return counts["train"], counts["test"]
    places, labels = photos["place"].to_numpy(), photos["label"]
    train = [labels.iloc[in_fold(places, counts.shape[1], fold)[0]].value_counts() for fold in range(counts.shape[1])]
    return pd.concat(train, axis=1).reindex(counts.index).fillna(0).min(axis=1).astype(int), counts.sum(axis=1)


def _two_sided(binomial, counts: pd.Series, totals: pd.Series, share: float) -> np.ndarray:
    """Compute the probability of counts at least as far from their share as these, on either side, (classes,)."""
    return np.minimum(1, 2 * np.minimum(binomial.cdf(counts, totals, share), binomial.sf(counts - 1, totals, share)))


def _larger(values: pd.Series, labels: pd.Series) -> pd.Series:
    """Compute for each class how often a photo of it has a larger value than one of another class (ties: half).

    The area under the ROC curve, from ranks (Mann and Whitney, 1947).
    """
    ranks = values.rank()
    sums, sizes = ranks.groupby(labels).sum(), ranks.groupby(labels).size()
    return (sums - sizes * (sizes + 1) / 2) / (sizes * (len(values) - sizes))


def _own(photos: pd.DataFrame, kinds: pd.Series) -> list[tuple[str, str, str, str]]:
    """List classes whose photos mostly are of one kind, and those of other classes mostly are not.

    Returns
    -------
    list of (label, kind, share in the class, share in the others)
    """
    cells = kinds.groupby([photos["label"], kinds.rename("kind")]).size()
    most = cells.loc[cells.groupby("label").idxmax()].reset_index(name="own")
    sizes, of_kind = photos["label"].value_counts(), kinds.value_counts()
    size = most["label"].map(sizes)
    most["share"] = most["own"] / size
    most["others"] = (most["kind"].map(of_kind) - most["own"]) / (len(kinds) - size)
    found = most[(size >= ENOUGH) & (most["share"] >= MOSTLY) & (most["others"] <= 1 - MOSTLY)]
    return [(str(row.label), str(row.kind), f"{row.share:.0%}", f"{row.others:.0%}") for row in found.itertuples()]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
