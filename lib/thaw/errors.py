"""The errors a user can act on: each message names the value, what was allowed, and what to do next."""

import difflib
from collections.abc import Iterable


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


def explained(name: str, message: str) -> str:
    """Explain another library's error, and say what to do, as far as that is known.

    Parameters
    ----------
    name, message : str
        The error's type and text.
    """
    text = f"{name}: {message}"
    first = first_line(text)
    if any(sign in text for sign in ("No space left on device", "errno = 28,", "Disk quota exceeded")):
        return f"the disk is full ({first}). Make room, or set THAW_CACHE_DIR to a folder on another disk."
    if any(sign in text for sign in ("Read-only file system", "Permission denied")):
        return (
            f"a folder cannot be written to ({first}). "
            "Change its permissions, or give another folder by --outputs or THAW_CACHE_DIR."
        )
    if name in ("ResourceExhaustedError", "MemoryError") or "OOM when allocating" in text:
        return (
            f"there is not enough memory for a batch ({first}). "
            "Give a smaller batch_size, or run fewer experiments at once (--cores 1)."
        )
    return f"{first}. Thaw does not know this error; its traceback says more."
