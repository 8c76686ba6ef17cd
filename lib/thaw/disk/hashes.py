"""Notes on files, such as their hashes, made again only where a file has changed."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
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
    with contextlib.suppress(OSError, ValueError):  # missing or damaged: all notes are made again
        known = unsealed(store.read_bytes())
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
            there = {file: about for file, about in known.items() if Path(file).is_file()}
            write_atomic(store, sealed(there | found))
    return [found[str(file)][-1] for file in files]


def sha256(file: Path) -> str:
    """Hash a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def sealed(content: Mapping[str, Any]) -> str:
    """Write notes as JSON that also holds a hash of them: see `unsealed`."""
    return json.dumps({**content, "seal": _seal(content)})


def unsealed(text: str | bytes) -> dict[str, Any]:
    """Read notes that `sealed` has written.

    Raises
    ------
    ValueError
        If they are not as they were written.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or content.pop("seal", None) != _seal(content):
        raise ValueError("not what was written")
    return content


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
