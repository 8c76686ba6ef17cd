"""The tests that decide claims: each takes a test's arguments and a study's results, and returns a verdict.

`thaw.study.claims.TESTS` describes what each test states. A verdict is None
where runs or measurements that the test needs are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from thaw.records.record import Run
from thaw.report import statistics
from thaw.report.notation import p_value, points, short_name
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
    effect : str
        The figures, with their intervals.
    test : str
    p : float or None
        Of the test; None where it gives none.
    """

    word: str
    effect: str
    test: str
    p: float | None = None


def holding_together(verdicts: dict[str, Verdict]) -> list[str]:
    """Return the ids of the verdicts that also hold when all p values are corrected as one family (Holm, 1979)."""
    tested = {id: verdict.p for id, verdict in verdicts.items() if verdict.p is not None}
    corrected = dict(zip(tested, statistics.holm(list(tested.values()))))
    return [id for id, verdict in verdicts.items() if verdict.word != UNDECIDED and corrected.get(id, 0) < ALPHA]


# ---- accuracy -----------------------------------------------------------------------------------


def more_accurate(test: Test, results: Results) -> Verdict | None:
    """Compare both sides on the same photos."""
    sides = statistics.matched(test.first.of(results.runs), test.second.of(results.runs), test.match)
    if not all(sides):
        return None
    return _signed(statistics.difference(*sides), "{}" + _against_control(test, results))


def _signed(effect: Difference, text: str = "{}") -> Verdict:
    """Judge by a difference's sign; `text` is what to say of it."""
    return Verdict(SIGNED[effect.sign], text.format(points(effect)), f"{effect.test}, {p_value(effect.p)}", effect.p)


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


