"""The tests that decide claims: a function for each test in `thaw.study.claims.TESTS`, which says what each one states.

A verdict is None where runs or measurements that the test needs are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thaw.records.runs import Run
from thaw.report import statistics
from thaw.report.notation import p_value, points
from thaw.report.statistics import ALPHA, Difference
from thaw.study.claims import QUANTITIES, Test

if TYPE_CHECKING:  # results hold verdicts
    from thaw.report.results import Results

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "not decided"
SIGNED = {1: SUPPORTED, -1: CONTRADICTED, 0: UNDECIDED}
ENOUGH = 4  # of fewer configurations, all may agree by chance


@dataclass(frozen=True)
class Verdict:
    """What the numbers say of a claim.

    Attributes
    ----------
    word : str
        `SUPPORTED`, `CONTRADICTED` or `UNDECIDED`.
    effect, test : str
        The figures with their intervals, and how they were judged.
    p : float or None
        Of the test; None where it gives none.
    """

    word: str
    effect: str
    test: str
    p: float | None = None


Judge = Callable[[Test, "Results"], Verdict | None]
JUDGES: dict[str, Judge] = {}


def judge(test: Test, results: Results) -> Verdict | None:
    """Judge one test; None where runs or measurements that it needs are missing."""
    return JUDGES[test.name](test, results)


def _judges(*names: str) -> Callable[[Judge], Judge]:
    def register(function: Judge) -> Judge:
        JUDGES.update(dict.fromkeys(names, function))
        return function

    return register


# ---- accuracy -----------------------------------------------------------------------------------


@_judges("more accurate")
def more_accurate(test: Test, results: Results) -> Verdict | None:
    """Compare both sides on the same photos."""
    sides = statistics.matched(test.first.of(results.runs), test.second.of(results.runs), test.match)
    if not all(sides):
        return None
    return _signed(statistics.difference(*sides), after=_against_control(test, results))


@_judges("best of")
def best_of(test: Test, results: Results) -> Verdict | None:
    """Compare the first side with each other configuration: supported only if it wins every comparison."""
    meant = test.first.of(results.runs)
    among = [run for run in test.among.of(results.runs) if not test.first.selects(run.record.experiment)]
    if not meant or not among:
        return None
    effects = {name: statistics.difference(meant, group) for name, group in _configurations(among, results).items()}
    p = [effect.p for effect in effects.values()]
    worse = [p for effect, p in zip(effects.values(), statistics.holm(p)) if effect.mean < 0 and p < ALPHA]
    text = "; ".join(f"{points(effect)} from {name}" for name, effect in effects.items())
    if control := test.among.model_copy(update={"control": True}).of(results.runs):
        text += f"; for comparison, {points(statistics.difference(meant, control))} from the control"
    tested = f"{next(iter(effects.values())).test} against each"
    if worse and not all(effect.sign > 0 for effect in effects.values()):
        return Verdict(CONTRADICTED, text, f"{tested}, smallest {p_value(min(worse))}", min(worse))
    word = SUPPORTED if all(effect.sign > 0 for effect in effects.values()) else UNDECIDED
    return Verdict(word, text, f"{tested}, largest {p_value(max(p))}", max(p))


@_judges("within margin")
def within_margin(test: Test, results: Results) -> Verdict | None:
    """Ask of each configuration whether it is within the margin of the second side."""
    groups, others = _configurations(test.first.of(results.runs), results), test.second.of(results.runs)
    if not groups or not others:
        return None
    effects = {name: statistics.difference(group, others) for name, group in groups.items()}
    verdict = _alike(effects, test.margin or results.margin)
    return replace(verdict, effect=verdict.effect + _against_control(test, results))


@_judges("accuracy in range")
def in_range(test: Test, results: Results) -> Verdict | None:
    """Ask whether the interval of every accuracy is inside the range, or any of them outside."""
    rows = test.first.rows(results.rows)
    if rows.empty:
        return None
    inside = (rows["test_low"] >= test.low) & (rows["test_high"] <= test.high)
    # Several configurations have several chances to be outside, so their intervals are wider (Bonferroni).
    wide = [statistics.accuracy_interval(results.of_row(row), ALPHA / len(rows)) for _, row in rows.iterrows()]
    outside = sum(ends[1] < test.low or ends[0] > test.high for ends in wide)
    word = SUPPORTED if inside.all() else CONTRADICTED if outside else UNDECIDED
    accuracies = f"{rows['test_accuracy'].min():.1%} to {rows['test_accuracy'].max():.1%}"
    effect = f"{accuracies}; {outside} of {len(rows)} corrected intervals are outside the range"
    return Verdict(word, effect, f"every interval inside {100 * test.low:g} to {100 * test.high:g} %")


@_judges("more accurate at like parameters")
def like_parameters(test: Test, results: Results) -> Verdict | None:
    """Compare configurations that train about as many parameters."""
    first, second = test.first.rows(results.rows), test.second.rows(results.rows)
    if (found := results.at_like_parameters(first, second, test.factor)) is None:
        return None
    effect, pairs = found
    named = (f"{results.title(a['backbone'])} {a['short']} with {b['short']}" for a, b in pairs)
    return _signed(effect, after=f"; {', '.join(named)}")


@_judges("most within margin of least")
def little_gain(test: Test, results: Results) -> Verdict | None:
    """Ask in each network whether the largest configuration is within the margin of the smallest."""
    ends = {name: [results.of_row(rows.iloc[end]) for end in (-1, 0)] for name, rows in _upwards(results).items()}
    effects = {results.title(name): statistics.difference(*sides) for name, sides in ends.items()}
    if not effects:
        return None
    verdict = _alike(effects, results.margin)
    return replace(verdict, effect=f"accuracy of the most against the least unfrozen: {verdict.effect}")


@_judges("more accurate than the least unfrozen")
def least_is_worse(test: Test, results: Results) -> Verdict | None:
    """Compare all larger configurations with the smallest of each network."""
    networks = _upwards(results).values()
    least = [run for rows in networks for run in results.of_row(rows.iloc[0])]
    more = [run for rows in networks for _, row in rows.iloc[1:].iterrows() for run in results.of_row(row)]
    if not least:
        return None
    return _signed(statistics.difference(more, least), "accuracy of all others against the least unfrozen ")


@_judges("gain over control")
def gain_over_control(test: Test, results: Results) -> Verdict | None:
    """Compare fine-tuned runs with the control, in each network."""
    parts = []
    for backbone in results.backbones:
        if gain := results.remaining_gain(backbone, plain=True):
            after = f" over the control, {points(gain.over_short)} over the short frozen base"
            parts.append(_signed(gain.over_control, f"{results.title(backbone)} ", after))
    if not parts:
        return None
    tests = "; ".join(dict.fromkeys(part.test for part in parts))
    word, p = together(parts)
    return Verdict(word, "; ".join(part.effect for part in parts), f"in each network: {tests}", p)


def _signed(effect: Difference, before: str = "", after: str = "") -> Verdict:
    """Judge by the sign of a difference."""
    text = f"{before}{points(effect)}{after}"
    return Verdict(SIGNED[effect.sign], text, f"{effect.test}, {p_value(effect.p)}", effect.p)


def _alike(named: dict[str, Difference], margin: float) -> Verdict:
    """Judge whether all of these differences are within the margin."""
    effects = list(named.values())
    text = "; ".join(f"{name} {points(effect)}" for name, effect in named.items())
    # All must be inside, so the largest p counts. That one of them is outside is a family of tests.
    p = max(effect.equivalence(margin) for effect in effects)
    tails = [2 * min((e.draws <= margin).mean(), (e.draws >= -margin).mean()) for e in effects]
    corrected = zip(statistics.holm(tails), effects)
    outside = [tail for tail, effect in corrected if tail < ALPHA and abs(effect.mean) > margin]
    if outside:
        p = max(min(outside), 1 / len(effects[0].draws))
        test = f"outside the margin of {100 * margin:g} points, corrected {p_value(p)}"
        return Verdict(CONTRADICTED, text, test, p)
    test = f"two one-sided tests, margin {100 * margin:g} points, largest {p_value(p)}"
    return Verdict(SUPPORTED if p < ALPHA else UNDECIDED, text, test, p)


def _against_control(test: Test, results: Results) -> str:
    """Say what is left of the effect against the control, where one side is the short frozen base."""
    sides = [side.of(results.runs) for side in (test.first, test.second)]
    frozen = [all(run.record.experiment.strategy == "frozen" for run in side) for side in sides]
    if frozen.count(True) != 1:
        return ""
    number = frozen.index(True)
    meant = (test.first, test.second)[number].model_copy(update={"control": True})
    sides[number] = meant.of(results.runs)
    return f"; against the control {points(statistics.difference(*sides))}" if all(sides) else ""


def _configurations(runs: Iterable[Run], results: Results) -> dict[str, list[Run]]:
    """Group runs by configuration, under its short name, with the network's title where there are several networks."""
    chosen = list(runs)
    rows = [row for _, row in results.rows.iterrows() if statistics.runs_of(row, chosen)]
    several = len({row["backbone"] for row in rows}) > 1
    names = [f"{results.title(row['backbone'])} {row['short']}" if several else row["short"] for row in rows]
    return {name: statistics.runs_of(row, chosen) for name, row in zip(names, rows)}


