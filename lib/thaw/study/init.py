"""``thaw init``: from a folder of photos to a profile that fits the time at hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import yaml

from thaw.data import checks
from thaw.data.source import Source, find_source
from thaw.data.splits import fewest
from thaw.disk import places
from thaw.disk.atomic import write_atomic
from thaw.errors import InvalidParameter
from thaw.experiment import FEWEST_FOLDS, Experiment, is_file
from thaw.network import backbones, pretrained, unfreezing
from thaw.study import estimate
from thaw.study.profile import read_parameters
from thaw.training import machine

SIZES = (224, 160, 128, 96)  # pixels
FEW = ("frozen", "frozen-long", "last-2-blocks")
SOME = (*FEW, "all-layers")
MANY = ("frozen", "frozen-long", "last-block", "last-2-blocks", "last-4-blocks", "all-layers")
FEWEST, FEWEST_OF_A_CLASS = 200, 5  # photos to train on, before a study uses fewer of them


@dataclass(frozen=True)
class Choice:
    """How much work a study is: what a profile has to say."""

    image_size: int
    epochs: tuple[int, int]  # of the head alone, and after unfreezing
    folds: int  # 0: one division into three parts
    choosing: int  # folds, on which learning rates are chosen; 0: they are given
    configurations: tuple[str, ...]
    max_examples: int | None = None
    seeds: int = 1

    @property
    def tested(self) -> int:
        """How many times each configuration is trained and tested."""
        return (self.folds - self.choosing or 1) * self.seeds


# From the most work to the least: folds, epochs, size, each configuration's own learning rates and the number of
# configurations give way, in this order. Three folds are the fewest that show how far a result moves by chance.
LADDER = (
    Choice(224, (5, 15), 10, 2, MANY),
    Choice(224, (5, 15), 7, 2, MANY),
    Choice(224, (5, 8), 7, 2, MANY),
    Choice(160, (5, 8), 7, 2, MANY),
    Choice(160, (5, 5), 7, 2, MANY),
    Choice(160, (5, 5), 5, 0, MANY),
    Choice(128, (5, 5), 5, 0, SOME),
    Choice(96, (5, 5), 5, 0, SOME),
    Choice(96, (4, 3), 5, 0, FEW),
    Choice(96, (4, 3), 3, 0, FEW),
)
HEAD_RATES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
FINETUNE_RATES = (3e-4, 1e-4, 3e-5)


def init(
    photos: str,
    networks: Sequence[str],
    minutes: float,
    name: str | None,
    weights: str | None,
    preprocessing: str,
    log: Callable[[str], None],
) -> Path:
    """Look at photos, measure this machine, and write a profile that fits the time.

    Parameters
    ----------
    photos : str
        The path of a folder, or of a table of photos that ends in ``.csv``.
    networks : sequence of str
        Backbones.
    minutes : float
        How long the study may take.
    name : str or None
        The profile's. None: the folder's.
    weights : str or None
        As the parameter of an experiment. None: ImageNet's; those that the
        package ships if there are no others.
    preprocessing : str
        As the parameter of an experiment, for the ``.keras`` files.
    log : callable
        Is given a line at a time.

    Returns
    -------
    Path
        The profile's file.

    Raises
    ------
    ThawError
        If the photos or a network cannot be used, or there is such a profile.
    """
    given = Path(photos).expanduser().absolute()
    dataset = f"{'table' if given.suffix.lower() == '.csv' else 'folder'}:{given}"
    path = _profile(given, name)
    networks = list(
        dict.fromkeys(_found_here(network) if is_file(network) else network.lower() for network in networks)
    )
    weights = _found_here(weights) if weights else None
    differ = {network: _differing(network, weights, preprocessing) for network in networks}
    found = {network: backbones.get(network, differ[network].get("preprocessing", "network")) for network in networks}
    source = find_source(dataset, on_damaged="leave_out")
    for line in what_is_there(source):
        log(line)
    log(f"Measuring this machine with {', '.join(backbone.title for backbone in found.values())}.")
    least = max(backbone.least for backbone in found.values())
    largest = _largest(_listing(source), least)
    if only := next(filter(None, (backbone.only_size for backbone in found.values())), None):
        least = largest = only
    imports, speeds, precision = estimate.import_seconds(), {}, machine.fastest_precision()
    for network in networks:
        first = {"backbone": network, "strategy": "frozen", "image_size": max(min(128, largest), least)}
        first["precision"] = precision
        speeds[network] = estimate.measure(Experiment.of(first | differ[network]), len(source.classes))
    at_once = machine.cores()

    def seconds(choice: Choice) -> float:
        tried = (len(HEAD_RATES), len(FINETUNE_RATES)) if choice.choosing else (0, 0)
        return estimate.seconds(_experiments(choice, differ, precision), counts, speeds, imports, at_once, tried)

    counts = dict(zip(("train", "validation", "test"), map(len, source.parts())))
    divided = dict.fromkeys(_divided(rung, source) for rung in LADDER)
    rungs = [_fitting(rung, largest, least, speeds) for rung in divided]
    choice = choose(rungs, seconds, 60 * minutes, counts, len(source.classes))
    needed = seconds(choice) / 60
    write_atomic(path, profile(path.stem, dataset, source, differ, choice, precision, needed, at_once))
    log(f"Wrote {path}: {in_words(choice, networks)}.")
    if needed > 1.1 * minutes:
        log(f"This is the least that says something. It takes longer than the {_about(minutes)} you gave.")
    log(f"Next, about {_about(needed)} on this machine:\n\n    thaw report {path.stem}\n")
    return path


def what_is_there(source: Source) -> list[str]:
    """Say what photos there are, and what the data checks find in them: a line each."""
    photos = _listing(source)
    counts = photos["label"].value_counts()
    sides = photos[["width", "height"]].median().astype(int)
    least, most = f"{counts.iloc[-1]:,}", f"{counts.iloc[0]:,}"
    several = f"{least if least == most else f'{least} to {most}'} photos each"
    lines = [
        f"Found {len(photos):,} photos in {len(counts):,} classes ({several}), {sides['width']} x {sides['height']} "
        f"pixels at the median. {source.splits}"
    ]
    findings = checks.findings(photos, source.left_out, source.ignored)
    if findings:
        lines += ["What the data checks say of them:", checks.as_text(findings)]
    return lines


def choose(
    ladder: Sequence[Choice],
    seconds: Callable[[Choice], float],
    limit: float,
    photos: dict[str, int],
    classes: int = 2,
) -> Choice:
    """Take the most work that fits; if none does, the least, with as many photos as fit.

    Parameters
    ----------
    ladder : sequence of Choice
        From the most work to the least.
    seconds : callable
        How long a choice takes.
    limit : float
        In seconds.
    photos : dict of str to int
        How many ``train``, ``validation`` and ``test``.
    classes : int
        How many there are: each has to keep photos in each part.
    """
    for choice in ladder:
        if seconds(choice) <= limit:
            return choice
    total, least = sum(photos.values()), replace(ladder[-1], folds=0, choosing=0)
    wanted = max(FEWEST, FEWEST_OF_A_CLASS * classes)
    fewest = min(total, round(wanted * total / max(photos["train"], 1)))
    for share in (0.7, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05):
        some = replace(least, max_examples=max(fewest, round(share * total)))
        if seconds(some) <= limit:
            return some
    return replace(least, max_examples=fewest) if fewest < total else least


def profile(
    name: str,
    dataset: str,
    source: Source,
    networks: dict[str, dict[str, str]],
    choice: Choice,
    precision: str,
    minutes: float,
    at_once: int,
) -> str:
    """Write the text of a profile: YAML with a comment for each choice.

    Parameters
    ----------
    networks : dict of str to dict
        The backbones, and the parameters that each has of its own.
    """
    photos = _listing(source)
    sides = photos[["width", "height"]].median().astype(int)
    head, finetune = choice.epochs
    own = {network: parameters for network, parameters in networks.items() if parameters}
    backbones_of = "".join(
        f"\n    {_quoted(network)}: {{{', '.join(f'{key}: {_quoted(value)}' for key, value in parameters.items())}}}"
        for network, parameters in own.items()
    )
    limit = "null  # all photos" if choice.max_examples is None else f"{choice.max_examples}  # more would take longer"
    damaged = "leave_out" if source.left_out else "refuse"
    rates = "head_learning_rate: 1.0e-3\nfinetune_learning_rate: 1.0e-4"
    rates += "  # where training diverges or hardly moves, try a tenth or ten times as much\n"
    reduced = f"precision: {precision}  # numbers of 16 bits, which this processor computes faster than float32's 32\n"
    return (
        f"""\
