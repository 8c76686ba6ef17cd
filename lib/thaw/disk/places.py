"""Where things are: the project, and the cache of files that can be made again."""

import os
import unicodedata
from pathlib import Path

import platformdirs

from thaw.disk.locks import again
from thaw.errors import OutputNotWritable, ThawError

# Signs that turn the reading order of all text after them, by Unicode's names; letters turn by themselves.
TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def project() -> Path:
    """Find the project's root: the working directory, or the nearest above it with ``params/profiles``.

    Raises
    ------
    ThawError
        If there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params" / "profiles").is_dir():
            return folder
    raise ThawError(f"{here}: not inside the project (no params/profiles here or above). Change into it.")


def in_project(path: str) -> Path:
    """Give the absolute path of a file of the user's: a relative one starts at the project's root."""
    try:
        root = project()
    except ThawError:  # not in a project
        root = Path.cwd()
    return root / Path(path).expanduser()


def cache(*parts: str) -> Path:
    """Make a folder of the cache if need be, and return its path.

    Parameters
    ----------
    *parts : str
        Its path below the cache's root: ``$THAW_CACHE_DIR`` (a relative one
        starts at the project's root), or the user's cache folder.

    Raises
    ------
    OutputNotWritable
        If there can be no such folder.
    """
    root = in_project(os.environ.get("THAW_CACHE_DIR") or platformdirs.user_cache_dir("thaw", appauthor=False))
    path = root.joinpath(*parts)
    if not printable(str(path)):
        raise unusable(path, "its name has a line end or another character that a name should not have")
    try:
        again(path.is_dir, path)
    except OSError as error:
        raise unusable(path, str(error.strerror)) from None
    return path


def unusable(path: Path, reason: str) -> OutputNotWritable:
    """Make the error that says what is wrong with a folder of the cache."""
    return OutputNotWritable(
        f"{str(path)!r} cannot be a folder of the cache ({reason}). Set THAW_CACHE_DIR to another folder."
    )


def printable(name: str) -> bool:
    """Whether a name has no control characters, line ends, bytes that are not UTF-8, or turns of the reading order."""
    return not any(
        unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(sign) in TURNS
        for sign in name
    )


def shipped(*parts: str) -> Path:
    """Give the path of a file or folder that the package ships, below ``demo``."""
    return Path(__file__).parents[1].joinpath("demo", *parts)
