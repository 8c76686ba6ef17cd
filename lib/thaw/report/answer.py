"""Every figure that a sentence of the report may use, computed once from a study's results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from thaw.experiment import Experiment
from thaw.records.record import Record
from thaw.records.runs import Run, runs_table
from thaw.report import statistics, words
from thaw.report.rates import Rates
from thaw.report.replication import Replication
from thaw.report.results import TRAINING, Results, Speed, Trend
from thaw.report.statistics import Difference, Remaining, Step
from thaw.study.probe import Probe
from thaw.study.rates import FINETUNE

BOTH = ("blocks", "layers")  # the two strategies that are compared
LIKE = ("skip", "extras")  # what their configurations have in common when they are


@dataclass(frozen=True, eq=False)
class NetworkAnswer:
    """What a report says of one network.

    Attributes
    ----------
    results : Results
    name, title : str
        Its name in the experiments, and what reports call it.
    runs : list of Run
    """

    results: Results
    name: str
    title: str
    runs: list[Run]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Its configurations, a row each; ``gap`` is training less validation accuracy."""
        rows = self.results.backbones[self.name]
        return rows.assign(gap=rows["train_accuracy"] - rows["validation_accuracy"])

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that are compared; none without folds."""
        return self.results.folds[self.name]

    @property
    def weights(self) -> Mapping[str, Any]:
        """What is known of its pre-trained weights."""
        return self.runs[0].record.weights

    @property
    def official(self) -> bool:
        """Whether its weights are those that Keras has for it; a network of one's own has no others."""
        return bool(self.weights["official"] or self.weights.get("own"))

    @cached_property
    def tested(self) -> int:
        """How many photos were tested, in folds of all folds together."""
        return len({key for run in self.runs for key in run.predictions["key"]})

    @cached_property
    def agreement(self) -> tuple[int, int, int]:
        """How many photos all runs classify correctly, how many none does, and on how many they differ."""
        return _agreement(self.runs)

    def least(self, column: str) -> pd.Series:
        """Find the configuration with the smallest value of a column."""
        return self.rows.loc[self.rows[column].idxmin()]

    def most(self, column: str) -> pd.Series:
        """Find the configuration with the largest value of a column."""
        return self.rows.loc[self.rows[column].idxmax()]

    @property
    def pairs(self) -> pd.DataFrame:
        """All comparisons of two of its configurations."""
        return self.results.pairs[self.name]

    @cached_property
    def unbeaten(self) -> list[pd.Series]:
        """The configurations that no other clearly beats, the most accurate first."""
        rows = self.results.best(self.name).sort_values("test_accuracy", ascending=False, kind="stable")
        return [row for _, row in rows.iterrows()]

    @property
    def top(self) -> pd.Series:
        """The most accurate configuration; of equal ones the first."""
        return self.unbeaten[0]

    @property
    def tied(self) -> list[pd.Series]:
        """The most accurate configuration, and all others that are as accurate."""
        equal = np.isclose(self.rows["test_accuracy"], self.top["test_accuracy"])
        return [row for _, row in self.rows[equal].iterrows()]

    @cached_property
    def choice(self) -> pd.Series:
        """The cheapest choice that the photos allow, as `Results.cheapest` defines it."""
        return self.results.cheapest(self.name)

    @cached_property
    def decision(self) -> str:
        """Why the choice is the choice.

        'only': nothing else was run. 'clearly best': all others are clearly
        beaten. 'most accurate': it is that, too. 'no difference that matters',
        or 'too close to call': what the most accurate has over it.
        """
        if len(self.rows) == 1:
            return "only"
        if len(self.unbeaten) == 1:
            return "clearly best"
        if self.top.name == self.choice.name or self.ahead[0].mean <= 0:
            return "most accurate"
        equal = self.ahead[0].equivalence(self.results.margin) < statistics.ALPHA
        return "no difference that matters" if equal else "too close to call"

    @cached_property
    def steps(self) -> list[tuple[pd.Series, Step, pd.Series]]:
        """From the fewest trainable parameters up: a configuration, what training more gains, and which gains most."""
        gains = self.results.gains[self.name]
        return [(self.rows.loc[index], step, self.rows.loc[step.over]) for index, step in gains.items()]

    @cached_property
    def ahead(self) -> tuple[Difference, float]:
        """The most accurate configuration less the choice, and p corrected for all pairs of the network."""
        first, second = sorted([self.top.name, self.choice.name])
        pair = self.pairs[(self.pairs["first"] == first) & (self.pairs["second"] == second)]
        runs = (self.results.of_row(row) for row in (self.top, self.choice))
        return self.results.difference(*runs), float(pair["p"].item())

    @cached_property
    def power(self) -> tuple[float, float]:
        """The share of photos on which two configurations disagree (median), and the difference that can be found.

        That is what a single comparison finds in 8 of 10 studies; NaN where there is no such difference.
        """
        disagree = float(np.median([effect.disagree for effect in self.pairs["difference"]]))
        return disagree, statistics.detectable_from(self.pairs)

    @cached_property
    def remaining(self) -> Remaining | None:
        """How much of fine-tuning's gain remains against the control; None where runs are missing."""
        return self.results.remaining_gain(self.name)

    @cached_property
    def over_control(self) -> Difference | None:
        """The choice less the base that stays frozen for as many epochs; None where that is missing, or the choice."""
        choice, control = self.results.of_row(self.choice), self.results.select(self.name, control=True)
        sides = statistics.matched(choice, control, TRAINING)
        return self.results.difference(*sides) if self.choice["strategy"] != "frozen" and all(sides) else None

    @property
    def beats_control(self) -> tuple[pd.Series, Difference] | None:
        """What clearly beats the base frozen for as many epochs, and by how much; None where nothing does."""
        clear = [(more, step.difference) for row, step, more in self.steps if row["control"] and step.clear]
        return clear[0] if clear else None

    @property
    def block_size(self) -> float | None:
        """How many times as many parameters the configurations by blocks train as those by layers, on average."""
        means = self.rows.groupby("strategy")["trainable_parameters"].mean()
        return means["blocks"] / means["layers"] if "blocks_layers" in self.strategies else None

    @cached_property
    def frozen_longer(self) -> tuple[pd.Series, pd.Series] | None:
        """The short frozen base and the control, where the head's loss on the validation photos rises between them."""
        plain = self.rows[self.rows["plain"] & (self.rows["strategy"] == "frozen")].sort_values("epochs")
        if len(plain) < 2 or plain["validation_loss"].iloc[-1] <= plain["validation_loss"].iloc[0]:
            return None
        return plain.iloc[0], plain.iloc[-1]

    @cached_property
    def strategies(self) -> dict[str, Difference]:
        """Blocks less layers, and each of them less the control, as far as there are runs."""
        blocks, layers = (self.results.select(self.name, strategy) for strategy in ("blocks", "layers"))
        control = self.results.select(self.name, control=True)
        sides = {
            "blocks_layers": statistics.matched(blocks, layers, LIKE),
            "layers_control": statistics.matched(layers, control, TRAINING),
            "blocks_control": statistics.matched(blocks, control, TRAINING),
        }
        return {name: self.results.difference(*both) for name, both in sides.items() if all(both)}

    @cached_property
    def amounts(self) -> dict[str, pd.DataFrame]:
        """The plain rows of each strategy that was run with several amounts."""
        plain = self.rows[self.rows["plain"]]
        found = {strategy: plain[plain["strategy"] == strategy] for strategy in ("layers", "blocks")}
        return {strategy: rows for strategy, rows in found.items() if len(rows) > 1}

    @cached_property
    def trends(self) -> dict[str, Trend]:
        """How three quantities change from what is fine-tuned least to what is fine-tuned most."""
        quantities = ("training loss", "lead of training over validation accuracy", "loss on unseen photos")
        found = {name: self.results.trend(self.name, name) for name in quantities}
        return {name: trend for name, trend in found.items() if trend}

    def milliseconds(self, call: str, photos: int) -> np.ndarray | None:
        """Milliseconds a photo, (configurations measured, rounds); None where they were not measured."""
        calls = [self.results.calls(row, call, photos) for _, row in self.rows.iterrows()]
        measured = [of_row for of_row in calls if of_row is not None]
        return np.array(measured) if measured else None

    @cached_property
    def speed(self) -> dict[str, float] | None:
        """Median milliseconds a photo: ``graph``, ``batch`` and ``predict``, and ``noise``.

        Noise is the factor by which medians of one and the same graph differ,
        from ``low`` to ``high``; it is 1 where the network was measured once.
        """
        graph, batch, predict = (self.milliseconds(*call) for call in (("graph", 1), ("graph", 32), ("predict", 1)))
        if graph is None or batch is None or predict is None:
            return None
        low, high = (float(end(np.median(graph, axis=1))) for end in (np.min, np.max))
        medians = (float(np.median(np.median(calls, axis=1))) for calls in (graph, batch, predict))
        return dict(zip(("graph", "batch", "predict", "low", "high", "noise"), (*medians, low, high, high / low)))