# How much of a pre-trained network to unfreeze for the photos in {Path(dataset.partition(":")[2]).name}.
# Written by `thaw init`. Change what you like.
#
#     thaw report {name}
#
# Cost: about {_about(minutes)} on this machine ({at_once} core{"s" * (at_once > 1)}): {in_words(choice, networks)}.
dataset: {_quoted(dataset)}
on_damaged: {damaged}  # files that cannot be read: refuse to start, or leave_out
image_size: {choice.image_size}  # pixels; the photos have {sides["width"]} x {sides["height"]} at the median
head_epochs: {head}  # of the new last layer alone
finetune_epochs: {finetune}  # after unfreezing
{"" if precision == "float32" else reduced}{"" if choice.choosing else rates}max_examples: {limit}
study:
  networks: [{", ".join(map(_quoted, networks))}]
  configurations:  # each is run with each network; more are in params/configurations/catalogue
{chr(10).join(f"    - {configuration}" for configuration in choice.configurations)}
{_repeats(choice)}
{f"  backbones:  # what differs between networks{backbones_of}" if own else ""}
""".rstrip()
        + chr(10)
    )


def _repeats(choice: Choice) -> str:
    """Write the entries of a profile that say how often each configuration is trained and tested."""
    if not choice.folds:
        why = "runs of each, to show" if choice.seeds > 1 else "one run of each; more seeds show"
        return f"  seeds: {list(range(choice.seeds))}  # {why} how far a result moves by chance"
    lines = f"  folds: {choice.folds}  # parts of the photos that are tested in turn: they show what is chance"
    if choice.choosing:
        head, finetune = (f"[{', '.join(f'{rate:.1e}' for rate in rates)}]" for rates in (HEAD_RATES, FINETUNE_RATES))
        lines += (
            f"\n  choosing_folds: {choice.choosing}  # not tested: each configuration chooses its rates on them"
            f"\n  learning_rates: {{head: {head}, finetune: {finetune}}}"
        )
    return lines


def in_words(choice: Choice, networks: Collection[str]) -> str:
    """Say how much work a choice is."""
    runs = len(choice.configurations) * len(networks) * choice.tested
    repeats = f"{choice.seeds} seed{'s' * (choice.seeds > 1)}"
    if choice.folds:
        repeats = f"{choice.folds - choice.choosing} folds"
    text = (
        f"{runs} runs ({len(choice.configurations)} configurations, {len(networks)} network{'s' * (len(networks) > 1)}"
        f", {repeats}) of {sum(choice.epochs)} epochs at {choice.image_size} pixels"
    )
    return f"{text}, after a choice of learning rates for each configuration" if choice.choosing else text


def _about(minutes: float) -> str:
    if minutes < 90:
        return f"{max(1, round(minutes))} minute{'s' * (round(minutes) > 1)}"
    return f"{minutes / 60:.1f} hours"


def _quoted(text: str) -> str:
    """Write text as a YAML scalar."""
    plain = re.fullmatch(r"[A-Za-z][\w./-]*(:/[\w./-]+)?", text, re.ASCII) and yaml.safe_load(text) == text
    return text if plain else "'" + text.replace("'", "''") + "'"


def _found_here(path: str) -> str:
    """Name a file as a profile does: a relative path starts at the project's root, and not where the command runs."""
    here = Path(path).expanduser().absolute()
    return str(here) if here.is_file() and here != places.in_project(path) else path


