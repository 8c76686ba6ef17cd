"""Where things are: the project, and the cache of files that can be made again."""

import hashlib
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
    """Return the file of an experiment's last epoch: a run that was stopped goes on from it."""
    return cache("backups") / f"{digest[:16]}.weights.h5"
