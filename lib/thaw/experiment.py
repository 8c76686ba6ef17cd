"""The validated parameters of one experiment."""

import hashlib
import json
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from thaw.errors import InvalidParameter, did_you_mean

# The parameters of the first records. All of them are part of a run's digest; one that joined later only counts where
# it differs from its default, so that no committed run is orphaned by a new feature. Never add to this list.
FOUNDING = (
    *("backbone", "strategy", "amount", "dataset", "weights", "image_size", "batch_size", "head_epochs"),
    *("finetune_epochs", "head_learning_rate", "finetune_learning_rate", "precision", "augmentation", "activations"),
    *("seed", "max_examples"),
)
# name, name/configuration:1.0.0 or namespace:name, with nothing that could leave a folder.
_DATASET = re.compile(r"(?!.*(\.\.|//|:/))[A-Za-z0-9]([\w.:/+=,-]{0,198}\w)?", re.ASCII)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 2, 100, 100, 40
_Text = TypeVar("_Text", str, Path, None)


def _one_line(text: _Text) -> _Text:
    # Line ends and the like would pass through notebooks, command lines and messages.
    if _CONTROL.search(str(text)):
        raise ValueError("has a line end or another control character. Remove it, or rename the file")
    return text


def _dataset(name: str) -> str:
    if not _DATASET.fullmatch(name):
        raise ValueError(
            "not a data set's name. Give one of TFDS, such as tf_flowers, or name/configuration:1.0.0: "
            "letters, digits and . _ - : / + = , without '..'"
        )
    return name


def _not_boolean(rate: Any) -> Any:
    if isinstance(rate, bool):  # pydantic would read True as 1
        raise ValueError("not a number. Give one above 0, up to 1")
    return rate


Strategy = Literal["frozen", "layers", "blocks"]
OneLine = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line)]
Epochs = Annotated[int, Field(ge=0, le=1000)]
# Not strict: YAML 1.1 reads 1e-5, without a point, as text.
Rate = Annotated[float, Field(gt=0, le=1, strict=False), BeforeValidator(_not_boolean)]


