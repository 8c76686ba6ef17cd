"""The original's claims, each with the test that decides it.

A claim has an id, our words for it, where in the original it stands, the
configurations it speaks of, the test, and, where the original's own table
suffices, what that says of it. Every claim is decided by itself at 5 %;
`table` also says which verdicts stand when all of them are corrected as one
family.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact, permutation_test, rankdata

from thaw.network.backbones import REGISTRY
from thaw.records.runs import Run
from thaw.report import statistics
from thaw.report.results import Results
from thaw.report.statistics import ALPHA, Difference

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "not decided"
SIGNED = {1: SUPPORTED, -1: CONTRADICTED, 0: UNDECIDED}
ORIGINAL_PHOTOS = 367  # its test set: its accuracies are multiples of 1/367
FASTER = 0.95  # a latency of more than this share of another is not counted as faster
LIKE = 1.25  # numbers of trainable parameters that differ by no more than this factor are alike


@dataclass(frozen=True)
class Verdict:
    """What the numbers say of a claim: a word, the effect with its interval, the test and its p where it has one."""

    verdict: str
    effect: str
    test: str
    p: float | None = None


# A choice of configurations: of runs' experiments and of the original's rows alike.
Which = Callable[..., bool]
Decide = Callable[[Results], Verdict | None]
Own = Callable[[pd.DataFrame], str]


@dataclass(frozen=True)
class Claim:
    """Something the original says that a number can decide.

    Attributes
    ----------
    id : str
    words : str
        The claim in our words.
    where : str
        The original's section; empty where the claim is ours.
    about : callable
        Which configurations it speaks of: where one of them is missing, the
        verdict is on the others, and says so.
    decide : callable
        From `Results` to a `Verdict`; None where the runs it needs are missing.
    own : callable or None
        From the original's table to what that says; None where it has no
        such numbers.
    """

    id: str
    words: str
    where: str
    about: Which
    decide: Decide
    own: Own | None = None


def select(runs: Iterable[Run], which: Which) -> list[Run]:
    """The runs whose experiments are meant, the control left out."""
    return [run for run in runs if not run.record.experiment.control and which(run.record.experiment)]


def controls(runs: Iterable[Run], which: Which) -> list[Run]:
    """Those runs of the control that are meant."""
    return [run for run in runs if run.record.experiment.control and which(run.record.experiment)]


def network(name: str, strategy: str = "", *amounts: int) -> Which:
    """Configurations of one network; of one strategy, 'tuned' for both that unfreeze; of some amounts."""
    return lambda e: (
        e.backbone == name
        and (not strategy or e.strategy == strategy or (strategy == "tuned" and fine_tuned(e)))
        and (not amounts or e.amount in amounts)
    )


def apart_from(which: Which, within: Which) -> Which:
    """Those of `within` that are not meant by `which`."""
    return lambda e: within(e) and not which(e)


def either(first: Which, second: Which) -> Which:
    """Those of both."""
    return lambda e: first(e) or second(e)


def fine_tuned(e) -> bool:
    """All that unfreeze something."""
    return e.strategy != "frozen"


def every(e) -> bool:
    """All."""
    return True


# ---- tests --------------------------------------------------------------------------------------


def more_accurate(first: Which, second: Which, matched: Callable[..., Hashable] | None = None) -> Decide:
    """The first configurations are more accurate than the second.

    With `matched`, only those for which it gives what it also gives on the
    other side: so that like is compared with like in a part of a study.
    """

    def decide(results):
        sides = [select(results.runs, which) for which in (first, second)]
        verdict = compared(*matching(*sides, matched))
        return verdict and replace(verdict, effect=verdict.effect + against_control(results, first, second))

    return decide


def against_control(results: Results, first: Which, second: Which) -> str:
    """Where one side is the short frozen base: what is left of the effect against one frozen for as many epochs."""
    sides = [select(results.runs, which) for which in (first, second)]
    frozen = [all(run.record.experiment.strategy == "frozen" for run in side) for side in sides]
    if frozen.count(True) != 1:
        return ""
    number = frozen.index(True)
    which = (first, second)[number]
    sides[number] = controls(results.runs, which)
    return f"; against the control {points(statistics.difference(*sides))}" if all(sides) else ""


def best_of(which: Which, within: Which) -> Decide:
    """Configurations, taken together, are more accurate than each other one: supported only if all comparisons say so."""

    def decide(results):
        others: dict[tuple, list[Run]] = {}
        for run in select(results.runs, apart_from(which, within)):
            others.setdefault((run.record.experiment.strategy, run.record.experiment.amount), []).append(run)
        meant = select(results.runs, which)
        if not meant or not others:
            return None
        effects = [statistics.difference(meant, group) for group in others.values()]
        worse = [p for e, p in zip(effects, statistics.holm([e.p for e in effects])) if e.mean < 0 and p < ALPHA]
        word = SUPPORTED if all(e.sign > 0 for e in effects) else CONTRADICTED if worse else UNDECIDED
        effect = "; ".join(f"{points(effect)} from {short(*name)}" for effect, name in zip(effects, others))
        control = controls(results.runs, within)
        if control:
            effect += f"; beside it, {points(statistics.difference(meant, control))} from the control"
        p = min(worse) if word == CONTRADICTED else max(effect.p for effect in effects)
        return Verdict(
            word,
            effect,
            f"{effects[0].test} against each, {'smallest' if word == CONTRADICTED else 'largest'} {in_p(p)}",
            p,
        )

    return decide


def compared(first: list[Run], second: list[Run]) -> Verdict | None:
    """A verdict on the first runs being more accurate than the second."""
    if not first or not second:
        return None
    effect = statistics.difference(first, second)
    return Verdict(SIGNED[effect.sign], points(effect), f"{effect.test}, {in_p(effect.p)}", effect.p)


def matching(first: list, second: list, matched: Callable[..., Hashable] | None) -> tuple[list, list]:
    """Of two lists of runs, those that have their like in the other."""
    if matched is None:
        return first, second
    keys = [{matched(run.record.experiment) for run in side} for side in (first, second)]
    return tuple(
        [run for run in side if matched(run.record.experiment) in keys[0] & keys[1]] for side in (first, second)
    )


def as_accurate(first: Which, second: Which) -> Decide:
    """Each of the first configurations differs from the second by less than the margin, either way."""

    def decide(results):
        groups: dict[tuple, list[Run]] = {}
        for run in select(results.runs, first):
            groups.setdefault((run.record.experiment.strategy, run.record.experiment.amount), []).append(run)
        others = select(results.runs, second)
        if not groups or not others:
            return None
        effects = {short(*name): statistics.difference(group, others) for name, group in groups.items()}
        verdict = alike(effects, results.margin)
        return replace(verdict, effect=verdict.effect + against_control(results, first, second))

    return decide


def short(strategy: str, amount: int) -> str:
    """A configuration in a few letters, for example 'A-5'."""
    return {"layers": "A-{}", "blocks": "B-{}", "frozen": "frozen"}[strategy].format(amount)


def alike(named: dict[str, Difference], margin: float) -> Verdict:
    """A verdict on all of these differences being within the margin."""
    effects = list(named.values())
    # All of them have to be inside, so the largest p counts; that one is outside is a family of tests.
    p = max(effect.equivalence(margin) for effect in effects)
    tails = [2 * min((e.draws <= margin).mean(), (e.draws >= -margin).mean()) for e in effects]
    outside = [
        corrected
        for corrected, effect in zip(statistics.holm(tails), effects)
        if corrected < ALPHA and abs(effect.mean) > margin
    ]
    word = SUPPORTED if p < ALPHA else CONTRADICTED if outside else UNDECIDED
    test = f"two one-sided tests, margin {100 * margin:g} points, largest {in_p(p)}"
    if outside:
        p = max(min(outside), 1 / len(effects[0].draws))
        test = f"outside the margin of {100 * margin:g} points, corrected {in_p(p)}"
    return Verdict(word, "; ".join(f"{name} {points(effect)}" for name, effect in named.items()), test, p)


def less_in_every_row(first: str, second: str, quantity: Callable[[Run], float], unit: str, which: Which) -> Decide:
    """One network needs less of something than the other, in every configuration.

    Counted, with no test: the configurations are all there are, of one
    machine, and share what they are made of.
    """

    def decide(results):
        values: dict[tuple, dict[str, list[float]]] = {}
        for run in results.runs:
            experiment = run.record.experiment
            if not which(experiment):
                continue
            row = values.setdefault((experiment.strategy, experiment.amount, experiment.epochs), {})
            row.setdefault(experiment.backbone, []).append(quantity(run))
        pairs = [(np.mean(row[first]), np.mean(row[second])) for row in values.values() if {first, second} <= set(row)]
        if not pairs:
            return None
        less, more = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
        enough = len(pairs) >= 4  # of fewer, all may be so by chance
        word = (
            SUPPORTED if enough and less == len(pairs) else CONTRADICTED if enough and more == len(pairs) else UNDECIDED
        )
        ratios = [b / a for a, b in pairs]
        means = np.mean(pairs, axis=0)
        effect = (
            f"{means[0]:,.0f} against {means[1]:,.0f} {unit} on average, less in {less} of {len(pairs)} configurations, "
            f"{REGISTRY[second].title} needs {min(ratios):.2f} to {max(ratios):.2f} times as much"
        )
        return Verdict(word, effect, "counted on one machine, in all of at least four configurations or in none")

    return decide


def trains_faster(results: Results) -> Verdict | None:
    """MobileNet's epochs after unfreezing take less time than ResNet50's; the pass, made once, is shown beside."""
    verdict = less_in_every_row(
        "mobilenet", "resnet50", lambda run: run.record.training_seconds.finetune, "s after unfreezing", fine_tuned
    )(results)
    if verdict is None:
        return None
    passes = [
        max(run.record.training_seconds.activations for run in select(results.runs, network(name, "tuned")))
        for name in ("mobilenet", "resnet50")
    ]
    beside = (
        f"the pass over the frozen part, made once for all of a network, {passes[0]:,.0f} against {passes[1]:,.0f} s"
    )
    return replace(verdict, effect=f"{verdict.effect}; {beside}")


def rises(quantity: Callable[[Run], float], name: str, same_epochs: bool = False, falls: bool = False) -> Decide:
    """Something grows with the number of trainable parameters, over the fine-tuned configurations of each network.

    With `same_epochs`, the control is one of them: the same epochs, with
    nothing unfrozen. With `falls`, it shrinks.
    """

    def decide(results):
        parts, effects = [], []
        for backbone in results.backbones:
            rows: dict[tuple, list[Run]] = {}
            for run in results.runs:
                e = run.record.experiment
                if e.backbone == backbone and (fine_tuned(e) or (same_epochs and e.control)):
                    rows.setdefault((e.strategy, e.amount), []).append(run)
            if len(rows) < 4:
                return None
            found = rank_correlation(
                [row[0].record.trainable_parameters for row in rows.values()],
                [np.mean([quantity(run) for run in row]) for row in rows.values()],
            )
            if found is None:
                return None
            rho, p = found
            word = UNDECIDED if p >= ALPHA else SUPPORTED if (rho < 0 if falls else rho > 0) else CONTRADICTED
            effects.append(f"{REGISTRY[backbone].title} {rho:+.2f} ({in_p(p)})")
            parts.append(Verdict(word, "", "", p))
        word, p = together(parts)
        effect = f"rank correlation of {name} with trainable parameters: {', '.join(effects)}"
        return Verdict(word, effect, "Spearman's, in each network", p)

    return decide


def rank_correlation(x, y) -> tuple[float, float] | None:
    """Spearman's coefficient and its p, exact by all orders up to seven values; None where one side is constant."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    ranks = rankdata(x), rankdata(y)

    def together(order, axis=-1):
        return (order * ranks[1]).sum(axis=axis)  # the coefficient, but for constants

    result = permutation_test(
        (ranks[0],), together, permutation_type="pairings", n_resamples=10_000, vectorized=True, rng=0
    )
    return float(np.corrcoef(*ranks)[0, 1]), float(result.pvalue)


