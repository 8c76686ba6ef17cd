"""The pictures of the report: one palette, a colour a backbone, a marker a strategy."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from thaw.network.backbones import REGISTRY, Backbone
from thaw.report.display import one_line
from thaw.report.replication import original_row

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
PERCENT = FuncFormatter(lambda share, _: f"{round(100 * share, 6) + 0.0:g}%")  # 2.5% as such, and no -0%


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
        axes.set_title("\n".join(map(_plain, title.split("\n"))), fontsize=7)
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
    names = [_plain(name) for name in classes]
    side = 1.3 + 0.42 * len(classes) + 0.06 * max(0, *(len(name) - 12 for name in names))
    with rc_context(STYLE):
        figure = Figure(figsize=(min(8, side * len(predictions) + 0.4), side), layout="constrained")
        panels = figure.subplots(1, len(predictions), sharey=True, squeeze=False)[0]
    for axes, (title, rows) in zip(panels, predictions.items()):
        counts = pd.crosstab(rows["label"], rows["predicted"]).reindex(index=classes, columns=classes, fill_value=0)
        look = {"annot": True, "fmt": "d", "cmap": "Blues", "cbar": False, "square": True, "linewidths": 0.5}
        sns.heatmap(counts, xticklabels=names, yticklabels=names, ax=axes, **look)
        axes.set(xlabel="predicted class", ylabel="class" if axes is panels[0] else "")
        axes.set_title(_plain(title), fontsize=9)
        axes.set_xticks(axes.get_xticks(), names, rotation=30, ha="right")
        axes.tick_params(axis="y", rotation=0)
    return figure


def accuracy_by_parameters(table: pd.DataFrame, original: pd.DataFrame | None) -> Figure:
    """Test accuracy of each configuration, in the order of their trainable parameters, with intervals.

    Parameters
    ----------
    table : DataFrame
        A configuration a row, as `thaw.report.statistics.by_configuration` gives it.
    original : DataFrame or None
        The original's table, whose values are hollow marks; None leaves it out.
    """
    backbones = table["backbone"].unique()
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        panels = figure.subplots(1, len(backbones), sharey=True, squeeze=False)[0]
    for axes, backbone in zip(panels, backbones):
        rows = table[table["backbone"] == backbone].sort_values("trainable_parameters", kind="stable")
        for x, (_, row) in enumerate(rows.iterrows()):
            _point(axes, x, row["test_accuracy"], row["test_low"], row["test_high"], backbone, row["strategy"])
            match = original_row(row, original)
            if match is not None:
                axes.plot(
                    x + 0.25,
                    match["test_accuracy"],
                    MARKERS[row["strategy"]],
                    markerfacecolor="none",
                    color="0.45",
                    markersize=5,
                )
        names = [f"{_short(row)}\n{_in_units(row['trainable_parameters'])}" for _, row in rows.iterrows()]
        axes.set_xticks(range(len(rows)), names, fontsize=6.5)
        axes.set(title=REGISTRY[backbone].title, xlabel="what trains, and how many parameters")
        axes.yaxis.set_major_formatter(PERCENT)
        axes.grid(False, axis="x")
        axes.margins(x=0.06)
    panels[0].set_ylabel("test accuracy")
    panels[0].set_ylim(top=min(panels[0].get_ylim()[1], 1.01))
    _strategy_legend(figure, table["strategy"].unique(), original is not None)
    return figure


def learning_curves(histories: dict[str, Sequence[pd.DataFrame]], backbone: str) -> Figure:
    """Accuracy over epochs, a panel a configuration, a pair of lines a seed.

    Parameters
    ----------
    histories : dict of sequence of DataFrame
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
    for axes, (label, of_seeds) in zip(panels.flat, histories.items()):
        for number, history in enumerate(of_seeds):
            _learning(axes, history, "accuracy", COLOURS[backbone], named=number == 0)
        axes.set_title(label, fontsize=8)
        axes.label_outer()
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy")
    panels[0, 0].yaxis.set_major_formatter(PERCENT)
    panels[0, -1 if columns > 1 else 0].legend(frameon=False, fontsize=6, loc="lower right")
    return figure


