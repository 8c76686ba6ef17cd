"""What the trials of learning rates say: which each configuration took, and who needs care."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from thaw.report.results import Results
from thaw.study.rates import HEAD


@dataclass(frozen=True, eq=False)
class Trials:
    """The trials of one learning rate that some configurations have in common: those of a head, or of one alone.

    Attributes
    ----------
    backbone, parameter : str
    names : dict of str to str
        The configurations: how a sentence names each, and its short name.
    table : DataFrame
        A trial a row, by rising value.
    """

    backbone: str
    parameter: str
    names: dict[str, str]
    table: pd.DataFrame

    @cached_property
    def chosen(self) -> pd.Series:
        """The trial that was taken."""
        return self.table[self.table["chosen"]].iloc[0]

    @property
    def at_edge(self) -> str:
        """Say where no rate beyond the one taken was tried: 'largest', 'smallest' or ''."""
        values = self.table["value"]
        if len(values) < 2:
            return ""
        return {values.max(): "largest", values.min(): "smallest"}.get(self.chosen["value"], "")

    @property
    def beside(self) -> float | None:
        """The larger of the losses one step beside the rate taken; infinite where that diverged; None without any."""
        if len(self.table) < 2:
            return None
        place = int(np.flatnonzero(self.table["chosen"])[0])
        next_to = self.table.iloc[[other for other in (place - 1, place + 1) if 0 <= other < len(self.table)]]
        return float(np.where(next_to["diverged"], np.inf, next_to["loss"]).max())

    @property
    def rise(self) -> float:
        """By which share the loss rises one step beside the rate taken."""
        return 0.0 if self.beside is None else self.beside / float(self.chosen["loss"]) - 1


@dataclass(frozen=True, eq=False)
class RatesOf:
    """What the configurations of one network took of one learning rate."""

    title: str
    parameter: str
    trials: list[Trials]

    @property
    def is_head(self) -> bool:
        """Whether it is the rate of the head alone."""
        return self.parameter == HEAD

    @property
    def total(self) -> int:
        """How many configurations there are."""
        return sum(len(each.names) for each in self.trials)

    def named(self, trials: Trials) -> str:
        """Name the configurations that have some trials in short: 'all', or 'all but' a few, where that is shorter."""
        others = [name for each in self.trials if each is not trials for name in each.names.values()]
        if len(trials.names) > max(1, len(others)):
            return f"all but {', '.join(others)}" if others else "all"
        return ", ".join(trials.names.values())

    @property
    def chosen(self) -> list[tuple[float, list[str]]]:
        """Each rate with the configurations that took it, the most frequent first."""
        found: dict[float, list[str]] = {}
        for each in self.trials:
            found.setdefault(float(each.chosen["value"]), []).extend(each.names)
        return sorted(found.items(), key=lambda item: (-len(item[1]), -item[0]))

    @property
    def at_edge(self) -> dict[str, list[str]]:
        """The configurations whose rate is the 'largest' or the 'smallest' that was tried."""
        found: dict[str, list[str]] = {}
        for each in self.trials:
            if each.at_edge:
                found.setdefault(each.at_edge, []).extend(each.names)
        return found

    @cached_property
    def care(self) -> tuple[Trials, Trials] | None:
        """Whose loss rises most, and whose least, one step beside the best rate; None with fewer than two."""
        found = [each for each in self.trials if each.beside is not None]
        if self.is_head or len(found) < 2:
            return None
        return max(found, key=lambda each: each.rise), min(found, key=lambda each: each.rise)


@dataclass(frozen=True, eq=False)
class Rates:
    """The trials of all learning rates of a study.

    Attributes
    ----------
    results : Results
        With `rates`.
    table : DataFrame
        As `thaw.study.rates.table` returns it.
    """

    results: Results
    table: pd.DataFrame

    @property
    def photos(self) -> int:
        """How many photos chose."""
        return int(self.table["photos"].max())

    @property
    def at_edge(self) -> int:
        """Of how many choices the rate is still the largest or smallest that was tried."""
        return sum(len(names) for of in self.networks for names in of.at_edge.values())

    @cached_property
    def networks(self) -> list[RatesOf]:
        """What was taken in each network: of the rate after unfreezing, and of the head's."""
        found = []
        for backbone, parameter in self.table[["backbone", "parameter"]].drop_duplicates().itertuples(index=False):
            trials = list(self._trials(backbone, parameter))
            found.append(RatesOf(self.results.title(backbone), parameter, trials))
        order = [self.results.title(name) for name in self.results.backbones]
        return sorted(
            found, key=lambda of: (of.title not in order, order.index(of.title) if of.title in order else 0, of.is_head)
        )

    def _trials(self, backbone: str, parameter: str) -> Iterator[Trials]:
        """Group the trials of a network by configuration; configurations with the same trials stand together."""
        own = self.table[(self.table["backbone"] == backbone) & (self.table["parameter"] == parameter)]
        rows = self.results.backbones.get(backbone, self.results.rows.iloc[:0])
        rows = rows.sort_values("trainable_parameters", kind="stable").drop_duplicates("label", keep=False)
        known = {row["label"]: (number, row["phrase"], row["short"]) for number, (_, row) in enumerate(rows.iterrows())}
        groups: dict[str, tuple[int, dict[str, str], pd.DataFrame]] = {}
        for (configuration, label), table in own.groupby(["configuration", "label"], sort=False):
            table = table.sort_values("value").reset_index(drop=True)
            place, phrase, short = known.get(label, (len(known), label, configuration))
            same = repr(table[["value", "loss", "chosen"]].to_numpy().tolist()) if parameter == HEAD else configuration
            _, names, _ = groups.setdefault(same, (place, {}, table))
            names[phrase] = short
        for _, names, table in sorted(groups.values(), key=lambda group: group[0]):
            yield Trials(backbone, parameter, names, table)