def together(parts: list[Verdict]) -> tuple[str, float]:
    """The verdict on a claim of several parts, and its p.

    Supported if all are: the largest p counts. Contradicted if one is, and
    stays so when corrected for their number (Bonferroni).
    """
    against = [len(parts) * part.p for part in parts if part.verdict == CONTRADICTED]
    if against and min(against) < ALPHA:
        return CONTRADICTED, min(against)
    return (
        SUPPORTED if all(part.verdict == SUPPORTED for part in parts) else UNDECIDED,
        max(part.p for part in parts),
    )


def all_of(*parts: Decide) -> Decide:
    """A claim of several parts, by `together`."""

    def decide(results):
        verdicts = [part(results) for part in parts]
        if None in verdicts:
            return None
        word, p = together(verdicts)
        tests = "; ".join(dict.fromkeys(verdict.test for verdict in verdicts))
        effects = "; ".join(f"{verdict.effect}: {verdict.verdict}" for verdict in verdicts)
        return Verdict(word, effects, f"each of: {tests}", p)

    return decide


def faster(first: Which, second: Which) -> Decide:
    """The first configurations take at most `FASTER` of the second's time for a single photo, by the compiled graph.

    The interval is of the ratio of medians over rounds, in which all had
    their turn. It is compared with how far configurations of one graph are
    apart: no smaller effect can be told from the machine's noise, and one
    graph is never shown to be faster than itself.
    """

    def decide(results):
        groups = [single_photo(results, which) for which in (first, second)]
        if not all(len(group) for group in groups):
            return None
        a, b = (np.median(group, axis=0) for group in groups)
        ratio, low, high = statistics.ratio_of_medians(a, b)
        word = SUPPORTED if high < FASTER else CONTRADICTED if low > FASTER else UNDECIDED
        noise = max((same_graph(results, backbone) for backbone in results.backbones), default=1.0)
        effect = (
            f"{np.median(a):.1f} against {np.median(b):.1f} ms a photo: {ratio:.2f} times as long "
            f"({low:.2f} to {high:.2f})"
        )
        test = f"bootstrap over rounds of the ratio, less than {FASTER:g}"
        hidden = high > 1 / noise if word == SUPPORTED else FASTER * noise > 1
        if word != UNDECIDED and hidden:
            word, test = UNDECIDED, f"{test}; configurations of the same graph differ by a factor of {noise:.2f}"
        return Verdict(word, effect, test)

    return decide


