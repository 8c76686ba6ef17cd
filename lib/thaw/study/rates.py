"""The learning rates of each configuration: tried on folds that are not tested, the lowest loss chosen.

First the head is trained alone at each of its rates; all configurations of a
network share these heads. Then, with the best of them, what is unfrozen is
fine-tuned at each of its rates. All photos but those of the choosing folds
train, and these say the loss.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from thaw.errors import Diverged
from thaw.experiment import Experiment
from thaw.records.runs import write_csv

if TYPE_CHECKING:
    from thaw.study.study import Study
    from thaw.training.setup import Setup

HEAD, FINETUNE = "head_learning_rate", "finetune_learning_rate"
EXTENSIONS = 3  # times that a grid is extended where its last rate is the best
COLUMNS = [
    *("backbone", "configuration", "label", "parameter", "value", "loss", "accuracy", "photos", "epochs", "seconds"),
    *("diverged", "extended", "chosen", "files_sha256"),
]


@dataclass(frozen=True)
class Choice:
    """Which learning rates a configuration may have, and where the file is that says what was chosen."""

    configuration: str
    experiment: Experiment  # with the study's first seed; the rates to be chosen have their defaults
    grids: Mapping[str, Sequence[float]]  # the rates to try, by the parameter's name; those of the head first
    folder: Path

    @property
    def label(self) -> str:
        """The choice in words."""
        return f"{self.configuration}, learning rates"

    @property
    def name(self) -> str:
        """Holds a digest of all that it depends on, but for the photos: with other settings it is another choice."""
        digest = hashlib.sha256(json.dumps([self.experiment.digest, self.grids]).encode()).hexdigest()
        return f"{self.configuration}-{digest[:8]}"

    @property
    def path(self) -> Path:
        """The file that it leaves: see `table`."""
        return self.folder / f"{self.name}.csv"

    def read(self) -> pd.DataFrame | None:
        """Read what was tried, and what of it was chosen; None as long as no file says it."""
        try:
            found = pd.read_csv(self.path)
            if list(found) != COLUMNS or set(found["parameter"]) != set(self.grids):
                return None
            best = found[found["chosen"].astype(bool)]
            right = best["value"].between(0, 1, "right").all() and sorted(best["parameter"]) == sorted(self.grids)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if right else None

    def chosen(self) -> dict[str, float] | None:
        """Read the chosen rates, by the parameter's name; None as long as they are not chosen."""
        if (tried := self.read()) is None:
            return None
        best = tried[tried["chosen"]]
        return dict(zip(best["parameter"], map(float, best["value"]), strict=True))


def of(configuration: str, experiment: Experiment, grids: Mapping[str, Sequence[float]], folder: Path) -> Choice | None:
    """Give the choice that a configuration has; None if the study chooses none of its rates."""
    its = {HEAD} if experiment.strategy == "frozen" else {HEAD, FINETUNE}
    own = {name: sorted(set(grids[name])) for name in (HEAD, FINETUNE) if name in its & set(grids)}
    return Choice(configuration, experiment, own, folder) if own else None


def table(study: Study) -> pd.DataFrame | None:
    """Read all that was tried for a study.

    Returns
    -------
    DataFrame or None
        A rate of a configuration a row: backbone, configuration, label,
        parameter (``head_learning_rate`` or ``finetune_learning_rate``),
        value, loss and accuracy on the photos that choose (how many is in
        ``photos``), epochs, seconds, diverged, extended (whether it was not in
        the profile, but tried because the grid's last rate was best), chosen,
        and a hash of the photos. None where nothing was tried.
    """
    tried = [found for choice in study.choices if (found := choice.read()) is not None]
    return pd.concat(tried, ignore_index=True) if tried else None


def choose(choice: Choice, log: Callable[[str], None] = print) -> None:
    """Try the rates of a configuration, and write down what was chosen.

    What was trained before is taken up from its checkpoints.

    Raises
    ------
    ThawError
        If photos or weights cannot be read, or all rates diverge.
    """
    from thaw.study.plan import head_alone, is_kept  # with TensorFlow: seconds
    from thaw.training import phases
    from thaw.training.setup import Setup

    experiment, setup = choice.experiment, Setup.of(choice.experiment, log)
    if is_kept(experiment):
        phases.provide_activations(setup, [experiment])
    rows: list[dict[str, Any]] = []
    for parameter, grid in choice.grids.items():
        trained = head_alone(experiment) if parameter == HEAD else experiment
        trials: dict[float, dict[str, Any]] = {}

        def loss(rate: float, parameter=parameter, trained=trained, trials=trials) -> float:
            trials[rate] = _trial(setup, trained.model_copy(update={parameter: rate}))
            said = "diverged" if trials[rate]["diverged"] else f"loss {trials[rate]['loss']:.4f}"
            log(f"{parameter} {rate:g}: {said} on the folds for choosing")
            return math.inf if trials[rate]["diverged"] else trials[rate]["loss"]

        best = lowest(grid, loss)
        if trials[best]["diverged"]:
            raise Diverged(
                f"{choice.configuration}: diverged at every {parameter} of {', '.join(f'{rate:g}' for rate in grid)}. "
                f"Give smaller ones in study.learning_rates."
            )
        log(f"{parameter} {best:g} is chosen")
        experiment = experiment.model_copy(update={parameter: best})
        for rate in sorted(trials):
            about = {"parameter": parameter, "value": rate, "extended": rate not in grid, "chosen": rate == best}
            rows.append(trials[rate] | about)
    found = pd.DataFrame(rows).assign(
        backbone=experiment.backbone,
        configuration=choice.configuration,
        label=experiment.label,
        files_sha256=setup.data.provenance["files_sha256"],
    )
    write_csv(found[COLUMNS], choice.path)
    for row in rows:
        phases.forget(row["setup"])


def _trial(setup: Setup, experiment: Experiment) -> dict[str, Any]:
    """Train on all photos but those that choose, and say what came of it, and of what setup."""
    from thaw.training import phases

    folds = experiment.folds
    assert folds is not None  # rates are chosen on them
    chosen = setup.for_choosing(folds, experiment.choosing_folds, experiment)
    training = phases.train(chosen)
    kept = training.history.iloc[training.kept_epoch - 1]
    return {
        "loss": kept["validation_loss"],
        "accuracy": kept["validation_accuracy"],
        "photos": len(chosen.data.validation),
        "epochs": len(training.history),
        "seconds": training.history["seconds"].sum(),
        "diverged": training.diverged is not None,
        "setup": chosen,
    }


def lowest(grid: Sequence[float], loss: Callable[[float], float]) -> float:
    """Try rates, and give the one with the lowest loss; of equal ones the smallest.

    As long as the best is the smallest or the largest, one more is tried
    beyond it, as far from it as the next one on its other side: at most
    `EXTENSIONS` times.

    Parameters
    ----------
    grid : sequence of float
    loss : callable
        Infinite for a rate that diverges.
    """
    losses = {rate: loss(rate) for rate in sorted(grid)}
    for _ in range(EXTENSIONS):
        best = min(sorted(losses), key=losses.__getitem__)
        further = _beyond(sorted(losses), best)
        if further is None or math.isinf(losses[best]):
            break
        losses[further] = loss(further)
    return min(sorted(losses), key=losses.__getitem__)


def _beyond(rates: Sequence[float], best: float) -> float | None:
    """Give the next rate beyond the best of some, if that is the first or last; None if it is not, or there is none."""
    if len(rates) < 2 or best not in (rates[0], rates[-1]):
        return None
    further = best * best / (rates[1] if best == rates[0] else rates[-2])
    return float(f"{further:.3g}") if further <= 1 else None
