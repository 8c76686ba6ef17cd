"""What experiments of a study share, as jobs of their own, and what waits for what.

Photos are decoded once, each head is trained once, and each backbone's
activations are computed once. They are large, so that not all of them may be
on the disk at the same time: some wait until others have served.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import thaw
from thaw.disk import places
from thaw.disk.atomic import write_atomic
from thaw.experiment import Experiment
from thaw.study.study import Job, Study

VARIABLES = ("THAW_CACHE_DIR", "THAW_DISK_GB", "TFDS_DATA_DIR", "THAW_WEIGHTS_DIR")  # what a plan depends on


@dataclass(frozen=True)
class Part:
    """One thing that experiments share.

    Attributes
    ----------
    name : str
    label : str
        What it is, for people.
    kind : {'photos', 'activations', 'head'}
    job : str
        One of those that it is for; the others say the same where it matters.
    frontiers : list of list of str
        Of activations: the layers whose outputs it makes, those together that are of use together.
    outputs, inputs : list of str
        The files that it makes, and that must be there before.
    passing : bool
        Whether its files go when all experiments have used them.
    """

    name: str
    label: str
    kind: str
    job: str
    frontiers: list[list[str]]
    outputs: list[str]
    inputs: list[str]
    passing: bool


@dataclass(frozen=True)
class Plan:
    """The shared parts of a study, and which of their files each experiment needs, by its job's name."""

    parts: list[Part]
    needs: dict[str, list[str]]


def plan(study: Study) -> Plan:
    """Find what the experiments of a study share; look it up where it has been found before.

    A finished study shares nothing any more, and needs no data. Else, where
    all activations fit the disk's budget, those of a backbone are
    computed in one pass. Else there are two lanes: the largest set sets the
    width of the one, what is left that of the other, and in each lane a pass
    waits until the experiments of the one before it are finished.
    """
    if len(study.finished()) == len(study.jobs):
        return Plan([], {})
    settings = [[job.name, str(job.directory)] for job in study.jobs]
    settings += [[name, os.environ.get(name)] for name in VARIABLES]
    settings.append(version("tensorflow"))  # in the files' names, and importing it takes seconds
    source = b"".join(path.read_bytes() for path in sorted(Path(thaw.__file__).parent.rglob("*.py")))
    digest = hashlib.sha256(source + json.dumps(settings).encode()).hexdigest()
    path = places.cache("plans") / f"{digest[:16]}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Plan([Part(**part) for part in found["parts"]], found["needs"])
    except (OSError, ValueError, TypeError, KeyError):
        made = _make(study)  # Keras and both networks: seconds
        text = json.dumps(asdict(made))
        write_atomic(path, lambda partial: partial.write_text(text, encoding="utf-8"))
        return made


def prepare(part: Part, experiment: Experiment, log: Callable[[str], None] = print) -> None:
    """Make one of the shared parts, for one of the experiments that share it."""
    from thaw.data import photos as data
    from thaw.network import unfreezing as unfreeze
    from thaw.network.pretrained import load_pretrained
    from thaw.training import activations
    from thaw.training import phases as training

    training.set_up(experiment)
    photos = data.load(experiment.dataset, experiment.image_size, experiment.max_examples)
    if part.kind == "photos":
        log(f"{sum(map(len, photos.parts)):,} are decoded and resized")
        return
    base, provenance = load_pretrained(experiment.backbone, experiment.image_size, experiment.weights)
    model = training.add_head(base, len(photos.classes), experiment.seed)
    if part.kind == "head":
        training.train_head(model, base, photos, provenance["tensors_sha256"], experiment, log)
    else:
        unfreeze.unfreeze(base, [])
        activations.provide(model, part.frontiers, photos, provenance["tensors_sha256"], experiment, log)


