"""The errors a user can act on: each message names the value, what was allowed, and what to do next."""

import contextlib
import difflib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path


class ThawError(Exception):
    """An error that the user can fix; the message is all they need to see."""


class InvalidParameter(ThawError):
    """A parameter has an unknown name or a value that is not allowed."""


class UnknownBackbone(InvalidParameter):
    """No such backbone is registered."""


class UnsupportedNetwork(InvalidParameter):
    """A network has something that Thaw cannot train or cut."""


class UnknownProfile(InvalidParameter):
    """There is no file for a profile or a configuration."""


class DataNotFound(ThawError):
    """A data set is not on disk and could not be downloaded."""


class DataDamaged(ThawError):
    """The files of a data set cannot be read, or photos are missing."""


class WeightsNotFound(ThawError):
    """Weights are not on disk and could not be downloaded."""


class WeightsMismatch(ThawError):
    """A weights file does not fit the network or its own description."""


class OutputNotWritable(ThawError):
    """Results cannot be written to a folder."""


class InvalidRecord(ThawError):
    """The files of a run cannot be read as a record."""


class Diverged(ThawError):
    """The loss of a run became infinite or no number. The run is recorded as diverged."""


class ReportError(ThawError):
    """A report could not be exported."""


def did_you_mean(name: object, allowed: Iterable[str]) -> str:
    """Say what was allowed, and which of it is closest to what was given.

    Parameters
    ----------
    name : object
        What was given.
    allowed : iterable of str
        The names that exist.

    Returns
    -------
    str
        For example ``"Did you mean 'blocks'? Allowed: blocks, frozen, layers."``
    """
    allowed = sorted(allowed)
    close = difflib.get_close_matches(str(name)[:100], allowed, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(allowed)}."


def first_line(error: Exception | str) -> str:
    """Return the first line of another library's error, shortened."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


# What a machine can lack. For each: what an error's type or text says then, what that means, and what to do.
_LACKS = (
    (
        (
            *("No space left on device", "Disk quota exceeded", "File too large", "errno = 28,", "errno = 122,"),
            "No usable temporary directory",
        ),
        "the disk is full",
        "Make room, or use a folder on another disk: --outputs for results, THAW_CACHE_DIR for the cache, TMPDIR for "
        "temporary files.",
    ),
    (
        ("Read-only file system", "Permission denied", "Operation not permitted"),
        "a folder or file cannot be written to",
        "Change its permissions, or use another folder: --outputs for results, THAW_CACHE_DIR for the cache.",
    ),
    (
        ("Too many open files",),
        "too many files are open at once",
        "Allow more (ulimit -n 4096), or run fewer experiments at once (--cores 1).",
    ),
    (
        ("Resource temporarily unavailable", "can't start new thread"),
        "no more processes or threads may be started",
        "Close other programs, allow more (ulimit -u), or run fewer experiments at once (--cores 1).",
    ),
    (
        ("ResourceExhaustedError", "MemoryError", "OOM when allocating", "Cannot allocate memory", "bad_alloc"),
        "there is not enough memory",
        "Close other programs, run fewer experiments at once (--cores 1), or give a smaller batch_size or image_size.",
    ),
    (
        ("Input/output error", "Stale file handle", "Transport endpoint is not connected"),
        "a disk does not answer as it should",
        "See whether it is connected and sound.",
    ),
)


def explained(name: str, message: str) -> str:
    """Explain another library's error, and say what to do, as far as that is known.

    Parameters
    ----------
    name, message : str
        The error's type and text.
    """
    text = f"{name}: {message}"
    for signs, what, advice in _LACKS:
        if any(sign in text for sign in signs):
            return f"{what}{_room(text) if 'disk' in what else ''}. {advice} ({first_line(text)})"
    return f"{first_line(text)}. Thaw does not know this error; its traceback says more."


def lacks(text: str) -> bool:
    """Whether an error's text tells of something that the machine lacks. `explained` says what to do then."""
    return any(sign in text for signs, *_ in _LACKS for sign in signs)


def _room(text: str) -> str:
    """Say how much room there is where a file of an error's text is, or was to be."""
    with contextlib.suppress(OSError, ValueError, LookupError):
        path = Path(re.findall("'(.+?)'", text)[-1])
        there = next(folder for folder in (path, *path.parents) if folder.is_dir())
        return f": {shutil.disk_usage(there).free / 1e6:,.1f} MB are free in {there}"
    return ""
