"""What one experiment works with: its photos, its network with a head, and where it tells of its progress."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import keras

from thaw.data.augmentation import with_copies
from thaw.data.photos import Data, photos_of
from thaw.experiment import Experiment
from thaw.network import unfreezing
from thaw.network.backbones import Backbone, get
from thaw.network.head import add_head
from thaw.network.pretrained import load_pretrained


@dataclass(frozen=True)
class Setup:
    """One experiment, ready to be trained.

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
    """

    experiment: Experiment
    backbone: Backbone
    base: keras.Model
    pretrained: dict
    data: Data
    model: keras.Model
    log: Callable[[str], None] = print

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
    def network(self) -> dict[str, str]:
        """What a report calls the network (``title``), and a sentence about it (``about``)."""
        return {"title": self.backbone.title, "about": self.backbone.describe(self.base)}

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
        unfreezing.unfreeze(self.base, chosen, self.experiment.trains, self.experiment.batchnorm)


def with_head_of(setup: Setup, experiment: Experiment) -> Setup:
    """Put the head that another experiment starts from on the same network."""
    keras.utils.set_random_seed(experiment.seed)
    model = add_head(setup.base, len(setup.data.classes), experiment.seed)
    return replace(setup, experiment=experiment, model=model)


def set_keras(experiment: Experiment) -> None:
    """Set Keras' random seed and precision, before anything is built."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(experiment.seed)
    keras.config.set_dtype_policy(experiment.precision)
