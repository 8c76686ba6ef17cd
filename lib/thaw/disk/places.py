"""Where things are: the project, and the cache of what can be made again."""

import os
from pathlib import Path

import platformdirs

from thaw.errors import ThawError


def project() -> Path:
    """The project's root: the working directory, or the nearest above it with ``params/profiles``.

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


def cache(*parts: str) -> Path:
    """A folder of the cache, made if need be.

    Parameters
    ----------
    *parts : str
        Its path below the cache's root: ``$THAW_CACHE_DIR``, or the user's
        cache folder.
    """
    root = os.environ.get("THAW_CACHE_DIR") or platformdirs.user_cache_dir("thaw", appauthor=False)
    path = Path(root).expanduser().joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def shipped(*parts: str) -> Path:
    """Give the path of a file or folder that the package ships, below ``demo``."""
    return Path(__file__).parents[1].joinpath("demo", *parts)