def _upwards(results: Results) -> dict[str, pd.DataFrame]:
    """Return the plain fine-tuned rows of each network that has several, by trainable parameters."""
    tuned = {name: rows[rows["plain"] & (rows["strategy"] != "frozen")] for name, rows in results.backbones.items()}
    return {name: rows.sort_values("trainable_parameters") for name, rows in tuned.items() if len(rows) > 1}


# ---- other quantities ---------------------------------------------------------------------------


@_judges("fewer parameters")
def fewer_parameters(test: Test, results: Results) -> Verdict | None:
    """Compare the sizes of two networks."""
    records = [run.record for run in results.runs]
    sizes = [[r.total_parameters for r in records if side.covers(r.experiment)] for side in (test.first, test.second)]
    if not all(sizes):
        return None
    first, second = (size[0] for size in sizes)
    effect = f"{first:,} against {second:,}: a factor of {second / first:.1f}"
    return Verdict(SUPPORTED if first < second else CONTRADICTED, effect, "counted")


@_judges("less in every configuration")
def less_in_every_configuration(test: Test, results: Results) -> Verdict | None:
    """Compare a quantity in each configuration that both sides have, the control included.

    This is a count and no test of chance: all configurations ran on one
    machine, and share what they are made of.
    """
    quantity = QUANTITIES[test.quantity]
    sides: list[dict[str, list[float]]] = [{}, {}]
    for values, side in zip(sides, (test.first, test.second)):
        for e, record in ((run.record.experiment, run.record) for run in results.runs):
            if side.covers(e):
                values.setdefault(e.label, []).append(quantity.of(record))
    pairs = [(np.mean(values), np.mean(sides[1][key])) for key, values in sides[0].items() if key in sides[1]]
    if not pairs:
        return None
    less, more = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
    decided = len(pairs) >= ENOUGH and len(pairs) in (less, more)
    means, ratios = np.mean(pairs, axis=0), [b / a for a, b in pairs]
    other = " and ".join(map(results.title, test.second.backbone)) or "the second side"
    effect = (
        f"{test.quantity}: {means[0]:,.0f} against {means[1]:,.0f} {quantity.unit} on average, less in {less} of "
        f"{len(pairs)} configurations, {other} needs {min(ratios):.2f} to {max(ratios):.2f} times as much"
    )
    if test.beside:
        beside = QUANTITIES[test.beside]
        most = [max(beside.of(run.record) for run in side.of(results.runs)) for side in (test.first, test.second)]
        effect += f"; not counted: {test.beside}, {most[0]:,.0f} against {most[1]:,.0f} {beside.unit}"
    word = UNDECIDED if not decided else SUPPORTED if less else CONTRADICTED
    return Verdict(word, effect, f"counted on one machine: all of at least {ENOUGH} configurations, or none")


