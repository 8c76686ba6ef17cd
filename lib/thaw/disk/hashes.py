"""Hashes of large files, computed again only where a file has changed."""

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from thaw.disk import places
from thaw.disk.atomic import write_atomic


def sha256_of(files: Iterable[Path]) -> list[str]:
    """Hash files, or look up the hashes of those whose size and times are as they were.

    The hashes are kept in the cache, in ``hashes.json``. A file that is replaced by one of the same size and with
    the same modification time still has another time of change (``ctime``), which only the system sets.

    Raises
    ------
    OSError
        If a file is missing or cannot be read.
    """
    known_file = places.cache() / "hashes.json"
    known: dict[str, list] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):  # missing or damaged: all are hashed again
        known = dict(json.loads(known_file.read_text(encoding="utf-8")))
    found: dict[str, list] = {}
    for file in files:
        stat = file.stat()
        signs = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        *before, digest = known.get(str(file)) or [None]
        if before != signs:
            with file.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        found[str(file)] = [*signs, digest]
    if not found.items() <= known.items():
        text = json.dumps(known | found, indent=0)
        with contextlib.suppress(OSError):  # a cache that is full or read-only
            write_atomic(known_file, text)
    return [digest for *_, digest in found.values()]
