"""Where things are: the project, and the cache of what can be made again."""

import hashlib
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


def drawn() -> Path:
    """The cache's folder for what is drawn and pre-trained: another one whenever the code for that changes."""
    source = b"".join(
        (Path(__file__).parents[1] / "demo" / name).read_bytes() for name in ("drawn.py", "pretraining.py")
    )
    return cache("drawn", hashlib.sha256(source).hexdigest()[:12])


def drawn_weights(backbone: str) -> Path:
    """The file of a backbone's weights pre-trained on drawn pictures, made or not."""
    return drawn() / f"{backbone}.weights.h5"


def backup(digest: str) -> Path:
    """The file of the last epoch of an experiment, for a run that is stopped to go on from."""
    return cache("backups") / f"{digest[:16]}.weights.h5"
