"""What a delivered network says of a photo, and where it looks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from thaw.errors import UnsupportedNetwork
from thaw.network import attention
from thaw.network.saved import Saved


def looks(path: Path, photo: np.ndarray) -> tuple[str, float, np.ndarray]:
    """Classify a photo.

    Parameters
    ----------
    path : Path
        The ``model.keras`` that a study has left.
    photo : array of uint8, (height, width, 3)

    Returns
    -------
    said, probability : str, float
        The class that is named, and how sure the network is.
    heat : array, (rows, columns)
        As `thaw.network.attention.look` returns it.

    Raises
    ------
    UnsupportedNetwork
        If it is not such a file.
    """
    network = _loaded(path, path.stat().st_mtime_ns)
    if network.model is None:
        raise UnsupportedNetwork(f"{path}: only a .keras file shows where it looks.")
    probabilities, heat = attention.look(network.model, photo)
    return network.classes[probabilities.argmax()], float(probabilities.max()), heat


@lru_cache(maxsize=1)
def _loaded(path: Path, changed: int) -> Saved:
    return Saved.load(str(path))
