"""The figures of a study: accuracy, learning, speed and cost of all configurations."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from thaw.records.runs import Run
from thaw.report.display import PHONE
from thaw.report.figures import style
from thaw.report.figures.style import HOLLOW, MARKERS, PERCENT, grid, legend, name_ticks, plain, point, says
from thaw.report.rates import Rates, Trials
from thaw.report.replication import Replication
from thaw.report.results import Results
from thaw.report.words import count, duration

PROBES = {"linear": "linear probe", "neighbours": "5 nearest neighbours"}
STATES: dict[str, dict[str, Any]] = {  # of a block; they differ in grey, too
    "frozen": {"facecolor": style.FROZEN, "linewidth": 0},
    "trains in part": {"facecolor": "white", "edgecolor": style.UNFROZEN, "hatch": "//////", "linewidth": 0},
    "trains": {"facecolor": style.UNFROZEN, "linewidth": 0},
}
WAYS = {1: "rises", -1: "falls", 0: "shows no clear change"}
MOST = 24  # configurations of a network in a figure that grows with each: `captions` says which are shown


def accuracy_by_parameters(results: Results) -> Figure:
    """Show each configuration's test accuracy with its interval, by the number of trainable parameters.

    Small points beside it are its single folds or seeds, where it has several.
    `Results.plateau` stands on grey ground. In a replication the original's
    values are hollow marks. Of more than `MOST` configurations there are those
    of `_telling`.
    """
    lines = -(-len(results.backbones) // 2)
    figure, panels = grid((2.3 + _for_names(results)) * lines, lines, min(2, len(results.backbones)), sharey=True)
    replication = _replicated(results)
    for axes, name, rows, colour in _by_network(panels.ravel(), results):
        rows, enough = _telling(results, rows), set(results.plateau(name).index)
        for x, (_, row) in enumerate(rows.iterrows()):
            runs = results.of_row(row)
            for run in runs if len(runs) > 1 else []:
                single = float(run.correct.mean())
                dot = axes.plot(x - 0.25, single, "o", color=colour, alpha=0.35, markersize=2.5, zorder=1)
                says(f"{_named(results, row)}, {_which(run, runs)}: {single:.1%}", *dot)
            ends = row["test_low"], row["test_high"]
            value = f"{_named(results, row)}: {_interval(row['test_accuracy'], ends)}"
            value += f", {_millions(row['trainable_parameters'])} parameters train"
            point(axes, x, row["test_accuracy"], ends, colour, row["strategy"], value=value)
            if replication and (match := replication.row_of(row)) is not None:
                theirs = axes.plot(x + 0.25, match["test_accuracy"], MARKERS[row["strategy"]], **HOLLOW)
                says(f"{_named(results, row)}: {match['test_accuracy']:.1%} in {replication.called}", *theirs)
            if row.name in enough:
                axes.axvspan(x - 0.5, x + 0.5, color=style.FROZEN, alpha=0.15, linewidth=0, zorder=0)
        name_ticks(axes, [f"{_narrow(row)}\n{_millions(row['trainable_parameters'])}" for _, row in rows.iterrows()])
        axes.set(xlabel="what trains, and how many parameters")
        axes.set_title(style.message(results.titles[name], _plateau(results, name)), fontsize=9)
        axes.margins(x=0.06)
    _percents(panels, "test accuracy")
    panels[0, 0].set_ylim(top=min(panels[0, 0].get_ylim()[1], 1.01))
    ground = Patch(color=style.FROZEN, alpha=0.3, linewidth=0, label="enough")
    legend(figure, results.rows["strategy"], [ground, *_mark(replication)])
    return figure


def _plateau(results: Results, name: str) -> str:
    """Say where a network's accuracy stops to rise clearly; nothing where that cannot be said."""
    rows, choice = results.backbones[name], results.cheapest(name)
    if not results.decides or len(rows) == 1:
        return ""
    if len(results.best(name)) == 1:
        return f"{choice['phrase']} clearly ahead"
    if not (rows["trainable_parameters"] > choice["trainable_parameters"]).any():
        return f"most accurate: {choice['phrase']}" if choice.name == results.best(name).index[0] else ""
    return f"no clear gain beyond {choice['phrase']}"


