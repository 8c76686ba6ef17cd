"""Everything that can be found wrong before training starts."""

import contextlib
import threading
import urllib.error
import urllib.request
from operator import attrgetter

import pandas as pd
import psutil

import thaw.training  # noqa: F401 - it loads TensorFlow without its notes
from thaw.data import checks, source, tfds
from thaw.data.photos import check_room
from thaw.data.splits import check_folds
from thaw.disk.atomic import check_writable
from thaw.errors import DataDamaged, DataNotFound, InvalidRecord, ThawError
from thaw.experiment import Experiment, is_file
from thaw.network import backbones, pretrained, unfreezing
from thaw.records.runs import PHOTOS, as_it_was
from thaw.study.study import Job, Study
from thaw.training import machine

HOST = "https://storage.googleapis.com/"  # where TFDS and Keras download from
PATIENCE = 5  # seconds for the host to answer


def check(study: Study) -> None:
    """See that a study's data, weights and output folder are there, and that its amounts fit.

    Data and weights that are not on disk are downloaded here, once for all
    experiments.

    Raises
    ------
    ThawError
        With all that is wrong, a line each.
    """
    check_writable(study.outputs)
    experiments = [job.experiment for job in study.jobs]
    wrong: list[str] = []

    def attempt(function, *arguments):
        try:
            return function(*arguments)
        except ThawError as error:
            wrong.append(str(error))

    check_downloads(study)
    for asked in {(e.dataset, e.splits, e.on_damaged, e.max_examples, e.folds): None for e in experiments}:
        attempt(_check_photos, study, *asked)
    networks: dict[tuple, list[Experiment]] = {}
    for e in experiments:
        networks.setdefault((e.backbone, e.image_size, e.weights, e.preprocessing), []).append(e)
    for network, those in networks.items():
        if loaded := attempt(pretrained.load_pretrained, *network):
            backbone = backbones.get(those[0].backbone, those[0].preprocessing)
            for experiment in those:
                for remark in attempt(unfreezing.remarks, loaded[0], backbone, experiment) or ():
                    print(remark, flush=True)
    for precision in sorted({experiment.precision for experiment in experiments} - {"float32"}):
        if not machine.suits(precision):
            print(
                f"precision = {precision!r}: this machine has no instructions for it. Expect it to be slower than "
                "float32, unless the experiments run elsewhere.",
                flush=True,
            )
    if wrong:
        raise ThawError("\n".join(dict.fromkeys(wrong)))


def _check_photos(
    study: Study, dataset: str, splits: str, on_damaged: str, max_examples: int | None, folds: int | None
) -> None:
    """See that photos are there, can be trained on and are those of finished runs; print what the checks find."""
    found = source.find_source(dataset, splits, on_damaged).first(max_examples)
    photos = found.listing()
    asked, digest = (dataset, splits, on_damaged, max_examples), source.content_digest(found)
    of_job = attrgetter("dataset", "splits", "on_damaged", "max_examples")
    like = [job for job in study.jobs if of_job(job.experiment) == asked]
    for job in like:
        _check_unchanged(job, digest, photos)
    check_room(found, {(job.experiment.image_size, job.experiment.copies) for job in like})
    _tell_of_memory(len(like), len(found) if folds else len(found.parts()[2]), len(found.classes))
    if folds:
        check_folds(found.places(), found.labels(), folds, dataset)
    if photos is None:
        return
    told = checks.by_fold(photos, found.places(), folds) if folds else photos
    findings = checks.findings(told, found.left_out, found.ignored)
    if findings:
        print(f"{dataset}: {len(photos):,} photos, {len(found.classes)} classes. What the data checks found:")
        print(checks.as_text(findings), flush=True)


def _tell_of_memory(experiments: int, tested: int, classes: int) -> None:
    """Say it if the report may not fit in memory: it holds a probability of each class for each test photo."""
    takes, memory = 8 * experiments * tested * classes, psutil.virtual_memory().total
    if takes > memory / 2:
        print(
            f"The report will need {2 * takes / 1e9:,.1f} GB of memory for what {experiments:,} experiments say of "
            f"{tested:,} test photos and {classes:,} classes, and this machine has {memory / 1e9:,.1f} GB. Compare "
            "fewer configurations or seeds, or set max_examples, unless the report is made elsewhere.",
            flush=True,
        )


def _check_unchanged(job: Job, digest: str, photos: pd.DataFrame | None) -> None:
    """Refuse to go on with a study whose photos are not those of a finished run any more."""
    before: object = digest
    done = f"{job.label} was run"
    with contextlib.suppress(InvalidRecord):
        if job.folders:
            before = job.read()[0].record.data.get("files_sha256", digest)  # older records have none
    if job.choice and before == digest and (tried := job.choice.read()) is not None:
        before, done = tried["files_sha256"].iloc[0], f"the learning rates of {job.configuration} were chosen"
    if before == digest:
        return
    how = ""
    if photos is not None:
        with contextlib.suppress(OSError, ValueError):
            listed = pd.read_csv(job.directory / PHOTOS, dtype=str, keep_default_na=False).map(as_it_was)
            how = f" {checks.changes(listed, photos)}"
    raise DataDamaged(
        f"dataset = {job.experiment.dataset!r}: the photos have changed since {done}.{how} Put them back; "
        f"or delete {job.directory.parents[1]} to run the study anew; or copy the profile to another name."
    )


def check_downloads(study: Study) -> None:
    """See that what has to be downloaded can be: Keras and TFDS would wait for minutes on a silent network.

    Raises
    ------
    DataNotFound
        If data or weights are not on disk, and their host does not answer.
    InvalidParameter
        If TFDS has no such version or configuration of a data set.
    """
    wanted: dict[str, None] = {}
    for experiment in (job.experiment for job in study.jobs):
        if tfds.has_name(experiment.dataset) and not source.on_disk(experiment.dataset):
            wanted[f"the data set {experiment.dataset}"] = None
        own = is_file(experiment.backbone)  # its weights are in it
        if experiment.weights == "imagenet" and not own and not pretrained.on_disk(experiment.backbone):
            wanted[f"the ImageNet weights of {experiment.backbone}"] = None
    if wanted and not _answers(HOST, PATIENCE):
        raise DataNotFound(
            f"not on this machine: {', '.join(wanted)}. They have to be downloaded, and {HOST} did not answer within "
            f"{PATIENCE} seconds. Connect to the internet; or set TFDS_DATA_DIR to a folder in which TFDS has "
            "prepared the data, and THAW_WEIGHTS_DIR to one with <backbone>.h5; or run PROFILE=demo, which downloads "
            "nothing."
        )


def _answers(url: str, seconds: float) -> bool:
    """Whether a host answers in time, be it with an error."""
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError):
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()
            answered.set()

    # In a thread that may be left behind: looking up a host's name has no time limit.
    threading.Thread(target=ask, daemon=True).start()
    return answered.wait(seconds)
