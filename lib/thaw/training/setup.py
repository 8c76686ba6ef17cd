"""What one experiment works with: its photos, its network with a head, and where it tells of its progress."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from thaw.data.augmentation import with_copies
from thaw.data.photos import Data, photos_of
from thaw.experiment import Experiment
from thaw.network import unfreezing
from thaw.network.backbones import Backbone, get
from thaw.network.head import add_head, start_head
from thaw.network.pretrained import load_pretrained


@dataclass(frozen=True)
class Setup:
    """One experiment, ready to be trained; or several in turn, such as folds, on one network.

    Attributes
    ----------
    experiment : Experiment
    backbone : Backbone
        The network's entry in the registry.
    base : keras.Model
        The backbone with its pre-trained weights.
    pretrained : dict
        Where these weights come from; ``tensors_sha256`` is their hash.
    data : Data
    model : keras.Model
        The backbone with its head, from preprocessed photos to probabilities.
    log : callable
        Is given a line of progress at a time.
    pretrained_weights : dict
        Those of each layer that was ever unfrozen, as they were before.
    made : dict
        What was built or read once for all experiments on this network.
    """

    experiment: Experiment
    backbone: Backbone
    base: keras.Model
    pretrained: dict
    data: Data
    model: keras.Model
    log: Callable[[str], None] = print
    pretrained_weights: dict[str, list[np.ndarray]] = field(default_factory=dict, repr=False)
    made: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, experiment: Experiment, log: Callable[[str], None] = print, data: Data | None = None) -> Setup:
        """Build the network and load the photos of an experiment, with its seed and precision.

        Parameters
        ----------
        experiment : Experiment
        log : callable
        data : Data, optional
            The experiment's photos, divided in another way than by its
            parameters.

        Raises
        ------
        ThawError
            If the network, its weights, its layers to unfreeze or the photos
            are not there.
        """
        set_keras(experiment)
        backbone = get(experiment.backbone, experiment.preprocessing)
        base, pretrained = load_pretrained(
            experiment.backbone, experiment.image_size, experiment.weights, experiment.preprocessing
        )
        for remark in unfreezing.remarks(base, backbone, experiment):  # or refused now
            log(remark)
        data = photos_of(experiment) if data is None else data
        if experiment.copies:
            data = with_copies(data, experiment.augmentation, experiment.copies)
        model = add_head(base, len(data.classes), experiment.seed)
        return cls(experiment, backbone, base, pretrained, data, model, log)

    @property
    def network(self) -> dict[str, Any]:
        """What a report calls the network (``title``), a sentence about it (``about``), and what trains by block."""
        trained = unfreezing.by_block(self.base, self.backbone, self.unfrozen, self.experiment.trains)
        return {"title": self.backbone.title, "about": self.backbone.describe(self.base), **trained}

    @property
    def network_key(self) -> dict:
        """What the network computes depends on, besides its weights, its size and its precision."""
        key = {"backbone": self.pretrained.get("network_sha256", self.experiment.backbone)}
        if self.experiment.preprocessing != "network":
            key["preprocessing"] = self.experiment.preprocessing
        return key

    @property
    def unfrozen(self) -> list[keras.layers.Layer]:
        """The layers of the backbone that the strategy unfreezes."""
        return unfreezing.unfrozen(self.base, self.backbone, self.experiment)

    def unfreeze(self, layers: Collection[str]) -> None:
        """Make just these layers of the backbone trainable, by name, as far as the experiment trains them."""
        chosen = [layer for layer in self.base.layers if layer.name in set(layers)]
        for layer in chosen:
            if layer.name not in self.pretrained_weights:
                self.pretrained_weights[layer.name] = layer.get_weights()
        unfreezing.unfreeze(self.base, chosen, self.experiment.trains, self.experiment.batchnorm)

    def of_fold(self, experiment: Experiment) -> Setup:
        """Begin one of an experiment's folds on the same network: see `Experiment.in_turn`, and `begin`."""
        if experiment.folds is None or experiment.fold is None:
            return self.begin(experiment)
        begun = self.begin(experiment, self.data.in_fold(experiment.folds, experiment.fold))
        return replace(begun, log=lambda line: self.log(f"fold {experiment.fold}: {line}"))

    def for_choosing(self, folds: int, choosing: int, experiment: Experiment) -> Setup:
        """Begin a trial on the folds for choosing: they validate and test, all others train. See `begin`."""
        return self.begin(experiment, self.data.for_choosing(folds, choosing))

    def begin(self, experiment: Experiment, data: Data | None = None) -> Setup:
        """Begin another experiment on the same network: all weights as they were loaded, the head as its seed draws it.

        What was trained before on this network is lost. What was traced for
        it is used again where the same layers train.

        Parameters
        ----------
        experiment : Experiment
            Of the same network, photos and precision.
        data : Data, optional
            The photos, divided anew. By default as they are.
        """
        for name, weights in self.pretrained_weights.items():
            self.base.get_layer(name).set_weights(weights)
        start_head(self.model, experiment.seed)
        return replace(self, experiment=experiment, data=data or self.data)

    def once(self, what: Hashable, make: Callable[[], Any]) -> Any:
        """Make something for this network, or give what was made of that name."""
        if what not in self.made:
            self.made[what] = make()
        return self.made[what]


def set_keras(experiment: Experiment) -> None:
    """Set Keras' random seed and precision, before anything is built.

    Random weights are those of the experiment that a fold belongs to, which
    `Experiment.in_turn` divides: all its folds share them.
    """
    keras.backend.clear_session()
    seed, folds = experiment.seed, experiment.folds
    keras.utils.set_random_seed(seed if folds is None or experiment.fold is None else seed // folds)
    keras.config.set_dtype_policy(experiment.precision)