def trained(results: Results) -> Figure | None:
    """Show each network as a strip of its blocks, a line a configuration; None where no record has the blocks.

    Configurations that train the same share a line.
    """
    networks = {name: lines for name in results.backbones if (lines := _what_trains(results, name))}
    if not networks:
        return None
    columns = min(2, len(networks))
    rows = -(-len(networks) // columns)
    figure, panels = grid((0.75 + 0.17 * max(map(len, networks.values()))) * rows, rows, columns)
    for axes in panels.flat[len(networks) :]:
        axes.axis("off")
    for axes, (name, lines) in zip(panels.flat, networks.items()):
        for y, (names, parameters, cells) in enumerate(lines):
            left = 0
            for state, alike in groupby(cells, key=itemgetter(1)):
                blocks = [block for block, _ in alike]
                (bar,) = axes.barh(y, len(blocks), 0.8, left, **STATES[state])
                left += len(blocks)
                ends = dict.fromkeys((blocks[0], blocks[-1]))
                says(f"{results.titles[name]}, {names}: {' to '.join(ends)} {state}", bar)
            axes.text(1.01, y, _millions(parameters), transform=axes.get_yaxis_transform(), fontsize=7, va="center")
        axes.vlines(range(1, len(cells)), -0.5, len(lines) - 0.5, color="white", linewidth=0.6)
        axes.set_yticks(range(len(lines)), [plain(names, 24) for names, *_ in lines], fontsize=7)
        total = sum(block != "stem" for block, _ in cells[:-1])
        axes.set(xticks=[], xlim=(0, len(cells)), ylim=(len(lines) - 0.4, -0.6))
        axes.set_xlabel(f"photo → {count(total, 'block')} → head")
        shares = results.backbones[name]["trainable_parameters"] / results.backbones[name]["total_parameters"]
        ends = dict.fromkeys(PERCENT(float(f"{share:.2g}")) for share in (shares.min(), shares.max()))
        axes.set_title(style.message(results.titles[name], f"{' to '.join(ends)} of the parameters train"), fontsize=9)
        axes.grid(False)
        sns.despine(ax=axes, left=True, bottom=True)
    handles = [Patch(label=state, **look) for state, look in STATES.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _what_trains(results: Results, name: str) -> list[tuple[str, int, list[tuple[str, str]]]]:
    """List what a network's configurations train: their names, how many parameters, and the state of each block."""
    lines: dict[tuple, list[str]] = {}
    for _, row in _telling(results, results.backbones[name]).iterrows():
        network = results.of_row(row)[0].record.network
        trains = network.get("trains", {})
        cells = [
            (block, "trains" if trains.get(block, 0) == size else "trains in part" if block in trains else "frozen")
            for block, size in network.get("blocks", {}).items()
        ]
        if cells:
            key = int(row["trainable_parameters"]), *cells, ("head", "trains")
            lines.setdefault(key, []).append(_short(row))
    return [(", ".join(names), parameters, cells) for (parameters, *cells), names in lines.items()]


def learning_curves(results: Results) -> Figure:
    """Show the loss over epochs, panels for each network, a pair of lines a seed; of folds faint ones, and their mean.

    There are four panels a network at most: what trains least and most, the
    cheapest choice, and the most accurate.
    """
    groups, lowest = [], []
    for name, rows in results.backbones.items():
        rows = rows.sort_values("trainable_parameters", kind="stable")
        telling = {rows.index[0], rows.index[-1], results.cheapest(name).name, rows["test_accuracy"].idxmax()}
        groups.append(shown := rows[rows.index.isin(telling)])
        least = shown.loc[shown["validation_loss"].idxmin()]
        lowest.append(f"{plain(least['phrase'])} ({plain(results.titles[name])})")
    figure = learning_curves_of(results, *groups)
    message = f"Of these, the validation loss ends lowest with {', '.join(lowest)}"
    figure.suptitle("\n".join(wrap(message, int(110 * style.width() / style.WIDTH))), fontsize=9)
    return figure


def learning_curves_of(results: Results, *groups: pd.DataFrame) -> Figure:
    """Show the same of groups of rows of ``results.rows``, a line of panels each."""
    columns = max(map(len, groups))
    figure, drawn = grid(1.35 * len(groups) + 0.45, len(groups), columns, on_phone=2, sharex=True, sharey=True)
    for axes in drawn.flat[len(groups) * columns :]:
        axes.axis("off")
    panels = drawn.ravel()[: len(groups) * columns].reshape(len(groups), columns)
    for line, rows in zip(panels, groups):
        line[0].set_ylabel("loss (lower is better)")
        for axes in line[len(rows) :]:
            axes.axis("off")
        for axes, (_, row) in zip(line, rows.iterrows()):
            _curves(axes, results, row)
            network = f"{plain(results.titles[row['backbone']], 20)}\n" if len(groups) > 1 else ""
            axes.set_title(network + (row["label"] if len(row["label"]) <= 24 else plain(row["short"], 24)), fontsize=8)
            axes.label_outer()
    panels[0, len(groups[0]) - 1].legend(frameon=False, fontsize=7, loc="upper right")
    return figure


def _curves(axes: Axes, results: Results, row: pd.Series) -> None:
    """Draw the loss of a configuration over epochs: of each seed; or of each fold faintly, and their mean."""
    runs, colour = results.of_row(row), _colour(results, row["backbone"])
    folds = len(runs) > 1 and bool(results.folds[row["backbone"]])
    for number, run in enumerate(runs):
        who = f"{_which(run, runs)}: " if len(runs) > 1 else ""
        look = (*colour, 0.25) if folds else _shade(colour, number / len(runs))
        style.learning(axes, run.history, "loss", look, number == 0 and not folds, who)
    if folds:
        history = pd.concat([run.history for run in runs])
        of_epoch = history.groupby(["epoch", "phase"], sort=False).mean(numeric_only=True).reset_index()
        style.learning(axes, of_epoch, "loss", colour, who="mean of the folds: ")


def _shade(colour: tuple, share: float) -> tuple:
    """Tell seeds apart: the first in the network's colour, each further one nearer to black."""
    return tuple(value * (1 - share) for value in colour)


def accuracy_by_cost(results: Results) -> Figure:
    """Show test accuracy over training time, with the line of the configurations that no other beats in both."""
    rows, colours = results.rows, style.colours(results.backbones)
    figure, ((axes,),) = grid(3.2 if PHONE.get() else 2.45)
    front = _pareto(rows["training_seconds"].to_numpy(), rows["test_accuracy"].to_numpy())
    line = rows.iloc[front]
    axes.step(line["training_seconds"], line["test_accuracy"], where="post", color="0.3", linewidth=1)
    for _, row in rows.iterrows():
        place, ends = (row["training_seconds"], row["test_accuracy"]), (row["test_low"], row["test_high"])
        value = f"{_named(results, row)}: {_interval(row['test_accuracy'], ends)} "
        value += f"after {duration(row['training_seconds'])} of training"
        point(axes, *place, ends, colours[row["backbone"]], row["strategy"], faint=True, value=value)
    title = f"The most accurate for their time: {len(front)} of {count(len(rows), 'configuration')}"
    axes.set_title("\n".join(wrap(title, 60)), fontsize=9)
    axes.set(xscale="log", xlabel="seconds of training")
    _name_front(axes, line)
    # Numbers as people write them.
    low, high = axes.get_xlim()
    on_phone = (1.0, 3.0) if high < 1000 * low else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=on_phone if PHONE.get() else (1.0, 2.0, 5.0), numticks=99))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    _percents(np.array([[axes]]), "test accuracy")
    legend(
        figure, rows["strategy"], [Patch(color=colours[name], label=plain(results.titles[name])) for name in colours]
    )
    return figure


