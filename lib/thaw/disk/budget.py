"""How much of the disk the cache may take, and what goes first when room is needed."""

import contextlib
import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from thaw.errors import InvalidParameter

SHARE = 0.5  # of what the disk could give


def budget(folder: Path) -> float:
    """Bytes that a folder of the cache may take in all: ``$THAW_DISK_GB``, or half of what the disk could give.

    Raises
    ------
    InvalidParameter
        If ``$THAW_DISK_GB`` is not a number from 0 up.
    """
    given = os.environ.get("THAW_DISK_GB")
    if not given:
        return SHARE * (shutil.disk_usage(folder).free + sum(stat.st_size for stat in _files(folder).values()))
    with contextlib.suppress(ValueError):
        if 0 <= (gigabytes := float(given)) < math.inf:
            return 1e9 * gigabytes
    raise InvalidParameter(
        f"THAW_DISK_GB = {given!r}: not a number of gigabytes, such as 8 or 0.5. Change it or unset it."
    )


def make_room(folder: Path, needed: float, limit: float, keep: Iterable[Path] = ()) -> bool:
    """Delete the files that were not used for longest until new ones fit; delete nothing if they cannot.

    Parameters
    ----------
    folder : Path
        All files in it count, and those that are being written.
    needed, limit : float
        Bytes: of the new files, and of all files together.
    keep : iterable of Path
        Files not to be deleted, without their suffix.

    Returns
    -------
    bool
        Whether the new files fit.
    """
    stems = {path.with_suffix("") for path in keep}
    files = _files(folder)
    unfinished = {path for path in files if any(part.startswith(".") for part in path.relative_to(folder).parts)}
    may_go = [path for path in files if path not in unfinished and path.with_suffix("") not in stems]
    free = min(shutil.disk_usage(folder).free, limit - sum(stat.st_size for stat in files.values()))
    if free + sum(files[path].st_size for path in may_go) < needed:
        return False
    for path in sorted(may_go, key=lambda path: files[path].st_mtime):
        if free >= needed:
            break
        with contextlib.suppress(OSError):  # in use, where the system forbids it
            path.unlink(missing_ok=True)
            free += files[path].st_size
    return free >= needed


def _files(folder: Path) -> dict[Path, os.stat_result]:
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # others delete, too
            if path.is_file():
                found[path] = path.stat()
    return found