@dataclass(frozen=True, eq=False)
class Probed:
    """What the probe predicted for a network, and what the study found."""

    network: NetworkAnswer
    probe: Probe

    @cached_property
    def by_blocks(self) -> pd.DataFrame:
        """The configurations that unfreeze the last blocks and do nothing else that is special."""
        rows = self.network.rows
        return rows[(rows["strategy"] == "blocks") & rows["plain"]]

    @cached_property
    def top(self) -> pd.Series | None:
        """The most accurate of them; of equal ones the first. None where the study has none."""
        rows = self.by_blocks
        return rows.loc[rows["test_accuracy"].idxmax()] if len(rows) else None

    @cached_property
    def closest(self) -> pd.Series | None:
        """The one whose blocks are closest to the prediction; of two the one with fewer. None without any."""
        rows = self.by_blocks.sort_values("amount", kind="stable")
        return rows.loc[(rows["amount"] - self.probe.blocks).abs().idxmin()] if len(rows) else None

    @cached_property
    def behind(self) -> Difference | None:
        """The accuracy of the closest less that of the most accurate by blocks; None where they are one."""
        if self.top is None or self.closest is None or self.top.name == self.closest.name:
            return None
        results = self.network.results
        return results.difference(*(results.of_row(row) for row in (self.closest, self.top)))

    @cached_property
    def verdict(self) -> str:
        """Whether the prediction was of use.

        'late': it was made after runs that it should predict. 'none': one
        configuration by blocks or none, so that nothing could be chosen.
        'wrong': another configuration is clearly more accurate than the
        closest. 'more': the cheapest choice trains fewer parameters than the
        closest. 'useful': the closest is the cheapest choice. 'open': none of
        these.
        """
        closest, choice = self.closest, self.network.choice
        if self.probe.tuned_before:
            return "late"
        if closest is None or len(self.by_blocks) < 2:
            return "none"
        if closest.name == choice.name:
            return "useful"
        more = choice["trainable_parameters"] - closest["trainable_parameters"]
        # An unbeaten configuration that trains less than the choice is one on which training more clearly gains.
        if more > 0 or closest.name not in {row.name for row in self.network.unbeaten}:
            return "wrong"
        return "more" if more < 0 else "open"


