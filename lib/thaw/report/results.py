"""The results of a study: everything that words, verdicts and figures are made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from thaw.errors import InvalidRecord
from thaw.experiment import FEWEST_FOLDS, Experiment
from thaw.records.runs import IDENTITY, Run, as_it_was
from thaw.report import statistics
from thaw.report.folds import compared
from thaw.report.replication import Replication
from thaw.report.statistics import Difference, Family, Remaining, Spread
from thaw.study import freshness, probe, rates
from thaw.study.claims import QUANTITIES, Claims
from thaw.study.probe import Probe
from thaw.study.study import FINDINGS, Job, Study

# What a fine-tuned run and a frozen base can have in common apart from what trains.
TRAINING = ("augmentation", "copies", "class_weight", "keep")
SMALL = 100  # with fewer test photos than this, a report says how little they can decide
UNEVEN = 1.5  # where the largest class has so many times the test photos of the smallest, recall counts beside accuracy


@dataclass(frozen=True, eq=False)
class Trend:
    """How a quantity changes from the configuration that trains least to the one that trains most.

    Attributes
    ----------
    most, least : Series
        Their rows.
    mean, low, high : float
        The change with its interval; where it is counted, `low` and `high`
        are the quantity of the least and of the most.
    p : float or None
        None where it is counted.
    sign : int
        1 or -1 where a change is shown, or all seeds count alike; else 0.
    detectable : float
        The change that would have been found in 8 of 10 studies.
    seeds : int
        The fewest of any; 1 where runs are not in the interval.
    test : str
    folds : int
        On how many folds it was measured; 0 without folds.
    """

    most: pd.Series
    least: pd.Series
    mean: float
    low: float
    high: float
    p: float | None
    sign: int
    detectable: float
    seeds: int
    test: str
    folds: int = 0

    @property
    def these_runs(self) -> bool:
        """Whether it speaks of these runs only, as `Difference.these_runs`."""
        return self.seeds == 1 and not self.folds

    @property
    def opposite(self) -> Trend:
        """The change the other way round."""
        return replace(self, mean=-self.mean, low=-self.high, high=-self.low, sign=-self.sign)


@dataclass(frozen=True)
class Speed:
    """The time for a photo of some networks and of others.

    Attributes
    ----------
    first, second : float
        Median milliseconds.
    ratio, low, high : float
        How many times as long the second takes, with its interval.
    noise : float
        The factor by which medians of one and the same graph differ.
    """

    first: float
    second: float
    ratio: float
    low: float
    high: float
    noise: float


@dataclass(frozen=True)
class InFloat32:
    """What a study's precision does to a network.

    Attributes
    ----------
    title : str
        Of the network.
    phrases : list of str
        The configurations that were trained once more in float32.
    folds : int
        On how many folds.
    effect : Difference
        The accuracy less that in float32; of fewer folds than a report needs, over their photos.
    differ : float
        The share of photos that a run and its repetition classify differently.
    longer : float
        How many times as long float32 trains.
    """

    title: str
    phrases: list[str]
    folds: int
    effect: Difference
    differ: float
    longer: float


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
    rates : DataFrame or None
        What each learning rate that was tried came to, as `thaw.study.rates.table` returns it.
    claims : Claims or None
        What the profile claims; None where it names no claims.
    findings : DataFrame or None
        What the checks of the photos found, a finding a row: code, title,
        found, do. None where they were not checked.
    probes : dict of str to Probe
        What was predicted before training, by network; those of other photos
        or weights than the runs' are left out.
    planned_folds : dict of str to tuple of int
        The folds that each network is to be tested on; empty without folds.
    lacking : dict of str to dict of int to list of str
        By network and fold: the finished folds that are left out, and which
        configurations lack them.
    delivers : str or None
        Which configuration's network the study leaves: see `StudySettings`.
    twins : list of (Run, Run)
        Runs that were made once more in float32, each with its repetition.
    lost_twins : dict of str to str
        What was to be made once more and cannot be compared, and why.
    """

    runs: list[Run]
    latency: pd.DataFrame | None = None
    margin: float = 0.02
    planned: int = 0
    missing: Mapping[Job, str] = field(default_factory=dict)
    rates: pd.DataFrame | None = None
    claims: Claims | None = None
    findings: pd.DataFrame | None = None
    probes: Mapping[str, Probe] = field(default_factory=dict)
    planned_folds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    lacking: Mapping[str, Mapping[int, list[str]]] = field(default_factory=dict)
    delivers: str | None = None
    twins: list[tuple[Run, Run]] = field(default_factory=list)
    lost_twins: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, study: Study) -> Results:
        """Read what a study has left on disk.

        Raises
        ------
        InvalidRecord
            As `Study.outcomes` does, if no configuration has three folds, or if `latency.csv` is damaged.
        """
        finished, missing = study.outcomes()
        jobs = [job for job in study.jobs if not job.twin_of]
        twins = {job: found for job, found in finished.items() if job.twin_of}
        lost = {job.label: reason for job, reason in missing.items() if job.twin_of}
        lost |= {job.label: f"diverged in {folds}" for job, found in twins.items() if (folds := _diverged(found))}
        missing = {job: reason for job, reason in missing.items() if not job.twin_of}
        found = compared({job: found for job, found in finished.items() if not job.twin_of}, missing)
        checked = study.outputs / FINDINGS
        findings = None
        if checked.is_file():
            findings = pd.read_csv(checked, dtype=str, keep_default_na=False).map(as_it_was)
        if not (runs := found.runs):
            lines = "".join(f"\n  {job.label}: {reason}" for job, reason in found.missing.items())
            raise InvalidRecord(
                f"profile {study.profile}: no configuration has results of {FEWEST_FOLDS} folds, which a report needs."
                f"{lines}\nRun make report PROFILE={study.profile}."
            )
        origins = {
            (run.record.experiment.backbone, run.record.data["sha256"], run.record.weights["tensors_sha256"])
            for run in runs
        }
        probes = {name: made for name, made in probe.of(study).items() if made.origin in origins}
        return cls(
            runs,
            freshness.latency(study),
            study.margin,
            len(jobs),
            found.missing,
            rates.table(study),
            study.claims,
            findings,
            probes,
            planned_folds={job.experiment.backbone: job.experiment.tested_folds for job in jobs},
            lacking=found.lacking,
            delivers=study.settings.deliver,
            twins=[(run, again) for job, found in twins.items() for run, again in _twins(job, found, finished)],
            lost_twins=lost,
        )

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
    def in_float32(self) -> list[InFloat32]:
        """What the study's precision does, to each network of which something was trained once more in float32."""
        found = []
        for backbone in self.backbones:
            pairs = [pair for pair in self.twins if pair[0].record.experiment.backbone == backbone]
            folds_of: dict[str, set[int | None]] = {}
            for run, _ in pairs:
                folds_of.setdefault(run.record.experiment.configuration, set()).add(run.record.experiment.fold)
            shared = set.intersection(*folds_of.values()) if folds_of else set()
            if not (pairs := [pair for pair in pairs if pair[0].record.experiment.fold in shared]):
                continue
            own, again = (list(side) for side in zip(*pairs, strict=True))
            folds = len(shared)
            compare = statistics.difference if folds >= FEWEST_FOLDS else statistics.over_photos
            seconds = [sum(run.record.training_seconds.total for run in side) for side in (again, own)]
            phrases = list(dict.fromkeys(run.record.experiment.phrase for run in own))
            said = [[run.predictions.set_index("key")["predicted"].sort_index() for run in pair] for pair in pairs]
            differ = float(np.mean([(one != other).mean() for one, other in said]))
            longer = seconds[0] / seconds[1]
            found.append(InFloat32(self.title(backbone), phrases, folds, compare(own, again), differ, longer))
        return found

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes."""
        return [name.removeprefix("p_") for name in self.runs[0].predictions.columns if name.startswith("p_")]

    @cached_property
    def titles(self) -> dict[str, str]:
        """What the report calls each network, in the order of the runs."""
        titles = {run.record.experiment.backbone: run.record.network["title"] for run in self.runs}
        called = list(titles.values())
        return {name: title if called.count(title) == 1 else f"{title} ({name})" for name, title in titles.items()}

    def title(self, backbone: str) -> str:
        """Return what the report calls a network; where it has no run, its name or that of its file."""
        return self.titles.get(backbone, Path(backbone).stem)

    @cached_property
    def folds(self) -> dict[str, tuple[int, ...]]:
        """The folds of each network that are compared; none where its photos are not divided into folds."""
        found: dict[str, set[int]] = {name: set() for name in self.backbones}
        for run in self.runs:
            if run.record.experiment.fold is not None:
                found[run.record.experiment.backbone].add(run.record.experiment.fold)
        return {name: tuple(sorted(folds)) for name, folds in found.items()}

    @property
    def has_folds(self) -> bool:
        """Whether any network was tested in folds."""
        return any(self.folds.values())

    def by_network(self, words: Mapping[str, str]) -> str:
        """Write what is said of each network: once, where it is the same of all."""
        if len({*words.values()}) == 1:
            return next(iter(words.values()))
        return ", ".join(f"{text} ({self.title(name)})" for name, text in words.items())

    @property
    def seeds(self) -> str:
        """How many seeds the configurations were run with, in words; by network where these differ."""
        words = {}
        for name, rows in self.backbones.items():
            few, most = rows["seeds"].min(), rows["seeds"].max()
            words[name] = f"{few} to {most} seeds" if few < most else f"{most} seed{'s' if most > 1 else ''}"
        return self.by_network(words)

    @property
    def folds_so_far(self) -> str:
        """How many of the planned folds are compared, in words; by network where these differ."""
        return self.by_network(
            {name: f"{len(own)} of {len(self.planned_folds.get(name, own))} folds" for name, own in self.folds.items()}
        )

    @property
    def folds_left_out(self) -> dict[str, int]:
        """How many folds of a network are not to be tested, where the profile's `test_folds` says so."""
        last = (self.experiment.folds or 0) - 1
        return {name: last - max(folds) for name, folds in self.planned_folds.items() if folds and max(folds) < last}

    @cached_property
    def tested(self) -> pd.Series:
        """The class of each photo that was tested, by its key; in folds, of all folds together."""
        photos = pd.concat([run.predictions[["key", "label"]] for run in self.runs]).drop_duplicates("key")
        return photos.set_index("key")["label"]

    @cached_property
    def photos_of_class(self) -> pd.Series:
        """How many test photos each class has, by its name; the largest class first."""
        return self.tested.value_counts()

    @property
    def uneven(self) -> bool:
        """Whether the classes are so unlike in size that accuracy says little of the small ones."""
        counts = self.photos_of_class
        return len(counts) > 1 and counts.iloc[0] > UNEVEN * counts.iloc[-1]

    def photos_of(self, row: pd.Series) -> pd.Series:
        """Return how many photos of each class a configuration was tested on."""
        return self.predictions(row).groupby("label")["key"].nunique()

    def recall(self, row: pd.Series) -> pd.Series:
        """Return a configuration's recall by class, the lowest first, of all its runs together."""
        photos = self.predictions(row)
        right = (photos["label"] == photos["predicted"]).groupby(photos["label"])
        return right.mean().sort_values(kind="stable")

    def confused(self, row: pd.Series) -> tuple[list[str], int, int]:
        """Return which two classes a configuration confuses most, how often, and the number of all mistakes."""
        return statistics.most_confused(self.predictions(row))

    def clear(self, backbone: str) -> dict[str, list[str]]:
        """Name a network's clear differences: of each configuration that is behind, those ahead of it."""
        names, pairs = self.backbones[backbone]["short"], self.pairs[backbone]
        found: dict[str, list[str]] = {}
        for pair in pairs[pairs["separated"]].itertuples():
            ahead, behind = (pair.first, pair.second) if pair.difference.mean > 0 else (pair.second, pair.first)
            found.setdefault(names[behind], []).append(names[ahead])
        return found

    def select(self, backbone: str, strategy: str | None = None, control: bool = False) -> list[Run]:
        """Return a network's runs: its controls; or, without these, those of a strategy, or all that are fine-tuned."""

        def wanted(experiment: Experiment) -> bool:
            if control or experiment.control:
                return control and experiment.control
            return experiment.strategy == strategy if strategy else experiment.strategy != "frozen"

        of_network = [run for run in self.runs if run.record.experiment.backbone == backbone]
        return [run for run in of_network if wanted(run.record.experiment)]

    def of_row(self, row: pd.Series) -> list[Run]:
        """Return the runs of a configuration, by seed and fold."""
        return self._by_identity.get(tuple(row[name] for name in IDENTITY), [])

    @cached_property
    def _by_identity(self) -> dict[tuple, list[Run]]:
        runs = sorted(self.runs, key=lambda run: run.record.experiment.seed)
        return statistics.by_identity(runs, runs)

    def predictions(self, row: pd.Series) -> pd.DataFrame:
        """Return the predictions of a configuration, of all its seeds and folds."""
        return pd.concat([run.predictions for run in self.of_row(row)])

    @cached_property
    def rows(self) -> pd.DataFrame:
        """A row for each configuration.

        The columns of `thaw.report.statistics.by_configuration`, with names
        that no other row of its network has, and ``latency``, the compiled
        graph's median milliseconds a photo (NaN where it was not measured).
        """
        rows = _told_apart(statistics.by_configuration(self.runs), self.runs)
        rows["balanced_accuracy"] = [self.recall(row).mean() for _, row in rows.iterrows()]  # of few photos a fold
        measured = [self.calls(row, "graph", 1) for _, row in rows.iterrows()]
        return rows.assign(latency=[np.nan if calls is None else np.median(calls) for calls in measured])

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
        of_row = (row[name] for name in IDENTITY if name in self.latency)
        milliseconds = self._milliseconds.get((call, photos, *of_row))
        return None if milliseconds is None else milliseconds / photos

    @cached_property
    def _milliseconds(self) -> dict[tuple, np.ndarray]:
        """Of a whole call, by round; by the call, its photos and what the table says of the configuration."""
        assert self.latency is not None
        names = ["call", "photos", *(name for name in IDENTITY if name in self.latency)]
        return {key: rows["milliseconds"].to_numpy() for key, rows in self.latency.sort_values("round").groupby(names)}

    def latency_spread(self, backbone: str) -> float:
        """Return how many times as long the slowest configuration of a network takes as the fastest; NaN unmeasured."""
        medians = self.backbones[backbone]["latency"]
        return float(medians.max() / medians.min())

    def speed(self, first: Sequence[str], second: Sequence[str]) -> Speed | None:
        """Compare the time that networks take for a photo, over all configurations; None where it was not measured.

        The ratio is of the medians that the tables show. Its interval is over
        rounds, in each of which all had their turn, and is widened by the
        factor by which medians of one and the same graph differ.
        """
        sides = []
        for names in (first, second):
            rows = (row for name in names for _, row in self.backbones[name].iterrows())
            sides.append([calls for row in rows if (calls := self.calls(row, "graph", 1)) is not None])
        if not all(sides):
            return None
        rounds = [np.median(side, axis=0) for side in sides]
        both = min(map(len, rounds))  # the rounds that both have
        _, low, high = statistics.ratio_of_medians(*(side[:both] for side in reversed(rounds)))
        noise = max(self.latency_spread(name) for name in (*first, *second))
        ours, theirs = (float(np.median(np.median(side, axis=1))) for side in sides)
        return Speed(ours, theirs, theirs / ours, low / noise, high * noise, noise)

    def graph(self, row: pd.Series) -> tuple:
        """Return what decides which graph a configuration runs: not what was trained."""
        experiment = self.of_row(row)[0].record.experiment
        return experiment.backbone, experiment.image_size, experiment.precision

    @cached_property
    def spreads(self) -> dict[tuple[str, bool], Spread]:
        """How far each network's configurations move from run to run; without networks of one seed."""
        return statistics.spreads(self.runs)

    @cached_property
    def loss_spreads(self) -> dict[tuple[str, bool], Spread]:
        """As `spreads`, of the loss on the test photos."""
        return statistics.spreads(self.runs, statistics.losses)

    def difference(self, first: Sequence[Run], second: Sequence[Run]) -> Difference:
        """Compare the accuracy of two groups of runs, with the spread of all runs of their networks."""
        return statistics.difference(first, second, self.spreads)

    @cached_property
    def families(self) -> dict[str, Family]:
        """The configurations of each network, to compare them all."""
        return {
            name: Family.of(rows, [run for run in self.runs if run.record.experiment.backbone == name], self.spreads)
            for name, rows in self.backbones.items()
        }

    @cached_property
    def pairs(self) -> dict[str, pd.DataFrame]:
        """All comparisons within each network, as `thaw.report.statistics.pairwise` returns them."""
        return {name: statistics.pairwise(family) for name, family in self.families.items()}

    @cached_property
    def _unbeaten(self) -> dict[str, list]:
        return {name: statistics.as_good_as_best(rows, self.pairs[name]) for name, rows in self.backbones.items()}

    def best(self, backbone: str) -> pd.DataFrame:
        """Return the rows that are not shown to be worse than another, with the most accurate first."""
        return self.rows.loc[self._unbeaten[backbone]]

    @cached_property
    def gains(self) -> dict[str, pd.Series]:
        """For each network, what `thaw.report.statistics.what_more_gains` returns."""
        return {
            name: statistics.what_more_gains(family, self._unbeaten[name]) for name, family in self.families.items()
        }

    def plateau(self, backbone: str) -> pd.DataFrame:
        """Return the rows of `best` for which training more did not show a gain; at least the most accurate."""
        out = [index for index, step in self.gains[backbone].items() if step.clear]
        left = self.best(backbone).drop(index=out, errors="ignore")
        return left if len(left) else self.best(backbone).iloc[:1]

    def cheapest(self, backbone: str) -> pd.Series:
        """Return the row of `plateau` with the fewest trainable parameters."""
        return statistics.upwards(self.plateau(backbone)).iloc[0]

    @property
    def have_own_folds(self) -> bool:
        """Whether networks were tested on folds that are not the same, so that their accuracies cannot be compared."""
        return len({*self.folds.values()}) > 1

    def across(self, row: pd.Series) -> float:
        """Return an accuracy that can be compared between networks: that on the folds that all of them have."""
        shared = set.intersection(*map(set, self.folds.values()))
        if not self.have_own_folds or not shared:
            return float(row["test_accuracy"])
        own = [run.record for run in self.of_row(row)]
        return float(np.mean([record.test_accuracy for record in own if record.experiment.fold in shared]))

    @cached_property
    def most_accurate(self) -> pd.Series:
        """The most accurate configuration of all networks; ties: the first."""
        return max((self.best(name).iloc[0] for name in self.backbones), key=self.across)

    @cached_property
    def best_choice(self) -> pd.Series:
        """The most accurate of the networks' cheapest choices; ties: the one that trains fewest parameters."""
        choices = [self.cheapest(name) for name in self.backbones]
        return max(choices, key=lambda row: (self.across(row), -row["trainable_parameters"]))

    def lead_over(self, network: str, row: pd.Series) -> Difference | None:
        """Compare a configuration with a network's cheapest choice; None where it is that."""
        choice = self.cheapest(network)
        return None if choice.name == row.name else self.difference(self.of_row(row), self.of_row(choice))

    @cached_property
    def clearly_behind(self) -> set[str]:
        """The networks whose cheapest choice is clearly less accurate than the most accurate configuration of another.

        That is corrected by Holm's method (1979) for all networks. A lead that
        is shown to be smaller than the margin does not count.
        """
        best = self.most_accurate
        leads = {name: self.lead_over(name, best) for name in self.backbones if name != best["backbone"]}
        known = {name: lead for name, lead in leads.items() if lead}
        p = dict(zip(known, statistics.holm([lead.p for lead in known.values()])))
        return {
            name
            for name, lead in known.items()
            if lead.sign > 0 and p[name] < statistics.ALPHA and lead.equivalence(self.margin) >= statistics.ALPHA
        }

    @cached_property
    def close(self) -> list[str]:
        """The networks that can be advised.

        Those whose cheapest choice is at most the margin behind the best one,
        and that are not `clearly_behind`; without any, that of the best choice.
        """

        def is_close(name: str) -> bool:
            lead = self.lead_over(name, self.best_choice)
            near = lead is None or (lead.known and lead.mean <= self.margin)
            return near and name not in self.clearly_behind

        return [name for name in self.backbones if is_close(name)] or [self.best_choice["backbone"]]

    @property
    def timed(self) -> bool:
        """Whether all networks that are close had their latency measured."""
        return all(self.backbones[name]["latency"].notna().any() for name in self.close)

    @cached_property
    def recommended(self) -> pd.Series:
        """The configuration to use, whatever the network.

        Of the networks that are `close` it is the cheapest choice of the one
        that takes the least time a photo; where that was not measured, of the
        smallest. Ties: the more accurate one, then the one that trains fewest
        parameters.
        """

        def cost(row: pd.Series) -> tuple[float, ...]:
            takes = self.backbones[row["backbone"]]["latency"].median() if self.timed else row["total_parameters"]
            return takes, -self.across(row), row["trainable_parameters"]

        return min((self.cheapest(name) for name in self.close), key=cost)

    @property
    def decides(self) -> bool:
        """Whether there are enough test photos to advise anything."""
        return len(self.tested) >= SMALL

    def by_size(self, control: bool = False) -> dict[str, pd.DataFrame]:
        """Return the plain fine-tuned rows of each network that has several, by trainable parameters.

        With `control` also the control, as the one that trains least.
        """
        found = {}
        for name, rows in self.backbones.items():
            tuned = rows[rows["plain"] & ((rows["strategy"] != "frozen") | (control & rows["control"]))]
            if tuned["trainable_parameters"].nunique() > 1:
                found[name] = tuned.sort_values("trainable_parameters", kind="stable")
        return found

    def trend(self, backbone: str, name: str, control: bool = False) -> Trend | None:
        """Compare a quantity of the configuration that trains most with that of the one that trains least.

        Parameters
        ----------
        backbone : str
        name : str
            In `QUANTITIES`.
        control : bool
            Whether the control counts, as the one that trains least.

        Returns
        -------
        Trend or None
            None where the network has no two sizes.
        """
        if (rows := self.by_size(control).get(backbone)) is None:
            return None
        most, least, quantity = rows.iloc[-1], rows.iloc[0], QUANTITIES[name]
        groups = [self.of_row(row) for row in (most, least)]
        folds = len(statistics.folds_of([*groups[0], *groups[1]]))
        if quantity.chance == "photos" or (folds and quantity.chance):
            measure = statistics.losses if quantity.chance == "photos" else statistics.of_record(quantity.of)
            effect = statistics.difference(groups[0], groups[1], self.loss_spreads, measure)
            ends = (effect.mean, effect.low, effect.high, effect.p, effect.sign, effect.detectable)
            return Trend(most, least, *ends, effect.seeds, effect.test, folds)
        if quantity.chance == "parts":
            mean, below, above = statistics.gap_difference(*groups)
            error = max((above - below) / 2 / norm.ppf(1 - statistics.ALPHA / 2), 1e-9)
            sign = 0 if below <= 0 <= above else int(np.sign(mean))
            p = float(2 * norm.sf(abs(mean) / error))
            # How far the runs move is not in it.
            found = float(norm.ppf([1 - statistics.ALPHA / 2, statistics.POWER]).sum() * error)
            return Trend(most, least, mean, below, above, p, sign, found, 1, "difference of independent gaps")
        values = [[(run.record.experiment.fold, quantity.of(run.record)) for run in group] for group in groups]
        high, low = (float(np.mean([value for _, value in side])) for side in values)
        apart = {np.sign(a - b) for fold, a in values[0] for other, b in values[1] if fold == other}
        sign = int(apart.pop()) if len(apart) == 1 else 0
        seeds = int(rows["seeds"].iloc[[0, -1]].min())
        return Trend(most, least, high - low, low, high, None, sign, 0.0, seeds, "counted", folds)

    def remaining_gain(self, backbone: str, plain: bool = False) -> Remaining | None:
        """Return what the control says of a network's fine-tuning; None where runs are missing.

        Runs count that have a control like them in all that a frozen base can
        have; with `plain`, only those of plain configurations.
        """

        def training(run: Run) -> tuple:
            return tuple(getattr(run.record.experiment, name) for name in TRAINING)

        all_groups = self.select(backbone), self.select(backbone, "frozen"), self.select(backbone, control=True)
        groups = [[run for run in group if run.record.experiment.plain or not plain] for group in all_groups]
        shared = set.intersection(*({training(run) for run in group} for group in groups))
        groups = [[run for run in group if training(run) in shared] for group in groups]
        if not all(groups):
            return None
        tuned, short, controls = groups
        return statistics.remaining_gain(tuned, short, controls, self.spreads)

    def at_like_parameters(
        self, first: pd.DataFrame, second: pd.DataFrame, factor: float = 1.25
    ) -> tuple[Difference, list[tuple[pd.Series, pd.Series]]] | None:
        """Compare configurations of one network that train numbers of parameters within a factor; None without any.

        Parameters
        ----------
        first, second : DataFrame
            Some of `rows`.
        factor : float

        Returns
        -------
        difference : Difference
            Each configuration counts once, also where several have it as their like.
        pairs : list of pair of Series
            The rows of both sides.
        """
        pairs = statistics.like_pairs(first, second, factor)
        if not pairs:
            return None
        unique = [{row.name: row for row in side}.values() for side in zip(*pairs)]
        return self.difference(*([run for row in side for run in self.of_row(row)] for side in unique)), pairs

    @cached_property
    def test_losses(self) -> pd.DataFrame:
        """The interval of each row's test loss."""
        ends = [statistics.loss_interval(self.of_row(row)) for _, row in self.rows.iterrows()]
        return pd.DataFrame(ends, columns=["test_loss_low", "test_loss_high"], index=self.rows.index)


