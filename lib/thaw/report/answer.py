"""Every figure that a sentence of the report may use, computed once from a study's results."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import pandas as pd

from thaw.experiment import Experiment
from thaw.records.record import Record, Run
from thaw.report import statistics, words
from thaw.report.replication import Replication
from thaw.report.results import Results
from thaw.report.statistics import Difference, Remaining
from thaw.study.claims import Claim, Selection

SMALL = 100  # with fewer test photos than this, the first page says how little they can decide


@dataclass(frozen=True, eq=False)
class NetworkAnswer:
    """What a report says of one network.

    Parameters
    ----------
    results : Results
    name : str
        The network's name in the experiments.
    """

    results: Results
    name: str

    @cached_property
    def runs(self) -> list[Run]:
        """All its runs."""
        return [run for run in self.results.runs if run.record.experiment.backbone == self.name]

    @property
    def record(self) -> Record:
        """The record of its first run: title, weights, number of parameters."""
        return self.runs[0].record

    @property
    def title(self) -> str:
        """What reports call it."""
        return self.record.network["title"]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Its configurations, a row each; ``gap`` is training less validation accuracy."""
        rows = self.results.backbones[self.name]
        return rows.assign(gap=rows["train_accuracy"] - rows["validation_accuracy"])

    def least(self, column: str) -> pd.Series:
        """The configuration with the smallest value of a column."""
        return self.rows.loc[self.rows[column].idxmin()]

    def most(self, column: str) -> pd.Series:
        """The configuration with the largest value of a column."""
        return self.rows.loc[self.rows[column].idxmax()]

    # ---- accuracy, and the choice ----------------------------------------------------------------

    @cached_property
    def unbeaten(self) -> list[pd.Series]:
        """The configurations that no other clearly beats, the most accurate (`top`) first."""
        rows = self.results.best(self.name).sort_values("test_accuracy", ascending=False, kind="stable")
        return [row for _, row in rows.iterrows()]

    @property
    def top(self) -> pd.Series:
        """The most accurate configuration; of equal ones the first."""
        return self.unbeaten[0]

    @property
    def tied(self) -> list[pd.Series]:
        """All configurations that are as accurate as `top`, itself included."""
        equal = np.isclose(self.rows["test_accuracy"], self.top["test_accuracy"])
        return [row for _, row in self.rows[equal].iterrows()]

    @cached_property
    def choice(self) -> pd.Series:
        """The cheapest choice that the photos allow, as `Results.cheapest` defines it."""
        return self.results.cheapest(self.name)

    @cached_property
    def steps(self) -> list[tuple[pd.Series, Difference]]:
        """From the fewest trainable parameters up: a configuration, and what training more gains on it."""
        return [(self.rows.loc[index], gain) for index, gain in self.results.gains[self.name].items()]

    @cached_property
    def ahead(self) -> Difference:
        """The accuracy of `top` less that of `choice`."""
        return statistics.difference(self.results.of_row(self.top), self.results.of_row(self.choice))

    @property
    def ahead_p(self) -> float:
        """The p of `ahead`, corrected for all pairs of the network."""
        first, second = sorted([self.top.name, self.choice.name])
        return float(self.pairs.query("first == @first and second == @second")["p"].item())

    @property
    def pairs(self) -> pd.DataFrame:
        """All comparisons of two of its configurations."""
        return self.results.pairs[self.name]

    @property
    def range(self) -> float:
        """How far the most accurate configuration is ahead of the least accurate."""
        return self.rows["test_accuracy"].max() - self.rows["test_accuracy"].min()

    @property
    def width(self) -> float:
        """The mean width of the interval of an accuracy."""
        return (self.rows["test_high"] - self.rows["test_low"]).mean()

    @property
    def disagree(self) -> float:
        """The share of photos on which two configurations disagree, the median over all pairs."""
        return float(np.median([effect.disagree for effect in self.pairs["difference"]]))

    @cached_property
    def detectable(self) -> float:
        """The difference that a single comparison finds in 8 of 10 studies; NaN where there is none."""
        return statistics.detectable_from(self.pairs)

    # ---- strategies and the control --------------------------------------------------------------

    @cached_property
    def remaining(self) -> Remaining | None:
        """How much of fine-tuning's gain remains against the control; None where runs are missing."""
        return self.results.remaining_gain(self.name)

    @cached_property
    def strategies(self) -> dict[str, Difference]:
        """Blocks less layers, and each of them less the control, as far as there are runs."""
        blocks, layers = (self.results.select(backbone=self.name, strategy=name) for name in ("blocks", "layers"))
        control = self.results.select(backbone=self.name, control=True)
        sides = {"blocks_layers": (blocks, layers), "layers_control": (layers, control)}
        sides["blocks_control"] = (blocks, control)
        return {name: statistics.difference(*both) for name, both in sides.items() if all(both)}

    def mean_trained(self, strategy: str) -> float:
        """How many parameters train, on average over the configurations of a strategy."""
        return self.rows.loc[self.rows["strategy"] == strategy, "trainable_parameters"].mean()

    @cached_property
    def trends(self) -> dict[str, tuple[float, float]]:
        """Rank correlations with the number of trainable parameters, and their p, of at least four configurations.

        Over the fine-tuned configurations; the training loss also over the
        control, which trains for as many epochs.
        """
        tuned = self.rows["strategy"] != "frozen"
        quantities = {"train_loss": tuned | self.rows["control"], "gap": tuned, "validation_loss": tuned}
        found = {
            name: statistics.rank_correlation(*self.rows.loc[which, ["trainable_parameters", name]].to_numpy().T)
            for name, which in quantities.items()
            if which.sum() >= 4
        }
        return {name: trend for name, trend in found.items() if trend}

    # ---- speed -----------------------------------------------------------------------------------

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
        low, high = (end(np.median(graph, axis=1)) for end in (np.min, np.max))
        medians = (float(np.median(np.median(calls, axis=1))) for calls in (graph, batch, predict))
        return dict(zip(("graph", "batch", "predict", "low", "high", "noise"), (*medians, low, high, high / low)))


