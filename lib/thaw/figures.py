"""The pictures of the report: one palette, a colour a backbone, a marker a strategy."""

from collections.abc import Sequence

import keras
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from thaw.backbones import REGISTRY, Backbone
from thaw.record import in_original

FROZEN, UNFROZEN = "#c9d3dc", "#d1495b"
# Blue and orange first: they differ in grey, too, and for colour-blind eyes.
COLOURS = dict(zip(REGISTRY, sns.color_palette("colorblind")))
MARKERS = {"frozen": "o", "layers": "s", "blocks": "^"}
STRATEGIES = {"frozen": "frozen base", "layers": "strategy A (layers)", "blocks": "strategy B (blocks)"}
STYLE = {
    **sns.axes_style("whitegrid", {"axes.edgecolor": "0.4", "grid.color": "0.9"}),
    **sns.plotting_context("paper"),
    "font.family": "DejaVu Sans",
    "figure.dpi": 100,
    "svg.hashsalt": "thaw",
}
PERCENT = PercentFormatter(1, decimals=0)


def photo_grid(images: np.ndarray, titles: Sequence[str], columns: int = 5) -> Figure:
    """Photos, uint8 (n, size, size, 3), each under its title."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    lines = max(title.count("\n") + 1 for title in titles)
    figure = Figure(figsize=(1.5 * columns, (1.5 + 0.16 * lines) * rows), layout="constrained")
    for axes in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, images, titles):
        axes.imshow(image, interpolation="lanczos")
        axes.set_title(title, fontsize=7)
    return figure


def strip(base: keras.Model, backbone: Backbone, unfrozen: Sequence[keras.layers.Layer]) -> Figure:
    """The network as a strip of layers, those that train coloured; below it, where its parameters are."""
    chosen = {layer.name for layer in unfrozen}
    colours = [UNFROZEN if layer.name in chosen else FROZEN for layer in base.layers]
    sizes = np.array([layer.count_params() for layer in base.layers])
    positions = np.arange(len(sizes))
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 2.4), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    top.bar(positions, 1, width=1, color=colours, edgecolor="white", linewidth=0.3)
    top.set(yticks=[], ylim=(0, 1), title="Layers, from the photo (left) to the features (right)")
    bottom.bar(positions, sizes / 1e6, width=0.9, color=colours)
    bottom.set(ylabel="parameters\n(millions)", xlim=(-0.5, len(sizes) - 0.5))
    index = {layer.name: i for i, layer in enumerate(base.layers)}
    blocks = backbone.blocks(base)
    starts = [index[layers[0].name] for layers in blocks.values()]
    bottom.set_xticks(starts, [name.replace("_block", ".").removeprefix("conv") for name in blocks], fontsize=6)
    bottom.set_xlabel("block, where it begins")
    for axes in (top, bottom):
        axes.grid(False, axis="x")
        sns.despine(ax=axes, left=axes is top)
    legend = [
        Patch(color=UNFROZEN, label=f"unfrozen ({len(chosen)} layers)"),
        Patch(color=FROZEN, label=f"frozen ({len(sizes) - len(chosen)})"),
    ]
    bottom.legend(handles=legend, loc="upper left", frameon=False)
    return figure


def curves(history: pd.DataFrame, colour: str | tuple = "0.3") -> Figure:
    """Accuracy and loss over the epochs of one run, in training and validation."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 2.8), layout="constrained")
        left, right = figure.subplots(1, 2)
    _learning(left, history, "accuracy", colour)
    _learning(right, history, "loss", colour)
    left.yaxis.set_major_formatter(PERCENT)
    left.set_ylabel("accuracy")
    right.set_ylabel("loss (cross-entropy, nats)")
    right.set_ylim(bottom=0)
    left.legend(frameon=False, loc="lower right")
    return figure