def training_time(rows: pd.DataFrame) -> Figure:
    """Seconds of training by phase, a bar a configuration."""
    phases = {
        "activations_seconds": ("frozen part, once", "0.8"),
        "head_seconds": ("head alone", "0.55"),
        "finetune_seconds": ("after unfreezing (coloured)", None),
    }
    figure, panels = _panels_by_backbone(rows)
    for axes, (backbone, part) in zip(panels, rows.groupby("backbone", sort=False)):
        left = np.zeros(len(part))
        for column, (_, colour) in phases.items():
            axes.barh(range(len(part)), part[column], left=left, color=colour or COLOURS[backbone], height=0.7)
            left += part[column].to_numpy()
    panels[-1].set_xlabel("seconds of training")
    handles = [Patch(color=colour or COLOURS[backbone], label=label) for label, colour in phases.values()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return figure


def latencies(
    rows: pd.DataFrame, calls: Callable[[pd.Series, str, int], np.ndarray | None], original: pd.DataFrame | None
) -> Figure:
    """Milliseconds a photo of each configuration as a distribution, the graph beside ``predict``.

    Parameters
    ----------
    rows : DataFrame
        A configuration a row.
    calls : callable
        As `thaw.report.results.Results.calls`.
    original : DataFrame or None
        The original's table, whose values are hollow marks.
    """
    kinds = {
        ("graph", 1): "compiled graph,\none photo",
        ("graph", 32): "compiled graph,\nbatches of 32",
        ("predict", 1): "predict(),\none photo",
        ("predict", 32): "predict(),\nbatches of 32",
    }
    figure, panels = _panels_by_backbone(rows, columns=len(kinds))
    for number, (backbone, part) in enumerate(rows.groupby("backbone", sort=False)):
        for axes, (kind, title) in zip(panels[number], kinds.items()):
            for position, (_, row) in enumerate(part.iterrows()):
                values = calls(row, *kind)
                if values is None:
                    continue
                axes.boxplot(
                    values,
                    positions=[position],
                    orientation="horizontal",
                    widths=0.6,
                    whis=(5, 95),
                    showfliers=False,
                    patch_artist=True,
                    boxprops={"facecolor": (*COLOURS[backbone], 0.35), "edgecolor": COLOURS[backbone]},
                    medianprops={"color": "black", "linewidth": 1.4},
                    whiskerprops={"color": COLOURS[backbone]},
                    capprops={"color": COLOURS[backbone]},
                )
                match = original_row(row, original) if kind == ("predict", 1) else None
                if match is not None:
                    axes.plot(
                        match["inference_ms_per_image"],
                        position,
                        MARKERS[row["strategy"]],
                        markerfacecolor="none",
                        color="0.35",
                        markersize=5,
                    )
            _name_lines(axes, part["label"] if kind == ("graph", 1) else [""] * len(part))
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
            if number == 0:
                axes.set_title(title, fontsize=8)
            if number == len(panels) - 1:
                axes.set_xlabel("ms a photo")
    if original is not None:
        mark = Line2D(
            [], [], marker="o", linestyle="", color="0.35", markerfacecolor="none", label="the original's value"
        )
        figure.legend(handles=[mark], loc="outside upper center", frameon=False)
    return figure


def accuracy_by_cost(rows: pd.DataFrame) -> Figure:
    """Test accuracy over training time, with the line of what nothing beats in both, and over latency, with intervals.

    Over latency there is no line: the configurations of a network run one and
    the same graph, so that which of them is fastest is chance.

    Parameters
    ----------
    rows : DataFrame
        As `thaw.report.results.Results.rows`.
    """
    costs = {"training_seconds": "seconds of training"}
    if rows["latency"].notna().all():
        costs["latency"] = "ms for one photo (compiled graph)"
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 3.8), layout="constrained")
        panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    for axes, (column, label) in zip(panels, costs.items()):
        front = _pareto(rows[column].to_numpy(), rows["test_accuracy"].to_numpy()) if column != "latency" else []
        axes.step(rows[column].iloc[front], rows["test_accuracy"].iloc[front], where="post", color="0.3", linewidth=1)
        on_front = set(rows.index[front])
        for index, row in rows.iterrows():
            point = (row[column], row["test_accuracy"])
            _point(axes, *point, row["test_low"], row["test_high"], row["backbone"], row["strategy"], faint=True)
            if column == "latency":
                axes.hlines(
                    point[1], row["latency_low"], row["latency_high"], color=COLOURS[row["backbone"]], linewidth=0.8
                )
            if index in on_front:
                axes.annotate(_short(row), point, xytext=(-4, 3), textcoords="offset points", fontsize=7, ha="right")
        axes.set(xscale="log", xlabel=label)
        _plain_numbers(axes.xaxis)
        axes.margins(x=0.08)
    panels[0].set_ylabel("test accuracy")
    panels[0].yaxis.set_major_formatter(PERCENT)
    _strategy_legend(figure, rows["strategy"].unique(), False, rows["backbone"].unique())
    return figure


