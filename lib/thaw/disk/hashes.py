"""Notes on files, such as their hashes, made again only where a file has changed."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from thaw.disk import places
from thaw.disk.atomic import write_atomic


def sha256_of(files: Iterable[Path]) -> list[str]:
    """Hash files, or look up the hashes of those whose size and times are as they were.

    Raises
    ------
    OSError
        If a file is missing or cannot be read.
    """
    return noted(files, sha256, places.cache() / "hashes.json")


def noted(
    files: Iterable[Path],
    note: Callable[[Path], Any],
    store: Path,
    changed: Callable[[int], object] = lambda count: None,
) -> list[Any]:
    """Make a note on each file, or look up the notes of those whose size and times are as they were.

    A file that is replaced by one of the same size and with the same modification time still has another time of
    change (``ctime``), which only the system sets.

    Parameters
    ----------
    files : iterable of Path
    note : callable
        From a file to what is noted of it, in JSON's types. Called in several threads.
    store : Path
        The file in the cache in which the notes are kept.
    changed : callable
        Is told how many files are new or have changed.

    Returns
    -------
    list
        A note for each file, as often as it is given.

    Raises
    ------
    OSError
        If a file is missing.
    """
    known: dict[str, list] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):  # missing or damaged: all notes are made again
        known = dict(json.loads(store.read_text(encoding="utf-8")))
    found: dict[str, list] = {}
    anew: list[Path] = []
    files = list(files)
    for file in dict.fromkeys(files):
        stat = file.stat()
        signs = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        *before, kept = known.get(str(file)) or [None]
        found[str(file)] = [*signs, kept]
        if before != signs:
            anew.append(file)
    changed(len(anew))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # few: each may hold a decoded photo
        for file, made in zip(anew, pool.map(note, anew)):
            found[str(file)][-1] = made
    if anew:
        with contextlib.suppress(OSError):  # a cache that is full or read-only
            write_atomic(store, json.dumps(known | found, indent=0))
    return [found[str(file)][-1] for file in files]


def sha256(file: Path) -> str:
    """Hash a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
