"""The photos of a record, where they are still on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from thaw.data.source import on_disk
from thaw.errors import ThawError
from thaw.records.record import Record

if TYPE_CHECKING:
    import numpy as np

    from thaw.data.photos import Data


def find(record: Record, keys: Iterable[str]) -> np.ndarray | None:
    """Find photos by their keys.

    Returns
    -------
    array of uint8, (n, size, size, 3), or None
        None where the data set is not on this disk, or its photos have changed
        since the record was made.
    """
    import thaw.training  # noqa: F401 - it loads TensorFlow without its notes

    e = record.experiment
    with suppress(ThawError):
        if not on_disk(e.dataset):
            return None
        photos = _photos(e.dataset, e.image_size, e.max_examples, e.splits, e.on_damaged)
        if photos.provenance["sha256"] == record.data["sha256"]:
            return photos.images[photos.positions(keys)]
    return None


@lru_cache(maxsize=1)
def _photos(*which) -> Data:
    from thaw.data.photos import load_photos  # with TensorFlow: seconds

    return load_photos(*which)