def _name_front(axes: Axes, line: pd.DataFrame) -> None:
    """Name the points of the front, from the fastest: each name to the left of its point and above the one before.

    Nothing else lies there. The network is told by the point's colour. The
    room that the longest name needs is added at the left, and above what they need.
    """
    names = [_short(row) for _, row in line.iterrows()]
    letter, height = 0.062 / (style.width() - 0.7), 0.085  # of a name, in shares of the axes
    left, right = np.log10(axes.get_xlim())
    room = min(letter * max(map(len, names)), 0.6)
    axes.set_xlim(10 ** (right - (right - left) / (1 - room)), 10**right)
    low, high = axes.get_ylim()
    places, least = [], 0.0
    for value in line["test_accuracy"]:
        least = max((value - low) / (high - low) + height, least)
        places.append(least)
        least += height
    top = low + (high - low) * max(1, least + 0.02)
    axes.set_ylim(low, top)
    for place, name, (_, row) in zip(places, names, line.iterrows()):
        x, y = row["training_seconds"], low + place * (high - low)
        axes.plot([x, x], [row["test_accuracy"], y], color="0.6", linewidth=0.5, zorder=1)
        ground = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
        axes.annotate(
            name, (x, y), (-2, 0), textcoords="offset points", fontsize=7, ha="right", va="center", bbox=ground
        )


