"""Everything that can be found wrong before training starts."""

from pathlib import Path

import tensorflow as tf

from thaw.data import tfds
from thaw.disk import atomic as files
from thaw.errors import DataNotFound, ThawError
from thaw.network import backbones
from thaw.network import unfreezing as unfreeze
from thaw.network.pretrained import load_pretrained
from thaw.study import available
from thaw.study.study import Study


def check(study: Study) -> None:
    """See that a study's data, weights and output folder are there, and that its amounts fit.

    Data sets that are not on disk are fetched here, once for all experiments.

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
        attempt(tfds.prepare, name)
    networks = {}
    for name, weights in {(experiment.backbone, experiment.weights): None for experiment in experiments}:
        loaded = attempt(load_pretrained, name, 64, weights)
        if loaded:
            networks[name] = loaded[0]
    for experiment in experiments:
        if base := networks.get(experiment.backbone):
            attempt(unfreeze.unfrozen, base, backbones.get(experiment.backbone), experiment.strategy, experiment.amount)
    for precision in sorted({experiment.precision for experiment in experiments} - {"float32"}):
        if not _has(precision):
            print(
                f"precision = {precision!r}: this machine computes it without instructions of its own. Expect it slower than "
                "float32, unless the experiments run elsewhere.",
                flush=True,
            )
    if wrong:
        raise ThawError("\n".join(dict.fromkeys(wrong)))


def _has(precision: str) -> bool:
    """Whether this machine has instructions for a reduced precision; where that cannot be told, yes."""
    if tf.config.list_physical_devices("GPU"):
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return precision == "mixed_bfloat16"
    return precision == "mixed_bfloat16" and any(name in flags for name in ("avx512_bf16", "amx_bf16", " bf16"))
