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
# Parameters that only concern what is unfrozen.
OF_UNFREEZING = ("skip", "pattern", "trains", "batchnorm", "rate_decay", "gradual")
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
    kind, _, path = name.partition(":")
    if kind in OWN_PHOTOS and len(name) <= 1000:
        if not path or (kind == "table" and not path.lower().endswith(".csv")):
            raise ValueError("has no path. Give folder:PATH, or table:FILE.csv with the columns path and label")
        return _one_line(name)
    if not _DATASET.fullmatch(name):
        raise ValueError(
            "not a data set's name. Give one of TFDS, such as tf_flowers, or name/configuration:1.0.0: "
            "letters, digits and . _ - : / + = , without '..'. For your own photos give folder:PATH or table:FILE.csv"
        )
    return name


def _backbone(name: str) -> str:
    # keras.applications has no two names that differ in case alone; a file's path may.
    return name if is_file(name) else name.lower()


def is_file(backbone: str) -> bool:
    """Whether a backbone is the path of a ``.keras`` file, and not the name of a network."""
    return backbone.lower().endswith(".keras")


def _expression(pattern: str | None) -> str | None:
    try:
        re.compile(pattern or "")
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"not a regular expression ({error})") from None
    return pattern


def _not_boolean(rate: Any) -> Any:
    if isinstance(rate, bool):  # pydantic would read True as 1
        raise ValueError("not a number. Give one above 0, up to 1")
    return rate


