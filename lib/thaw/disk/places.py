"""Where things are: the project, and the cache of files that can be made again."""

import os
from pathlib import Path

import platformdirs

from thaw.errors import OutputNotWritable, ThawError


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
        Its path below the cache's root: ``$THAW_CACHE_DIR``, or the user's
        cache folder.

    Raises
    ------
    OutputNotWritable
        If there can be no such folder.
    """
    root = os.environ.get("THAW_CACHE_DIR") or platformdirs.user_cache_dir("thaw", appauthor=False)
    path = Path(root).expanduser().joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputNotWritable(
            f"'{path}' cannot be made a folder of the cache ({error.strerror}). Set THAW_CACHE_DIR to another folder."
        ) from None
    return path


def shipped(*parts: str) -> Path:
    """Give the path of a file or folder that the package ships, below ``demo``."""
    return Path(__file__).parents[1].joinpath("demo", *parts)
