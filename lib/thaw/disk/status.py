"""What a running job tells of its progress: a small file, on a disk that whoever watches the study sees as well.

Jobs may run on other machines, several at once, each with a kernel of its own:
the file's path reaches them all in the environment.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIABLE = "THAW_STATUS"


@contextlib.contextmanager
def telling(path: Path, label: str) -> Iterator[None]:
    """Have this process and those it starts tell of a job's progress in a file, which is there while the block runs."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(path)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, {"label": label, "started": time.time()})
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def tell(**facts: Any) -> None:
    """Add facts to the file of this process' job, if somebody wants to know."""
    if path := os.environ.get(VARIABLE):
        _write(Path(path), read(Path(path)) | facts)


def read(path: Path) -> dict[str, Any]:
    """Read what a job tells; nothing if it has ended, or its file cannot be read."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _write(path: Path, facts: dict[str, Any]) -> None:
    """Write whole or not at all, without waiting for the disk: after a power cut nobody reads it."""
    unfinished = path.with_suffix(".part")
    with contextlib.suppress(OSError):  # a full disk, or a folder that was deleted: no progress is shown
        unfinished.write_text(json.dumps(facts), encoding="utf-8")
        unfinished.replace(path)