class Experiment(BaseModel):
    """One run: what is unfrozen, on what data, and with how much work.

    The fields are the papermill parameters of ``notebooks/experiment.ipynb``.
    Build it with `Experiment.of`, which words errors for people.

    Attributes
    ----------
    backbone : str
        The name of a network. `thaw.network.backbones` knows which there are.
    strategy : {'frozen', 'layers', 'blocks'}
        Train the head alone; or, after that, also the last `amount` layers
        (strategy A); or the last `amount` blocks (strategy B).
    amount : int
        How many layers or blocks; 0 if and only if the strategy is 'frozen'.
        Whether the network has so many is checked when it is built.
    dataset : str
        The name of a TFDS data set of labelled images. A configuration and a
        version may follow: ``name/configuration:1.0.0``.
    weights : str
        ``imagenet``; ``demo``, which the package ships; ``none``, random; or
        the path of a weights file.
    image_size : int
        Photos are resized to squares with this side, in pixels.
    batch_size : int
        Photos in one training step.
    head_epochs, finetune_epochs : int
        Epochs of the head alone, and after unfreezing. A 'frozen' run
        unfreezes nothing: its head trains for the sum of the two.
    head_learning_rate, finetune_learning_rate : float
        Adam's step size in each of the two phases.
    precision : {'float32', 'mixed_bfloat16', 'mixed_float16'}
        Keras' dtype policy. The softmax and the loss are always in float32.
    seed : int
        Of the head's initial weights and of the order of photos.
    augmentation : {'none', 'flip'}
        'flip' mirrors each training photo at random, anew in each epoch.
        Every epoch then runs the whole network.
    activations : {'auto', 'keep', 'compute'}
        Whether the output of the frozen part is cached on disk: where that
        pays, always, or never. The results are the same.
    max_examples : int or None
        Use only so many photos, the first in the data set's own order.
    output_dir : Path or None
        Where the run leaves its files. None: a folder under ``outputs/lab``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    backbone: OneLine
    strategy: Strategy
    amount: int = Field(0, ge=0, le=100_000)
    dataset: Annotated[str, AfterValidator(_dataset)] = "tf_flowers"
    weights: OneLine = "imagenet"
    image_size: int = Field(224, ge=32, le=1024)
    batch_size: int = Field(32, ge=1, le=4096)
    head_epochs: Annotated[Epochs, Field(ge=1)] = 5
    finetune_epochs: Epochs = 15
    head_learning_rate: Rate = 1e-3
    finetune_learning_rate: Rate = 1e-5
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    augmentation: Literal["none", "flip"] = "none"
    activations: Literal["auto", "keep", "compute"] = "auto"
    seed: int = Field(0, ge=0, lt=2**31)
    max_examples: int | None = Field(None, ge=20, le=10**9)
    output_dir: Annotated[Path | None, Field(strict=False), AfterValidator(_one_line)] = None

    @model_validator(mode="after")
    def _amount_fits(self) -> "Experiment":
        if self.strategy == "frozen":
            if self.amount:
                raise ValueError(f"amount = {self.amount}: strategy 'frozen' unfreezes nothing. Set amount to 0.")
        elif not self.amount:
            raise ValueError(
                f"amount = 0: strategy {self.strategy!r} needs 1 or more. Give an amount, or the strategy 'frozen'."
            )
        elif not self.finetune_epochs:
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
            Names and values. A ``study`` entry, the part of a profile about
            the whole study, is skipped.

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
        """A hash that names the run: of all parameters but the output folder.

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
        """Whether the base stays frozen and the head trains as long as in a fine-tuned run."""
        return self.strategy == "frozen" and self.finetune_epochs > 0

    @property
    def epochs(self) -> int:
        """Epochs of both phases together."""
        return self.head_epochs + self.finetune_epochs


def parameters_in(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the parameters out of a notebook's namespace.

    Call it as ``parameters_in(globals())`` right after the parameters cell.
    Every number, text, path or None counts as a parameter, so that
    `Experiment.of` refuses a misspelt name. Papermill only warns of one.

    Parameters
    ----------
    namespace : mapping
        A notebook's ``globals()``.
    """
    plain = (str, int, float, Path, type(None))
    return {name: value for name, value in namespace.items() if isinstance(value, plain) and not name.startswith("_")}


def in_words(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Word pydantic's errors for people: a line each, at most ten.

    Parameters
    ----------
    error : ValidationError
    model : type
        The model that was to be built; its fields are what is allowed.
    prefix : str
        Put before each name.
    """
    lines = list(dict.fromkeys(_one_in_words(details, model, prefix) for details in error.errors(include_url=False)))
    return "\n".join(lines[:10] + [f"and {len(lines) - 10} more errors of this kind."] * (len(lines) > 10))


def shown(value: Any) -> str:
    """Show a value in a message: in one short line, whatever it is."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # a number with thousands of digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 150 else f"{text[:149]}…"


def _one_in_words(error: Mapping[str, Any], model: type[BaseModel], prefix: str) -> str:
    given, message = shown(error["input"]), error["msg"].removeprefix("Value error, ")
    if not error["loc"]:  # the model's own validator has said it all
        return message
    field = shown(error["loc"][0]).strip("'")
    name = prefix + field
    match error["type"]:
        case "extra_forbidden" | "invalid_key":
            return f"{name}: no such {'entry' if prefix else 'parameter'}. {did_you_mean(field, model.model_fields)}"
        case "missing":
            return f"{name}: missing. Give it in a configuration or a profile."
        case "literal_error":
            allowed = re.findall("'([^']*)'", error["ctx"]["expected"])
            return f"{name} = {given}: not allowed. {did_you_mean(given, allowed)}"
    return f"{name} = {given}: {message[0].lower()}{message[1:]}."