def _profile(photos: Path, name: str | None) -> Path:
    """Give the path of the profile that is to be written."""
    stem = name or re.sub("[^A-Za-z0-9._-]+", "-", photos.stem).strip("-._")[:60] or "photos"
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,99}", stem):
        raise InvalidParameter(f"--name = {stem!r}: not a profile's name. Allowed: up to 100 letters, digits and . _ -")
    path = places.project() / "params" / "profiles" / f"{stem}.yaml"
    if path.exists():
        raise InvalidParameter(f"{path}: there is such a profile. Give another --name, or delete the file first.")
    return path


def _differing(network: str, weights: str | None, preprocessing: str) -> dict[str, str]:
    """List the parameters of a network that are not the defaults."""
    if is_file(network):
        return {"preprocessing": preprocessing} if preprocessing != "network" else {}
    shipped = places.shipped("weights", f"{network}.weights.h5").is_file()
    if weights is None and shipped and not pretrained.on_disk(network):
        weights = "demo"
    pretrained.find_weights(network, weights or "imagenet")  # or says what is wrong with them
    return {"weights": weights} if weights not in (None, "imagenet") else {}


def _listing(source: Source) -> pd.DataFrame:
    photos = source.listing()
    assert photos is not None, "photos in files of their own are listed"
    return photos