def single_photo(results: Results, which: Which) -> np.ndarray:
    """The compiled graph's milliseconds on single photos, (configurations, rounds), the control left out."""
    rows = [row for _, row in results.rows.iterrows() if not row["control"] and which(row)]
    calls = [results.calls(row, "graph", 1) for row in rows]
    return np.array([call for call in calls if call is not None])


def same_graph(results: Results, backbone: str) -> float:
    """How many times as long the slowest configuration of a network takes as its fastest, by medians; NaN unmeasured."""
    medians = results.backbones[backbone]["latency"]
    return float(medians.max() / medians.min())


def like_parameters(results: Results) -> Verdict | None:
    """Blocks against layers, each number of blocks with the layers that train about as many parameters."""
    pairs = []
    for rows in results.backbones.values():
        layers, blocks = (rows[rows["strategy"] == strategy] for strategy in ("layers", "blocks"))
        for _, row in blocks.iterrows():
            factors = np.exp(np.abs(np.log(layers["trainable_parameters"] / row["trainable_parameters"])))
            if len(factors) and factors.min() <= LIKE:
                pairs.append((row, layers.loc[factors.idxmin()]))
    if not pairs:
        return None
    # The same layers may be the like of several blocks: each row counts once.
    sides = [{row.name: row for row in side}.values() for side in zip(*pairs)]
    effect = statistics.difference(*([run for row in side for run in results.of_row(row)] for side in sides))
    names = ", ".join(f"{REGISTRY[b['backbone']].title} B-{b['amount']} with A-{a['amount']}" for b, a in pairs)
    return Verdict(SIGNED[effect.sign], f"{points(effect)}; {names}", f"{effect.test}, {in_p(effect.p)}", effect.p)


