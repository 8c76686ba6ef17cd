"""How much of the disk the cache may take, and what goes first when room is needed."""

import contextlib
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from thaw.disk import atomic, places
from thaw.disk.locks import again, discard, is_used, lock_of, locked, share
from thaw.errors import InvalidParameter

ARRAYS = ("photos", "activations")  # the folders that share three quarters of the budget
CHECKPOINTS = ("checkpoints",)  # the rest is for these
LOOKS = 100  # at a folder in which files change their names meanwhile
IN_USE = "in-use"  # what `in_use` locks
SHARE = 0.5  # of what the disk could give


@dataclass(frozen=True)
class Kept:
    """Something in the cache: a file, or an array with the notes beside it.

    Attributes
    ----------
    path : Path
        Without its suffix.
    files : tuple of Path
    size : int
        Bytes.
    used : float
        When it was last used, in seconds since 1970.
    """

    path: Path
    files: tuple[Path, ...]
    size: int
    used: float

    def is_used(self) -> bool:
        """Whether a process reads or writes it."""
        return any(is_used(each) for file in self.files for each in (file, lock_of(file)))

    def delete(self) -> bool:
        """Delete it; whether it is gone."""
        for file in self.files:
            with contextlib.suppress(OSError):  # in use, where the system forbids it; or another user's
                discard(file)
        return not any(file.exists() for file in self.files)


def budget() -> float:
    """Bytes that the cache may take in all: ``$THAW_DISK_GB``, or half of what the disk could give.

    Raises
    ------
    InvalidParameter
        If ``$THAW_DISK_GB`` is not a number from 0 up.
    """
    given = os.environ.get("THAW_DISK_GB")
    if not given:
        return SHARE * (_free() + sum(each.size for each in kept(*ARRAYS, *CHECKPOINTS)))
    with contextlib.suppress(ValueError):
        if 0 <= (gigabytes := float(given)) < math.inf:
            return 1e9 * gigabytes
    raise InvalidParameter(
        f"THAW_DISK_GB = {given!r}: not a number of gigabytes, such as 8 or 0.5. Change it or unset it."
    )


@contextlib.contextmanager
def in_use() -> Iterator[None]:
    """Keep others from cleaning the cache meanwhile. The budget, too, is seen to be one.

    Raises
    ------
    InvalidParameter, OutputNotWritable
        If ``$THAW_DISK_GB`` or ``$THAW_CACHE_DIR`` is not usable.
    """
    budget()
    folder = places.cache()
    if not os.access(folder, os.W_OK):
        raise places.unusable(folder, "it cannot be written to")
    lock = lock_of(folder / IN_USE)
    with contextlib.suppress(FileExistsError):  # it may be another user's: to read it is enough
        again(lambda: lock.open("x"), folder).close()
        lock.chmod(0o666)  # and whoever cleans the cache holds it alone
    with lock.open("rb") as file:
        share(file)
        yield


@contextlib.contextmanager
def room() -> Iterator[None]:
    """Keep other processes from taking disk, from `make_room` until new files have all that they need.

    `thaw.disk.atomic.allocate` takes it: an unfinished file counts with its full size. So the budget holds however
    many processes write at once.
    """
    with locked([places.cache() / "room"]):
        yield


def for_arrays() -> float:
    """Bytes that photos and activations may take together."""
    return 0.75 * budget()


def for_checkpoints() -> float:
    """Bytes that checkpoints may take."""
    return 0.25 * budget()


def make_room(folders: Iterable[str], needed: float, limit: float, keep: Iterable[Path] = ()) -> bool:
    """Delete what was not used for longest until new files fit; delete nothing if they cannot.

    What a process uses stays: where it is deleted, its disk is not free as long as the process runs.

    Parameters
    ----------
    folders : iterable of str
        Of the cache. All files in them count, and those that are being written.
    needed, limit : float
        Bytes: of the new files, and of all files together.
    keep : iterable of Path
        Files not to be deleted.

    Returns
    -------
    bool
        Whether the new files fit.
    """
    folders = tuple(folders)
    for folder, *_ in walk(folders):
        atomic.remove_abandoned(Path(folder))
    there = kept(*folders)
    stems = {path.with_suffix("") for path in keep}
    free = min(_free(), limit - sum(each.size for each in there))
    may_go: list[Kept] = []
    for each in sorted(there, key=lambda each: each.used):
        if free + sum(old.size for old in may_go) >= needed:
            break
        if not is_hidden(each.path) and each.path not in stems and not each.is_used():
            may_go.append(each)
    if free + sum(old.size for old in may_go) < needed:
        return False
    return free + sum(old.size for old in may_go if old.delete()) >= needed


def is_hidden(path: Path) -> bool:
    """Whether a path in the cache is of an unfinished file or a lock."""
    return any(part.startswith(".") for part in path.relative_to(places.cache()).parts)


def walk(folders: Iterable[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk through folders of the cache, as `os.walk` does through one."""
    return (each for name in folders for each in os.walk(places.cache(name)))


def kept(*folders: str) -> list[Kept]:
    """List what is in some folders of the cache."""
    for _ in range(LOOKS):
        found: dict[Path, dict[Path, os.stat_result]] = {}
        gone = False
        for path in (Path(folder, name) for folder, _, files in walk(folders) for name in files):
            try:
                found.setdefault(path.with_suffix(""), {})[path] = path.stat()
            except FileNotFoundError:  # deleted, or finished and now of another name, which would not count
                gone = True
            except OSError:
                pass
        if not gone:
            break
    found = {path: files for path, files in found.items() if files}
    return [
        Kept(path, tuple(files), sum(each.st_size for each in files.values()), max(e.st_mtime for e in files.values()))
        for path, files in found.items()
    ]


def _free() -> float:
    folder = places.cache()
    return again(lambda: shutil.disk_usage(folder).free, folder)
