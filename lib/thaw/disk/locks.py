"""Locks that the operating system holds: a lock ends with its process, however the process ends."""

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import filelock

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
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(hold(path.with_name(f".{path.name}.lock"), waiting))
        yield


@contextlib.contextmanager
def hold(file: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold one lock file.

    Yields
    ------
    bool
        Whether the lock is held; False on a disk without locks.
    """
    # Mode: all users of a shared cache may lock. No imitation of a lock by a mere file: it would outlive its process.
    lock = filelock.FileLock(file, mode=0o666, fallback_to_soft=False)
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            waiting()
            lock.acquire()
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