def range_of(which: Which, low: float, high: float) -> Decide:
    """Every configuration meant has an accuracy from `low` to `high`."""

    def decide(results):
        rows = pd.DataFrame([row for _, row in results.rows.iterrows() if not row["control"] and which(row)])
        if rows.empty:
            return None
        inside = (rows["test_low"] >= low) & (rows["test_high"] <= high)
        # That one of several is outside: with as many chances, a wider interval of each (Bonferroni).
        wide = [statistics.accuracy_interval(results.of_row(row), ALPHA / len(rows)) for _, row in rows.iterrows()]
        outside = pd.Series([ends[1] < low or ends[0] > high for ends in wide])
        word = SUPPORTED if inside.all() else CONTRADICTED if outside.any() else UNDECIDED
        effect = (
            f"{rows['test_accuracy'].min():.1%} to {rows['test_accuracy'].max():.1%}; "
            f"{outside.sum()} of {len(rows)} corrected intervals lie outside"
        )
        return Verdict(word, effect, f"every interval inside {100 * low:g} to {100 * high:g} %")

    return decide


def smaller(first: str, second: str) -> Decide:
    """One network has fewer parameters than the other: counted."""

    def decide(results):
        if not {first, second} <= set(results.backbones):
            return None
        counts = [results.backbones[name]["total_parameters"].iloc[0] for name in (first, second)]
        word = SUPPORTED if counts[0] < counts[1] else CONTRADICTED
        return Verdict(
            word, f"{counts[0]:,.0f} against {counts[1]:,.0f}: a factor of {counts[1] / counts[0]:.1f}", "counted"
        )

    return decide