def differences(rows: pd.DataFrame, pairs: dict[str, pd.DataFrame]) -> Figure:
    """The difference of every two configurations of each network in points; those that are told apart framed and bold.

    Parameters
    ----------
    rows : DataFrame
        A configuration a row.
    pairs : dict of DataFrame
        By network, as `thaw.report.statistics.pairwise` gives them.
    """
    most = max(max(abs(effect.mean) for effect in part["difference"]) for part in pairs.values() if len(part)) or 0.01
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 4.3 if len(pairs) > 1 else 5.5), layout="constrained")
        panels = figure.subplots(1, len(pairs), squeeze=False)[0]
    for axes, (backbone, part) in zip(panels, pairs.items()):
        names = {index: _short(row) for index, row in rows[rows["backbone"] == backbone].iterrows()}
        position = {index: number for number, index in enumerate(names)}
        shown = np.full((len(names), len(names)), np.nan)
        for pair in part.itertuples():
            shown[position[pair.second], position[pair.first]] = -pair.difference.mean
        axes.pcolormesh(shown, cmap="PuOr", vmin=-2.2 * most, vmax=2.2 * most, edgecolors="white", linewidth=1)
        for pair in part.itertuples():
            x, y = position[pair.first], position[pair.second]
            axes.text(
                x + 0.5,
                y + 0.5,
                f"{round(-100 * pair.difference.mean, 1) + 0.0:+.1f}",
                ha="center",
                va="center",
                fontsize=7,
                fontweight="bold" if pair.separated else "normal",
            )
            if pair.separated:
                axes.add_patch(
                    Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, fill=False, edgecolor="black", linewidth=1.5)
                )
        ticks = np.arange(len(names)) + 0.5
        axes.set_xticks(ticks, names.values(), rotation=45, fontsize=7)
        axes.set_yticks(ticks, names.values(), fontsize=7)
        axes.set(title=REGISTRY[backbone].title, aspect="equal", xlabel="less that of", ylim=(len(names), 0))
        axes.grid(False)
    panels[0].set_ylabel("accuracy of")
    return figure


def gap(rows: pd.DataFrame, intervals: pd.DataFrame) -> Figure:
    """Training less validation accuracy, and the loss on unseen photos, by what is unfrozen; a column a network.

    Parameters
    ----------
    rows : DataFrame
        A configuration a row.
    intervals : DataFrame
        In the same order: ``gap_low``, ``gap_high``, ``test_loss_low``,
        ``test_loss_high``.
    """
    backbones = rows["backbone"].unique()
    rows = rows.join(intervals)
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 4.8), layout="constrained")
        panels = figure.subplots(2, len(backbones), sharex="col", sharey="row", squeeze=False)
    for column, backbone in zip(panels.T, backbones):
        part = rows[rows["backbone"] == backbone].sort_values("trainable_parameters", kind="stable")
        for position, (_, row) in enumerate(part.iterrows()):
            ahead = row["train_accuracy"] - row["validation_accuracy"]
            _point(column[0], position, ahead, row["gap_low"], row["gap_high"], backbone, row["strategy"])
            ends = row["test_loss_low"], row["test_loss_high"]
            _point(column[1], position, row["test_loss"], *ends, backbone, row["strategy"])
            column[1].plot(
                position,
                row["validation_loss"],
                MARKERS[row["strategy"]],
                color="0.35",
                markerfacecolor="none",
                markersize=5,
            )
        shares = part["trainable_parameters"] / part["total_parameters"]
        names = [
            f"{_short(row)}\n{PERCENT(round(share, 2 if share >= 0.01 else 4))}"
            for share, (_, row) in zip(shares, part.iterrows())
        ]
        column[1].set_xticks(range(len(part)), names, fontsize=6.5)
        column[0].axhline(0, color="0.4", linewidth=0.8)
        column[0].set_title(REGISTRY[backbone].title)
        column[1].set_xlabel("share of the parameters that train, in their order")
        for axes in column:
            axes.grid(False, axis="x")
            axes.margins(x=0.08, y=0.12)
    panels[0, 0].set_ylabel("training less\nvalidation accuracy")
    panels[0, 0].yaxis.set_major_formatter(PERCENT)
    panels[1, 0].set_ylabel("loss (nats)")
    handles = [
        Line2D([], [], marker="o", linestyle="", color="0.2", label="test loss, with its interval"),
        Line2D([], [], marker="o", linestyle="", color="0.35", markerfacecolor="none", label="validation loss"),
    ]
    panels[1, 0].legend(handles=handles, frameon=False, fontsize=7)
    return figure


