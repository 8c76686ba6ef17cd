"""The claims that a profile names, with the verdicts of its study and the numbers of their source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd
from statsmodels.stats.proportion import confint_proportions_2indep

from thaw.report import statistics
from thaw.report.notation import capital, times
from thaw.report.statistics import ALPHA
from thaw.report.verdicts import ALIKE, HOLDS, IMPOSSIBLE, LONGER, MISSING, REFUTED, TOO_CLOSE, Verdict, judge
from thaw.study.claims import COLUMNS, QUANTITIES, Claim, Claims, Selection, Test

if TYPE_CHECKING:  # results hold their replication
    from thaw.report.results import Results

DIRECTION = "Differences are in the claim's direction: positive is as the claim says. In brackets is the 95% interval."
CONTROL = "The control is a frozen base whose head trains for as many epochs as the fine-tuned configurations."
OF_FOLDS = (
    "* The verdict stands when all tested verdicts are corrected as one family (Holm, 1979). What is counted has no "
    "star."
)
OF_SEEDS = (
    "* The verdict stands when all tested verdicts on several seeds are corrected as one family (Holm). What rests on "
    "one seed speaks of these runs only, and has no star; nor has what is counted."
)

COUNTED = {
    HOLDS: ("holds", "hold"),
    REFUTED: ("is refuted", "are refuted"),
    ALIKE: ("shows no difference that matters", "show no difference that matters"),
    IMPOSSIBLE: ("is impossible", "are impossible"),
    TOO_CLOSE: ("is too close to call", "are too close to call"),
    MISSING: ("was not measured", "were not measured"),
}


@dataclass(frozen=True, eq=False)
class Replication:
    """Claims, the verdicts of a study, and the numbers of the claims' source.

    Attributes
    ----------
    claims : Claims
        With ``title``, ``called``, ``about``, ``conditions``,
        ``dataset_title`` and ``notes`` for the report's texts.
    results : Results
    """

    claims: Claims
    results: Results

    @property
    def called(self) -> str:
        """How sentences name the claims' source."""
        return self.claims.called or "the source"

    @property
    def original(self) -> pd.DataFrame | None:
        """The source's own table of results; None if it has none."""
        return self.claims.results

    @property
    def same_data(self) -> bool:
        """Whether this study's data set is the one that the claims are about."""
        return self.claims.dataset in ("", self.results.data["dataset"])

    @property
    def stated(self) -> list[Claim]:
        """The claims that the source makes: all but those that were added."""
        return [claim for claim in self.claims.claims if not claim.added]

    @property
    def added(self) -> list[Claim]:
        """The claims that the source does not make."""
        return [claim for claim in self.claims.claims if claim.added]

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict on each claim, by its id."""
        missing = Verdict(MISSING, "", "The runs or measurements that it needs are missing.")
        return {claim.id: judge(claim.test, self.results) or missing for claim in self.claims.claims}

    def counted(self, *words: str) -> str:
        """Say how many of the stated claims have each of these verdicts, or each at all: '7 hold and 3 are refuted'.

        What no claim has is left out, and so is the number of a single claim.
        """
        found = Counter(self.verdicts[claim.id].word for claim in self.stated)
        said = [
            f"{f'{found[word]} ' * (len(self.stated) > 1)}{one if found[word] == 1 else many}"
            for word, (one, many) in COUNTED.items()
            if found[word] and word in (words or COUNTED)
        ]
        return " and ".join(filter(None, (", ".join(said[:-1]), *said[-1:])))

    @cached_property
    def standing(self) -> list[str]:
        """The ids of the verdicts that stand when all p values are corrected as one family (Holm, 1979).

        The verdicts that were counted, or that rest on one seed, have no part in it.
        """
        p = {id: v.p for id, v in self.verdicts.items() if v.p is not None and not v.these_runs}
        corrected = dict(zip(p, statistics.holm(list(p.values()))))
        return [id for id, each in corrected.items() if each < ALPHA and self.verdicts[id].word != TOO_CLOSE]

    @property
    def notes(self) -> tuple[str, ...]:
        """What goes below `claims_table`."""
        about = f"{DIRECTION} {CONTROL}" if self.results.rows["control"].any() else DIRECTION
        if any(claim.where for claim in self.claims.claims):
            about += f" In brackets after a claim: {f'where {self.called} says it' if self.called else 'who says it'}."
        return about, OF_FOLDS if self.results.has_folds else OF_SEEDS, *self.claims.notes

    def row_of(self, row: pd.Series) -> pd.Series | None:
        """Return the source's own row of a configuration, if it has one; a control has none."""
        if self.original is None or row["control"] or not row["plain"]:
            return None
        names = ["backbone", "strategy", "amount"]
        match = self.original[(self.original[names] == row[names].to_list()).all(axis=1)]
        return match.iloc[0] if len(match) else None

    def claims_table(self) -> pd.DataFrame:
        """Return a row for each claim; an asterisk marks the verdicts in `standing`."""
        theirs, rows = f"{self.called[0].upper()}{self.called[1:]}", []
        for claim in self.claims.claims:
            verdict = self.verdicts[claim.id]
            row = {
                "Claim": f"{claim.words}\n({claim.where})" if claim.where else claim.words,
                "Verdict": verdict.word + "*" * (claim.id in self.standing) + "\nthese runs only" * verdict.these_runs,
                "This study": "\n".join([*_lines(verdict), *self._without(claim)]),
            }
            if self.original is not None:
                row[theirs] = self.own(claim.test) or "no figures"
            rows.append(row)
        return pd.DataFrame(rows)

    def _without(self, claim: Claim) -> list[str]:
        """Name the missing runs that a claim depends on, in a line of its own."""
        lacking = [job.experiment for job in self.results.missing if claim.test.covers(job.experiment)]
        names = [
            f"{self.results.title(e.backbone)} {e.short}" + ("" if e.folds else f" (seed {e.seed})") for e in lacking
        ]
        return [f"Without {', '.join(names)}."] if names else []

    def own(self, test: Test) -> str:
        """Say what the source's own table tells of a test, on the scale of `Verdict.effect`; nothing if it does not."""
        first, second = self._select(test.first), self._select(test.second)
        match test.name:
            case "more accurate" | "within margin":
                return self._accuracies(first, second)
            case "best of":
                others = self._select(test.among).drop(index=first.index, errors="ignore")
                return self._accuracies(first, others.nlargest(1, "test_accuracy"), " from the strongest of the others")
            case "more accurate at like parameters":
                sides = [pd.DataFrame(list(side)) for side in zip(*statistics.like_pairs(first, second, test.factor))]
                return self._accuracies(*(side[~side.index.duplicated()] for side in sides)) if sides else ""
            case "most within margin of least":
                return self._ends(self._accuracies)
            case "more accurate than the least unfrozen":
                least = pd.concat([rows.iloc[:1] for _, rows in self._by_size()] or [first.iloc[:0]])
                return self._accuracies(self._tuned().drop(index=least.index), least)
            case "accuracy in range" if len(first):
                return f"{first['test_accuracy'].min():.1%} to {first['test_accuracy'].max():.1%}"
            case "faster" if len(first) and len(second):
                return self._latencies(first, second)
            case "rises with trainable parameters" | "falls with trainable parameters":
                return self._trend(test.quantity, -1 if test.name.startswith("falls") else 1)
            case "all of":
                texts = [(part.words, self.own(part)) for part in test.parts]
                return "\n".join(f"{words}: {text}" if words else text for words, text in texts if text)
        return ""

    def _select(self, side: Selection) -> pd.DataFrame:
        return pd.DataFrame(columns=COLUMNS) if self.original is None else side.rows(self.original)

    def _tuned(self) -> pd.DataFrame:
        return self._select(Selection(strategy=("layers", "blocks")))

    def _by_size(self) -> list[tuple[str, pd.DataFrame]]:
        """Return the fine-tuned rows of each network, by trainable parameters."""
        groups = self._tuned().groupby("backbone", sort=False)
        return [(str(name), rows.sort_values("trainable_parameters")) for name, rows in groups if len(rows) > 1]

    def _ends(self, write: Callable[[pd.DataFrame, pd.DataFrame], str]) -> str:
        """Write of each network how the most unfrozen differs from the least."""
        return "\n".join(
            f"{self.results.title(name)}: {write(rows.iloc[-1:], rows.iloc[:1])}" for name, rows in self._by_size()
        )

    def _accuracies(self, first: pd.DataFrame, second: pd.DataFrame, after: str = "") -> str:
        """Compare mean accuracies, unpaired: the predictions are not known (Agresti and Caffo, 2000)."""
        if first.empty or second.empty or not self.claims.test_photos:
            return ""
        total, means = self.claims.test_photos, [side["test_accuracy"].mean() for side in (first, second)]
        counts = (means[0] * total, total, means[1] * total, total)
        low, high = confint_proportions_2indep(*counts, method="agresti-caffo", compare="diff", alpha=ALPHA)
        mean, low, high = (f"{100 * value:+z.1f}" for value in (means[0] - means[1], low, high))
        return f"{mean} points ({low} to {high}){after}"

    def _latencies(self, first: pd.DataFrame, second: pd.DataFrame) -> str:
        """Compare median latencies."""
        ms = [side["inference_ms_per_image"].median() for side in (first, second)]
        return f"{LONGER} {times(ms[1] / ms[0])} times as long: {ms[1]:.1f} against {ms[0]:.1f} ms a photo"

    def _trend(self, name: str, claimed: int) -> str:
        """Say how a quantity changes from the least to the most unfrozen in each network."""
        quantity = QUANTITIES[name]
        factor, digits = (100 * claimed, "+z.1f") if quantity.unit == "points" else (claimed, "+.3f")

        def change(most: pd.DataFrame, least: pd.DataFrame) -> str:
            value = factor * float(quantity.of(most.iloc[0]) - quantity.of(least.iloc[0]))
            return f"{name} {value:{digits}} {quantity.unit}".rstrip()

        return self._ends(change) if quantity.in_table else ""


def _lines(verdict: Verdict) -> list[str]:
    """Write what decided a verdict: of each part its word, its figures and why."""
    if not verdict.parts:
        return [capital(text) for text in (*verdict.effect.split("; "), verdict.why) if text]
    lines = []
    for name, part in verdict.parts:
        word = f"{part.word}; {part.found} would have been found" if part.found else part.word
        line = f"{name}: {part.effect}: {word}{' (these runs)' * part.these_runs}".removeprefix(": ")
        lines.append(f"{line}. {part.though}" if part.though else line)
    return [*lines, verdict.why]