def little_gain(results: Results) -> Verdict | None:
    """In each network the configuration with the most trainable parameters is within the margin of that with the fewest."""
    effects = {}
    for backbone, rows in results.backbones.items():
        tuned = rows[rows["strategy"] != "frozen"].sort_values("trainable_parameters")
        if len(tuned) > 1:
            ends = (results.of_row(tuned.iloc[end]) for end in (-1, 0))
            effects[REGISTRY[backbone].title] = statistics.difference(*ends)
    if not effects:
        return None
    verdict = alike(effects, results.margin)
    return replace(verdict, effect=f"accuracy of the most against the least unfrozen: {verdict.effect}")


def underfit(results: Results) -> Verdict | None:
    """With the fewest layers unfrozen, networks are less accurate than with more."""
    fewest, more = [], []
    for rows in results.backbones.values():
        tuned = rows[rows["strategy"] != "frozen"].sort_values("trainable_parameters")
        if len(tuned) > 1:
            fewest += results.of_row(tuned.iloc[0])
            more += [run for _, row in tuned.iloc[1:].iterrows() for run in results.of_row(row)]
    verdict = compared(more, fewest)
    return verdict and replace(verdict, effect=f"accuracy of all others against the least unfrozen {verdict.effect}")


@dataclass(frozen=True)
class Remaining:
    """How much of fine-tuning's gain remains against a base frozen for as many epochs.

    Attributes
    ----------
    over_short, over_control : Difference
        Fine-tuned configurations against the base frozen for the head's
        epochs, and against the control.
    share, low, high : float or None
        The second over the first, with its interval; None where the first is
        not shown to be a gain, since a share of nothing says nothing.
    """

    over_short: Difference
    over_control: Difference
    share: float | None
    low: float | None
    high: float | None


def remaining_gain(results: Results, backbone: str) -> Remaining | None:
    """What the control tells of a network; None where runs are missing."""
    sides = [select(results.runs, network(backbone, strategy)) for strategy in ("tuned", "frozen")]
    sides.append(controls(results.runs, network(backbone)))
    if not all(sides):
        return None
    over_short, over_control = (statistics.difference(sides[0], sides[number]) for number in (1, 2))
    if over_short.sign <= 0:
        return Remaining(over_short, over_control, None, None, None)
    gains = [statistics.resampled(sides, weights) for weights in ([1, -1, 0], [1, 0, -1])]
    shown = gains[0] > 0  # nearly all: it is shown to be a gain
    low, high = np.quantile(gains[1][shown] / gains[0][shown], [ALPHA / 2, 1 - ALPHA / 2])
    return Remaining(over_short, over_control, over_control.mean / over_short.mean, float(low), float(high))


def gains_over_control(results: Results) -> Verdict | None:
    """Fine-tuned runs are more accurate than those of the control, in each network."""
    parts = []
    for backbone in results.backbones:
        gain = remaining_gain(results, backbone)
        if gain is None:
            continue
        effect, before = gain.over_control, gain.over_short
        said = (
            f"{REGISTRY[backbone].title} {points(effect)} over the control, {points(before)} over the short frozen base"
        )
        parts.append(Verdict(SIGNED[effect.sign], said, f"{effect.test}, {in_p(effect.p)}", effect.p))
    if not parts:
        return None
    word, p = together(parts)
    tests = "; ".join(dict.fromkeys(part.test for part in parts))
    return Verdict(word, "; ".join(part.effect for part in parts), f"in each network: {tests}", p)


