"""Before anything is fine-tuned: a prediction of how much to unfreeze, from the features of the frozen network.

`thaw.training.probe` measures; here are the rule, the file, and reading it back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from thaw.disk.atomic import write_atomic
from thaw.experiment import Experiment
from thaw.study.study import Study

if TYPE_CHECKING:
    from thaw.training.setup import Setup

LIKE = ("dataset", "splits", "max_examples", "on_damaged", "weights", "preprocessing", "image_size", "precision")
_STRICT = ConfigDict(extra="forbid", frozen=True)


class Depth(BaseModel):
    """What the probe measured at the end of one block.

    Attributes
    ----------
    block : str
        Its name.
    linear, neighbours : float
        Accuracies of a linear classifier and of the nearest neighbours on
        the features there, 0 to 1: means over folds.
    linear_error, neighbours_error : float
        Their standard errors over the folds.
    gradient_ratio : float or None
        The norm of the loss's gradient over that of the block's weights;
        None for a block without weights.
    """

    model_config = _STRICT

    block: str
    linear: float = Field(ge=0, le=1)
    linear_error: float = Field(ge=0)
    neighbours: float = Field(ge=0, le=1)
    neighbours_error: float = Field(ge=0)
    gradient_ratio: float | None = Field(None, ge=0)


class Probe(BaseModel):
    """The probe of one network; ``probe-<network>.json``.

    Attributes
    ----------
    network, title : str
        Its name in the experiments, and what reports call it.
    time : datetime
        When the probe was made, in UTC.
    tuned_before : int
        How many fine-tuned runs of the network had finished by then.
    photos : int
        Those that train and validate. The probe saw no others.
    largest_class : float
        Their share that naming the largest class every time gets right.
    key : dict
        What the figures are of: hashes of photos and weights, and settings.
    depths : list of Depth
        One a block, from the input to the output.
    blocks : int
        The prediction: how many blocks to unfreeze, from the last.
    words : str
        The prediction in words, and what it rests on.
    """

    model_config = _STRICT

    network: str
    title: str
    time: datetime
    tuned_before: int = Field(ge=0)
    photos: int = Field(ge=0)
    largest_class: float = Field(ge=0, le=1)
    key: dict[str, Any]
    depths: list[Depth] = Field(min_length=1)
    blocks: int = Field(ge=1)
    words: str

    @property
    def when(self) -> str:
        """The time, as people write it."""
        return f"{self.time:%Y-%m-%d %H:%M} UTC"

    @property
    def origin(self) -> tuple:
        """The network, and the hashes of the photos and weights."""
        return self.network, self.key.get("data"), self.key.get("weights")

    def table(self) -> pd.DataFrame:
        """List the depths for a terminal: accuracies with their standard errors, in percent."""
        return pd.DataFrame(
            {
                "depth": range(1, len(self.depths) + 1),
                "block": [depth.block for depth in self.depths],
                "linear probe": [f"{depth.linear:.1%} ± {100 * depth.linear_error:.1f}" for depth in self.depths],
                "neighbours": [f"{depth.neighbours:.1%} ± {100 * depth.neighbours_error:.1f}" for depth in self.depths],
                "gradient / weight": [
                    "" if depth.gradient_ratio is None else f"{depth.gradient_ratio:.2g}" for depth in self.depths
                ],
            }
        )


def enough(depths: Sequence[Depth]) -> tuple[int, int]:
    """Find the first depth whose linear probe is within one standard error of the best, and the best; from 1.

    The standard error is that of the best depth (the rule of one standard
    error: Breiman, Friedman, Olshen and Stone, 1984).
    """
    accuracy = np.array([depth.linear for depth in depths])
    best = int(accuracy.argmax())
    near = accuracy >= accuracy[best] - depths[best].linear_error
    return int(near.argmax()) + 1, best + 1


def predicted(depths: Sequence[Depth]) -> int:
    """Predict how many blocks to unfreeze: all those after the depth that is `enough`, and at least the last.

    What comes after that depth adds nothing that the linear probe can see, so
    it may as well learn something new. The rule was made on two networks whose
    outcome was known, MobileNet and ResNet50 on TF Flowers. It is not to be
    changed to fit later studies: they test it.
    """
    return max(len(depths) - enough(depths)[0], 1)


def in_words(depths: Sequence[Depth], largest_class: float) -> str:
    """State the prediction in a sentence or two."""
    (first, best), total, blocks = enough(depths), len(depths), predicted(depths)
    if total == 1:
        return "Unfreeze the only block. There is no other depth to compare it with."
    top = depths[best - 1]
    what = "the last block" if blocks == 1 else f"the last {blocks} of {total} blocks"
    reached = f"{top.linear:.1%} (standard error {100 * top.linear_error:.1f} points)"
    if first == best:
        text = f"Unfreeze {what}: the linear probe is best after block {best} of {total}, at {reached}."
    else:
        text = (
            f"Unfreeze {what}: after block {first} of {total} the linear probe has {depths[first - 1].linear:.1%}, "
            f"within one standard error of its best, {reached}, after block {best}."
        )
    if top.linear - top.linear_error <= largest_class:
        text += (
            f" That is hardly more than naming the largest class every time ({largest_class:.1%}): "
            "the prediction has little to go on."
        )
    return text


def networks(study: Study) -> dict[str, Experiment]:
    """Give each network's experiment whose photos and settings are probed: its first, whatever the photo size."""
    first: dict[str, Experiment] = {}
    for experiment in study.networks():
        first.setdefault(experiment.backbone, experiment)
    return first