@dataclass(frozen=True, eq=False)
class Versus:
    """One network against another, over the configurations that both have."""

    first: NetworkAnswer
    second: NetworkAnswer

    @cached_property
    def accuracy(self) -> Difference | None:
        """The accuracy of the first less that of the second; None where they share no configuration."""
        first, second = (
            [run for run in side.runs if not run.record.experiment.control] for side in (self.first, self.second)
        )
        first, second = statistics.matched(first, second, ["label"])
        return self.first.results.difference(first, second) if first and second else None

    @cached_property
    def latency(self) -> tuple[NetworkAnswer, NetworkAnswer, Speed] | None:
        """The faster network, the slower one and their speed; None where the difference may be noise."""
        speed = self.first.results.speed([self.first.name], [self.second.name])
        if speed is None or speed.low <= 1 <= speed.high:
            return None
        pair = (self.first, self.second) if speed.ratio > 1 else (self.second, self.first)
        found = pair[0].results.speed(*([network.name] for network in pair))
        return (*pair, found) if found else None

    def counted(self, column: str) -> tuple[str, str, int, int, float, float] | None:
        """Which network mostly needs less, which more, in how many of how many configurations, and the ratios."""
        sides = {network.title: network.rows.set_index("label")[column] for network in (self.first, self.second)}
        both = pd.concat(sides, axis=1, join="inner")
        if both.empty or (both <= 0).any(axis=None):
            return None
        less, more = sorted(both, key=lambda title: (both[title] == both.min(axis=1)).sum(), reverse=True)
        ratios = both[more] / both[less]
        return less, more, int((ratios > 1).sum()), len(both), ratios.min(), ratios.max()


