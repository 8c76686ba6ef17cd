"""Files that appear whole or not at all."""

import contextlib
import errno
import io
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from thaw.disk.locks import Taken, give_up, hold
from thaw.errors import OutputNotWritable

_DAY = 86_400  # seconds
_PREFIX = ".part-"


def write_atomic(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Write a file that appears whole or not at all.

    Parameters
    ----------
    path : Path
        The file. Its folder is made if need be.
    content : str, bytes or callable
        A callable is given a path in the same folder, with the same suffixes,
        to write to. Text is written as UTF-8.
    """
    with partial(path) as unfinished:
        if callable(content):
            content(unfinished)
        else:
            unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def partial(path: Path) -> Iterator[Path]:
    """Write a file under another name first, and publish it at the end.

    If the block raises, nothing is published and nothing is left. If the
    process is killed, the next `partial` in the folder removes what it left.

    Yields
    ------
    Path
        A hidden path beside `path`, with the same suffixes, to write to.
    """
    remove_abandoned(path.parent)
    unfinished = path.with_name(f"{_PREFIX}{secrets.token_hex(8)}{''.join(path.suffixes)}")
    lock = _lock_of(unfinished)
    try:
        # The lock comes before the file: a file whose lock is free has lost its writer.
        with hold(lock):
            try:
                yield unfinished
                with unfinished.open("rb+") as file:
                    os.fsync(file.fileno())  # after a power cut, the name must not exist without its content
                unfinished.replace(path)
            except OSError as error:
                _name(error, path, unfinished)
                raise
            finally:
                unfinished.unlink(missing_ok=True)
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()


@contextlib.contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """Write a folder under another name first, and publish it at the end, in place of one that is there.

    Whoever writes it holds a lock: two processes at once are not told apart.

    Yields
    ------
    Path
        An empty hidden folder beside `path`, to write to. If the block raises,
        `path` is left as it was.
    """
    unfinished, before = (path.with_name(f".{path.name}.{end}") for end in ("part", "before"))
    if before.exists() and not path.exists():  # a process was killed between the two renames below
        before.replace(path)
    for left in (unfinished, before):
        shutil.rmtree(left, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for file in unfinished.iterdir():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
        if path.exists():
            path.replace(before)  # a folder cannot be put in the place of another
        unfinished.replace(path)
    except OSError as error:
        _name(error, path, unfinished)
        raise
    finally:
        for left in (unfinished, before):
            shutil.rmtree(left, ignore_errors=True)


def _name(error: OSError, path: Path, unfinished: Path) -> None:
    """Have an error of writing name the file that was to appear: a full disk names none, and others a hidden one."""
    if error.errno and error.filename in (None, str(unfinished)):
        error.filename = str(path)


def remove_abandoned(folder: Path) -> None:
    """Delete the unfinished files in a folder whose writers are gone.

    A writer holds its file's lock as long as it lives, on whatever machine.
    Only on a disk without locks does age decide: a file that has not changed
    for a day is abandoned.
    """
    lefts: list[Path] = []
    with contextlib.suppress(FileNotFoundError):
        lefts += folder.glob(f"{_PREFIX}*")
    for left in lefts:
        lock = _lock_of(left)
        with contextlib.suppress(OSError, Taken):  # being written, or just removed by another process
            old = time.time() - left.stat().st_mtime > _DAY
            with hold(lock, give_up) as held:
                if held or old:
                    left.unlink()
            lock.unlink()


def _lock_of(unfinished: Path) -> Path:
    return unfinished.with_name(f".{unfinished.name.split('.')[1]}.lock")


def allocate(file: io.IOBase, size: int) -> None:
    """Take all the disk that a new file will need before anything is written to it.

    Raises
    ------
    OSError
        If the disk has no room for it.
    """
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (OSError, AttributeError) as error:  # this system, or this disk, does not know how
        if is_full(error):
            raise
        file.truncate(size)


def is_full(error: Exception) -> bool:
    """Whether an error says that a disk, or a user's share of it, is full."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "errno", None) in full or any(f"errno = {number}," in str(error) for number in full)


def check_writable(directory: Path) -> None:
    """Make a directory, and see that it can be written to.

    Raises
    ------
    OutputNotWritable
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(2**20))  # the disk may also be full
    except OSError as error:
        raise OutputNotWritable(
            f"'{directory}' cannot be written to ({error.strerror}). "
            "Give another folder, change its permissions, or make room."
        ) from None
