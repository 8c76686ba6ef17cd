"""The validated parameters of one experiment."""

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from thaw.errors import InvalidParameter, did_you_mean
from thaw.network import backbones

Strategy = Literal["frozen", "layers", "blocks"]
# The parameters of the first records. All of them are part of a run's digest; one that joined later only counts where
# it differs from its default, so that no committed run is orphaned by a new feature. Never add to this list.
FOUNDING = (
    *("backbone", "strategy", "amount", "dataset", "weights", "image_size", "batch_size", "head_epochs"),
    *("finetune_epochs", "head_learning_rate", "finetune_learning_rate", "precision", "augmentation", "activations"),
    *("seed", "max_examples"),
)
# name, name/configuration:1.0.0, namespace:name: no part of it a folder to go up or out by.
_DATASET = re.compile(r"(?!.*(\.\.|//|:/))[A-Za-z0-9]([\w.:/+=,-]{0,198}\w)?", re.ASCII)
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 2, 100, 100, 40


class Experiment(BaseModel):
    """One run: what is unfrozen, on what data, and with how much work.

    The fields are the papermill parameters of ``notebooks/experiment.ipynb``.
    Build it with `Experiment.of`, which words its complaints for people.

    Attributes
    ----------
    backbone : str
        A name in the registry of `thaw.network.backbones`.
    strategy : {'frozen', 'layers', 'blocks'}
        Train the head alone; or, after it, the last `amount` layers (strategy
        A); or the last `amount` blocks (strategy B).
    amount : int
        How many layers or blocks; 0 if and only if the strategy is 'frozen'.
        That the network has so many is checked when it is built.
    dataset : str
        The name of a TFDS data set of labelled images, with its configuration
        and version if need be: ``name/configuration:1.0.0``.
    weights : str
        ``imagenet``; ``demo``, which the package ships; ``none``, random; or
        the path of a weights file.
    image_size : int
        Side of the square that photos are resized to, in pixels.
    batch_size : int
        Photos in one training step.
    head_epochs, finetune_epochs : int
        Epochs of the head alone, and after unfreezing. A 'frozen' run has
        nothing to unfreeze: its head trains for the sum of the two.
    head_learning_rate, finetune_learning_rate : float
        Adam's step size in each of the two phases.
    precision : {'float32', 'mixed_bfloat16', 'mixed_float16'}
        Keras' dtype policy. The softmax and the loss are always in float32.
    seed : int
        Of the head's initial weights and of the order of photos.
    augmentation : {'none', 'flip'}
        'flip' mirrors each training photo at random, another way each epoch.
        Then nothing can be computed once: every epoch runs the whole network.
    activations : {'auto', 'keep', 'compute'}
        What the frozen part computes: kept on disk where that pays, always, or
        computed anew in every epoch. The results are the same.
    max_examples : int or None
        Use only so many photos, the first in the data set's own order.
    output_dir : Path or None
        Where the run leaves its files. None: a folder under ``outputs/lab``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    backbone: str
    strategy: Strategy
    amount: int = Field(0, ge=0, le=100_000)
    dataset: str = Field("tf_flowers", min_length=1)
    weights: str = Field("imagenet", min_length=1)
    image_size: int = Field(224, ge=32, le=1024)
    batch_size: int = Field(32, ge=1, le=4096)
    head_epochs: int = Field(5, ge=1, le=1000)
    finetune_epochs: int = Field(15, ge=0, le=1000)
    # Not strict: YAML 1.1 reads 1e-5, without a point, as text.
    head_learning_rate: float = Field(1e-3, gt=0, le=1, strict=False)
    finetune_learning_rate: float = Field(1e-5, gt=0, le=1, strict=False)
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    augmentation: Literal["none", "flip"] = "none"
    activations: Literal["auto", "keep", "compute"] = "auto"
    seed: int = Field(0, ge=0, lt=2**31)
    max_examples: int | None = Field(None, ge=20, le=10**9)
    output_dir: Path | None = Field(None, strict=False)

    @field_validator("backbone")
    @classmethod
    def _is_registered(cls, name: str) -> str:
        backbones.get(name if len(name) <= 100 else f"{name[:99]}…")
        return name

    @field_validator("dataset")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not _DATASET.fullmatch(name):
            raise ValueError(
                "not a data set's name. Give one of TFDS, such as tf_flowers, or name/configuration:1.0.0: "
                "letters, digits and . _ - : / + = , without '..'"
            )
        return name

    @field_validator("weights", "output_dir")
    @classmethod
    def _is_one_line(cls, path: str | Path | None) -> str | Path | None:
        # Line ends and the like pass through notebooks, command lines and messages.
        if re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", str(path)):
            raise ValueError(
                "has a line end or another control character. Give a path without, or rename what it leads to"
            )
        return path

    @field_validator("head_learning_rate", "finetune_learning_rate", mode="before")
    @classmethod
    def _is_no_yes(cls, rate: Any) -> Any:
        if isinstance(rate, bool):  # or it would pass for 1 or 0
            raise ValueError("not a number. Give one above 0, up to 1")
        return rate

    @model_validator(mode="after")
    def _amount_fits(self) -> "Experiment":
        if self.strategy == "frozen" and self.amount:
            raise ValueError(f"amount = {self.amount}: strategy 'frozen' unfreezes nothing. Set amount to 0.")
        if self.strategy != "frozen" and not self.amount:
            raise ValueError(
                f"amount = 0: strategy {self.strategy!r} needs 1 or more. Give an amount, or the strategy 'frozen'."
            )
        if self.strategy != "frozen" and not self.finetune_epochs:
            raise ValueError(
                "finetune_epochs = 0: nothing would be fine-tuned. Give 1 or more, or the strategy 'frozen'."
            )
        return self

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "Experiment":
        """Validate parameters from YAML files, papermill or a notebook.

        Parameters
        ----------
        parameters : mapping
            Names and values. A ``study`` entry, the part of a profile that
            speaks of the whole study, is passed over.

        Raises
        ------
        InvalidParameter
            With a line for each parameter that is unknown or out of range.
        """
        try:
            return cls.model_validate({name: value for name, value in parameters.items() if name != "study"})
        except ValidationError as error:
            raise InvalidParameter(in_words(error, cls)) from None

    @property
    def label(self) -> str:
        """The strategy in words, for example 'Strategy B (2 blocks)'."""
        if self.strategy == "frozen":
            return f"Frozen, {self.epochs} epoch{'s' * (self.epochs > 1)}"
        unit = self.strategy if self.amount > 1 else self.strategy.removesuffix("s")
        return f"Strategy {'A' if self.strategy == 'layers' else 'B'} ({self.amount} {unit})"

    @property
    def digest(self) -> str:
        """A hash of what names the run: all parameters but the output folder.

        A parameter that joined after the first records counts only where it
        differs from its default. A default never changes.
        """
        parameters = self.model_dump(mode="json", exclude={"output_dir"})
        defaults = {name: field.get_default() for name, field in type(self).model_fields.items()}
        counted = {
            name: value
            for name, value in parameters.items()
            if name in FOUNDING or getattr(self, name) != defaults[name]
        }
        return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()

    @property
    def control(self) -> bool:
        """Whether the base stays frozen, yet the head trains as long as in a fine-tuned run."""
        return self.strategy == "frozen" and self.finetune_epochs > 0

    @property
    def epochs(self) -> int:
        """Epochs of both phases together."""
        return self.head_epochs + self.finetune_epochs


def parameters_in(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the parameters out of a notebook's namespace.

    Call it as ``parameters_in(globals())`` right after the parameters cell:
    every number, text or None is taken for a parameter, so that one with a
    misspelt name, which papermill only warns of, is refused by `Experiment.of`.

    Parameters
    ----------
    namespace : mapping
        A notebook's ``globals()``.
    """
    plain = (str, int, float, Path, type(None))
    return {name: value for name, value in namespace.items() if isinstance(value, plain) and not name.startswith("_")}


