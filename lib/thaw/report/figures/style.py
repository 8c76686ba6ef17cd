"""One look for all figures: a colour for each network, a marker for each strategy."""

from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from thaw.report.display import PHONE, VALUE, one_line

WIDTH, NARROW = 7.33, 3.5  # inches, of every figure: as wide as the report's text, and as a phone
LETTERS, LEGEND = 165, 106  # that fit side by side over this width: of ticks, and of a legend
FROZEN, UNFROZEN = "#8496a6", "#b3243b"  # they differ in grey, too
# Blue and orange first: they differ in grey, too, and for colour-blind eyes. Each has a contrast of 3 on white,
# and on the dark page, which turns figures over.
PALETTE = sns.color_palette(
    ["#0173b2", "#cc7a00", "#029e73", "#c44536", "#b460a6", "#9c6b45", "#d0609a", "#7f7f7f", "#8a8300", "#2e8bc0"]
)
MARKERS = {"frozen": "o", "layers": "s", "blocks": "^", "pattern": "D", "all": "P"}
STRATEGIES = {
    "frozen": "frozen base",
    "layers": "A: last layers",
    "blocks": "B: last blocks",
    "pattern": "layers like a pattern",
    "all": "all layers",
}
HOLLOW: dict[str, Any] = {"color": "0.4", "markerfacecolor": "none", "markersize": 5, "linestyle": ""}
STYLE = {
    **sns.axes_style("whitegrid", {"axes.edgecolor": "0.4", "grid.color": "0.9"}),
    **sns.plotting_context("paper"),
    "font.family": "DejaVu Sans",
    **dict.fromkeys(("axes.labelsize", "axes.titlesize", "legend.fontsize"), 8),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 7.5),
    "figure.dpi": 100,
}
PERCENT = FuncFormatter(lambda share, _: f"{round(100 * share, 6) + 0.0:g}%")  # 2.5% as such, and no -0%


def colours(networks: Iterable[str]) -> dict[str, tuple]:
    """Give each network its colour, in the order of their appearance in the study."""
    names = list(networks)
    many = sns.color_palette("viridis", 9 * len(names) // 5)  # without its light end
    return dict(zip(names, PALETTE if len(names) <= len(PALETTE) else many))


def grid(height: float, lines: int = 1, columns: int = 1, on_phone: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """Make a figure in the common style, with ``(lines, columns)`` panels; on a phone `on_phone` columns.

    `height`, in inches, is that of the wide figure.
    """
    if PHONE.get():
        taller = -(-lines * columns // on_phone)
        height, lines, columns = height * taller / lines, taller, on_phone
    with rc_context(STYLE):
        figure = Figure(figsize=(width(), height), layout="constrained")
        return figure, figure.subplots(lines, columns, squeeze=False, **options)


def width() -> float:
    """Return the width of a figure, in inches."""
    return NARROW if PHONE.get() else WIDTH


def plain(text: str, most: int = 40) -> str:
    """Write text from outside in a figure: one line of at most so many letters, and no formula."""
    line = one_line(text)
    return (line if len(line) <= most else line[: most - 1] + "…").replace("$", r"\$")


def message(name: str, text: str) -> str:
    """Write the title of a panel: what it is of, and what it shows."""
    return "\n".join([*filter(None, [plain(name)]), *wrap(plain(text, 100), 60)])


def says(text: str, *marks: Artist) -> None:
    """Let marks say what they are when the reader points at them, in the HTML report."""
    for mark in marks:
        mark.set_gid(VALUE + one_line(text))


def point(
    axes: Axes, x: float, y: float, ends: Sequence[float], colour, strategy: str, faint: bool = False, value: str = ""
) -> None:
    """Mark a value with its interval; `value` is what the mark `says`."""
    line, _, bars = axes.errorbar(
        x,
        y,
        yerr=[[max(y - ends[0], 0)], [max(ends[1] - y, 0)]],  # a rounding error below 0 is refused
        fmt=MARKERS[strategy],
        color=colour,
        capsize=0 if faint else 2,
        linewidth=1,
        markersize=5.5,
    )
    if value:
        says(value, line, *bars)
    if faint:
        for bar in bars:
            bar.set_alpha(0.35)


def learning(axes: Axes, history: pd.DataFrame, quantity: str, colour, named: bool = True, who: str = "") -> None:
    """Draw a quantity of one run, `who` among several, over its epochs: dashed in training, solid in validation."""
    labels = ("training", "validation") if named else (None, None)
    for of, dash, width, label in zip(("train", "validation"), ("--", "-"), (1, None), labels):
        values = history[f"{of}_{quantity}"]
        drawn = axes.plot(history["epoch"], values, dash, color=colour, linewidth=width, label=label)
        best, write = (values.max(), "{:.1%}") if quantity == "accuracy" else (values.min(), "{:.3f}")
        text = (
            f"{who}{of.replace('train', 'training')} {quantity}: {write.format(values.iloc[-1])} after the last epoch"
        )
        says(f"{text}, best {write.format(best)} after epoch {history['epoch'][values == best].min()}", *drawn)
    unfrozen = history.loc[history["phase"] == "finetune", "epoch"]
    if len(unfrozen) and named:
        ends = unfrozen.min() - 0.5, history["epoch"].max() + 0.5
        axes.axvspan(*ends, color=UNFROZEN, alpha=0.08, linewidth=0, label="unfrozen")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def name_ticks(axes: Axes, names: Sequence[str], size: float = 7) -> None:
    """Name the positions on the horizontal axis; names that are many or long stand upright."""
    letters = sum(max(map(len, name.split("\n"))) for name in names)
    room = 50 - len(names) if PHONE.get() else LETTERS * axes.get_position().width
    upright = len(names) > 12 or letters > room
    names = [", ".join(name.rsplit("\n", 1)).replace("\n", " ") for name in names] if upright else names
    axes.set_xticks(range(len(names)), names, fontsize=size, rotation=90 if upright else 0)
    axes.grid(False, axis="x")


def legend(figure: Figure, strategies: Iterable[str], others: Sequence = ()) -> None:
    """Explain the markers of strategies, and whatever else, above a figure."""
    marks = [
        Line2D([], [], marker=MARKERS[name], linestyle="", color="0.2", label=label)
        for name, label in STRATEGIES.items()
        if name in set(strategies)
    ]
    handles = [*others, *marks]
    letters = [len(handle.get_label()) + 6 for handle in handles]
    room = int(LEGEND * width() / WIDTH)
    columns = len(handles) if sum(letters) <= room else max(1, room // max(letters))
    figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=7, columnspacing=1.2
    )
