"""Everything that can be found wrong before training starts."""

from thaw import available, backbones, data, files, unfreeze
from thaw.errors import DataNotFound, ThawError
from thaw.study import Study


def check(study: Study) -> None:
    """See that a study's data, weights and output folder are there, and that its amounts fit.

    Data sets that are not on disk are fetched or drawn here, once for all
    experiments. Weights to be pre-trained on the spot are left to jobs of
    their own.

    Raises
    ------
    ThawError
        With all that is wrong, a line each.
    """
    files.check_writable(study.outputs)
    experiments = [job.experiment for job in study.jobs]
    wrong: list[str] = []

    def attempt(function, *arguments):
        try:
            return function(*arguments)
        except ThawError as error:
            wrong.append(str(error))

    # Keras and TFDS would wait for minutes on a network that swallows requests.
    lacking = available.missing(
        {e.dataset for e in experiments}, {e.backbone for e in experiments if e.weights == "imagenet"}
    )
    if lacking:
        raise DataNotFound(f"{lacking}. {available.HOW_TO_PROVIDE}")
    for name in {experiment.dataset: None for experiment in experiments}:
        attempt(data.prepare, name)
    networks = {}
    for name, weights in {(experiment.backbone, experiment.weights): None for experiment in experiments}:
        untrained = weights in ("none", "drawn")
        loaded = attempt(backbones.load, name, 64, "none" if untrained else weights)
        if loaded:
            networks[name] = loaded[0]
    for experiment in experiments:
        if base := networks.get(experiment.backbone):
            attempt(unfreeze.unfrozen, base, backbones.get(experiment.backbone), experiment.strategy, experiment.amount)
    if wrong:
        raise ThawError("\n".join(dict.fromkeys(wrong)))