def _largest(photos: pd.DataFrame, least: int) -> int:
    """Give the largest size that the photos have pixels for, but at least what the networks need."""
    side = photos[["width", "height"]].min(axis=1).median()
    return max([size for size in SIZES if size <= 1.2 * side] + [SIZES[-1], least])


def _divided(choice: Choice, source: Source) -> Choice:
    """Keep a choice to the folds that the photos allow.

    The parts that their owner gave them stay: there are seeds in place of folds then.
    """
    _, smallest = fewest(source.places(), source.labels())
    folds = min(choice.folds, smallest)
    if source.divided or folds < FEWEST_FOLDS:
        return replace(choice, folds=0, choosing=0, seeds=max(1, choice.tested // 3))
    return replace(choice, folds=folds, choosing=min(choice.choosing, folds - FEWEST_FOLDS))


def _fitting(choice: Choice, largest: int, least: int, speeds: dict[str, estimate.Speed]) -> Choice:
    """Keep a choice to sizes that photos and networks have, and to configurations that every network has."""
    fits = []
    for name in choice.configurations:
        parameters = read_parameters(places.project() / "params" / "configurations" / "catalogue" / f"{name}.yaml")
        experiments = {network: Experiment.of({"backbone": network} | parameters) for network in speeds}
        if all(_has(experiments[network], speeds[network]) for network in speeds):
            fits.append(name)
    return replace(choice, image_size=max(min(choice.image_size, largest), least), configurations=tuple(fits))


def _has(experiment: Experiment, speed: estimate.Speed) -> bool:
    """Whether a network has what an experiment unfreezes, and more than that."""
    try:
        chosen = unfreezing.unfrozen(speed.base, backbones.get(experiment.backbone), experiment)
    except InvalidParameter:
        return False
    return experiment.strategy == "all" or len(chosen) < len(speed.base.layers) - 1


def _experiments(choice: Choice, networks: dict[str, dict[str, str]], precision: str) -> list[Experiment]:
    catalogue = places.project() / "params" / "configurations" / "catalogue"
    common = {
        "image_size": choice.image_size,
        "head_epochs": choice.epochs[0],
        "finetune_epochs": choice.epochs[1],
        "max_examples": choice.max_examples,
        "folds": choice.folds or None,
        "choosing_folds": choice.choosing,
        "precision": precision,
    }
    return [
        Experiment.of(common | own | read_parameters(catalogue / f"{name}.yaml") | {"backbone": network, "seed": seed})
        for network, own in networks.items()
        for name in choice.configurations
        for seed in range(choice.seeds)
    ]