@_judges("rises with trainable parameters", "falls with trainable parameters")
def trend(test: Test, results: Results) -> Verdict | None:
    """Correlate a quantity with the number of trainable parameters, in each network."""
    quantity, sign = QUANTITIES[test.quantity], -1 if test.name.startswith("falls") else 1
    parts = []
    for backbone in results.backbones:
        of_network = [run for run in results.runs if run.record.experiment.backbone == backbone]
        rows = _configurations((run for run in of_network if test.covers(run.record.experiment)), results).values()
        sizes = [row[0].record.trainable_parameters for row in rows]
        values = [float(np.mean([quantity.of(run.record) for run in row])) for row in rows]
        found = statistics.rank_correlation(sizes, values)
        if len(rows) < ENOUGH or found is None:
            return None
        rho, p = found
        word = UNDECIDED if p >= ALPHA else SUPPORTED if sign * rho > 0 else CONTRADICTED
        parts.append(Verdict(word, f"{results.title(backbone)} {rho:+.2f} ({p_value(p)})", "", p))
    names = ", ".join(part.effect for part in parts)
    effect = f"rank correlation of the {test.quantity} with trainable parameters: {names}"
    decided, largest = together(parts)
    return Verdict(decided, effect, "Spearman's rank correlation in each network", largest)


