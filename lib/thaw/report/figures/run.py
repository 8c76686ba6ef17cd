"""The figures of one run: photos, what trains, learning curves, and which classes are confused."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from thaw.report.display import PHONE, one_line
from thaw.report.figures.style import (
    FROZEN,
    NARROW,
    PALETTE,
    PERCENT,
    STYLE,
    UNFROZEN,
    WIDTH,
    grid,
    learning,
    message,
    plain,
    says,
)
from thaw.report.statistics import most_confused
from thaw.report.words import count

MOST_CLASSES = 30  # a matrix of more would be unreadable, and grows with their square
MOST_PAIRS = 20
MOST_TICKS = 24


def photo_grid(images: np.ndarray, titles: Sequence[str], columns: int = 5) -> Figure:
    """Show photos, each under its title.

    Parameters
    ----------
    images : array of uint8, (n, size, size, 3)
    titles : sequence of str
    columns : int
    """
    columns, side = (min(3, columns), NARROW / 3) if PHONE.get() else (columns, 1.2)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    lines = max(title.count("\n") + 1 for title in titles)
    figure = Figure(figsize=(side * columns, (side - 0.15 + 0.15 * lines) * rows), layout="constrained")
    for axes in (panels := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.axis("off")
        axes.set(xticks=[], yticks=[])  # even unseen they would be laid out
    for axes, image, title in zip(panels.flat, images, titles):
        axes.imshow(image, interpolation="lanczos")
        axes.set_title("\n".join(map(plain, title.split("\n"))), fontsize=7)
    return figure


def heat(image: np.ndarray, values: np.ndarray, titles: tuple[str, str]) -> Figure:
    """Show a photo, and beside it the same photo in grey under the parts that count.

    Parameters
    ----------
    image : array of uint8, (size, size, 3)
    values : array, (rows, columns)
        How much each part of the photo counts, from 0 to 1.
    titles : tuple of str
    """
    figure = photo_grid(np.stack([image, image]), titles)
    axes = figure.axes[1]
    axes.images[0].set_data(np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype("uint8"))
    whole = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
    axes.imshow(values, cmap="inferno", alpha=0.6, vmin=0, vmax=1, interpolation="bilinear", extent=whole)
    figure.set_size_inches(6, 3.4)
    return figure


def photo_titles(classes: Iterable[str], said: Iterable[str], remarks: Iterable[str]) -> list[str]:
    """Write titles for `photo_grid`: of each photo its class, the class predicted, and a remark."""
    return [f"{one_line(name)}\nsaid: {one_line(other)}\n({text})" for name, other, text in zip(classes, said, remarks)]


def strip(layers: pd.DataFrame) -> Figure:
    """Show the network as a strip of layers, those that train coloured, and below it where its parameters are.

    Parameters
    ----------
    layers : DataFrame
        A layer a row, from the photo to the features: ``layer`` (its name),
        ``parameters`` (how many), ``block`` (the block's name, or ``""``) and
        ``trains`` (bool).
    """
    colours = np.where(layers["trains"], UNFROZEN, FROZEN)
    positions = np.arange(len(layers))
    figure, ((top,), (bottom,)) = grid(2.4, lines=2, sharex=True, height_ratios=(1, 2))
    cells = top.bar(positions, 1, width=1, color=colours, edgecolor="white", linewidth=0.3)
    top.set(yticks=[], ylim=(0, 1), title="Layers, from the photo (left) to the features (right)")
    bars = bottom.bar(positions, layers["parameters"] / 1e6, width=0.9, color=colours)
    for layer, cell, bar in zip(layers.itertuples(), cells, bars):
        text = f"{layer.layer}: {layer.parameters:,} parameters, {'unfrozen' if layer.trains else 'frozen'}"
        says(text, cell, bar)
    bottom.set(ylabel="parameters\n(millions)", xlim=(-0.5, len(layers) - 0.5), xlabel="block, where it begins")
    blocks = (
        pd.Series(positions, layers["block"].to_numpy()).groupby(level=0, sort=False).min().drop("", errors="ignore")
    )
    blocks = blocks.iloc[:: -(-len(blocks) // MOST_TICKS) or 1]
    names = [name.replace("_block", ".").removeprefix("conv") for name in blocks.index]
    bottom.set_xticks(blocks.to_numpy(), names, fontsize=6)
    for axes in (top, bottom):
        axes.grid(False, axis="x")
        sns.despine(ax=axes, left=axes is top)
    trained = int(layers["trains"].sum())
    handles = [
        Patch(color=UNFROZEN, label=f"unfrozen ({trained} layers)"),
        Patch(color=FROZEN, label=f"frozen ({len(layers) - trained})"),
    ]
    bottom.legend(handles=handles, loc="upper left", frameon=False)
    return figure


def curves(history: pd.DataFrame) -> Figure:
    """Show accuracy and loss over the epochs of one run, in training and validation.

    Of several folds, whose numbers are in a column ``fold``, each has faint
    lines, and their mean strong ones.
    """
    each = [rows for _, rows in history.groupby("fold")] if "fold" in history else [history]
    mean = history.groupby("epoch", as_index=False).mean(numeric_only=True)
    mean["phase"] = each[0]["phase"].to_numpy()
    figure, ((left, right),) = grid(2.8, columns=2)
    for axes, quantity in (left, "accuracy"), (right, "loss"):
        for rows in each if len(each) > 1 else []:
            learning(axes, rows, quantity, (*PALETTE[0], 0.25), named=False, who=f"fold {rows['fold'].iloc[0]}: ")
        learning(axes, mean, quantity, PALETTE[0])
    left.yaxis.set_major_formatter(PERCENT)
    left.set_ylabel("accuracy")
    right.set_ylabel("loss (lower is better)")
    right.set_ylim(bottom=0)
    left.legend(frameon=False, loc="lower right", title="mean of the folds, and each" if len(each) > 1 else None)
    return figure


def confusion(predictions: dict[str, pd.DataFrame], classes: Sequence[str]) -> Figure:
    """Show how many test photos of each class were given each name, a panel for each title.

    Above `MOST_CLASSES` classes the panels show only the pairs of classes that
    are confused most often.
    """
    if len(classes) > MOST_CLASSES:
        return _confused_pairs(predictions)
    names = [plain(name) for name in classes]
    side = 1.25 + 0.25 * len(classes) + 0.06 * max(0, *(len(name) - 12 for name in names))
    columns = 1 if PHONE.get() else min(len(predictions), 2)
    lines = -(-len(predictions) // columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH if columns > 1 else NARROW, min(side, WIDTH) * lines), layout="constrained")
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in panels.flat[len(predictions) :]:
        axes.axis("off")
    look = {"annot": len(classes) <= 15, "fmt": "d", "cmap": "Blues", "cbar": False, "square": True, "linewidths": 0.5}
    for axes, (title, rows) in zip(panels.flat, predictions.items()):
        counts = pd.crosstab(rows["label"], rows["predicted"]).reindex(index=classes, columns=classes, fill_value=0)
        sns.heatmap(counts, xticklabels=names, yticklabels=names, ax=axes, **look)
        for text, (label, said) in zip(axes.texts, itertools.product(classes, classes)):
            says(f"{label}, predicted {said}: {count(counts.loc[label, said], 'photo')}", text)
        axes.set(xlabel="predicted class", ylabel="class" if axes in panels[:, 0] else "")
        axes.set_title(message(title, _most_confused(rows)), fontsize=9)
        upright = len(classes) > 10
        axes.set_xticks(
            axes.get_xticks(),
            names,
            rotation=90 if upright else 30,
            ha="center" if upright else "right",
            rotation_mode="default" if upright else "anchor",
        )
        axes.tick_params(axis="y", rotation=0)
    return figure


def _most_confused(predictions: pd.DataFrame) -> str:
    """Say which two classes are taken for each other most often."""
    classes, both, wrong = most_confused(predictions)
    if not wrong:
        return "every photo is classified correctly"
    return f"{' and '.join(plain(name, 20) for name in classes)}: {both} of {count(wrong, 'mistake')}"


def _confused_pairs(predictions: dict[str, pd.DataFrame]) -> Figure:
    figure, panels = grid((0.9 + 0.18 * MOST_PAIRS) * len(predictions), lines=len(predictions))
    for axes, (title, rows) in zip(panels[:, 0], predictions.items()):
        wrong = rows[rows["label"] != rows["predicted"]]
        pairs = wrong.groupby(["label", "predicted"]).size().nlargest(MOST_PAIRS)
        names = [f"{plain(label, 25)} → {plain(said, 25)}" for label, said in pairs.index]
        for bar, name, photos in zip(axes.barh(range(len(pairs)), pairs, color=UNFROZEN, height=0.7), names, pairs):
            says(f"{name}: {count(photos, 'photo')}", bar)
        axes.set_yticks(range(len(pairs)), names, fontsize=7)
        axes.set(xlabel="test photos", ylim=(max(len(pairs), 1) - 0.5, -0.5))
        axes.set_title(f"{plain(title)}: class → predicted class", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(False, axis="y")
    return figure