def confusion(predictions: dict[str, pd.DataFrame], classes: Sequence[str]) -> Figure:
    """How many test photos of each class were given each name, a panel a title."""
    side = 1.3 + 0.42 * len(classes)
    with rc_context(STYLE):
        figure = Figure(figsize=(min(8, side * len(predictions) + 0.4), side), layout="constrained")
        panels = figure.subplots(1, len(predictions), sharey=True, squeeze=False)[0]
    for axes, (title, rows) in zip(panels, predictions.items()):
        counts = pd.crosstab(rows["label"], rows["predicted"]).reindex(index=classes, columns=classes, fill_value=0)
        sns.heatmap(counts, annot=True, fmt="d", cmap="Blues", cbar=False, square=True, linewidths=0.5, ax=axes)
        axes.set(xlabel="predicted class", ylabel="class" if axes is panels[0] else "")
        axes.set_title(title, fontsize=9)
        axes.set_xticks(axes.get_xticks(), classes, rotation=30, ha="right")
        axes.tick_params(axis="y", rotation=0)
    return figure


def accuracy_by_parameters(table: pd.DataFrame, original: pd.DataFrame | None) -> Figure:
    """Test accuracy over trainable parameters, with intervals; the original's values hollow.

    Parameters
    ----------
    table : DataFrame
        A configuration a row, as `thaw.statistics.by_configuration` gives it.
    original : DataFrame or None
        The original's table; None leaves it out.
    """
    backbones = table["backbone"].unique()
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 2.7 * len(backbones) + 0.4), layout="constrained")
        panels = figure.subplots(len(backbones), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, backbone in zip(panels, backbones):
        rows = table[table["backbone"] == backbone]
        for x, (_, row) in zip(
            _apart(rows["trainable_parameters"]), rows.sort_values("trainable_parameters").iterrows()
        ):
            _point(axes, x, row["test_accuracy"], row["test_low"], row["test_high"], backbone, row["strategy"])
            axes.annotate(
                _short(row),
                (x, row["test_low"]),
                xytext=(0, -4),
                textcoords="offset points",
                fontsize=7,
                rotation=90,
                ha="center",
                va="top",
            )
            match = in_original(row, original)
            if match is not None:
                axes.plot(
                    x,
                    match["test_accuracy"],
                    MARKERS[row["strategy"]],
                    markerfacecolor="none",
                    color="0.45",
                    markersize=6,
                )
        axes.set(xscale="log", ylabel=f"{REGISTRY[backbone].title}\ntest accuracy")
        axes.yaxis.set_major_formatter(PERCENT)
        axes.margins(x=0.05)
    low, high = panels[0].get_ylim()
    panels[0].set_ylim(low - 0.15 * (high - low), min(high, 1.01))  # room for the names below
    panels[-1].set_xlabel("trainable parameters")
    _strategy_legend(figure, table["strategy"].unique(), original is not None)
    return figure


def learning_curves(histories: dict[str, pd.DataFrame], backbone: str) -> Figure:
    """Accuracy over epochs, a panel a configuration.

    Parameters
    ----------
    histories : dict of DataFrame
        Histories of one backbone's configurations by their labels.
    backbone : str
    """
    columns = min(4, len(histories))
    rows = -(-len(histories) // columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 1.9 * rows + 0.3), layout="constrained")
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(histories) :]:
        axes.axis("off")
    for axes, (label, history) in zip(panels.flat, histories.items()):
        _learning(axes, history, "accuracy", COLOURS[backbone])
        axes.set_title(label, fontsize=8)
        axes.label_outer()
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy")
    panels[0, 0].yaxis.set_major_formatter(PERCENT)
    panels[0, 0].legend(frameon=False, fontsize=6, loc="lower right")
    return figure


def bars(table: pd.DataFrame, column: str, label: str, low: str | None = None, high: str | None = None) -> Figure:
    """A quantity of each configuration as a dot on a line, with an interval where there is one."""
    backbones = table["backbone"].unique()
    counts = [int((table["backbone"] == backbone).sum()) for backbone in backbones]
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 0.22 * sum(counts) + 0.9), layout="constrained")
        panels = figure.subplots(len(backbones), 1, sharex=True, squeeze=False, height_ratios=counts)[:, 0]
    for axes, backbone in zip(panels, backbones):
        rows = table[table["backbone"] == backbone]
        for position, (_, row) in enumerate(rows.iterrows()):
            axes.hlines(position, 0, row[column], color=COLOURS[backbone], alpha=0.35, linewidth=3)
            axes.plot(row[column], position, MARKERS[row["strategy"]], color=COLOURS[backbone])
            if low and high:
                axes.hlines(position, row[low], row[high], color=COLOURS[backbone], linewidth=1.4)
        axes.set_yticks(range(len(rows)), rows["label"])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(False, axis="y")
        axes.set_ylabel(REGISTRY[backbone].title)
    panels[-1].set_xlabel(label)
    panels[-1].set_xlim(left=0)
    return figure