def _by_configuration(runs: Iterable[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        experiment = run.record.experiment
        groups.setdefault(short_name(experiment.strategy, experiment.amount), []).append(run)
    return groups


def best_of(test: Test, results: Results) -> Verdict | None:
    """Compare the first side with each other configuration: supported only if it wins every comparison."""
    meant = test.first.of(results.runs)
    others = _by_configuration(
        run for run in test.among.of(results.runs) if not test.first.selects(run.record.experiment)
    )
    if not meant or not others:
        return None
    effects = [statistics.difference(meant, group) for group in others.values()]
    worse = [p for e, p in zip(effects, statistics.holm([e.p for e in effects])) if e.mean < 0 and p < ALPHA]
    word = SUPPORTED if all(e.sign > 0 for e in effects) else CONTRADICTED if worse else UNDECIDED
    text = "; ".join(f"{points(effect)} from {name}" for effect, name in zip(effects, others))
    if control := test.among.model_copy(update={"control": True}).of(results.runs):
        text += f"; for comparison, {points(statistics.difference(meant, control))} from the control"
    p, which = (min(worse), "smallest") if word == CONTRADICTED else (max(e.p for e in effects), "largest")
    return Verdict(word, text, f"{effects[0].test} against each, {which} {p_value(p)}", p)


def within_margin(test: Test, results: Results) -> Verdict | None:
    """Ask of each configuration whether it is within the margin of the second side."""
    groups, others = _by_configuration(test.first.of(results.runs)), test.second.of(results.runs)
    if not groups or not others:
        return None
    effects = {name: statistics.difference(group, others) for name, group in groups.items()}
    verdict = _alike(effects, test.margin or results.margin)
    return replace(verdict, effect=verdict.effect + _against_control(test, results))


def _alike(named: dict[str, Difference], margin: float) -> Verdict:
    """Judge whether all of these differences are within the margin."""
    effects = list(named.values())
    # All must be inside, so the largest p counts. That one of them is outside is a family of tests.
    p = max(effect.equivalence(margin) for effect in effects)
    tails = [2 * min((e.draws <= margin).mean(), (e.draws >= -margin).mean()) for e in effects]
    corrected = zip(statistics.holm(tails), effects)
    outside = [tail for tail, effect in corrected if tail < ALPHA and abs(effect.mean) > margin]
    word = SUPPORTED if p < ALPHA else CONTRADICTED if outside else UNDECIDED
    test = f"two one-sided tests, margin {100 * margin:g} points, largest {p_value(p)}"
    if outside:
        p = max(min(outside), 1 / len(effects[0].draws))
        test = f"outside the margin of {100 * margin:g} points, corrected {p_value(p)}"
    return Verdict(word, "; ".join(f"{name} {points(effect)}" for name, effect in named.items()), test, p)


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
    effect = (
        f"{rows['test_accuracy'].min():.1%} to {rows['test_accuracy'].max():.1%}; "
        f"{outside} of {len(rows)} corrected intervals are outside the range"
    )
    return Verdict(word, effect, f"every interval inside {100 * test.low:g} to {100 * test.high:g} %")


def like_parameters(test: Test, results: Results) -> Verdict | None:
    """Compare configurations that train about as many parameters."""
    found = results.at_like_parameters(test.first, test.second, test.factor)
    if found is None:
        return None
    names = (
        f"{results.title(a['backbone'])} {short_name(a['strategy'], a['amount'])} with "
        f"{short_name(b['strategy'], b['amount'])}"
        for a, b in found[1]
    )
    return _signed(found[0], f"{{}}; {', '.join(names)}")


def little_gain(test: Test, results: Results) -> Verdict | None:
    """Ask in each network whether the largest configuration is within the margin of the smallest."""
    effects = {}
    for backbone, tuned in _upwards(results).items():
        ends = (results.of_row(tuned.iloc[end]) for end in (-1, 0))
        effects[results.title(backbone)] = statistics.difference(*ends)
    if not effects:
        return None
    verdict = _alike(effects, results.margin)
    return replace(verdict, effect=f"accuracy of the most against the least unfrozen: {verdict.effect}")


def least_is_worse(test: Test, results: Results) -> Verdict | None:
    """Compare all larger configurations with the smallest of each network."""
    least: list[Run] = []
    more: list[Run] = []
    for tuned in _upwards(results).values():
        least += results.of_row(tuned.iloc[0])
        more += [run for _, row in tuned.iloc[1:].iterrows() for run in results.of_row(row)]
    if not least:
        return None
    return _signed(statistics.difference(more, least), "accuracy of all others against the least unfrozen {}")


def _upwards(results: Results) -> dict[str, pd.DataFrame]:
    """Return the fine-tuned rows of each network that has several, by trainable parameters."""
    tuned = {name: rows[rows["strategy"] != "frozen"] for name, rows in results.backbones.items()}
    return {name: rows.sort_values("trainable_parameters") for name, rows in tuned.items() if len(rows) > 1}


def gain_over_control(test: Test, results: Results) -> Verdict | None:
    """Compare fine-tuned runs with the control, in each network."""
    parts = []
    for backbone in results.backbones:
        if gain := results.remaining_gain(backbone):
            text = f"{{}} over the control, {points(gain.over_short)} over the short frozen base"
            parts.append(_signed(gain.over_control, f"{results.title(backbone)} {text}"))
    if not parts:
        return None
    word, p = together(parts)
    tests = "; ".join(dict.fromkeys(part.test for part in parts))
    return Verdict(word, "; ".join(part.effect for part in parts), f"in each network: {tests}", p)


# ---- other quantities ---------------------------------------------------------------------------


def fewer_parameters(test: Test, results: Results) -> Verdict | None:
    """Compare the sizes of two networks."""
    sides = [
        results.rows[[side.covers(row) for row in results.rows.itertuples()]] for side in (test.first, test.second)
    ]
    if any(side.empty for side in sides):
        return None
    first, second = (side["total_parameters"].iloc[0] for side in sides)
    effect = f"{first:,.0f} against {second:,.0f}: a factor of {second / first:.1f}"
    return Verdict(SUPPORTED if first < second else CONTRADICTED, effect, "counted")


def less_in_every_configuration(test: Test, results: Results) -> Verdict | None:
    """Compare a quantity in each configuration that both sides have, the control included.

    This is a count and no test of chance: all configurations ran on one
    machine, and share what they are made of.
    """
    quantity = QUANTITIES[test.quantity]
    sides: list[dict[tuple, list[float]]] = [{}, {}]
    for values, side in zip(sides, (test.first, test.second)):
        for run in results.runs:
            e = run.record.experiment
            if side.covers(e):
                values.setdefault((e.strategy, e.amount, e.epochs), []).append(quantity.of(run.record))
    pairs = [(np.mean(values), np.mean(sides[1][key])) for key, values in sides[0].items() if key in sides[1]]
    if not pairs:
        return None
    less, more = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
    word = UNDECIDED
    if len(pairs) >= ENOUGH and len(pairs) in (less, more):
        word = SUPPORTED if less else CONTRADICTED
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
    return Verdict(word, effect, f"counted on one machine: all of at least {ENOUGH} configurations, or none")


def trend(test: Test, results: Results) -> Verdict | None:
    """Correlate a quantity with the number of trainable parameters, in each network."""
    quantity, falls = QUANTITIES[test.quantity], test.name.startswith("falls")
    parts, effects = [], []
    for backbone in results.backbones:
        of_network = [run for run in results.runs if run.record.experiment.backbone == backbone]
        rows = _by_configuration(run for run in of_network if test.covers(run.record.experiment))
        found = statistics.rank_correlation(
            [row[0].record.trainable_parameters for row in rows.values()],
            [float(np.mean([quantity.of(run.record) for run in row])) for row in rows.values()],
        )
        if len(rows) < ENOUGH or found is None:
            return None
        rho, chance = found
        word = UNDECIDED if chance >= ALPHA else SUPPORTED if (rho < 0) == falls else CONTRADICTED
        effects.append(f"{results.title(backbone)} {rho:+.2f} ({p_value(chance)})")
        parts.append(Verdict(word, "", "", chance))
    word, p = together(parts)
    effect = f"rank correlation of the {test.quantity} with trainable parameters: {', '.join(effects)}"
    return Verdict(word, effect, "Spearman's rank correlation in each network", p)


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
    word = SUPPORTED if high < test.share else CONTRADICTED if low > test.share else UNDECIDED
    effect = (
        f"{np.median(a):.1f} against {np.median(b):.1f} ms a photo: {ratio:.2f} times as long ({low:.2f} to {high:.2f})"
    )
    tested = f"bootstrap over rounds of the ratio, less than {test.share:g}"
    noise = max((results.latency_spread(backbone) for backbone in results.backbones), default=1.0)
    hidden = high > 1 / noise if word == SUPPORTED else test.share * noise > 1
    if word != UNDECIDED and hidden:
        word = UNDECIDED
        tested = f"{tested}; configurations of the same graph differ by a factor of {noise:.2f}"
    return Verdict(word, effect, tested)


# ---- several tests ------------------------------------------------------------------------------


def all_of(test: Test, results: Results) -> Verdict | None:
    """Judge each part, and all `together`."""
    verdicts = [judge(part, results) for part in test.parts]
    found = [verdict for verdict in verdicts if verdict is not None]
    if len(found) < len(verdicts):
        return None
    word, p = together(found)
    tests = "; ".join(dict.fromkeys(verdict.test for verdict in found))
    effects = "; ".join(f"{verdict.effect}: {verdict.word}" for verdict in found)
    return Verdict(word, effects, f"each of: {tests}", p)


def together(parts: list[Verdict]) -> tuple[str, float | None]:
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


JUDGES: dict[str, Callable[[Test, Results], Verdict | None]] = {
    "more accurate": more_accurate,
    "within margin": within_margin,
    "best of": best_of,
    "accuracy in range": in_range,
    "more accurate at like parameters": like_parameters,
    "most within margin of least": little_gain,
    "more accurate than the least unfrozen": least_is_worse,
    "gain over control": gain_over_control,
    "faster": faster,
    "fewer parameters": fewer_parameters,
    "less in every configuration": less_in_every_configuration,
    "rises with trainable parameters": trend,
    "falls with trainable parameters": trend,
    "all of": all_of,
}


def judge(test: Test, results: Results) -> Verdict | None:
    """Judge one test; None where runs or measurements that it needs are missing."""
    return JUDGES[test.name](test, results)
