"""Locks that the operating system holds: a lock ends with its process, however the process ends."""

import contextlib
import errno
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

import filelock

try:
    import fcntl
except ImportError:  # Windows: it deletes no file that a process has open
    fcntl = None  # type: ignore[assignment]

Made = TypeVar("Made")
_TRIES = 100  # at making what others delete at the same time
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # the disk has no locks


class Taken(Exception):
    """Another process holds the lock."""


def give_up() -> NoReturn:
    """Raise `Taken`: pass this as `waiting` to give up instead of waiting."""
    raise Taken


@contextlib.contextmanager
def locked(paths: Iterable[Path], waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep other processes from making the same files, on all machines that share the disk.

    On a disk without locks nothing is locked. Files still appear whole there;
    at worst two processes make the same file.

    Parameters
    ----------
    paths : iterable of Path
        The files to be made. The locks are hidden files beside them.
    waiting : callable
        Called once if another process holds a lock. What it raises is passed on.
    """
    with contextlib.ExitStack() as stack:
        for path in sorted(paths):  # the same order everywhere, or two processes could wait for each other
            stack.enter_context(hold(lock_of(path), waiting))
        yield


def lock_of(path: Path) -> Path:
    """Give the hidden file beside a file that is locked while the file is made."""
    return path.with_name(f".{path.name}.lock")


def discard(path: Path, only_lock: bool = False) -> None:
    """Delete a file, and its lock if nobody holds it."""
    if not only_lock:
        path.unlink(missing_ok=True)
    lock = lock_of(path)
    if lock.exists():
        with contextlib.suppress(OSError, Taken), hold(lock, give_up):
            lock.unlink()  # who waits for it sees that it is gone, and makes another


@contextlib.contextmanager
def hold(file: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold one lock file. Its folder is made if need be.

    Yields
    ------
    bool
        Whether the lock is held; False on a disk without locks.
    """
    # Mode: all users of a shared cache may lock. No imitation of a lock by a mere file: it would outlive its process.
    lock = filelock.FileLock(file, mode=0o666, fallback_to_soft=False)
    try:
        try:
            again(lambda: lock.acquire(timeout=0), file.parent)
        except filelock.Timeout:
            waiting()
            again(lock.acquire, file.parent)
        held = True
    except NotImplementedError:
        held = False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        held = False
    try:
        yield held
    finally:
        lock.release()


def again(make: Callable[[], Made], folder: Path) -> Made:
    """Make something in a folder that others may delete at any moment: then it is made once more."""
    tries = 0
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return make()
        except FileNotFoundError:
            tries += 1
            if tries == _TRIES:
                raise


def share(file: io.IOBase) -> None:
    """Show that an open file is in use, until it is closed or its process ends: see `is_used`."""
    if fcntl:
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(file, fcntl.LOCK_SH)


def is_used(path: Path) -> bool:
    """Whether a process shows that it uses a file, or the file is another user's; False where there are no locks."""
    try:
        with path.open("rb+") as file:  # on a network's disk, only who may write may lock
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    return False