def losses(results: Results) -> Figure:
    """Show the loss on photos that training has not seen, by what is unfrozen, a panel a network.

    Of more than `MOST` configurations there are those of `_telling`.
    """
    columns = min(len(results.backbones), 2)
    lines = -(-len(results.backbones) // columns)
    figure, panels = grid((1.8 + _for_names(results)) * lines, lines, columns, sharey=True)
    everything = results.rows.join(results.test_losses)
    for axes, name, rows, colour in _by_network(panels.ravel(), results):
        rows = everything.loc[_telling(results, rows).index]
        for x, (_, row) in enumerate(rows.iterrows()):
            ends = row["test_loss_low"], row["test_loss_high"]
            value = f"{_named(results, row)}: test loss {row['test_loss']:.3f} ({ends[0]:.3f} to {ends[1]:.3f})"
            point(axes, x, row["test_loss"], ends, colour, row["strategy"], value=value)
            hollow = axes.plot(x + 0.25, row["validation_loss"], MARKERS[row["strategy"]], **HOLLOW)
            says(f"{_named(results, row)}: validation loss {row['validation_loss']:.3f}", *hollow)
        shares = rows["trainable_parameters"] / rows["total_parameters"]
        shares = [PERCENT(round(share, 2 if share >= 0.01 else 4)) for share in shares]
        name_ticks(axes, [f"{_narrow(row)}\n{share}" for share, (_, row) in zip(shares, rows.iterrows())])
        axes.set_title(style.message(results.titles[name], _way(results, name)), fontsize=9)
        axes.set_xlabel("what trains, and its share of the parameters")
        axes.margins(x=0.08, y=0.12)
    for line in panels:
        line[0].set_ylabel("loss (lower is better)")
    marks = {"color": "0.2", "linestyle": ""}, HOLLOW
    labels = "test loss, with its 95% interval", "validation loss"
    handles = [Line2D([], [], marker="o", label=label, **look) for look, label in zip(marks, labels)]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False, fontsize=7.5)
    return figure


def _way(results: Results, name: str) -> str:
    """Say which way the loss on unseen photos goes as more is unfrozen; nothing where that was not compared."""
    trend = results.trend(name, "loss on unseen photos")
    return f"the loss {WAYS[trend.sign]} from {trend.least['short']} to {trend.most['short']}" if trend else ""