def _make(study: Study) -> Plan:
    from thaw.data import photos as data
    from thaw.training import activations
    from thaw.training import phases as training

    needs: dict[str, list[Path]] = {job.name: [] for job in study.jobs}
    parts: dict[str, Part] = {}

    def add(kind, name, job, outputs, inputs=(), frontiers=()):
        if kind != "photos":
            inputs = [needs[job.name][0], *inputs]
        inputs, outputs = ([str(path) for path in paths] for paths in (inputs, outputs))
        backbone, seed = job.experiment.backbone, job.experiment.seed
        label = {
            "photos": "photos",
            "activations": f"{backbone}, frozen part",
            "head": f"{backbone}, head, seed {seed}",
        }
        parts[name] = Part(name, label[kind], kind, job.name, list(frontiers), outputs, inputs, kind == "activations")

    for job in study.jobs:
        experiment = job.experiment
        photos = data.photos_path(experiment.dataset, experiment.image_size, experiment.max_examples)
        needs[job.name].append(photos)
        add("photos", f"photos-{photos.stem}", job, [photos])

    made: set[Path] = set()
    for lane in _lanes(_groups(study), min(activations.budget(job.experiment.precision) for job in study.jobs)):
        before: list[Job] = []
        for group in lane:
            outputs = [group.folder / f"{layer}.h5" for layer in group.layers]
            new = [path for path in outputs if path not in made]
            made |= set(new)
            name = f"{group.folder.name}-{hashlib.sha256(' '.join(group.layers).encode()).hexdigest()[:6]}"
            records = [job.directory / "record.json" for job in before]
            add("activations", f"activations-{name}", group.jobs[0], new, records, group.frontiers)
            before = group.jobs
            for job in group.jobs:
                needs[job.name] += [group.folder / f"{layer}.h5" for layer in group.own[job.name]]

    heads: dict[Path, list[Job]] = {}
    for job in study.jobs:
        heads.setdefault(training.head_path(job.experiment), []).append(job)
    for path, jobs in heads.items():
        if len(jobs) > 1:
            pooled = activations.folder(jobs[0].experiment) / "pooled.h5"
            add("head", f"head-{path.stem}", jobs[0], [path], [pooled] if pooled in made else [])
            for job in jobs:
                needs[job.name].append(path)
    return Plan(list(parts.values()), {name: list(map(str, files)) for name, files in needs.items()})


@dataclass
class _Group:
    """Activations that are made in one pass: bytes by layer, and the jobs they are for."""

    folder: Path
    layers: dict[str, int]
    jobs: list[Job]
    work: int

    def __post_init__(self):
        self.own = {self.jobs[0].name: list(self.layers)}

    @property
    def size(self) -> int:
        return sum(self.layers.values())

    @property
    def frontiers(self) -> list[list[str]]:
        return [list(layers) for layers in dict.fromkeys(map(tuple, self.own.values()))]

    def take(self, other: _Group) -> None:
        self.layers |= other.layers
        self.jobs += other.jobs
        self.own |= other.own
        self.work += other.work

    def overlaps(self, other: _Group) -> bool:
        return self.folder == other.folder and not self.layers.keys().isdisjoint(other.layers)

    def size_with(self, other: _Group) -> int:
        return sum((self.layers | other.layers).values())


def _groups(study: Study) -> list[_Group]:
    """What each experiment's last phase starts from, where it may be kept."""
    from thaw.data.tfds import prepare
    from thaw.network import backbones
    from thaw.network import unfreezing as unfreeze
    from thaw.network.pretrained import load_pretrained
    from thaw.training import activations
    from thaw.training import phases as training

    networks, groups = {}, []
    for job in study.jobs:
        experiment = job.experiment
        if experiment.activations == "compute" or experiment.augmentation != "none":
            continue
        network = experiment.backbone, experiment.image_size, experiment.precision
        if network not in networks:
            training.set_up(experiment)
            base, _ = load_pretrained(experiment.backbone, experiment.image_size, "none")
            networks[network] = base, training.add_head(base, 2)
        base, model = networks[network]
        backbone = backbones.get(experiment.backbone)
        unfreeze.unfreeze(base, unfreeze.unfrozen(base, backbone, experiment.strategy, experiment.amount))
        cut = activations.cut(model)
        available = len(prepare(experiment.dataset))
        photos = min(available, experiment.max_examples or available)
        layers = {layer: photos * activations.bytes_a_photo(tensor) for layer, tensor in cut.frontier.items()}
        if cut.saves and sum(layers.values()) <= activations.budget(experiment.precision):
            work = activations.multiply_adds(model, ["head"], cut.frontier)
            groups.append(_Group(activations.folder(experiment), layers, [job], work))
    return groups


def _lanes(groups: list[_Group], budget: float) -> list[list[_Group]]:
    """Activations packed into passes, one after the other in each lane.

    First what the heads are trained on, for which every experiment waits, and
    then the most work. Sets that share a layer stay in one lane. Otherwise
    passes could wait for each other.
    """
    whole = _packed(groups, math.inf)
    if sum(group.size for group in whole) <= budget:
        return [[group] for group in whole]
    rest = budget - max(group.size for group in groups)
    wide: list[_Group] = []
    narrow = list(groups)
    while moved := [group for group in narrow if group.size > rest or any(map(group.overlaps, wide))]:
        wide += moved
        narrow = [group for group in narrow if group not in moved]
    lanes = _packed(wide, budget - rest), _packed(narrow, rest)
    return [sorted(lane, key=lambda group: ("pooled" not in group.layers, -group.work)) for lane in lanes]


def _packed(groups: list[_Group], width: float) -> list[_Group]:
    """Those of one backbone put together, the smallest first, as long as they fit."""
    packed: list[_Group] = []
    for group in sorted(groups, key=lambda group: group.size):
        copy = _Group(group.folder, dict(group.layers), list(group.jobs), group.work)
        like = [other for other in packed if other.folder == group.folder and other.size_with(copy) <= width]
        if like:
            like[0].take(copy)
        else:
            packed.append(copy)
    return packed
