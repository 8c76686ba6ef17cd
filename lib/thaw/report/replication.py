"""The claims that a profile names, with the verdicts of its study and the numbers of their source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd
from scipy.stats import fisher_exact

from thaw.report import statistics
from thaw.report.notation import p_value
from thaw.report.statistics import ALPHA
from thaw.report.verdicts import UNDECIDED, Verdict, judge
from thaw.study.claims import COLUMNS, QUANTITIES, Claim, Claims, Selection, Test

if TYPE_CHECKING:  # results hold their replication
    from thaw.report.results import Results

NOTES = (
    "* The verdict also holds when all that rest on a p value are corrected as one family (Holm), or it rests on none.",
    "Effects have 95 % intervals, not corrected. An accuracy is decided where test and interval agree. The control is "
    "a frozen base whose head trains for as many epochs as the fine-tuned configurations. It continues at the head's "
    "learning rate, with the same optimizer. What is unfrozen continues at its own rate, with a new optimizer.",
)


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
        missing = Verdict(UNDECIDED, "the runs or measurements that it needs are missing", "none")
        return {claim.id: judge(claim.test, self.results) or missing for claim in self.claims.claims}

    @cached_property
    def standing(self) -> list[str]:
        """The ids of the verdicts that also hold when all p values are corrected as one family (Holm, 1979)."""
        tested = {id: verdict.p for id, verdict in self.verdicts.items() if verdict.p is not None}
        p = dict(zip(tested, statistics.holm(list(tested.values()))))
        return [id for id, verdict in self.verdicts.items() if verdict.word != UNDECIDED and p.get(id, 0) < ALPHA]

    @property
    def notes(self) -> tuple[str, ...]:
        """What goes below `claims_table`."""
        return NOTES + self.claims.notes

    def row_of(self, row: pd.Series) -> pd.Series | None:
        """Return the source's own row of a configuration, if it has one; a control has none."""
        if self.original is None or row["control"] or not row["plain"]:
            return None
        names = ["backbone", "strategy", "amount"]
        match = self.original[(self.original[names] == row[names].to_list()).all(axis=1)]
        return match.iloc[0] if len(match) else None

    def claims_table(self) -> pd.DataFrame:
        """Return a row for each claim; an asterisk marks the verdicts in `standing`."""
        own, rows = f"{self.called[0].upper()}{self.called[1:]}'s own numbers", []
        for claim in self.claims.claims:
            verdict = self.verdicts[claim.id]
            effect = verdict.effect.replace("; ", "\n")
            row = {
                "Claim": f"{claim.words}\n({claim.where})" if claim.where else claim.words,
                "Verdict": verdict.word + "*" * (claim.id in self.standing),
                "Effect and test": f"{effect}\n({verdict.test}){self._without(claim)}",
            }
            if self.original is not None:
                row[own] = self.own(claim.test) or "none given"
            rows.append(row)
        return pd.DataFrame(rows)

    def _without(self, claim: Claim) -> str:
        """Name the missing runs that a claim depends on, on a line of their own."""
        lacking = [job.experiment for job in self.results.missing if claim.test.covers(job.experiment)]
        names = [f"{self.results.title(e.backbone)} {e.short} (seed {e.seed})" for e in lacking]
        return f"\nwithout {', '.join(names)}" if names else ""

    def own(self, test: Test) -> str:
        """Say what the source's own table tells of a test; nothing where it does not have such numbers."""
        first, second = self._select(test.first), self._select(test.second)
        match test.name:
            case "more accurate" | "within margin":
                return self._accuracies(first, second)
            case "best of":
                return self._accuracies(first, self._select(test.among).drop(index=first.index, errors="ignore"))
            case "accuracy in range" if len(first):
                photos = self.claims.test_photos or 0
                return f"{_span(self._photos(first))} of {photos} photos; {test.low:.1%} are {test.low * photos:.0f}"
            case "faster":
                return self._latencies(first, second)
            case "rises with trainable parameters" | "falls with trainable parameters":
                return self._correlation(test.quantity)
            case "all of":
                return "\n".join(text for text in map(self.own, test.parts) if text)
        return ""

    def _select(self, side: Selection) -> pd.DataFrame:
        return pd.DataFrame(columns=COLUMNS) if self.original is None else side.rows(self.original)

    def _photos(self, rows: pd.DataFrame) -> pd.Series:
        """Return test accuracies as numbers of photos."""
        return (rows["test_accuracy"] * (self.claims.test_photos or 0)).round().astype(int)

    def _accuracies(self, first: pd.DataFrame, second: pd.DataFrame) -> str:
        """Compare accuracies as numbers of photos; the test is unpaired, since the predictions are not known."""
        if first.empty or second.empty:
            return ""
        counts, total = [self._photos(side) for side in (first, second)], self.claims.test_photos or 0
        means = [count.mean() for count in counts]
        right = [round(mean) for mean in means]
        p = float(fisher_exact([right, [total - count for count in right]]).pvalue)
        text = f"{_span(counts[0])} against {_span(counts[1])} photos of {total}"
        return f"{text}, {means[0] - means[1]:+.1f} on average; unpaired {p_value(p)}"

    def _latencies(self, first: pd.DataFrame, second: pd.DataFrame) -> str:
        """Compare latencies, and say how far those of one network are apart: they are of the same graph."""
        if first.empty or second.empty:
            return ""
        spans = [_span(side["inference_ms_per_image"].round().astype(int)) for side in (first, second)]
        of_network = self._select(Selection()).groupby("backbone")["inference_ms_per_image"]
        factor = (of_network.max() / of_network.min()).max()
        return f"{spans[0]} against {spans[1]} ms; but its times for the same graph differ by a factor of {factor:.1f}"

    def _correlation(self, name: str) -> str:
        """Correlate a quantity with trainable parameters, over the fine-tuned rows of each network."""
        quantity, texts = QUANTITIES[name], []
        rows = self._select(Selection(strategy=("layers", "blocks")))
        for backbone, tuned in rows.groupby("backbone", sort=False) if quantity.in_table else ():
            found = statistics.rank_correlation(tuned["trainable_parameters"].to_list(), quantity.of(tuned).to_list())
            if found:
                texts.append(f"{self.results.title(backbone)} {found[0]:+.2f} ({p_value(found[1])})")
        return f"rank correlation of the {name}: {', '.join(texts)}" if texts else ""


def _span(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"