def probe(results: Results) -> Figure:
    """Show how well each block's features tell the classes apart, and how strongly the loss pulls at its weights."""
    columns = 1 if PHONE.get() else min(2, len(results.probes))
    lines = -(-len(results.probes) // columns)
    figure, panels = grid(3.4 * lines, 2 * lines, columns, columns, height_ratios=[2, 1] * lines)
    pairs = panels.reshape(lines, 2, columns).transpose(0, 2, 1).reshape(-1, 2)
    for axes in pairs[len(results.probes) :].flat:
        axes.axis("off")
    for (above, below), (name, made) in zip(pairs, results.probes.items()):
        colour, depths = _colour(results, name), range(1, len(made.depths) + 1)
        for quantity, marker, look in (("linear", "o", colour), ("neighbours", "s", "0.5")):
            values = [getattr(depth, quantity) for depth in made.depths]
            errors = [getattr(depth, f"{quantity}_error") for depth in made.depths]
            above.errorbar(depths, values, errors, fmt=f"{marker}-", color=look, capsize=2, markersize=4, linewidth=1)
            above.plot([], [], f"{marker}-", color=look, markersize=4, label=PROBES[quantity])
        above.axhline(made.largest_class, color="0.4", linewidth=0.8, linestyle=":", label="largest class always")
        first = len(made.depths) - made.blocks + 0.5
        above.axvspan(first, len(made.depths) + 0.5, color=style.UNFROZEN, alpha=0.15, linewidth=0, label="prediction")
        ratios = [np.nan if depth.gradient_ratio is None else depth.gradient_ratio for depth in made.depths]
        for bar, depth, number in zip(below.bar(depths, ratios, color=colour, width=0.6), made.depths, depths):
            probes = ", ".join(f"{words} {getattr(depth, name):.1%}" for name, words in PROBES.items())
            says(f"after block {number}: {probes}", bar)
        above.legend(frameon=False, fontsize=7, loc="lower right")
        above.set(title=plain(results.title(name)), ylabel="accuracy")
        above.yaxis.set_major_formatter(PERCENT)
        below.set(xlabel="after block", ylabel="gradient / weight")
        for axes in (above, below):
            axes.set_xlim(0.5, len(made.depths) + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def rates(results: Results) -> Figure:
    """Show the loss over the learning rate, a line a configuration, the rate taken marked; a panel a network.

    Of more than `MOST` configurations only the first are shown, from the fewest trainable parameters up.
    """
    tried = Rates(results, results.rates).networks
    networks = list(dict.fromkeys(of.title for of in tried))
    columns = min(2, len(networks))
    lines = -(-len(networks) // columns)
    figure, panels = grid(2.8 * lines, lines, columns, sharey=True)
    for axes in panels.flat[len(networks) :]:
        axes.axis("off")
    for axes, title in zip(panels.flat, networks):
        for of in (of for of in tried if of.title == title):
            lines_of = of.trials[:MOST]
            palette = sns.color_palette("Greys_r" if of.is_head else "viridis", len(lines_of) + 2)
            for trials, colour in zip(lines_of, palette[of.is_head :]):
                named = of.named(trials)
                if of.is_head:
                    named = "head alone" if named == "all" else f"head: {named}"
                _loss_over_rate(axes, trials, colour, named, "s--" if of.is_head else "o-")
        axes.set(xscale="log", yscale="log", title=plain(title), xlabel="learning rate")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
        axes.tick_params(axis="y", which="minor", labelsize=7)
        axes.legend(frameon=False, fontsize=6.5, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.22))
    for line in panels:
        line[0].set_ylabel("loss on the choosing photos (lower is better)")
    return figure


def _loss_over_rate(axes: Axes, trials: Trials, colour, named: str, line: str) -> None:
    """Draw the trials of one line: where one diverged there is a cross at the upper edge."""
    fine = trials.table[~trials.table["diverged"]]
    look = {"color": colour, "linewidth": 1, "markersize": 3}
    axes.plot(fine["value"], fine["loss"], line, label=plain(named, 24), **look)
    lost = trials.table.loc[trials.table["diverged"], "value"]
    axes.plot(lost, [0.98] * len(lost), "x", color=colour, transform=axes.get_xaxis_transform())
    for _, one in fine.iterrows():
        tried = axes.plot(one["value"], one["loss"], line[0], color=colour, markersize=3)
        says(f"{named}: loss {one['loss']:.3f} at the rate {one['value']:g}", *tried)
    place = trials.chosen["value"], trials.chosen["loss"]
    taken = axes.plot(*place, "o", color=colour, markersize=8, markerfacecolor="none")
    says(f"{named}: loss {place[1]:.3f} at the rate taken, {place[0]:g}", *taken)


def _by_network(panels: np.ndarray, results: Results) -> Iterator[tuple[Axes, str, pd.DataFrame, tuple]]:
    """Each network with its panel, its rows and its colour; panels to spare are switched off."""
    for axes in panels[len(results.backbones) :]:
        axes.axis("off")
    for axes, (name, rows) in zip(panels, results.backbones.items()):
        yield axes, name, rows, _colour(results, name)


def _replicated(results: Results) -> Replication | None:
    """Find the claims whose source has its own table, of the same data as this study."""
    replication = results.replication
    return replication if replication and replication.same_data and replication.original is not None else None


def _mark(replication: Replication | None) -> list[Line2D]:
    """Add the legend of the hollow marks, where there are any."""
    return [Line2D([], [], marker="o", label=f"{replication.called}'s value", **HOLLOW)] if replication else []


def _colour(results: Results, network: str) -> tuple:
    return style.colours(results.backbones)[network]


def _telling(results: Results, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a network by trainable parameters: of many the ends, the choice, the most accurate, and some between."""
    rows = rows.sort_values("trainable_parameters", kind="stable")
    if len(rows) <= MOST:
        return rows
    choice = results.cheapest(rows["backbone"].iloc[0]).name
    between = rows.index[np.linspace(0, len(rows) - 1, MOST // 2).astype(int)]
    order = dict.fromkeys([choice, *between, *rows["test_accuracy"].nlargest(MOST).index])
    return rows[rows.index.isin(list(order)[:MOST])]


def _percents(panels: np.ndarray, label: str) -> None:
    """Label the vertical axes on the left; all are in percent."""
    for line in panels:
        line[0].set_ylabel(label)
        line[0].yaxis.set_major_formatter(PERCENT)


def _pareto(costs: np.ndarray, values: np.ndarray) -> list[int]:
    """Find the positions that no other beats in both, by rising cost (Pareto, 1906)."""
    front: list[int] = []
    for position in np.lexsort((-values, costs)):
        if not front or values[position] > values[front[-1]]:
            front.append(int(position))
    return front


def _which(run: Run, runs: Sequence[Run]) -> str:
    """Name one run of a configuration: 'seed 1', 'fold 3', or with several seeds a fold 'fold 3, seed 13'."""
    e, folds = run.record.experiment, {each.record.experiment.fold for each in runs}
    if e.fold is None:
        return f"seed {e.seed}"
    return f"fold {e.fold}" if len(folds) == len(runs) else f"fold {e.fold}, seed {e.seed}"


def _interval(share: float, ends: tuple[float, float]) -> str:
    """Write an accuracy with its interval: '94.0% (91.0 to 96.1)'."""
    return f"{share:.1%} ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"


def _named(results: Results, row: pd.Series) -> str:
    """Name a configuration in full, for what marks say: 'ResNet50, Strategy B (2 blocks)'."""
    return f"{results.titles[row['backbone']]}, {row['label']}"


def _short(row: pd.Series) -> str:
    return plain(row["short"], 24)


def _for_names(results: Results) -> float:
    """Return the height, in inches, that the longest name needs below an axis."""
    return 0.05 * results.rows["short"].map(len).clip(upper=24).max()


def _narrow(row: pd.Series) -> str:
    """Write a short name in two lines, if it has two words."""
    return _short(row).replace(" ", "\n", 1)


def _millions(count: float) -> str:
    """Write a number of parameters in a few letters: '5 k', '1.1 M'."""
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} k" if count >= 1e3 else f"{count:.0f}"
