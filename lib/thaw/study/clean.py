"""What the cache holds, in words, and deleting it."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from thaw.disk import atomic, budget, places
from thaw.disk.budget import Kept
from thaw.disk.locks import Taken, discard, give_up, hold, lock_of
from thaw.errors import ThawError

FOLDERS = ("photos", "activations", "checkpoints", "looks")
_DAY = 86_400  # seconds


@dataclass(frozen=True)
class Row:
    """A line of the table: what it is, where, and the files."""

    what: str
    where: Path
    kept: tuple[Kept, ...]
    unfinished: bool = False  # what was trained of a run that has no record yet

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(each.size for each in self.kept)

    @property
    def used(self) -> float:
        """When it was last used, in seconds since 1970."""
        return max(each.used for each in self.kept)


def rows() -> list[Row]:
    """List what the cache holds, the largest first."""
    found: dict[tuple[str, Path, bool], list[Kept]] = {}
    for folder in FOLDERS:
        for each in budget.kept(folder):
            if not budget.is_hidden(each.path):
                found.setdefault(_named(folder, each), []).append(each)
    made = [Row(what, where, tuple(each), unfinished) for (what, where, unfinished), each in found.items()]
    return sorted(made, key=lambda row: row.size, reverse=True)


def as_text(table: list[Row]) -> str:
    """Write the table for a terminal."""
    cells = [("what", "where", "size", "last used")]
    for row in table:
        used = datetime.fromtimestamp(row.used, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
        cells.append((row.what, str(row.where.relative_to(places.cache())), f"{row.size / 1e6:,.1f} MB", used))
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join(
        f"{what:{widths[0]}}  {where:{widths[1]}}  {size:>{widths[2]}}  {used}" for what, where, size, used in cells
    )


def delete(table: list[Row]) -> int:
    """Delete rows of the table, and what killed processes have left; the bytes that were freed.

    Raises
    ------
    ThawError
        If a study uses the cache.
    """
    try:
        with hold(lock_of(places.cache() / budget.IN_USE), give_up) as held:
            before = time.time() - (0 if held else _DAY)  # on a disk without locks, age says what is not in use
            old = [each for row in table for each in row.kept if each.used < before and not each.is_used()]
            freed = sum(each.size for each in old if each.delete())
            for folder, folders, files in budget.walk(FOLDERS):
                atomic.remove_abandoned(Path(folder))
                for name in files if held else ():
                    if name.startswith(".") and name.endswith(".lock"):
                        discard(Path(folder, name[1:].removesuffix(".lock")), only_lock=True)
                for name in folders:
                    with suppress(OSError):  # there is something in it
                        Path(folder, name).rmdir()
    except Taken:
        raise ThawError(
            f"{places.cache()}: a study uses the cache. Nothing was deleted. Wait for the study, or stop it first."
        ) from None
    return freed


def _named(folder: str, kept: Kept) -> tuple[str, Path, bool]:
    """Say what something in the cache is, and where; things of one name are one row."""
    if folder == "photos":
        return "decoded photos", kept.path, False
    if folder == "activations":
        return f"activations of {kept.path.parent.name.rpartition('-')[0]}", kept.path.parent, False
    if folder == "looks":
        return "notes on photos, from the data checks", kept.path.parent, False
    try:
        with np.load(kept.files[0]) as file:
            about = json.loads(str(file["about"]))
        backbone, phase, trained = about["key"]["backbone"], about["key"]["phases"][-1][0], about["progress"]
        epochs, complete = len(trained["epochs"]), trained["complete"]
    except Exception:  # numpy raises whatever a damaged file leads it to
        return "damaged", kept.path, False
    if phase == "head" and complete:
        return f"trained heads of {backbone[:30]}", kept.path.parent, False
    return f"unfinished run of {backbone[:30]}, {epochs} epoch{'s' * (epochs > 1)}", kept.path, True
