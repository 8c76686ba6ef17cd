"""The tests that decide claims: a function for each test in `thaw.study.claims.TESTS`, which says what each one states.

A verdict is None where runs or measurements that the test needs are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from thaw.records.runs import Run
from thaw.report import statistics
from thaw.report.notation import amount, capital, narrow, p_value, points, size, times
from thaw.report.statistics import ALPHA, Difference
from thaw.study.claims import QUANTITIES, Test

if TYPE_CHECKING:  # results hold verdicts
    from thaw.report.results import Results

HOLDS, REFUTED, ALIKE = "holds", "refuted", "no difference that matters"
IMPOSSIBLE, TOO_CLOSE = "impossible", "too close to call"
WORDS = (HOLDS, REFUTED, ALIKE, IMPOSSIBLE, TOO_CLOSE)
FOUND = "A difference of {} would have been found in 8 of 10 such studies."
LONGER = "the other takes"  # how the ratio of two latencies begins
AGAINST = (REFUTED, ALIKE, IMPOSSIBLE)  # a claim that needs all its parts cannot stand with one of these
MISSING = "not measured"  # no verdict: there is nothing to judge


@dataclass(frozen=True)
class Verdict:
    """What the numbers say of a claim.

    Attributes
    ----------
    word : str
        One of `WORDS`.
    effect : str
        The figures with their intervals: positive is as the claim says.
    why : str
        What decided it, in a sentence.
    p : float or None
        Of the test that decided it; None where nothing was left to chance.
    these_runs : bool
        Whether it rests on one seed, and so speaks of these runs only.
    found : str
        Where it is too close to call, the difference that would have been
        found in 8 of 10 such studies.
    though : str
        Where it is too close to call although an interval is on one side of
        0: why that decides nothing.
    parts : tuple of (str, Verdict)
        The parts of a claim, each under its name.
    """

    word: str
    effect: str
    why: str
    p: float | None = None
    these_runs: bool = False
    found: str = ""
    though: str = ""
    parts: tuple[tuple[str, Verdict], ...] = ()


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
    return _against_control(judged(results.difference(*sides), results.margin), test, results)


@_judges("best of")
def best_of(test: Test, results: Results) -> Verdict | None:
    """Compare the first side with each other configuration: it holds only if it wins every comparison."""
    meant = test.first.of(results.runs)
    among = [run for run in test.among.of(results.runs) if not test.first.selects(run.record.experiment)]
    if not meant or not among:
        return None
    named = {name: results.difference(meant, group) for name, group in _configurations(among, results).items()}
    effects, margin = list(named.values()), results.margin
    closest = min(named, key=lambda name: named[name].mean)
    better = sum(effect.sign > 0 for effect in effects)
    text = f"more accurate than {better} of the {len(effects)} other{'s' * (len(effects) != 1)}; "
    text += f"{points(named[closest])} from {closest}, the strongest of the others"
    if named[closest].mean == 0:
        text += " (a tie)"
    alone = any(effect.these_runs for effect in effects)
    worse = statistics.holm([effect.p if effect.mean < 0 else 1.0 for effect in effects])
    equal = statistics.holm([effect.equivalence(margin) for effect in effects])
    if all(effect.sign > 0 for effect in effects) and equal.min() >= ALPHA:
        p = max(effect.p for effect in effects)
        return Verdict(
            HOLDS, text, f"Better than each in a test of its own; largest {p_value(p)}.", p, these_runs=alone
        )
    if worse.min() < ALPHA:
        p = float(worse.min())
        return Verdict(REFUTED, text, f"Another one is better; {p_value(p)}, corrected for all.", p, these_runs=alone)
    if equal.min() < ALPHA:
        p = float(equal.min())
        name = list(named)[int(equal.argmin())]
        why = f"{name} is as good, within {size(margin)}: {points(named[name])}; {narrow(named[name])}; "
        why += f"{p_value(p)}, corrected for all."
        return Verdict(ALIKE, text, why, p, these_runs=alone)
    p = max(effect.p for effect in effects)
    return _too_close(text, (effect for effect in effects if effect.sign <= 0), p, alone)


@_judges("within margin")
def within_margin(test: Test, results: Results) -> Verdict | None:
    """Ask of each configuration whether it is within the margin of the second side."""
    groups, others = _configurations(test.first.of(results.runs), results), test.second.of(results.runs)
    if not groups or not others:
        return None
    effects = {name: results.difference(group, others) for name, group in groups.items()}
    return _against_control(_inside(effects, test.margin or results.margin), test, results)


@_judges("accuracy in range")
def in_range(test: Test, results: Results) -> Verdict | None:
    """Ask whether the interval of every accuracy is inside the range, or any of them outside."""
    rows = test.first.rows(results.rows)
    if rows.empty:
        return None
    inside = (rows["test_low"] >= test.low) & (rows["test_high"] <= test.high)
    # Several configurations have several chances to be outside, so their intervals are wider (Bonferroni).
    alpha = ALPHA / len(rows)
    wide = [statistics.accuracy_interval(results.of_row(r), alpha, results.spreads) for _, r in rows.iterrows()]
    outside = sum(ends[1] < test.low or ends[0] > test.high for ends in wide)
    effect = f"{rows['test_accuracy'].min():.1%} to {rows['test_accuracy'].max():.1%}"
    alone = bool(((rows["seeds"] == 1) & (rows["folds"] == 0)).any())
    if inside.all():
        return Verdict(HOLDS, effect, "All intervals lie inside the range.", these_runs=alone)
    if outside:
        return Verdict(REFUTED, effect, f"{outside} of {len(rows)} corrected intervals lie outside.", these_runs=alone)
    half = float(np.median([high - low for low, high in wide])) / 2
    return Verdict(
        TOO_CLOSE, effect, f"A single accuracy is known to about ±{size(half)}, corrected for all.", these_runs=alone
    )


@_judges("more accurate at like parameters")
def like_parameters(test: Test, results: Results) -> Verdict | None:
    """Compare configurations that train about as many parameters."""
    first, second = test.first.rows(results.rows), test.second.rows(results.rows)
    if (found := results.at_like_parameters(first, second, test.factor)) is None:
        return None
    effect, pairs = found
    named = ", ".join(f"{results.title(a['backbone'])} {a['short']} with {b['short']}" for a, b in pairs)
    return judged(effect, results.margin, f"\n{named}")


@_judges("most within margin of least")
def little_gain(test: Test, results: Results) -> Verdict | None:
    """Ask in each network whether the largest configuration is within the margin of the smallest."""
    parts = []
    for name, rows in results.by_size().items():
        most, least = (results.of_row(rows.iloc[end]) for end in (-1, 0))
        title = results.title(name)
        parts.append((title, _inside({"most against least unfrozen": results.difference(most, least)}, results.margin)))
    return _whole(parts)


@_judges("more accurate than the least unfrozen")
def least_is_worse(test: Test, results: Results) -> Verdict | None:
    """Compare all larger configurations with the smallest of each network."""
    networks = results.by_size().values()
    least = [run for rows in networks for run in results.of_row(rows.iloc[0])]
    more = [run for rows in networks for _, row in rows.iloc[1:].iterrows() for run in results.of_row(row)]
    if not least:
        return None
    return judged(results.difference(more, least), results.margin, " of accuracy, all others against the least")


@_judges("gain over control")
def gain_over_control(test: Test, results: Results) -> Verdict | None:
    """Compare fine-tuned runs with the control, in each network."""
    parts = []
    for backbone in results.backbones:
        if gain := results.remaining_gain(backbone, plain=True):
            after = f"; {points(gain.over_short)} over the short frozen base"
            parts.append((results.title(backbone), judged(gain.over_control, results.margin, after)))
    return _whole(parts)


def judged(effect: Difference, margin: float, after: str = "") -> Verdict:
    """Judge a difference that the claim says is positive."""
    text, alone = f"{points(effect)}{after}", effect.these_runs
    if (equal := effect.equivalence(margin)) < ALPHA:
        beside = ", though not nothing" if effect.sign else ""
        return Verdict(
            ALIKE,
            text,
            f"Within {size(margin)}{beside} ({narrow(effect)}; {p_value(equal)}).",
            equal,
            these_runs=alone,
        )
    if not effect.sign:
        though = f"The interval leaves out 0, but {p_value(effect.p)} is not below 5%. " if _off(effect) else ""
        return _too_close(text, [effect], effect.p, alone, though=though)
    word = HOLDS if effect.sign > 0 else REFUTED
    return Verdict(word, text, f"{capital(effect.test)}, {p_value(effect.p)}.", effect.p, these_runs=alone)


def _inside(named: dict[str, Difference], margin: float) -> Verdict:
    """Judge the claim that all of these differences are within the margin."""
    effects = list(named.values())
    text = "; ".join(f"{name} {points(effect)}" for name, effect in named.items())
    alone = any(effect.these_runs for effect in effects)
    # All must be inside, so the largest p counts. That one of them is outside is a family of tests.
    widest = max(effects, key=lambda effect: effect.equivalence(margin))
    p = widest.equivalence(margin)
    outside = float(statistics.holm([effect.outside(margin) for effect in effects]).min())
    if p < ALPHA:
        each = f"{narrow(widest)}; {p_value(p)}" if len(effects) == 1 else f"each 90% interval; largest {p_value(p)}"
        why = f"Within {size(margin)} ({each})."
        return Verdict(HOLDS, text, why, p, these_runs=alone)
    if outside < ALPHA:
        return Verdict(
            REFUTED,
            text,
            f"More than {size(margin)}; {p_value(outside)}, corrected for all.",
            outside,
            these_runs=alone,
        )
    beyond = [name for name, effect in named.items() if _off(effect, margin)]
    off = [name for name, effect in named.items() if _off(effect)]
    though = ""
    if beyond:
        though = f"By itself {beyond[0]} is more than {size(margin)}, but not when corrected for {len(effects)}. "
    elif off:
        though = f"The interval of {off[0]} leaves out 0, but not {size(margin)}, which counts here. "
    return _too_close(text, effects, p, alone, f"Up to {size(margin)} would not matter. ", though)


def _off(effect: Difference, margin: float = 0.0) -> bool:
    """Whether the interval of a difference lies wholly on one side of the margin."""
    return bool(effect.low > margin or effect.high < -margin)


def _too_close(
    text: str, effects: Iterable[Difference], p: float, alone: bool, before: str = "", though: str = ""
) -> Verdict:
    """Say which difference would have been found: the largest of several."""
    effects = list(effects)
    if not all(effect.known for effect in effects):
        return Verdict(MISSING, "", "The two sides have too few folds in common.")
    least = size(max(effect.detectable for effect in effects))
    return Verdict(TOO_CLOSE, text, f"{before}{though}{FOUND.format(least)}", p, alone, least, though.strip())


def _against_control(verdict: Verdict, test: Test, results: Results) -> Verdict:
    """Add what is left of the effect against the control, where one side is the short frozen base."""
    sides = [side.of(results.runs) for side in (test.first, test.second)]
    frozen = [all(run.record.experiment.strategy == "frozen" for run in side) for side in sides]
    if frozen.count(True) != 1:
        return verdict
    number = frozen.index(True)
    meant = (test.first, test.second)[number].model_copy(update={"control": True})
    sides[number] = meant.of(results.runs)
    if not all(sides):
        return verdict
    return replace(verdict, effect=f"{verdict.effect}; against the control {points(results.difference(*sides))}")


def _configurations(runs: Iterable[Run], results: Results) -> dict[str, list[Run]]:
    """Group runs by configuration, under its short name, with the network's title where there are several networks."""
    chosen = list(runs)
    rows = [row for _, row in results.rows.iterrows() if statistics.runs_of(row, chosen)]
    several = len({row["backbone"] for row in rows}) > 1
    names = [f"{results.title(row['backbone'])} {row['short']}" if several else row["short"] for row in rows]
    return {name: statistics.runs_of(row, chosen) for name, row in zip(names, rows)}


