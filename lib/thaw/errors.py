"""What can go wrong, in words a user can act on.

Every message names the value that was given, what was allowed, and what to do
next.
"""

import difflib
from collections.abc import Iterable


class ThawError(Exception):
    """Something the user can mend; its message is all they need to see."""


class InvalidParameter(ThawError):
    """A parameter with an unknown name, or a value that is not allowed."""


class UnknownBackbone(InvalidParameter):
    """A backbone that is not in the registry."""


class UnknownProfile(InvalidParameter):
    """A profile or configuration for which there is no file."""


class DataNotFound(ThawError):
    """A data set that is neither on disk nor to be had."""


class DataDamaged(ThawError):
    """A data set whose files cannot be read, or do not hold what they should."""


class WeightsNotFound(ThawError):
    """Weights that are neither on disk nor to be had."""


class WeightsMismatch(ThawError):
    """A weights file that does not fit the network, or its own description."""


class OutputNotWritable(ThawError):
    """A directory that results cannot be written to."""


class InvalidRecord(ThawError):
    """A run's files that cannot be read as a record."""


class Diverged(ThawError):
    """A run whose loss is no finite number any more. It has been recorded as that."""


class ReportError(ThawError):
    """A report that could not be exported."""


def did_you_mean(name: object, allowed: Iterable[str]) -> str:
    """Say what was allowed, the likeliest first.

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
    close = difflib.get_close_matches(str(name), allowed, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(allowed)}."


def first_line(error: Exception | str) -> str:
    """What another library's error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def explained(name: str, message: str) -> str:
    """What an error of another library means, as far as it can be told."""
    text = f"{name}: {message}"
    first = first_line(text)
    if any(sign in text for sign in ("No space left on device", "errno = 28,", "Disk quota exceeded")):
        return f"the disk is full ({first}). Make room, or set THAW_CACHE_DIR to a folder on another disk."
    if any(sign in text for sign in ("Read-only file system", "Permission denied")):
        return f"a folder cannot be written to ({first}). Mend its permissions, or give another by --outputs or THAW_CACHE_DIR."
    if name in ("ResourceExhaustedError", "MemoryError") or "OOM when allocating" in text:
        return f"there is not enough memory for a batch ({first}). Give a smaller batch_size, or run fewer experiments at once (--cores 1)."
    return f"{first}. This is no error that Thaw knows; its traceback says more."