# ---- the original's own numbers -----------------------------------------------------------------


def own_accuracy(first: Which, second: Which) -> Own:
    """What the original's test accuracies are, as photos, and what could be told from them."""

    def log(original):
        sides = [original[[bool(which(row)) for row in original.itertuples()]] for which in (first, second)]
        photos = [(side["test_accuracy"] * ORIGINAL_PHOTOS).round().astype(int) for side in sides]
        text = f"{span(photos[0])} against {span(photos[1])} photos of {ORIGINAL_PHOTOS}"
        means = [counts.mean() for counts in photos]
        right = [round(mean) for mean in means]
        p = float(fisher_exact([right, [ORIGINAL_PHOTOS - count for count in right]]).pvalue)
        return f"{text}, {means[0] - means[1]:+.1f} on average; unpaired {in_p(p)}"

    return log


def own_latency(first: Which, second: Which) -> Own:
    """The original's milliseconds, and how far they are apart for one and the same graph."""

    def log(original):
        sides = [original[[bool(which(row)) for row in original.itertuples()]] for which in (first, second)]
        spans = [span(side["inference_ms_per_image"].round().astype(int)) for side in sides]
        same = original.groupby("backbone")["inference_ms_per_image"].agg(lambda ms: ms.max() / ms.min()).max()
        return f"{spans[0]} against {spans[1]} ms; but one and the same graph differs by a factor of {same:.1f} in it"

    return log


def own_rank(quantity: Callable[[pd.DataFrame], pd.Series], name: str) -> Own:
    """Rank correlations in the original's fine-tuned rows."""

    def log(original):
        texts = []
        for backbone, rows in original[original["strategy"] != "frozen"].groupby("backbone", sort=False):
            rho, p = rank_correlation(rows["trainable_parameters"].to_list(), quantity(rows).to_list())
            texts.append(f"{REGISTRY[backbone].title} {rho:+.2f} ({in_p(p)})")
        return f"rank correlation of {name}: {', '.join(texts)}"

    return log


def span(values: pd.Series) -> str:
    """The least and the largest of some numbers."""
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


# ---- the claims ---------------------------------------------------------------------------------


def _of_accuracy(id: str, words: str, where: str, first: Which, second: Which, matched=None) -> Claim:
    tests = more_accurate(first, second, matched), own_accuracy(first, second)
    return Claim(id, words, where, either(first, second), *tests)


def _of_latency(id: str, words: str, where: str, first: Which, second: Which) -> Claim:
    return Claim(id, words, where, either(first, second), faster(first, second), own_latency(first, second))


def _gap(run: Run) -> float:
    return run.record.train_accuracy - run.record.validation_accuracy


_RESNET, _MOBILENET = network("resnet50"), network("mobilenet")
_TEN, _TWO_TO_FOUR = network("resnet50", "blocks", 10), network("mobilenet", "blocks", 2, 4)
_LONGER = rises(lambda run: run.record.training_seconds.finetune, "fine-tuning time")
_LARGER = rises(lambda run: run.record.peak_memory_mb, "peak memory")