FEWEST_FOLDS = 3  # to test on: with fewer, nothing is known of how far results vary
OWN_PHOTOS = ("folder", "table")  # kinds of data sets that are the user's own files
Strategy = Literal["frozen", "layers", "blocks", "pattern", "all"]
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
        The name of a network, or the path of a ``.keras`` file.
        `thaw.network.backbones` knows which there are.
    strategy : {'frozen', 'layers', 'blocks', 'pattern', 'all'}
        Train the head alone; or, after that, also the last `amount` layers
        (strategy A); the last `amount` blocks (strategy B); the layers whose
        names match `pattern`; or all layers.
    amount : int
        How many layers or blocks; 0 with any other strategy. Whether the
        network has so many is checked when it is built.
    dataset : str
        The name of a TFDS data set of labelled images, which a configuration
        and a version may follow: ``name/configuration:1.0.0``. Or photos of
        your own: ``folder:PATH`` or ``table:FILE.csv``, see `thaw.data.source`.
    weights : str
        ``imagenet``; ``demo``, which the package ships; ``none``, random; or
        the path of a weights file. A ``.keras`` file keeps its own weights
        with ``imagenet``.
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
    augmentation : {'none', 'flip', 'standard'}
        'flip' mirrors each training photo at random, anew in each epoch;
        'standard' also crops it and changes its colours. Every epoch then
        runs the whole network, unless there are `copies`.
    activations : {'auto', 'keep', 'compute'}
        Whether the output of the frozen part is cached on disk: where that
        pays, always, or never. The results are the same.
    max_examples : int or None
        Use only so many photos, the first in the data set's own order.
    output_dir : Path or None
        Where the run leaves its files. None: a folder under ``outputs/lab``.
    skip : int
        Leave the last so many layers or blocks frozen and count `amount` from
        there: the first blocks, the middle, a sliding window ("surgical
        fine-tuning", Lee et al., 2023).
    pattern : str or None
        A regular expression, searched for in the names of layers.
    trains : {'everything', 'norm', 'bias'}
        Of the unfrozen layers: everything, the normalization layers only, or
        the biases only.
    batchnorm : {'train', 'frozen'}
        Whether an unfrozen BatchNorm layer normalizes by each batch's
        statistics and averages them, or by those of the pre-training.
    rate_decay : float
        A block's learning rate is so many times that of the block after it.
        1: all learn at `finetune_learning_rate`.
    gradual : bool
        Unfreeze block after block, from the last, over the epochs.
    copies : int
        Train on so many augmented copies of each photo, in turn, an epoch
        each, made once: the frozen part can be cached. 0: fresh each epoch.
    class_weight : {'none', 'balanced'}
        'balanced' counts a photo's loss in inverse proportion to the size of
        its class.
    keep : {'last', 'best'}
        Test the network of the last epoch; or, of the last phase, that of the
        epoch with the lowest validation loss.
    preprocessing : {'network', 'tf', 'torch', 'caffe', '0-1', 'none'}
        How photos of 0 to 255 are prepared: as the network's pre-training
        did, or in one of Keras' ways.
    splits : {'official', 'position'}
        Use a data set's own validation and test photos where it has some; or
        split its training photos by position.
    on_damaged : {'refuse', 'leave_out'}
        What to do about files that cannot be read as photos.
    folds : int or None
        Divide all photos into so many folds of about equal size, and test on
        one after the other, each time trained on others: see
        `thaw.data.splits`. None: one division into three parts.
    fold : int or None
        Test on this fold alone, from 0. None: on all folds in turn, each with
        a seed of its own.
    choosing_folds : int
        So many folds, the first, are not tested: learning rates were chosen
        on them.
    test_folds : int or None
        Test on so many folds, the first of those that choose nothing. None:
        on all of them. What was tested stays when there are to be more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    backbone: Annotated[OneLine, AfterValidator(_backbone)]
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
    augmentation: Literal["none", "flip", "standard"] = "none"
    activations: Literal["auto", "keep", "compute"] = "auto"
    seed: int = Field(0, ge=0, lt=2**31)
    max_examples: int | None = Field(None, ge=20, le=10**9)
    output_dir: Annotated[Path | None, Field(strict=False), AfterValidator(_one_line)] = None

    skip: int = Field(0, ge=0, le=100_000)
    pattern: Annotated[OneLine, AfterValidator(_expression)] | None = None
    trains: Literal["everything", "norm", "bias"] = "everything"
    batchnorm: Literal["train", "frozen"] = "train"
    rate_decay: Rate = 1.0
    gradual: bool = False
    copies: int = Field(0, ge=0, le=100)
    class_weight: Literal["none", "balanced"] = "none"
    keep: Literal["last", "best"] = "last"
    preprocessing: Literal["network", "tf", "torch", "caffe", "0-1", "none"] = "network"
    splits: Literal["official", "position"] = "official"
    on_damaged: Literal["refuse", "leave_out"] = "refuse"
    folds: int | None = Field(None, ge=3, le=100)
    fold: int | None = Field(None, ge=0, lt=100)
    choosing_folds: int = Field(0, ge=0, lt=100)
    test_folds: int | None = Field(None, ge=1, lt=100)

    @model_validator(mode="after")
    def _makes_sense(self) -> "Experiment":
        """Refuse parameters that would do nothing, and what a strategy lacks."""
        counts = self.strategy in ("layers", "blocks")
        if self.strategy == "frozen":
            for name in ("amount", *OF_UNFREEZING):
                if (value := getattr(self, name)) != (default := type(self).model_fields[name].get_default()):
                    raise ValueError(
                        f"{name} = {shown(value)}: strategy 'frozen' unfreezes nothing. Set {name} to {default}."
                    )
        elif not counts and (self.amount or self.skip):
            name = "amount" if self.amount else "skip"
            raise ValueError(
                f"{name} = {getattr(self, name)}: strategy {self.strategy!r} does not count. "
                f"Set {name} to 0, or give the strategy 'layers' or 'blocks'."
            )
        elif counts and not self.amount:
            raise ValueError(
                f"amount = 0: strategy {self.strategy!r} needs 1 or more. Give an amount, or the strategy 'frozen'."
            )
        elif not self.finetune_epochs:
            raise ValueError(
                "finetune_epochs = 0: nothing would be fine-tuned. Give 1 or more, or the strategy 'frozen'."
            )
        if (self.strategy == "pattern") != (self.pattern is not None):
            raise ValueError(
                f"pattern = {shown(self.pattern)}: the strategy is {self.strategy!r}. "
                "Strategy 'pattern' needs a regular expression, and no other strategy takes one."
            )
        if self.copies and self.augmentation == "none":
            raise ValueError(
                f"copies = {self.copies}: without augmentation all copies are alike. "
                "Set augmentation to flip or standard, or copies to 0."
            )
        if self.gradual and self.finetune_epochs < 2:
            raise ValueError("gradual = True: needs 2 finetune_epochs or more, one for each step.")
        return self

    @model_validator(mode="after")
    def _has_its_folds(self) -> "Experiment":
        """Refuse folds that there are not, and fewer than three to test on."""
        for name in ("fold", "choosing_folds", "test_folds"):
            if self.folds is None and getattr(self, name):
                raise ValueError(f"{name} = {getattr(self, name)}: there are no folds. Set folds, for example to 10.")
        if self.fold is not None and self.fold >= (self.folds or 1):
            raise ValueError(
                f"fold = {self.fold}: "
                + (
                    f"folds count from 0, up to {self.folds - 1} of {self.folds}."
                    if self.folds
                    else "there are no folds."
                )
            )
        if self.fold is not None and self.choosing_folds:
            raise ValueError(
                f"choosing_folds = {self.choosing_folds}: one fold alone is tested. Set choosing_folds to 0, or leave "
                "out fold."
            )
        if self.fold is not None and self.test_folds:
            raise ValueError(
                f"test_folds = {self.test_folds}: one fold alone is tested. Leave out test_folds, or fold."
            )
        if self.folds and self.fold is None and (self.seed + 1) * self.folds > 2**31:
            raise ValueError(
                f"seed = {self.seed}: each fold has a seed of its own. Give one below {2**31 // self.folds}."
            )
        if self.folds and self.folds - self.choosing_folds < FEWEST_FOLDS:
            raise ValueError(
                f"choosing_folds = {self.choosing_folds}: {FEWEST_FOLDS} of the {self.folds} folds or more have to be "
                f"left to test on. Give {self.folds - FEWEST_FOLDS} or fewer, or more folds."
            )
        if self.folds and (self.test_folds or 0) > (there := self.folds - self.choosing_folds):
            raise ValueError(f"test_folds = {self.test_folds}: there are {there} to test on. Give {there} or fewer.")
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
        """The configuration as a name, for example 'Strategy B (2 blocks)'."""
        return ", ".join([self._names[0], *self.extras])

    @property
    def phrase(self) -> str:
        """The configuration within a sentence, for example 'the last 2 blocks'."""
        return self._names[1] + (f" ({', '.join(self.extras)})" if self.extras else "")

    @property
    def short(self) -> str:
        """The configuration in a few letters, for example 'B-2'."""
        return " ".join([self._names[2], *(short for short, _ in self._apart)])

    @property
    def extras(self) -> tuple[str, ...]:
        """What sets the configuration apart besides where it unfreezes, a few words each."""
        return tuple(words for _, words in self._apart)

    @property
    def _names(self) -> tuple[str, str, str]:
        """Label, phrase and short name of where the configuration unfreezes."""
        if self.strategy == "frozen":
            epochs = f"{self.epochs} epoch{'s' * (self.epochs > 1)}"
            return f"Frozen, {epochs}", f"the base frozen for {epochs}", f"frozen {self.epochs}"
        if self.strategy == "all":
            return "All layers", "all layers", "all"
        if self.strategy == "pattern":
            return f"Layers like {self.pattern}", f"the layers like {self.pattern}", str(self.pattern)
        letter = "A" if self.strategy == "layers" else "B"
        units = f"{self.amount} {self.strategy}" if self.amount > 1 else f"1 {self.strategy.removesuffix('s')}"
        if self.skip:
            before = f"{units} before the last {self.skip}"
            return f"Strategy {letter} ({before})", f"the {before}", f"{letter}-{self.amount}/{self.skip}"
        return f"Strategy {letter} ({units})", f"the last {units.removeprefix('1 ')}", f"{letter}-{self.amount}"

    @property
    def _apart(self) -> list[tuple[str, str]]:
        """What sets the configuration apart besides where it unfreezes: in a few letters, and in words."""
        photos = {"none": "", "flip": "mirrored photos", "standard": "augmented photos"}[self.augmentation]
        apart = {
            ("norm", "normalization layers only"): self.trains == "norm",
            ("bias", "biases only"): self.trains == "bias",
            ("BN frozen", "BatchNorm's statistics frozen"): self.batchnorm == "frozen",
            (f"×{self.rate_decay:g}", f"rates times {self.rate_decay:g} a block"): self.rate_decay != 1,
            ("gradual", "block after block"): self.gradual,
            (self.augmentation, photos): self.augments_afresh,
            (f"{self.augmentation} {self.copies}×", f"{self.copies} sets of {photos}"): self.copies > 0,
            ("weighted", "classes weighted"): self.class_weight == "balanced",
            ("best", "best epoch"): self.keep == "best",
        }
        return [names for names, holds in apart.items() if holds]

    @property
    def plain(self) -> bool:
        """Whether only the strategy and its amount say what is special: nothing of `extras`, no window, no pattern."""
        return self.strategy in ("frozen", "layers", "blocks") and not self.skip and not self.extras

    @property
    def digest(self) -> str:
        """A hash that names the run: of all parameters but the output folder and how many folds are tested.

        A parameter that joined after the first records counts only where it
        differs from its default. A default never changes.
        """
        return self._hash()

    @property
    def configuration(self) -> str:
        """A short hash of all parameters but seed, fold and output folder: what runs of one row have in common."""
        return self._hash("seed", "fold", "choosing_folds")[:12]

    def _hash(self, *without: str) -> str:
        parameters = self.model_dump(mode="json", exclude={"output_dir", "test_folds", *without})
        defaults = {name: field.get_default() for name, field in type(self).model_fields.items()}
        counted = {
            name: value
            for name, value in parameters.items()
            if name in FOUNDING or getattr(self, name) != defaults[name]
        }
        return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()

    @property
    def tested_folds(self) -> tuple[int, ...]:
        """The folds that it tests on; none where the photos are not divided into folds."""
        if self.folds is None:
            return ()
        if self.fold is not None:
            return (self.fold,)
        return tuple(range(self.choosing_folds, self.folds))[: self.test_folds]

    def in_turn(self) -> list["Experiment"]:
        """List the experiments of which it consists: one for each fold, with a seed of its own, or itself alone."""
        if self.folds is None or self.fold is not None:
            return [self]
        alone = {"choosing_folds": 0, "test_folds": None}
        return [
            self.model_copy(update=alone | {"fold": fold, "seed": self.seed * self.folds + fold})
            for fold in self.tested_folds
        ]

    @property
    def undivided(self) -> "Experiment":
        """The same without folds."""
        return self.model_copy(update={"folds": None, "fold": None, "choosing_folds": 0, "test_folds": None})

    @property
    def control(self) -> bool:
        """Whether the base stays frozen and the head trains as long as in a fine-tuned run."""
        return self.strategy == "frozen" and self.finetune_epochs > 0

    @property
    def augments_afresh(self) -> bool:
        """Whether photos differ in every epoch, so that the frozen part cannot be cached."""
        return self.augmentation != "none" and not self.copies

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
    """Word pydantic's errors for people: a line each, at most ten; what is allowed once, if it is the same.

    Parameters
    ----------
    error : ValidationError
    model : type
        The model that was to be built; its fields are what is allowed.
    prefix : str
        Put before each name.
    """
    lines = list(dict.fromkeys(_one_in_words(details, model, prefix) for details in error.errors(include_url=False)))
    told: list[str] = []
    for line in lines[:10]:
        said, _, allowed = line.partition(" Allowed: ")
        told.append(said if allowed and any(before.endswith(f" Allowed: {allowed}") for before in told) else line)
    return "\n".join(told + [f"and {len(lines) - 10} more errors of this kind."] * (len(lines) > 10))


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
