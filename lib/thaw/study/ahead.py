"""What an experiment would train, keep on disk and take, before it is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from thaw.data.splits import PARTS
from thaw.experiment import Experiment
from thaw.network import graph, unfreezing
from thaw.records import runs
from thaw.records.runs import Run
from thaw.study import estimate, run
from thaw.training import activations, phases
from thaw.training.setup import Setup


@dataclass(frozen=True, eq=False)
class Outlook:
    """What is known of an experiment before it is run.

    Attributes
    ----------
    layers : DataFrame
        As `thaw.network.unfreezing.layer_table` returns it.
    trainable_parameters, total_parameters : int
        With the head.
    activations : int
        Bytes of what leaves the frozen part, for all photos.
    kept : bool
        Whether these go to the disk, which saves more time than it takes.
    seconds : float
        Estimated for one core of this machine.
    """

    layers: pd.DataFrame
    trainable_parameters: int
    total_parameters: int
    activations: int
    kept: bool
    seconds: float


@dataclass(frozen=True, eq=False)
class Ahead:
    """A network and its photos, on which any way to unfreeze can be looked at.

    Attributes
    ----------
    setup : Setup
    speed : Speed
    """

    setup: Setup
    speed: estimate.Speed

    @classmethod
    def of(cls, experiment: Experiment) -> Ahead:
        """Load the network and the photos of an experiment, and measure this machine: some seconds.

        Raises
        ------
        ThawError
            As `Setup.of` does.
        """
        setup = Setup.of(experiment)
        return cls(setup, estimate.measure(experiment, len(setup.data.classes)))

    @property
    def blocks(self) -> dict[str, int]:
        """How many layers each of the network's blocks has, from the input to the output."""
        return {name: len(layers) for name, layers in self.setup.backbone.blocks(self.setup.base).items()}

    def most(self, strategy: str) -> int:
        """Count what a strategy can unfreeze: layers, blocks, or nothing."""
        return {"layers": len(self.setup.base.layers), "blocks": len(self.blocks)}.get(strategy, 0)

    def experiment(self, strategy: str, amount: int) -> Experiment:
        """Give the experiment that unfreezes so much; as much as there is where it is too much."""
        most = self.most(strategy)
        chosen = {"strategy": strategy, "amount": min(max(amount, 1), most) if most else 0}
        return Experiment.of(self.setup.experiment.model_dump() | chosen)

    def outlook(self, experiment: Experiment) -> Outlook:
        """Say what an experiment on this network would train, keep on disk and take."""
        base, backbone, model, data = self.setup.base, self.setup.backbone, self.setup.model, self.setup.data
        layers = unfreezing.unfrozen(base, backbone, experiment)
        self.setup.unfreeze([layer.name for layer in layers])
        cut = graph.cut(model)
        counts = {name: len(rows) for name, rows in zip(PARTS, (data.train, data.validation, data.test))}
        return Outlook(
            unfreezing.layer_table(base, backbone, layers),
            **unfreezing.count_parameters(model),
            activations=cut.bytes_a_photo * len(data),
            kept=cut.has_frozen_part and activations.worth(model, list(cut.frontier)) >= activations.WORTH,
            seconds=estimate.of_one(experiment, counts, self.speed),
        )

    def run(self, experiment: Experiment, log: Callable[[str], None]) -> list[Run]:
        """Train and test an experiment as ``notebooks/experiment.ipynb`` does; or read it, if that was done.

        Raises
        ------
        ThawError
            As `thaw.study.run.run_all` does.
        """
        setup = Setup.of(experiment, log)
        found = run.run_all(setup, runs.output_directory(experiment))
        phases.forget(setup)  # what was kept in case the run is stopped
        return found