def _plain(text: str, most: int = 40) -> str:
    """Text from outside, for a figure: one line of so many letters, and no formula."""
    line = one_line(text)
    return (line if len(line) <= most else line[: most - 1] + "…").replace("$", r"\$")


def _panels_by_backbone(rows: pd.DataFrame, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """A line of panels for each network, as high as it has configurations, which name their lines."""
    counts = rows.groupby("backbone", sort=False).size()
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 0.22 * counts.sum() + 1.2), layout="constrained")
        panels = figure.subplots(len(counts), columns, sharex="col", squeeze=False, height_ratios=counts)
    for line, backbone in zip(panels, counts.index):
        part = rows[rows["backbone"] == backbone]
        for number, axes in enumerate(line):
            _name_lines(axes, [""] * len(part) if number else part["label"])
            axes.grid(False, axis="y")
        line[0].set_ylabel(REGISTRY[backbone].title)
    return figure, panels[:, 0] if columns == 1 else panels


def _name_lines(axes: Axes, names: Sequence[str]) -> None:
    """Name the lines of a panel, the first one on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _pareto(costs: np.ndarray, values: np.ndarray) -> list[int]:
    """The positions that no other beats in both, by rising cost (Pareto, 1906)."""
    front: list[int] = []
    for position in np.lexsort((-values, costs)):
        if not front or values[position] > values[front[-1]]:
            front.append(int(position))
    return front


def _plain_numbers(axis: Axis) -> None:
    """A logarithmic axis with numbers as people write them, at more than its powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def _learning(axes: Axes, history: pd.DataFrame, quantity: str, colour, named: bool = True) -> None:
    labels = ("training", "validation") if named else (None, None)
    axes.plot(history["epoch"], history[f"train_{quantity}"], "--", color=colour, linewidth=1, label=labels[0])
    axes.plot(history["epoch"], history[f"validation_{quantity}"], "-", color=colour, label=labels[1])
    unfrozen = history.loc[history["phase"] == "finetune", "epoch"]
    if len(unfrozen) and named:
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


def _point(
    axes: Axes, x: float, y: float, low: float, high: float, backbone: str, strategy: str, faint: bool = False
) -> None:
    *_, bars = axes.errorbar(
        x,
        y,
        yerr=[[max(y - low, 0)], [max(high - y, 0)]],  # a rounding error below 0 is refused
        fmt=MARKERS[strategy],
        color=COLOURS[backbone],
        capsize=0 if faint else 2,
        linewidth=1,
        markersize=6,
    )
    if faint:
        for bar in bars:
            bar.set_alpha(0.35)


def _in_units(count: float) -> str:
    """A number of parameters in a few letters: '5 k', '1.1 M'."""
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"


def _short(row: pd.Series) -> str:
    """A configuration in a few letters: 'A-5', 'B-10', or the epochs of a frozen one."""
    if row["strategy"] == "frozen":
        return f"{row['epochs']} ep."
    return f"{'A' if row['strategy'] == 'layers' else 'B'}-{row['amount']}"


def _strategy_legend(
    figure: Figure, strategies: Sequence[str], with_original: bool, backbones: Sequence[str] = ()
) -> None:
    handles = [Patch(color=COLOURS[name], label=REGISTRY[name].title) for name in backbones]
    handles += [
        Line2D([], [], marker=MARKERS[name], linestyle="", color="0.2", label=STRATEGIES[name])
        for name in STRATEGIES
        if name in strategies
    ]
    if with_original:
        handles.append(
            Line2D([], [], marker="o", linestyle="", color="0.5", markerfacecolor="none", label="the original's value")
        )
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)
