"""The original's claims, each with the test that decides it."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from scipy.stats import binomtest, spearmanr

from thaw.backbones import REGISTRY
from thaw.experiment import Experiment
from thaw.record import Run
from thaw.statistics import ALPHA, difference

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "not decided"
MARGIN = 0.02  # accuracies closer than this count as no difference


@dataclass(frozen=True)
class Verdict:
    """What the numbers say of a claim: a word, the effect with its interval, and the test."""

    verdict: str
    effect: str
    test: str


@dataclass(frozen=True)
class Claim:
    """Something the original says that a number can decide.

    Attributes
    ----------
    id : str
    words : str
        The claim in our words.
    where : str
        The original's section.
    decide : callable
        From the runs to a `Verdict`; None where the runs it needs are missing.
    """

    id: str
    words: str
    where: str
    decide: Callable[[list[Run]], Verdict | None]


Which = Callable[[Experiment], bool]


def select(runs: list[Run], which: Which) -> list[Run]:
    """The runs whose experiments are meant, the control left out."""
    return [run for run in runs if not run.record.experiment.control and which(run.record.experiment)]


def more_accurate(
    first: Which, second: Which, matched: Callable[[Experiment], object] | None = None
) -> Callable[[list[Run]], Verdict | None]:
    """The first runs are more accurate than the second.

    With `matched`, only runs for which it gives what it also gives on the
    other side: so that like is compared with like in a part of a study.
    """
    return lambda runs: _more_accurate(select(runs, first), select(runs, second), matched)


def as_accurate(first: Which, second: Which) -> Callable[[list[Run]], Verdict | None]:
    """Each of the first configurations differs from the second by less than the margin, either way."""

    def decide(runs):
        groups: dict[tuple, list[pd.DataFrame]] = {}
        for run in select(runs, first):
            experiment = run.record.experiment
            groups.setdefault((experiment.strategy, experiment.amount), []).append(run.predictions)
        others = [run.predictions for run in select(runs, second)]
        if not groups or not others:
            return None
        effects = [difference(group, others) for group in groups.values()]
        # None in n photos leaves up to 3/n possible (the rule of three): too few photos show nothing.
        enough = all(effect.photos * MARGIN >= 3 for effect in effects)
        inside = enough and all(-MARGIN < effect.low and effect.high < MARGIN for effect in effects)
        outside = any(effect.low > MARGIN or effect.high < -MARGIN for effect in effects)
        word = SUPPORTED if inside else CONTRADICTED if outside else UNDECIDED
        test = f"intervals within ±{100 * MARGIN:.0f} points (bootstrap over test photos)"
        return Verdict(word, "; ".join(map(_points, effects)), test)

    return decide


def smaller_in_every_row(quantity: Callable[[Run], float], unit: str) -> Callable[[list[Run]], Verdict | None]:
    """MobileNet needs less of something than ResNet50, configuration by configuration."""

    def decide(runs):
        values: dict[tuple, dict[str, list[float]]] = {}
        for run in runs:
            experiment = run.record.experiment
            row = values.setdefault((experiment.strategy, experiment.amount, experiment.epochs), {})
            row.setdefault(experiment.backbone, []).append(quantity(run))
        pairs = [
            (_mean(row["mobilenet"]), _mean(row["resnet50"]))
            for row in values.values()
            if {"mobilenet", "resnet50"} <= set(row)
        ]
        if not pairs:
            return None
        wins, losses = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
        p = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        word = UNDECIDED if p >= ALPHA else SUPPORTED if wins > losses else CONTRADICTED
        mobilenet, resnet50 = (_mean([pair[i] for pair in pairs]) for i in (0, 1))
        effect = (
            f"{mobilenet:,.1f} against {resnet50:,.1f} {unit} on average, less in {wins} of {len(pairs)} configurations"
        )
        return Verdict(word, effect, f"sign test, {_p(p)}")

    return decide


def grows_with_unfreezing(quantity: Callable[[Run], float], name: str) -> Callable[[list[Run]], Verdict | None]:
    """Something grows with the number of parameters that train, in each network."""

    def decide(runs):
        words, effects = set(), []
        for backbone in sorted({run.record.experiment.backbone for run in runs}):
            rows: dict[tuple, list[Run]] = {}
            for run in select(runs, lambda e, name=backbone: e.backbone == name and e.strategy != "frozen"):
                rows.setdefault((run.record.experiment.strategy, run.record.experiment.amount), []).append(run)
            if len(rows) < 4:
                return None
            result = spearmanr(
                [row[0].record.trainable_parameters for row in rows.values()],
                [_mean([quantity(run) for run in row]) for row in rows.values()],
            )
            if result.statistic != result.statistic:  # a constant: no order at all
                return None
            decided = result.pvalue < ALPHA
            words.add(UNDECIDED if not decided else SUPPORTED if result.statistic > 0 else CONTRADICTED)
            effects.append(f"{REGISTRY[backbone].title} {result.statistic:+.2f} ({_p(result.pvalue)})")
        word = words.pop() if len(words) == 1 else UNDECIDED
        return Verdict(
            word,
            f"rank correlation of {name} with trainable parameters: " + ", ".join(effects),
            "Spearman's, over the fine-tuned configurations",
        )

    return decide


def faster_graph(first: Which, second: Which) -> Callable[[list[Run]], Verdict | None]:
    """The first runs' single-photo latency is below the second's, quartiles apart."""

    def decide(runs):
        a, b = ([run.record.inference_ms_per_image for run in select(runs, which)] for which in (first, second))
        if not a or not b:
            return None
        below = max(q.q3 for q in a) < min(q.q1 for q in b)
        above = min(q.q1 for q in a) > max(q.q3 for q in b)
        word = SUPPORTED if below else CONTRADICTED if above else UNDECIDED
        effect = f"medians {_range(a)} against {_range(b)} ms a photo"
        return Verdict(word, effect, "quartiles of every run apart")

    return decide


def gains_over_control(runs: list[Run]) -> Verdict | None:
    """Fine-tuned runs are more accurate than those of the control."""
    control = [run for run in runs if run.record.experiment.control]
    tuned = select(runs, lambda e: e.strategy != "frozen")
    return _more_accurate(tuned, control, lambda e: e.backbone)


def _among(backbone: str, *amounts: int, others: bool = False) -> Which:
    """The fine-tuned runs with so many blocks, or all the others."""
    return lambda e: (
        e.backbone == backbone and e.strategy != "frozen" and (e.strategy == "blocks" and e.amount in amounts) != others
    )


CLAIMS = (
    Claim(
        "resnet50-accuracy",
        "ResNet50 is more accurate than MobileNet.",
        "2, accuracy",
        more_accurate(
            lambda e: e.backbone == "resnet50",
            lambda e: e.backbone == "mobilenet",
            matched=lambda e: (e.strategy, e.amount),
        ),
    ),
    Claim(
        "mobilenet-latency",
        "MobileNet is faster at inference.",
        "2, inference speed",
        faster_graph(lambda e: e.backbone == "mobilenet", lambda e: e.backbone == "resnet50"),
    ),
    Claim(
        "mobilenet-training-time",
        "MobileNet trains faster.",
        "2, training time",
        smaller_in_every_row(lambda run: run.record.training_seconds.total, "s"),
    ),
    Claim(
        "mobilenet-memory",
        "MobileNet trains in less memory.",
        "2, memory",
        smaller_in_every_row(lambda run: run.record.peak_memory_mb, "MB"),
    ),
    Claim(
        "resnet50-layers",
        "A fixed number of layers changes ResNet50's accuracy little.",
        "3, strategy A",
        as_accurate(
            lambda e: (e.backbone, e.strategy) == ("resnet50", "layers"),
            lambda e: (e.backbone, e.strategy) == ("resnet50", "frozen"),
        ),
    ),
    Claim(
        "mobilenet-layers",
        "A fixed number of layers makes MobileNet worse than its frozen base.",
        "3, strategy A",
        more_accurate(
            lambda e: (e.backbone, e.strategy) == ("mobilenet", "frozen"),
            lambda e: (e.backbone, e.strategy) == ("mobilenet", "layers"),
        ),
    ),
    Claim(
        "blocks-layers",
        "Whole blocks do better than a fixed number of layers.",
        "3, strategy B",
        more_accurate(lambda e: e.strategy == "blocks", lambda e: e.strategy == "layers", matched=lambda e: e.backbone),
    ),
    Claim(
        "mobilenet-frozen",
        "Fine-tuned by blocks, MobileNet is better than frozen.",
        "2, accuracy",
        more_accurate(
            lambda e: (e.backbone, e.strategy) == ("mobilenet", "blocks"),
            lambda e: (e.backbone, e.strategy) == ("mobilenet", "frozen"),
        ),
    ),
    Claim(
        "resnet50-best",
        "Ten blocks are best for ResNet50: better than its other fine-tuned forms.",
        "4, ResNet50",
        more_accurate(_among("resnet50", 10), _among("resnet50", 10, others=True)),
    ),
    Claim(
        "mobilenet-best",
        "Two to four blocks are best for MobileNet: better than its other fine-tuned forms.",
        "4, MobileNet",
        more_accurate(_among("mobilenet", 2, 4), _among("mobilenet", 2, 4, others=True)),
    ),
    Claim(
        "resnet50-blocks-latency",
        "Unfreezing ten blocks makes ResNet50 faster at inference than leaving it frozen.",
        "3, strategy B",
        faster_graph(_among("resnet50", 10), lambda e: (e.backbone, e.strategy) == ("resnet50", "frozen")),
    ),
    Claim(
        "overfitting",
        "The more is unfrozen, the more the network overfits.",
        "3, too many",
        grows_with_unfreezing(
            lambda run: run.record.train_accuracy - run.record.validation_accuracy,
            "the gap of training to validation accuracy",
        ),
    ),
    Claim(
        "training-cost",
        "The more is unfrozen, the longer training takes.",
        "3, too many",
        grows_with_unfreezing(lambda run: run.record.training_seconds.finetune, "fine-tuning time"),
    ),
    Claim(
        "control",
        "Fine-tuning gains over a base that stays frozen for as many epochs (a control that the original lacks).",
        "added",
        gains_over_control,
    ),
)


def table(runs: list[Run]) -> pd.DataFrame:
    """Every claim with its verdict, a row each."""
    rows = []
    for claim in CLAIMS:
        verdict = claim.decide(runs) or Verdict(UNDECIDED, "the runs that it needs are missing", "none")
        rows.append(
            {
                "Claim": claim.words,
                "Original": claim.where,
                "Verdict": verdict.verdict,
                "Effect": verdict.effect,
                "Test": verdict.test,
            }
        )
    return pd.DataFrame(rows)


def _more_accurate(
    first: list[Run], second: list[Run], matched: Callable[[Experiment], object] | None = None
) -> Verdict | None:
    if matched:
        both = {matched(run.record.experiment) for run in first} & {matched(run.record.experiment) for run in second}
        first, second = ([run for run in runs if matched(run.record.experiment) in both] for runs in (first, second))
    if not first or not second:
        return None
    effect = difference(*([run.predictions for run in runs] for runs in (first, second)))
    word = {1: SUPPORTED, -1: CONTRADICTED, 0: UNDECIDED}[effect.sign]
    return Verdict(word, _points(effect), f"bootstrap over test photos and sign-flip test, {_p(effect.p)}")


def _points(effect) -> str:
    return f"{100 * effect.mean:+.1f} points ({100 * effect.low:+.1f} to {100 * effect.high:+.1f})"


def _range(quartiles) -> str:
    low, high = min(q.median for q in quartiles), max(q.median for q in quartiles)
    return f"{low:.1f} to {high:.1f}" if high - low >= 0.05 else f"{low:.1f}"


def _p(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"


def _mean(values) -> float:
    return sum(values) / len(values)