@dataclass(frozen=True, eq=False)
class Answer:
    """What a report says of a study.

    Parameters
    ----------
    results : Results
    """

    results: Results

    @property
    def folds(self) -> bool:
        """Whether photos were tested in folds."""
        return self.results.has_folds

    @property
    def share(self) -> float:
        """The share of the photos that trains."""
        return self.record.data["photos"]["train"] / self.used

    @property
    def used(self) -> int:
        """How many photos train, validate and test."""
        photos = self.record.data["photos"]
        return photos["train"] + photos["validation"] + photos["test"]

    @property
    def choosing(self) -> list[int]:
        """The folds that are not tested, since learning rates were chosen on them."""
        planned = [fold for folds in self.results.planned_folds.values() for fold in folds]
        return list(range(min(planned, default=0)))

    @property
    def reduced_precisions(self) -> dict[str, bool]:
        """The precisions other than float32, by name: whether all runs have it."""
        used = [run.record.experiment.precision for run in self.results.runs]
        return {name: len({*used}) == 1 for name in used if name != "float32"}

    @cached_property
    def rates(self) -> Rates | None:
        """The trials of learning rates; None where none was tried."""
        return None if self.results.rates is None else Rates(self.results, self.results.rates)

    @property
    def corrections(self) -> dict[tuple[str, str], list[str]]:
        """How the comparisons of all pairs, and the steps to the cheapest choice, are corrected: for which networks."""
        found: dict[tuple[str, str], list[str]] = {}
        for network in self.networks:
            family = self.results.families[network.name]
            found.setdefault((family.correction, family.step_correction), []).append(network.title)
        return found

    def write(self, section: str, **more: Any) -> str:
        """Write a section of the report as Markdown: see `thaw.report.words.write`."""
        return words.write(section, answer=self, **more)

    @cached_property
    def networks(self) -> list[NetworkAnswer]:
        """The networks, in the order of the runs."""
        runs = {
            name: [run for run in self.results.runs if run.record.experiment.backbone == name]
            for name in self.results.backbones
        }
        return [NetworkAnswer(self.results, name, self.results.title(name), runs[name]) for name in runs]

    @cached_property
    def probed(self) -> list[Probed]:
        """The networks that were probed."""
        probes = self.results.probes
        return [Probed(network, probes[network.name]) for network in self.networks if network.name in probes]

    @property
    def record(self) -> Record:
        """The record of the first run: data, device, parameters."""
        return self.results.runs[0].record

    @property
    def replication(self) -> Replication | None:
        """The claims of the profile with their verdicts; None where it names none."""
        return self.results.replication

    @property
    def title(self) -> str:
        """What was studied: the networks and the data set."""
        *most, last = self.results.titles.values()
        return f"{' and '.join(filter(None, (', '.join(most), last)))} on {self.record.data['title']}"

    @cached_property
    def advised(self) -> NetworkAnswer:
        """The network to use: `Results.recommended` is its choice."""
        name = self.results.recommended["backbone"]
        return next(network for network in self.networks if network.name == name)

    @property
    def warning(self) -> str | None:
        """What a reader must know first: how little so few test photos decide; None where there are enough."""
        photos, rows = len(self.results.tested), self.results.rows
        if self.results.decides:
            return None
        return (
            f"Only {words.count(photos, 'test photo')}: the interval of a single accuracy is about "
            f"{words.in_points((rows['test_high'] - rows['test_low']).mean())} points wide. "
            "Use this report to see what Thaw does, not to decide."
        )

    def facts(self, profile: str) -> dict[str, str]:
        """Gather the facts of the first page."""
        data, device, photos = self.record.data, self.record.device, self.record.data["photos"]
        parts = f"{photos['train']:,} photos train, {photos['validation']:,} validate, {photos['test']:,} test"
        finished = f"{len(self.results.runs)} of {self.results.planned} finished, {self.results.seeds} a configuration"
        if self.folds:
            parts = f"{self.used:,} photos in {self.record.experiment.folds} folds; each time {parts}"
            jobs = self.results.planned - len(self.results.missing)
            finished = f"{jobs} of {words.count(self.results.planned, 'experiment')}, "
            finished += f"tested on {self.results.folds_so_far}"
            if again := len({run.record.experiment.configuration for _, run in self.results.twins}):
                finished += f", and {again} of them once more in float32"
        return {
            "Command": f"thaw report {profile}, or make report PROFILE={profile}",
            "Data": f"{data['title']}: {parts}",
            **{f"{n.title} weights": words.weights_title(n.runs[0].record.weights) for n in self.networks},
            "Experiments": f"{finished}; {self.core_hours:.1f} core-hours of training",
            "Photos": f"{self.record.parameters['image_size']} pixels square",
            "Device": f"{device['name']}, {words.count(device['cores'], 'core')} a run",
        }

    @property
    def core_hours(self) -> float:
        """What all runs trained, in hours of one core; a network's one pass over the frozen part counts once."""
        rows = runs_table([*self.results.runs, *(again for _, again in self.results.twins)])
        shared = rows.groupby(["backbone", "activations_seconds"], dropna=False).size().reset_index()
        seconds = rows[["head_seconds", "finetune_seconds"]].sum().sum() + shared["activations_seconds"].sum()
        return float(seconds * self.record.device["cores"] / 3600)

    @property
    def caveats(self) -> list[str]:
        """A remark for each of Keras' networks whose weights are not the official ones."""
        return [
            f"The weights of {network.title} are not the official ones: {network.weights['title']}. "
            f"All results of {network.title}, and above all what unfreezing gains, are results of these weights."
            for network in self.networks
            if not network.official
        ]

    @property
    def epochs(self) -> tuple[int, int]:
        """Epochs of the head alone, and after unfreezing (0 where nothing is unfrozen)."""
        experiments = [run.record.experiment for run in self.results.runs]
        return min(e.head_epochs for e in experiments), max(e.finetune_epochs for e in experiments)

    def parameter(self, name: str) -> str:
        """Write a parameter's value, by network where these differ; that of a phase, of what has it."""
        values = {}
        for network in self.networks:
            all_of_it = [run.record.experiment for run in network.runs]
            tuned = [e for e in all_of_it if e.strategy != "frozen"] if name == FINETUNE else []
            of_it = dict.fromkeys(words.parameter(getattr(e, name)) for e in tuned or all_of_it)
            values[network.title] = "; ".join(of_it)
        if len({*values.values()}) == 1:
            return next(iter(values.values()))
        return "; ".join(f"{title}: {value}" for title, value in values.items())

    def varies(self, name: str) -> bool:
        """Say whether a parameter differs from its default in any run."""
        default = Experiment.model_fields[name].get_default()
        return any(getattr(run.record.experiment, name) != default for run in self.results.runs)

    @property
    def has_amounts(self) -> bool:
        """Whether any network was run with several numbers of layers or blocks."""
        return any(network.amounts for network in self.networks)

    @cached_property
    def versus(self) -> list[Versus]:
        """Every two networks that share configurations."""
        pairs = [Versus(first, second) for first, second in combinations(self.networks, 2)]
        return [pair for pair in pairs if pair.accuracy]

    @cached_property
    def blocks_layers(self) -> Difference | None:
        """Blocks less layers, over the networks that have both; None where none has."""
        blocks, layers = ([run for run in self.results.runs if run.record.experiment.strategy == s] for s in BOTH)
        blocks, layers = statistics.matched(blocks, layers, ["backbone", *LIKE])
        return self.results.difference(blocks, layers) if blocks else None

    @cached_property
    def like_parameters(self) -> tuple[Difference, list[tuple[pd.Series, pd.Series]]] | None:
        """Blocks less layers where both train similar numbers of parameters, and which were compared."""
        rows = self.results.rows[self.results.rows["plain"]]
        blocks, layers = (rows[rows["strategy"] == strategy] for strategy in BOTH)
        return self.results.at_like_parameters(blocks, layers)

    @property
    def cached_runs(self) -> int:
        """How many runs trained on stored activations throughout."""
        return sum(all(phase.cached for phase in run.record.activations.values()) for run in self.results.runs)

    @cached_property
    def agreement(self) -> tuple[int, int, int]:
        """How many test photos all runs classify correctly, how many none does, and on how many they differ."""
        return _agreement(self.results.runs)

    @cached_property
    def hard(self) -> pd.DataFrame:
        """The ten hardest of the test photos that at least half of the runs get wrong.

        Returns
        -------
        DataFrame
            A photo a row: key, label, said (the wrong class most often
            predicted), wrong (in which share of the runs; configurations
            weigh the same).
        """
        results = self.results
        said = pd.concat([run.predictions[["key", "label", "predicted"]] for run in results.runs])
        grouped = said[said["label"] != said["predicted"]].groupby("key", sort=True)
        columns = {
            "label": grouped["label"].first(),
            "said": grouped["predicted"].agg(lambda names: names.value_counts().index[0]),
            "wrong": (1 - statistics.by_photo(results.runs).mean()).round(6),
        }
        table = pd.DataFrame(columns).rename_axis("key")
        return table[table["wrong"] >= 0.5].nlargest(10, "wrong").reset_index()

    @cached_property
    def verdicts(self) -> Counter[str]:
        """How many of the source's claims have each verdict; ``standing`` of them also stand as a family."""
        if not self.replication:
            return Counter()
        stated = [claim.id for claim in self.replication.stated]
        counts = Counter(self.replication.verdicts[id].word for id in stated)
        return counts + Counter(standing=len({*stated} & {*self.replication.standing}))


def _agreement(runs: list[Run]) -> tuple[int, int, int]:
    """Count the photos that all runs classify correctly, those that none does, and those on which they differ."""
    shares = statistics.by_photo(runs)
    always, never = int((shares == 1).all().sum()), int((shares == 0).all().sum())
    return always, never, shares.shape[1] - always - never
