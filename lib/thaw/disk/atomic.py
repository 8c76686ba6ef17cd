"""Files that appear whole or not at all, and are made by one process at a time."""

import contextlib
import errno
import os
import platform
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import filelock
import psutil

from thaw.errors import OutputNotWritable


def write_atomic(path: Path, write: Callable[[Path], None]) -> None:
    """Make a file appear whole or not at all.

    Parameters
    ----------
    path : Path
        Where it is to be.
    write : callable
        Is given a path in the same folder, with the same suffixes, to write to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(".*.part*"):
        with contextlib.suppress(OSError):  # others clean up, too
            if abandoned(left):
                left.unlink()
    partial = partial_path(path)
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # or the name could outlive a power cut, and what it names not
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Where to write what is to become a file: hidden beside it, with its suffixes and the writer's name."""
    writer = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{writer}.part{''.join(path.suffixes)}")


def abandoned(partial: Path) -> bool:
    """Whether nobody writes a partial file any more: its process here is gone, or it has not changed for a day."""
    host, *process = partial.name.split(".part")[0].rsplit("-", 2)
    changed = partial.stat().st_mtime
    if process and host == f".{platform.node()}":
        try:
            writer = psutil.Process(int(process[0]))
            if writer.status() == psutil.STATUS_ZOMBIE or writer.create_time() > changed + 1:
                return True  # killed, or another one has its number now
        except psutil.NoSuchProcess:
            return True
    return time.time() - changed > 86_400


@contextlib.contextmanager
def locked(paths: Iterable[Path], waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let no other process, on this machine or on others that share the disk, make these files meanwhile.

    The locks are the system's own, so that they end with the process however
    it ends. Where the disk knows none, nothing is locked: files appear whole
    all the same, and are at worst made twice.

    Parameters
    ----------
    paths : iterable of Path
        What is to be made.
    waiting : callable
        Called once if another process is at it. What it raises is passed on.
    """
    with contextlib.ExitStack() as stack:
        for path in sorted(paths):  # one order for all, or two could wait for each other
            path.parent.mkdir(parents=True, exist_ok=True)
            # For all users of a shared cache; and no imitation of a lock, which would outlive its process.
            lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), mode=0o666, fallback_to_soft=False)
            try:
                try:
                    stack.enter_context(lock.acquire(timeout=0))
                except filelock.Timeout:
                    waiting()
                    stack.enter_context(lock.acquire())
            except NotImplementedError:
                pass
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
        yield


@contextlib.contextmanager
def kept_if_there_is_room(path: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Go on without a file of the cache where the disk is full, and say so."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # HDF5 raises either
        if not is_full(error):
            raise
        log(f"the disk is full: {path} is not kept")


def is_full(error: Exception) -> bool:
    """Whether an error says that a disk, or a user's share of it, is full."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "errno", None) in full or any(f"errno = {number}," in str(error) for number in full)


def check_writable(directory: Path) -> None:
    """Make a directory, and make sure that it can be written to.

    Raises
    ------
    OutputNotWritable
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(2**20))  # nor is it full
    except OSError as error:
        raise OutputNotWritable(
            f"'{directory}' cannot be written to ({error.strerror}). Give another folder, mend its permissions, or make room."
        ) from None
