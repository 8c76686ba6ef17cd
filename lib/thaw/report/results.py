"""The results of a study: everything that words, verdicts and figures are made from."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from thaw.errors import InvalidRecord
from thaw.experiment import Experiment
from thaw.records.runs import Run
from thaw.report import statistics
from thaw.report.replication import Replication
from thaw.report.statistics import CONFIGURATION, Difference, Remaining
from thaw.study import search
from thaw.study.claims import Claims, Selection
from thaw.study.study import Job, Study


@dataclass(frozen=True, eq=False)
class Results:
    """The finished runs of a study, and what follows from them.

    Attributes
    ----------
    runs : list of Run
    latency : DataFrame or None
        As `thaw.study.latency.measure` returns it; None where it was not measured.
    margin : float
        A difference of accuracy that would not matter.
    planned : int
        How many runs the whole study has.
    missing : dict of Job to str
        Why a job has no run: it failed, or diverged.
    search : DataFrame or None
        As `thaw.study.search.table` returns it; None where there is no search,
        or no run of it is finished.
    claims : Claims or None
        What the profile claims; None where it names no claims.
    """

    runs: list[Run]
    latency: pd.DataFrame | None = None
    margin: float = 0.02
    planned: int = 0
    missing: Mapping[Job, str] = field(default_factory=dict)
    search: pd.DataFrame | None = None
    claims: Claims | None = None

    @classmethod
    def of(cls, study: Study) -> Results:
        """Read what a study has left on disk.

        Raises
        ------
        InvalidRecord
            As `Study.outcomes` does.
        """
        finished, missing = study.outcomes()
        measured = study.outputs / "latency.csv"
        found = None
        if searched := search.of(study):
            with contextlib.suppress(InvalidRecord):  # the search's records are not part of this study
                found = search.table(searched)
        latency = pd.read_csv(measured) if measured.is_file() else None
        runs = list(finished.values())
        return cls(runs, latency, study.margin, len(study.jobs), missing, found, study.claims)

    @cached_property
    def replication(self) -> Replication | None:
        """The claims with their verdicts; None where the profile names no claims."""
        return Replication(self.claims, self) if self.claims else None

    @property
    def experiment(self) -> Experiment:
        """The first run's experiment, for what all runs share: data set, photo size, number of photos."""
        return self.runs[0].record.experiment

    @property
    def data(self) -> dict[str, Any]:
        """The data's provenance, with its ``sha256``."""
        return dict(self.runs[0].record.data)

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return [name.removeprefix("p_") for name in self.runs[0].predictions.columns if name.startswith("p_")]

    @cached_property
    def titles(self) -> dict[str, str]:
        """What the report calls each network, in the order of the runs."""
        return {run.record.experiment.backbone: run.record.network["title"] for run in self.runs}

    def title(self, backbone: str) -> str:
        """Return what the report calls a network; its name where it has no run."""
        return self.titles.get(backbone, backbone)

    @property
    def seeds(self) -> str:
        """How many seeds the configurations were run with, in words; by network where these differ."""
        words = {}
        for name, rows in self.backbones.items():
            few, most = rows["seeds"].min(), rows["seeds"].max()
            words[name] = f"{few} to {most} seeds" if few < most else f"{most} seed{'s' if most > 1 else ''}"
        if len({*words.values()}) == 1:
            return next(iter(words.values()))
        return ", ".join(f"{count} ({self.title(name)})" for name, count in words.items())

    def select(self, **selection: Any) -> list[Run]:
        """Return the runs of some configurations; the arguments are those of `thaw.study.claims.Selection`."""
        return Selection(**selection).of(self.runs)

    def of_row(self, row: pd.Series) -> list[Run]:
        """Return the runs of a configuration, by seed."""
        return statistics.runs_of(row, self.runs)

    def predictions(self, row: pd.Series) -> pd.DataFrame:
        """Return the predictions of a configuration, of all its seeds."""
        return pd.concat([run.predictions for run in self.of_row(row)])

    @cached_property
    def rows(self) -> pd.DataFrame:
        """A row for each configuration.

        The columns of `thaw.report.statistics.by_configuration`, and
        ``latency``, ``latency_low``, ``latency_high`` and ``latency_predict``
        in milliseconds a photo (NaN where they were not measured).
        """
        rows = statistics.by_configuration(self.runs)
        for index, row in rows.iterrows():
            graph, predict = self.calls(row, "graph", 1), self.calls(row, "predict", 1)
            low, high = (np.nan, np.nan) if graph is None else statistics.median_interval(graph)
            rows.loc[index, "latency"] = np.nan if graph is None else np.median(graph)
            rows.loc[index, ["latency_low", "latency_high"]] = low, high
            rows.loc[index, "latency_predict"] = np.nan if predict is None else np.median(predict)
        return rows

    @cached_property
    def backbones(self) -> dict[str, pd.DataFrame]:
        """The rows of each network."""
        return {name: self.rows[self.rows["backbone"] == name] for name in self.rows["backbone"].unique()}

    def calls(self, row: pd.Series, call: str, photos: int) -> np.ndarray | None:
        """Return milliseconds a photo for each round; None where they were not measured.

        A table of latencies has a row for each network and call. An older one
        has one for each configuration.
        """
        if self.latency is None:
            return None
        like = self.latency[(self.latency["call"] == call) & (self.latency["photos"] == photos)]
        names = [name for name in CONFIGURATION if name in like]
        like = like[(like[names] == row[names].to_list()).all(axis=1)].sort_values("round")
        return like["milliseconds"].to_numpy() / photos if len(like) else None

    def latency_spread(self, backbone: str) -> float:
        """Return how many times as long the slowest configuration of a network takes as the fastest; NaN unmeasured."""
        medians = self.backbones[backbone]["latency"]
        return float(medians.max() / medians.min())

    @cached_property
    def pairs(self) -> dict[str, pd.DataFrame]:
        """All comparisons within each network, as `thaw.report.statistics.pairwise` returns them."""
        return {name: statistics.pairwise(rows, self.runs) for name, rows in self.backbones.items()}

    def best(self, backbone: str) -> pd.DataFrame:
        """Return the rows that are not shown to be worse than another, with the most accurate first."""
        return self.rows.loc[statistics.as_good_as_best(self.backbones[backbone], self.pairs[backbone])]

    @cached_property
    def gains(self) -> dict[str, pd.Series]:
        """For each network, what `thaw.report.statistics.what_more_gains` returns for its `best`."""
        return {
            name: statistics.what_more_gains(rows, self.best(name).index, self.runs)
            for name, rows in self.backbones.items()
        }

    def cheapest(self, backbone: str) -> pd.Series:
        """Return the row of `best` with the fewest trainable parameters for which more did not show a gain."""
        out = [index for index, gain in self.gains[backbone].items() if gain.sign > 0]
        # Never all of them: nothing is more accurate than the most accurate.
        return statistics.upwards(self.best(backbone).drop(index=out)).iloc[0]

    def remaining_gain(self, backbone: str) -> Remaining | None:
        """Return what the control says of a network's fine-tuning; None where runs are missing."""
        tuned = self.select(backbone=backbone, strategy=("layers", "blocks"))
        short = self.select(backbone=backbone, strategy="frozen")
        control = self.select(backbone=backbone, control=True)
        return statistics.remaining_gain(tuned, short, control) if tuned and short and control else None

    def at_like_parameters(
        self, first: Selection, second: Selection, factor: float = 1.25
    ) -> tuple[Difference, list[tuple[pd.Series, pd.Series]]] | None:
        """Compare configurations of one network that train numbers of parameters within a factor; None without any.

        Returns
        -------
        difference : Difference
            Each configuration counts once, also where several have it as their like.
        pairs : list of pair of Series
            The rows of both sides.
        """
        pairs = []
        for rows in self.backbones.values():
            others = second.rows(rows)
            for _, row in first.rows(rows).iterrows():
                factors = np.exp(np.abs(np.log(others["trainable_parameters"] / row["trainable_parameters"])))
                if len(factors) and factors.min() <= factor:
                    pairs.append((row, others.loc[factors.idxmin()]))
        if not pairs:
            return None
        unique = [{row.name: row for row in side}.values() for side in zip(*pairs)]
        return statistics.difference(*([run for row in side for run in self.of_row(row)] for side in unique)), pairs

    @cached_property
    def overfitting(self) -> pd.DataFrame:
        """Intervals of how far training is ahead of validation, and of the test loss, for each row."""
        photos = self.data["photos"]
        columns = []
        for _, row in self.rows.iterrows():
            accuracies = (row["train_accuracy"], photos["train"], row["validation_accuracy"], photos["validation"])
            columns.append((*statistics.gap_interval(*accuracies), *statistics.loss_interval(self.of_row(row))))
        names = ["gap_low", "gap_high", "test_loss_low", "test_loss_high"]
        return pd.DataFrame(columns, columns=names, index=self.rows.index)