def path(study: Study, backbone: str) -> Path:
    """Give the path of a network's probe. Files of the same name in two folders are numbered."""
    stems = {name: re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).stem) for name in networks(study)}
    number = [name for name, stem in stems.items() if stem == stems[backbone]].index(backbone) + 1
    return study.outputs / f"probe-{stems[backbone]}{f'-{number}' if number > 1 else ''}.json"


def read(study: Study, backbone: str) -> Probe | None:
    """Read a network's probe; None where there is none, or none that can be read."""
    try:
        probe = Probe.model_validate_json(path(study, backbone).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    return probe if probe.network == backbone else None


def of(study: Study) -> dict[str, Probe]:
    """Read all probes of a study, by network."""
    return {name: probe for name in networks(study) if (probe := read(study, name))}


def is_due(study: Study, setup: Setup) -> bool:
    """Whether a network is to be probed with these photos and settings, and has no probe with them yet."""
    backbone, probe = setup.experiment.backbone, read(study, setup.experiment.backbone)
    first = networks(study)[backbone]
    names = (*LIKE, "seed") if first.weights == "none" else LIKE  # the seed makes random weights
    if any(getattr(first, name) != getattr(setup.experiment, name) for name in names):
        return False
    return probe is None or probe.key != key(setup)


def key(setup: Setup) -> dict[str, Any]:
    """Name what the probe's figures depend on."""
    return {
        "data": setup.data.provenance["sha256"],
        "weights": setup.pretrained["tensors_sha256"],
        **setup.network_key,
        **{name: getattr(setup.experiment, name) for name in ("image_size", "precision", "splits")},
    }


def make(study: Study, setup: Setup, log: Callable[[str], None] = print) -> Probe:
    """Probe a network, predict, and write both down.

    Parameters
    ----------
    study : Study
    setup : Setup
        Its head is trained.
    log : callable
        Is told the prediction.

    Raises
    ------
    ThawError
        If there are too few photos, or no room on the disk.
    """
    from thaw.training import probe  # with TensorFlow: seconds

    data, backbone = setup.data, setup.experiment.backbone
    measured, ratios = probe.accuracies(setup), probe.gradient_ratios(setup)
    depths = [Depth(gradient_ratio=ratios[row["block"]], **row) for row in measured.to_dict("records")]
    labels = data.labels[np.concatenate([data.train, data.validation])]
    largest = float(np.bincount(labels).max() / len(labels))
    began = [job for job in study.jobs if job.folders or (job.choice and not job.awaits_rates)]
    tuned = [job for job in began if job.experiment.strategy != "frozen"]
    made = Probe(
        network=backbone,
        title=setup.backbone.title,
        time=datetime.now(UTC).replace(microsecond=0),
        tuned_before=sum(job.experiment.backbone == backbone for job in tuned),
        photos=len(labels),
        largest_class=largest,
        key=key(setup),
        depths=depths,
        blocks=predicted(depths),
        words=in_words(depths, largest),
    )
    write_atomic(path(study, backbone), made.model_dump_json(indent=2) + "\n")
    log(f"the probe predicts: {made.words}")
    return made
