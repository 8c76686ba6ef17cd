"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from thaw.errors import OutputNotWritable


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Make a file appear whole or not at all.

    Parameters
    ----------
    path : Path
        Where it is to be.
    write : callable
        Is given a path in the same folder, with the same suffixes, to write to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(prefix=".", suffix=".part" + "".join(path.suffixes), dir=path.parent)
    os.close(descriptor)
    try:
        write(Path(partial))
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)


def check_writable(directory: Path) -> None:
    """Make a directory, and make sure that it can be written to.

    Raises
    ------
    OutputNotWritable
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OutputNotWritable(
            f"output_dir = '{directory}': cannot be written to ({error.strerror}). Give another, or mend its permissions."
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