def in_words(error: ValidationError, model: type[BaseModel], prefix: str = "", most: int = 10) -> str:
    """Word pydantic's complaints for people, a line each.

    Parameters
    ----------
    error : ValidationError
    model : type
        The model that was to be built; its fields are what is allowed.
    prefix : str
        Put before each name.
    most : int
        So many complaints at most.
    """
    lines = list(dict.fromkeys(_one_in_words(details, model, prefix) for details in error.errors(include_url=False)))
    return "\n".join(lines[:most] + [f"and {len(lines) - most} more of this kind."] * (len(lines) > most))


def shown(value: Any) -> str:
    """A value as a message shows it: short, whatever it is, and in one line."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # of a number with thousands of digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 150 else f"{text[:149]}…"


def _one_in_words(error: dict[str, Any], model: type[BaseModel], prefix: str) -> str:
    field = error["loc"][0] if error["loc"] else ""
    given = error.get("input")
    readable = isinstance(field, str) and field.isprintable() and len(field) <= 100
    name = prefix + (field if readable else shown(field))
    if error["type"] in ("extra_forbidden", "invalid_key"):
        hint = did_you_mean(field if readable else "", model.model_fields)
        return f"{name}: no such {'entry' if prefix else 'parameter'}. {hint}"
    if error["type"] == "missing":
        return f"{name}: missing. Give it in a configuration or a profile."
    if error["type"] == "literal_error":
        close = given[:100] if isinstance(given, str) else ""
        return f"{name} = {shown(given)}: not allowed. {did_you_mean(close, model.model_fields[field].annotation.__args__)}"
    message = error["msg"].removeprefix("Value error, ")
    if not field:
        return message
    return f"{name} = {shown(given)}: {message[0].lower()}{message[1:]}."