def gap(table: pd.DataFrame) -> Figure:
    """Training less validation accuracy, and validation loss, over the share of the network unfrozen; a column a network."""
    backbones = table["backbone"].unique()
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        panels = figure.subplots(2, len(backbones), sharex=True, sharey="row", squeeze=False)
    for column, backbone in zip(panels.T, backbones):
        for _, row in table[table["backbone"] == backbone].iterrows():
            share = row["trainable_parameters"] / row["total_parameters"]
            for axes, value in zip(
                column, (row["train_accuracy"] - row["validation_accuracy"], row["validation_loss"])
            ):
                axes.plot(share, value, MARKERS[row["strategy"]], color=COLOURS[backbone])
                below = row["strategy"] == "layers" or row["control"]
                axes.annotate(
                    _short(row),
                    (share, value),
                    xytext=(4, -9 if below else 4),
                    textcoords="offset points",
                    fontsize=6.5,
                )
        column[0].axhline(0, color="0.4", linewidth=0.8)
        column[0].set_title(REGISTRY[backbone].title)
        column[1].set_xlabel("share of the parameters that train")
        column[1].xaxis.set_major_formatter(PERCENT)
        for axes in column:
            axes.margins(x=0.12, y=0.15)
    panels[0, 0].set_ylabel("training less\nvalidation accuracy")
    panels[0, 0].yaxis.set_major_formatter(PERCENT)
    panels[1, 0].set_ylabel("validation loss (nats)")
    return figure


def _learning(axes: Axes, history: pd.DataFrame, quantity: str, colour) -> None:
    axes.plot(history["epoch"], history[f"train_{quantity}"], "--", color=colour, linewidth=1, label="training")
    axes.plot(history["epoch"], history[f"validation_{quantity}"], "-", color=colour, label="validation")
    unfrozen = history.loc[history["phase"] == "finetune", "epoch"]
    if len(unfrozen):
        axes.axvspan(
            unfrozen.min() - 0.5,
            history["epoch"].max() + 0.5,
            color=UNFROZEN,
            alpha=0.08,
            linewidth=0,
            label="unfrozen",
        )
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _point(axes: Axes, x: float, y: float, low: float, high: float, backbone: str, strategy: str) -> None:
    axes.errorbar(
        x,
        y,
        yerr=[[y - low], [high - y]],
        fmt=MARKERS[strategy],
        color=COLOURS[backbone],
        capsize=2,
        linewidth=1,
        markersize=6,
    )


def _apart(counts: pd.Series) -> list[float]:
    """Positions on a logarithmic axis, in rising order, moved apart where they would coincide."""
    positions: list[float] = []
    for count in sorted(counts):
        positions.append(max(count, 1.12 * positions[-1]) if positions else count)
    return positions


def _short(row: pd.Series) -> str:
    """A configuration in a few letters: 'A-5', 'B-10', or the epochs of a frozen one."""
    if row["strategy"] == "frozen":
        return f"{row['epochs']} ep."
    return f"{'A' if row['strategy'] == 'layers' else 'B'}-{row['amount']}"


def _strategy_legend(figure: Figure, strategies: Sequence[str], with_original: bool) -> None:
    handles = [
        Line2D([], [], marker=MARKERS[name], linestyle="", color="0.2", label=STRATEGIES[name])
        for name in STRATEGIES
        if name in strategies
    ]
    if with_original:
        handles.append(
            Line2D([], [], marker="o", linestyle="", color="0.5", markerfacecolor="none", label="the original's value")
        )
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