CLAIMS = (
    Claim(
        "mobilenet-size",
        "MobileNet has far fewer parameters than ResNet50.",
        "1, MobileNet",
        lambda e: False,  # any run tells
        smaller("mobilenet", "resnet50"),
    ),
    _of_accuracy(
        "resnet50-accuracy",
        "ResNet50 is more accurate than MobileNet.",
        "2, accuracy",
        _RESNET,
        _MOBILENET,
        lambda e: (e.strategy, e.amount),
    ),
    Claim(
        "resnet50-range",
        "Every configuration of ResNet50 lies around 92 to 93 % (here: from 91.5 to 93.5 %).",
        "2, accuracy",
        _RESNET,
        range_of(_RESNET, 0.915, 0.935),
        lambda original: (
            f"{span((original.loc[original['backbone'] == 'resnet50', 'test_accuracy'] * ORIGINAL_PHOTOS).round().astype(int))}"
            f" of {ORIGINAL_PHOTOS} photos; 92 % are {0.92 * ORIGINAL_PHOTOS:.0f}"
        ),
    ),
    _of_accuracy(
        "mobilenet-frozen",
        "The frozen MobileNet is a little below its fine-tuned forms.",
        "2, accuracy",
        network("mobilenet", "tuned"),
        network("mobilenet", "frozen"),
    ),
    _of_latency("mobilenet-latency", "MobileNet is faster at inference.", "2, inference speed", _MOBILENET, _RESNET),
    Claim(
        "mobilenet-training-time",
        "MobileNet trains faster.",
        "2, training time",
        fine_tuned,
        trains_faster,
    ),
    Claim(
        "mobilenet-memory",
        "MobileNet trains in less memory.",
        "2, memory",
        every,
        less_in_every_row("mobilenet", "resnet50", lambda run: run.record.peak_memory_mb, "MB", every),
    ),
    Claim(
        "resnet50-layers",
        "A fixed number of layers changes ResNet50's accuracy little.",
        "3, strategy A",
        either(network("resnet50", "layers"), network("resnet50", "frozen")),
        as_accurate(network("resnet50", "layers"), network("resnet50", "frozen")),
        own_accuracy(network("resnet50", "layers"), network("resnet50", "frozen")),
    ),
    _of_accuracy(
        "mobilenet-layers",
        "A fixed number of layers makes MobileNet worse than its frozen base.",
        "3, strategy A",
        network("mobilenet", "frozen"),
        network("mobilenet", "layers"),
    ),
    _of_accuracy(
        "resnet50-blocks",
        "Whole blocks make ResNet50 better than its frozen base.",
        "3, strategy B",
        network("resnet50", "blocks"),
        network("resnet50", "frozen"),
    ),
    _of_accuracy(
        "resnet50-blocks-layers",
        "Whole blocks do better than a fixed number of layers in ResNet50.",
        "3, strategy B",
        network("resnet50", "blocks"),
        network("resnet50", "layers"),
    ),
    _of_accuracy(
        "mobilenet-blocks-layers",
        "Whole blocks do better than a fixed number of layers in MobileNet.",
        "3, strategy B",
        network("mobilenet", "blocks"),
        network("mobilenet", "layers"),
    ),
    _of_accuracy(
        "blocks-layers",
        "Whole blocks do better than a fixed number of layers, both networks together.",
        "3, strategy B",
        lambda e: e.strategy == "blocks",
        lambda e: e.strategy == "layers",
        lambda e: e.backbone,
    ),
    Claim(
        "blocks-layers-like",
        "Whole blocks also do better at like numbers of trainable parameters.",
        "3, strategy B",
        fine_tuned,
        like_parameters,
    ),
    _of_latency(
        "resnet50-blocks-latency",
        "Unfreezing ten blocks makes ResNet50 faster at inference.",
        "3, strategy B",
        _TEN,
        network("resnet50", "frozen"),
    ),
    _of_latency(
        "mobilenet-blocks-latency",
        "Unfreezing blocks rather than layers makes MobileNet faster at inference.",
        "3, strategy B",
        network("mobilenet", "blocks"),
        network("mobilenet", "layers"),
    ),
    Claim(
        "underfitting",
        "Too little unfrozen underfits (the original expects it, and did not see it): a worse fit of the training photos, and less accuracy.",
        "3, too few",
        either(fine_tuned, lambda e: e.control),
        all_of(rises(lambda run: run.record.train_loss, "training loss", same_epochs=True, falls=True), underfit),
        own_rank(lambda rows: rows["train_loss"], "training loss"),
    ),
    Claim(
        "overfitting",
        "With too much unfrozen they overfit: training runs ahead of validation, and the validation loss rises.",
        "3, too many",
        fine_tuned,
        all_of(
            rises(_gap, "the gap of training to validation accuracy"),
            rises(lambda run: run.record.validation_loss, "validation loss"),
        ),
        own_rank(lambda rows: rows["train_accuracy"] - rows["validation_accuracy"], "the gap"),
    ),
    Claim(
        "cost",
        "Unfreezing more costs more time and memory for little accuracy.",
        "3, too many",
        fine_tuned,
        all_of(_LONGER, _LARGER, little_gain),
    ),
    Claim(
        "resnet50-best",
        "Ten blocks are best for ResNet50: better than each other configuration.",
        "4, ResNet50",
        _RESNET,
        best_of(_TEN, _RESNET),
        own_accuracy(_TEN, apart_from(_TEN, _RESNET)),
    ),
    Claim(
        "mobilenet-best",
        "Two to four blocks are best for MobileNet: better than each other configuration.",
        "4, MobileNet",
        _MOBILENET,
        best_of(_TWO_TO_FOUR, _MOBILENET),
        own_accuracy(_TWO_TO_FOUR, apart_from(_TWO_TO_FOUR, _MOBILENET)),
    ),
    _of_latency(
        "mobilenet-best-latency",
        "Two to four blocks keep MobileNet faster at inference than ten do.",
        "4, MobileNet",
        _TWO_TO_FOUR,
        network("mobilenet", "blocks", 10),
    ),
    Claim(
        "control",
        "Fine-tuning gains over a base that stays frozen for as many epochs.",
        "",
        every,
        gains_over_control,
    ),
)