@_judges("faster")
def faster(test: Test, results: Results) -> Verdict | None:
    """Compare the times of the compiled graph on single photos.

    The interval is of the ratio of medians over rounds; in each round all had
    their turn. The effect must also be larger than the spread between
    configurations of one network: these run the same graph, so they differ by
    the machine's noise alone.
    """
    groups = []
    for side in (test.first, test.second):
        calls = [results.calls(row, "graph", 1) for _, row in side.rows(results.rows).iterrows()]
        groups.append([call for call in calls if call is not None])
    if not all(groups):
        return None
    a, b = (np.median(group, axis=0) for group in groups)
    if np.array_equal(a, b):
        effect = f"{np.median(a):.1f} ms a photo on both sides: they run the same graph"
        return Verdict(CONTRADICTED, effect, "the same graph: nothing to compare")
    ratio, low, high = statistics.ratio_of_medians(a, b)
    effect = f"{np.median(a):.1f} against {np.median(b):.1f} ms a photo"
    effect += f": {ratio:.2f} times as long ({low:.2f} to {high:.2f})"
    tested = f"bootstrap over rounds of the ratio, less than {test.share:g}"
    word = SUPPORTED if high < test.share else CONTRADICTED if low > test.share else UNDECIDED
    noise = max((results.latency_spread(backbone) for backbone in results.backbones), default=1.0)
    hidden = high > 1 / noise if word == SUPPORTED else test.share * noise > 1
    if word != UNDECIDED and hidden:
        tested += f"; configurations of the same graph differ by a factor of {noise:.2f}"
        return Verdict(UNDECIDED, effect, tested)
    return Verdict(word, effect, tested)


# ---- several tests ------------------------------------------------------------------------------


@_judges("all of")
def all_of(test: Test, results: Results) -> Verdict | None:
    """Judge each part, and all `together`."""
    verdicts = [verdict for part in test.parts if (verdict := judge(part, results))]
    if len(verdicts) < len(test.parts):
        return None
    word, p = together(verdicts)
    tests = "; ".join(dict.fromkeys(verdict.test for verdict in verdicts))
    effects = "; ".join(f"{verdict.effect}: {verdict.word}" for verdict in verdicts)
    return Verdict(word, effects, f"each of: {tests}", p)


def together(parts: Sequence[Verdict]) -> tuple[str, float | None]:
    """Return the verdict on a claim of several parts, and its p.

    It is supported if all parts are; then the largest p counts. It is
    contradicted if one part is, and stays so when corrected for the number of
    parts (Bonferroni). A part without p counts as certain.
    """
    against = [len(parts) * (part.p or 0.0) for part in parts if part.word == CONTRADICTED]
    tested = [part.p for part in parts if part.p is not None]
    if against and min(against) < ALPHA:
        return CONTRADICTED, min(against) if tested else None
    word = SUPPORTED if all(part.word == SUPPORTED for part in parts) else UNDECIDED
    return word, max(tested, default=None)
