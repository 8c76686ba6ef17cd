"""A study's results: what words, claims and figures are made of."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from thaw.disk import places
from thaw.errors import InvalidRecord
from thaw.network.backbones import REGISTRY
from thaw.records.record import Run
from thaw.report import statistics
from thaw.study import search
from thaw.study.study import Job, Study


@dataclass(frozen=True, eq=False)
class Results:
    """The finished runs of a study, and what follows from them.

    Attributes
    ----------
    runs : list of Run
    latency : DataFrame or None
        As `thaw.study.latency.measure` gives it; None where it was not measured.
    original : DataFrame or None
        The original's table, ``params/original.csv``.
    margin : float
        A difference of accuracy that would not matter.
    planned : int
        How many runs the study has when it is finished.
    missing : dict of Job to str
        Why there is no run of a job: it has failed, or diverged.
    search : DataFrame or None
        As `thaw.study.search.table` gives it; None where there is no search, or
        nothing of it is finished.
    """

    runs: list[Run]
    latency: pd.DataFrame | None = None
    original: pd.DataFrame | None = None
    margin: float = 0.02
    planned: int = 0
    missing: Mapping[Job, str] = field(default_factory=dict)
    search: pd.DataFrame | None = None

    @classmethod
    def of(cls, study: Study) -> Results:
        """Read what a study has left.

        Raises
        ------
        InvalidRecord
            As `Study.outcomes` does.
        """
        finished, missing = study.outcomes()
        measured = study.outputs / "latency.csv"
        found = None
        if searched := search.of(study):
            with contextlib.suppress(InvalidRecord):  # its records are no part of this study
                found = search.table(searched)
        return cls(
            list(finished.values()),
            pd.read_csv(measured) if measured.is_file() else None,
            pd.read_csv(places.project() / "params" / "original.csv"),
            study.margin,
            len(study.jobs),
            missing,
            found,
        )

    @cached_property
    def rows(self) -> pd.DataFrame:
        """A configuration a row, with ``latency`` in milliseconds a photo and its interval where it was measured."""
        rows = statistics.by_configuration(self.runs)
        latencies = [self.calls(row, "graph", 1) for _, row in rows.iterrows()]
        rows["latency"] = [np.nan if calls is None else np.median(calls) for calls in latencies]
        ends = [(np.nan, np.nan) if calls is None else statistics.median_interval(calls) for calls in latencies]
        rows["latency_low"], rows["latency_high"] = zip(*ends)
        rows["latency_predict"] = [
            np.nan if calls is None else np.median(calls)
            for calls in (self.calls(row, "predict", 1) for _, row in rows.iterrows())
        ]
        return rows

    @cached_property
    def backbones(self) -> dict[str, pd.DataFrame]:
        """The rows of each network."""
        return {name: self.rows[self.rows["backbone"] == name] for name in self.rows["backbone"].unique()}

    @cached_property
    def pairs(self) -> dict[str, pd.DataFrame]:
        """All comparisons within each network, as `thaw.report.statistics.pairwise` gives them."""
        return {name: statistics.pairwise(rows, self.runs) for name, rows in self.backbones.items()}

    def best(self, backbone: str) -> pd.DataFrame:
        """The rows that are not shown to be worse than any other, the most accurate first."""
        return self.rows.loc[statistics.as_good_as_best(self.backbones[backbone], self.pairs[backbone])]

    @cached_property
    def gains(self) -> dict[str, pd.Series]:
        """Of each network, of its `best`, as `thaw.report.statistics.what_more_gains` gives it."""
        return {
            name: statistics.what_more_gains(rows, self.best(name).index, self.runs)
            for name, rows in self.backbones.items()
        }

    def cheapest(self, backbone: str) -> pd.Series:
        """Of `best` the first, from the fewest trainable parameters up, that `gains` does not rule out."""
        out = [index for index, gain in self.gains[backbone].items() if gain.sign > 0]
        # Never all of them: nothing is more accurate than the most accurate.
        return statistics.upwards(self.best(backbone).drop(index=out)).iloc[0]

    def of_row(self, row: pd.Series) -> list[Run]:
        """The runs of a configuration, by seed."""
        return statistics.runs_of(row, self.runs)

    def predictions(self, row: pd.Series) -> pd.DataFrame:
        """The predictions of a configuration, of all its seeds."""
        return pd.concat([run.predictions for run in self.of_row(row)])

    def calls(self, row: pd.Series, call: str, photos: int) -> np.ndarray | None:
        """Milliseconds a photo of a configuration's network, a call each; None if they were not measured."""
        if self.latency is None:
            return None
        like = self.latency[(self.latency["call"] == call) & (self.latency["photos"] == photos)]
        like = like[like["backbone"] == row["backbone"]].sort_values("round")
        return like["milliseconds"].to_numpy() / photos if len(like) else None

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return [name.removeprefix("p_") for name in self.runs[0].predictions.columns if name.startswith("p_")]

    def photos(self, keys: Sequence[str]) -> np.ndarray | None:
        """The test photos of these keys, uint8 (n, size, size, 3); None where these data are not on this machine."""
        from thaw.data import photos as data  # and with it TensorFlow

        experiment = self.runs[0].record.experiment
        if not data.on_disk(experiment.dataset):
            return None
        found = data.load(experiment.dataset, experiment.image_size, experiment.max_examples)
        if found.provenance["sha256"] != self.data["sha256"]:
            return None
        position = {key: number for number, key in enumerate(found.test.keys)}
        return found.test.images[np.array([position[key] for key in keys], int)]

    @property
    def seeds(self) -> str:
        """How many seeds configurations were run with, in words; by network where these differ."""
        words = {}
        for name, rows in self.backbones.items():
            few, most = rows["seeds"].min(), rows["seeds"].max()
            words[name] = f"{few} to {most} seeds" if few < most else f"{most} seed{'s' if most > 1 else ''}"
        if len({*words.values()}) == 1:
            return next(iter(words.values()))
        return ", ".join(f"{count} ({REGISTRY[name].title})" for name, count in words.items())

    @property
    def data(self) -> dict:
        """The data's provenance."""
        return self.runs[0].record.data

    @cached_property
    def overfitting(self) -> pd.DataFrame:
        """Intervals of how far training is ahead of validation, and of the test loss, a configuration a row."""
        photos = self.data["photos"]
        columns = []
        for _, row in self.rows.iterrows():
            accuracies = (row["train_accuracy"], photos["train"], row["validation_accuracy"], photos["validation"])
            columns.append((*statistics.gap_interval(*accuracies), *statistics.loss_interval(self.of_row(row))))
        names = ["gap_low", "gap_high", "test_loss_low", "test_loss_high"]
        return pd.DataFrame(columns, columns=names, index=self.rows.index)