def decide(results: Results) -> dict[str, Verdict]:
    """The verdict on every claim, by its id."""
    missing = Verdict(UNDECIDED, "the runs or measurements that it needs are missing", "none")
    return {claim.id: claim.decide(results) or missing for claim in CLAIMS}


def table(results: Results, verdicts: dict[str, Verdict]) -> pd.DataFrame:
    """Every claim with its verdict, a row each; an asterisk where the verdict stands when all are corrected."""
    own = [claim.own(results.original) if claim.own and results.original is not None else "" for claim in CLAIMS]
    standing = stand(verdicts)
    return pd.DataFrame(
        [
            {
                "Claim": f"{claim.words}\n({claim.where or 'added: the original has no such control'})",
                "Verdict": verdicts[claim.id].verdict + "*" * (claim.id in standing),
                "Effect and test": verdicts[claim.id].effect.replace("; ", "\n")
                + f"\n({verdicts[claim.id].test})"
                + without(results, claim),
                "The original's own numbers": said or "none given",
            }
            for claim, said in zip(CLAIMS, own)
        ]
    )


def without(results: Results, claim: Claim) -> str:
    """The runs that a claim speaks of and that are missing, on a line of their own."""
    lacking = [job.experiment for job in results.missing if claim.about(job.experiment)]
    names = [
        f"{REGISTRY[e.backbone].title} {'control' if e.control else short(e.strategy, e.amount)} (seed {e.seed})"
        for e in lacking
    ]
    return f"\nwithout {', '.join(names)}" if names else ""


NOTES = (
    "* The verdict also stands when all that rest on a p value are corrected as one family (Holm), or rests on none.",
    "Effects have 95 % intervals, not corrected. An accuracy is decided where test and interval agree. Against the control: against a base frozen for as many "
    "epochs, where the original compares with one that trained for fewer. The control goes on at the head's learning rate, and its optimiser as it is; what is unfrozen "
    "goes on at a rate of its own, with the optimiser begun afresh.",
    "The original's predictions are not given. Its accuracies are photos of 367 in all; how many differ one way and the other is not known. They "
    "are compared as if tested on other photos (unpaired, Fisher's exact test).",
)


def stand(verdicts: dict[str, Verdict]) -> list[str]:
    """The ids of the verdicts that hold when all tests of claims are corrected as one family (Holm, 1979)."""
    tested = {id: verdict.p for id, verdict in verdicts.items() if verdict.p is not None}
    corrected = dict(zip(tested, statistics.holm(list(tested.values()))))
    return [id for id, verdict in verdicts.items() if verdict.verdict != UNDECIDED and corrected.get(id, 0) < ALPHA]


def points(effect: Difference) -> str:
    """A difference with its interval, in points."""
    mean, low, high = (round(100 * value, 1) + 0.0 for value in (effect.mean, effect.low, effect.high))  # no -0.0
    return f"{mean:+.1f} points ({low:+.1f} to {high:+.1f})"


def in_p(p: float) -> str:
    """A p value."""
    return "p < 0.001" if p < 0.0005 else "p > 0.999" if p > 0.9995 else f"p = {p:.3f}"