def _twins(job: Job, again: Sequence[Run], finished: Mapping[Job, Sequence[Run]]) -> Iterator[tuple[Run, Run]]:
    """Pair the runs of a configuration with those of its twin in float32, fold by fold."""
    for other, found in finished.items():
        if (other.configuration, other.experiment.seed) == (job.twin_of, job.experiment.seed):
            if any(run.record.diverged for run in [*found, *again]):
                continue  # as in `compared`: the other folds would speak of a training that cannot be relied on
            of_fold = {run.record.experiment.fold: run for run in found}
            for run in again:
                if own := of_fold.get(run.record.experiment.fold):
                    yield own, run


def _diverged(runs: Sequence[Run]) -> str:
    """Name the folds of runs that diverged."""
    folds = [str(run.record.experiment.fold) for run in runs if run.record.diverged]
    return f"fold{'s' * (len(folds) > 1)} {', '.join(folds)}" if folds else ""


def _told_apart(rows: pd.DataFrame, runs: list[Run]) -> pd.DataFrame:
    """Give rows of one network that have the same name the parameters in which they differ."""
    for _, same in rows.groupby(["backbone", "label"]):
        every = [statistics.runs_of(row, runs)[0].record.experiment for _, row in same.iterrows()]
        differ = [
            name
            for name in Experiment.model_fields
            if name not in ("seed", "fold", "output_dir") and len({getattr(each, name) for each in every}) > 1
        ]
        for index, each in zip(same.index if differ else (), every):
            named = ", ".join(f"{name} {getattr(each, name)}" for name in differ)
            values = " ".join(str(getattr(each, name)) for name in differ)
            rows.loc[index, ["label", "short", "phrase"]] += [f", {named}", f" {values}", f" ({named})"]
    return rows