# ---- other quantities ---------------------------------------------------------------------------


@_judges("fewer parameters")
def fewer_parameters(test: Test, results: Results) -> Verdict | None:
    """Compare the sizes of two networks."""
    records = [run.record for run in results.runs]
    sizes = [[r.total_parameters for r in records if side.covers(r.experiment)] for side in (test.first, test.second)]
    if not all(sizes):
        return None
    first, second = (size[0] for size in sizes)
    tie = " (a tie)" if first == second else f": {second / first:.1f} times as many"
    return Verdict(HOLDS if first < second else REFUTED, f"{first:,} against {second:,}{tie}", "Counted.")


@_judges("less over all configurations")
def less(test: Test, results: Results) -> Verdict | None:
    """Compare what all configurations that both sides have need together, the control included.

    This is a count and no test of chance: all configurations ran on one
    machine, and share what they are made of. It decides where the sum and
    most of the configurations say the same.
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
    fewer, more = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
    first, second = np.mean(pairs, axis=0)
    tie = " (a tie)" if first == second else f": {second / first:.2f} times as much"
    effect = f"{test.quantity}, {first:,.0f} against {second:,.0f} {quantity.unit} on average{tie}"
    why = f"Counted on one machine: less in {fewer} of {len(pairs)} configurations."
    if fewer == more == 0:
        return Verdict(ALIKE, effect, why)
    if first < second and fewer > more:
        return Verdict(HOLDS, effect, why)
    return Verdict(REFUTED if first > second and more > fewer else TOO_CLOSE, effect, why)


@_judges("rises with trainable parameters", "falls with trainable parameters")
def trend(test: Test, results: Results) -> Verdict | None:
    """Compare what trains most with what trains least, in each network."""
    claimed, parts = -1 if test.name.startswith("falls") else 1, []
    for backbone in results.backbones:
        if found := results.trend(backbone, test.quantity, test.control):
            unit = QUANTITIES[test.quantity].unit
            ends = [found.most["short"], found.least["short"]][::claimed]
            effect = f"{test.quantity} {amount(found if claimed > 0 else found.opposite, unit)}, {' less '.join(ends)}"
            least = ""
            if found.p is None:
                why = f"Counted: {found.low:,.4g} with the least, {found.high:,.4g} {unit} with the most."
            elif found.sign:
                why = f"{capital(found.test)}, {p_value(found.p)}."
            else:
                least = amount(found, unit, found.detectable)
                why = FOUND.format(least)
            word = {claimed: HOLDS, -claimed: REFUTED, 0: TOO_CLOSE}[found.sign]
            if found.p is None and found.mean == 0:
                word, why = ALIKE, "Counted: a tie."
            parts.append((results.title(backbone), Verdict(word, effect, why, found.p, found.these_runs, least)))
    return _whole(parts)


@_judges("faster")
def faster(test: Test, results: Results) -> Verdict | None:
    """Compare the times of the compiled graph on single photos.

    What a network computes does not depend on what was trained: sides of one
    network are one graph, and none can be faster. Else it is the ratio of
    `thaw.report.results.Results.speed`.
    """
    rows = [side.rows(results.rows) for side in (test.first, test.second)]
    if any(side.empty for side in rows):
        return None
    graphs = [{results.graph(row) for _, row in side.iterrows()} for side in rows]
    if graphs[0] == graphs[1]:
        named = " and ".join(results.title(name) for name in dict.fromkeys(rows[0]["backbone"]))
        why = "What was trained does not change what is computed. Measured times differ by the machine's noise alone."
        return Verdict(IMPOSSIBLE, f"both run one and the same graph of {named}", why)
    networks = [list(dict.fromkeys(side["backbone"])) for side in rows]
    if (speed := results.speed(*networks)) is None:
        return None
    effect = f"{LONGER} {times(speed.ratio)} times as long ({times(speed.low)} to {times(speed.high)}): "
    effect += f"{speed.second:.1f} against {speed.first:.1f} ms a photo"
    least = 1 / test.share
    why = f"To be faster means that the other takes more than {times(least)} times as long."
    if speed.noise > 1.005:
        why += f" The interval holds the machine's noise, a factor of {speed.noise:.1f}."
    if speed.low > least:
        return Verdict(HOLDS, effect, why)
    if speed.high < least:
        return Verdict(ALIKE if speed.low > test.share else REFUTED, effect, why)
    return Verdict(TOO_CLOSE, effect, why)


# ---- several tests ------------------------------------------------------------------------------


@_judges("all of")
def all_of(test: Test, results: Results) -> Verdict | None:
    """Judge each part, and all `together`."""
    parts: list[tuple[str, Verdict]] = []
    for part in test.parts:
        if (verdict := judge(part, results)) is None:
            return None
        inner = [(f"{part.words}, {name}" if part.words else name, each) for name, each in verdict.parts]
        parts += inner or [(part.words, verdict)]
    return _whole(parts)


def _whole(parts: Sequence[tuple[str, Verdict]]) -> Verdict | None:
    """Make the verdict of a claim of its parts'; None without any."""
    if not parts:
        return None
    verdicts = [verdict for _, verdict in parts]
    word, p = together(verdicts)
    why = {
        HOLDS: "All parts hold.",
        REFUTED: "Not all parts hold.",
        TOO_CLOSE: "No part is refuted, but not all are shown to hold.",
    }.get(word, "All parts are alike in this.")
    if word == TOO_CLOSE and any(verdict.word in AGAINST for verdict in verdicts):
        why = f"A part fails by itself, but not when corrected for all {len(parts)} parts."
    deciding = (
        verdicts if word != REFUTED else [min((v for v in verdicts if v.word in AGAINST), key=lambda v: v.p or 0.0)]
    )
    these_runs = any(verdict.these_runs for verdict in deciding)
    same = len({verdict.why for verdict in verdicts}) == 1
    return Verdict(word, "", verdicts[0].why if same else why, p, these_runs, parts=tuple(parts))


def together(parts: Sequence[Verdict]) -> tuple[str, float | None]:
    """Return the verdict on a claim of several parts, and its p.

    It holds if all parts do; then the largest p counts. It is refuted if one
    part is: also by there being no difference that matters, or none possible.
    That must stand when corrected for the number of parts (Bonferroni). A
    part without p counts as certain.
    """
    words = {part.word for part in parts}
    tested = [float(part.p) for part in parts if part.p is not None]
    if len(words) == 1:
        return words.pop(), max(tested, default=None)
    least = min((len(parts) * (part.p or 0.0) for part in parts if part.word in AGAINST), default=1.0)
    if least < ALPHA:
        return REFUTED, least or None
    return TOO_CLOSE, max(tested, default=None)