@dataclass(frozen=True, eq=False)
class Versus:
    """One network against another, over the configurations that both have."""

    first: NetworkAnswer
    second: NetworkAnswer

    @cached_property
    def accuracy(self) -> Difference | None:
        """The accuracy of the first less that of the second; None where they share no configuration."""
        sides = (self.first.results.select(backbone=network.name) for network in (self.first, self.second))
        first, second = statistics.matched(*sides, ["strategy", "amount"])
        return statistics.difference(first, second) if first and second else None

    @cached_property
    def latency(self) -> tuple[float, float, float]:
        """How many times as long the first takes for a photo, with an interval."""
        calls = (network.milliseconds("graph", 1) for network in (self.first, self.second))
        return statistics.ratio_of_medians(*(np.median(of_network, axis=0) for of_network in calls))

    @property
    def latency_sign(self) -> int:
        """1 or -1 where the first is clearly slower or faster, beyond the machine's noise; else 0."""
        speeds = [network.speed for network in (self.first, self.second)]
        if None in speeds:
            return 0
        noise = max(speed["noise"] for speed in speeds)
        return int(self.latency[1] > noise) - int(self.latency[2] < 1 / noise)

    def counted(self, column: str) -> tuple[str, str, int, int, float, float] | None:
        """Which network mostly needs less, which more, in how many shared configurations of how many, and the ratios."""
        which = ["strategy", "amount", "epochs"]
        sides = {network.title: network.rows.set_index(which)[column] for network in (self.first, self.second)}
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
    def replication(self) -> Replication | None:
        """The claims of the profile with their verdicts; None where it names none."""
        return self.results.replication

    def write(self, section: str) -> str:
        """Write a section of the report as Markdown: see `thaw.report.words.write`."""
        return words.write(section, answer=self)

    @cached_property
    def networks(self) -> list[NetworkAnswer]:
        """The networks, in the order of the runs."""
        return [NetworkAnswer(self.results, name) for name in self.results.backbones]

    @property
    def record(self) -> Record:
        """The record of the first run: data, device, parameters."""
        return self.results.runs[0].record

    @property
    def title(self) -> str:
        """What was studied: the networks and the data set."""
        titles = ", ".join(network.title for network in self.networks)
        return f"{titles} on {self.record.data['title']}"

    @property
    def warning(self) -> str | None:
        """What a reader must know first: how little so few test photos decide; None where there are enough."""
        photos = self.record.data["photos"]["test"]
        if photos >= SMALL:
            return None
        width = np.mean([network.width for network in self.networks])
        return (
            f"Only {words.count(photos, 'test photo')}: the interval of a single accuracy is about "
            f"{words.in_points(width)} points wide. Use this report to see what Thaw does, not to decide."
        )

    def facts(self, profile: str) -> dict[str, str]:
        """The facts of the first page."""
        data, device = self.record.data, self.record.device
        photos = data["photos"]
        return {
            "Profile": profile,
            "Data": f"{data['title']}: {photos['train']:,} photos train, {photos['validation']:,} validate, "
            f"{photos['test']:,} test",
            **{f"{n.title} weights": words.weights_title(n.record.weights) for n in self.networks},
            "Experiments": f"{len(self.results.runs)} of {self.results.planned} finished, {self.results.seeds} "
            "a configuration",
            "Photos": f"{self.record.parameters['image_size']} pixels square",
            "Device": f"{device['name']}, {words.count(device['cores'], 'core')} a run",
        }

    @property
    def caveats(self) -> list[str]:
        """A remark for each network whose weights are not the official ones."""
        return [
            f"The weights of {network.title} are not the official ones: {network.record.weights['title']}. "
            f"All results of {network.title}, and above all what unfreezing gains, are results of these weights."
            for network in self.networks
            if not network.record.weights["official"]
        ]

    @cached_property
    def experiments(self) -> list[Experiment]:
        """The parameters of all runs."""
        return [run.record.experiment for run in self.results.runs]

    @property
    def head_epochs(self) -> int:
        """Epochs of the head alone."""
        return min(e.head_epochs for e in self.experiments)

    @property
    def finetune_epochs(self) -> int:
        """Epochs after unfreezing; 0 where nothing is unfrozen."""
        return max(e.finetune_epochs for e in self.experiments)

    def has(self, strategy: str, control: bool = False) -> bool:
        """Whether there are runs of a strategy; of the frozen base, whether as the control or not."""
        return any(e.strategy == strategy and e.control == control for e in self.experiments)

    def parameter(self, name: str) -> str:
        """A parameter's value, by network where these differ."""
        values = {
            n.title: "; ".join(dict.fromkeys(words.parameter(run.record.parameters[name]) for run in n.runs))
            for n in self.networks
        }
        if len({*values.values()}) == 1:
            return next(iter(values.values()))
        return "; ".join(f"{title}: {value}" for title, value in values.items())

    # ---- across networks -------------------------------------------------------------------------

    @cached_property
    def versus(self) -> list[Versus]:
        """Every two networks that share configurations."""
        pairs = [Versus(first, second) for first, second in combinations(self.networks, 2)]
        return [pair for pair in pairs if pair.accuracy is not None]

    @property
    def several_seeds(self) -> pd.DataFrame:
        """The configurations with several seeds."""
        return self.results.rows[self.results.rows["seeds"] > 1]

    @property
    def single_seed_networks(self) -> list[str]:
        """The networks that have configurations with one seed."""
        return [network.title for network in self.networks if (network.rows["seeds"] == 1).any()]

    @property
    def seed_sd(self) -> float:
        """The standard deviation of an accuracy from seed to seed, pooled over the configurations with several."""
        return float(np.sqrt((self.several_seeds["test_sd"] ** 2).mean()))

    @property
    def test_is_easier(self) -> bool:
        """Whether each configuration is more accurate on the test photos than on the validation photos."""
        return bool((self.results.rows["test_accuracy"] > self.results.rows["validation_accuracy"]).all())

    @cached_property
    def blocks_layers(self) -> Difference | None:
        """Blocks less layers, over the networks that have both; None where none has."""
        sides = (self.results.select(strategy=strategy) for strategy in ("blocks", "layers"))
        blocks, layers = statistics.matched(*sides, ["backbone"])
        return statistics.difference(blocks, layers) if blocks else None

    @cached_property
    def like_parameters(self) -> tuple[Difference, list[tuple[pd.Series, pd.Series]]] | None:
        """Blocks less layers where both train similar numbers of parameters, and which were compared."""
        return self.results.at_like_parameters(Selection(strategy="blocks"), Selection(strategy="layers"))

    @cached_property
    def over_least(self) -> Difference | None:
        """All other fine-tuned configurations less the one of each network that unfreezes least."""
        least, more = [], []
        for network in self.networks:
            tuned = network.rows[network.rows["strategy"] != "frozen"].sort_values("trainable_parameters")
            for number, (_, row) in enumerate(tuned.iterrows() if len(tuned) > 1 else ()):
                (more if number else least).extend(self.results.of_row(row))
        return statistics.difference(more, least) if more else None

    @property
    def cached_runs(self) -> int:
        """How many runs trained on stored activations throughout."""
        return sum(all(phase.cached for phase in run.record.activations.values()) for run in self.results.runs)

    @cached_property
    def agreement(self) -> tuple[int, int, int]:
        """How many test photos all runs classify correctly, how many none does, and on how many they differ."""
        right = statistics.rightness(self.results.runs)
        always, never = int(right.all(axis=0).sum()), int((~right.any(axis=0)).sum())
        return always, never, right.shape[1] - always - never

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
        right = [statistics.rightness(results.of_row(row)).mean(axis=0) for _, row in results.rows.iterrows()]
        columns = {
            "label": grouped["label"].first(),
            "said": grouped["predicted"].agg(lambda names: names.value_counts().index[0]),
            "wrong": pd.Series(1 - np.mean(right, axis=0), index=results.runs[0].right.index).round(6),
        }
        table = pd.DataFrame(columns).rename_axis("key")
        return table[table["wrong"] >= 0.5].nlargest(10, "wrong").reset_index()

    # ---- a replication ---------------------------------------------------------------------------

    @cached_property
    def verdict_counts(self) -> Counter[str]:
        """How many of the source's claims have each verdict; ``standing`` of them also as a family, ``tested`` by p."""
        replication = self.replication
        counts = Counter(replication.verdicts[claim.id].word for claim in replication.stated)
        counts["standing"] = len({claim.id for claim in replication.stated} & set(replication.standing))
        counts["tested"] = sum(verdict.p is not None for verdict in replication.verdicts.values())
        return counts

    def claims_that_are(self, word: str) -> list[Claim]:
        """The source's claims with this verdict."""
        return [claim for claim in self.replication.stated if self.replication.verdicts[claim.id].word == word]

    @property
    def original_milliseconds(self) -> list[tuple[NetworkAnswer, pd.Series]]:
        """Each network with the source's own latencies, as far as it has any."""
        own = self.replication.original
        own = {} if own is None else dict(list(own.groupby("backbone")["inference_ms_per_image"]))
        return [(network, own[network.name]) for network in self.networks if network.name in own]

    # ---- the search ------------------------------------------------------------------------------

    def searches(self) -> Iterator[tuple[str, str, str, pd.DataFrame, list]]:
        """Each search for a learning rate: title, configuration, parameter, the values tried, the values used."""
        groups = self.results.search.groupby(["backbone", "label", "parameter"], sort=False)
        for (name, label, parameter), tried in groups:
            used = {e.model_dump()[parameter] for e in self.experiments if e.backbone == name}
            yield self.results.title(name), label, parameter, tried, sorted(used)
