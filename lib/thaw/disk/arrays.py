"""Arrays kept on disk, and only used for what they were made from.

Each is a ``.npy`` file, and beside it a ``.json`` that vouches for it: what the
array was made from (the key), a hash of its values, and notes. An array that
is damaged, or of something else under the same name, is not used.
"""

import contextlib
import hashlib
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (gives numpy its bfloat16)
import numpy as np

from thaw.disk import atomic, locks
from thaw.disk.hashes import sealed, unsealed


class StoredArray:
    """An array on disk that reads only the rows it is asked for.

    Attributes
    ----------
    dtype : numpy.dtype
    shape : tuple of int
        (rows, ...).
    about : dict
        The notes of whoever made it.
    sha256 : str
        The hash of all its values.
    """

    def __init__(self, file: io.BufferedIOBase, dtype: str, shape: Sequence[int], sha256: str, about: dict[str, Any]):
        # The file stays open: it can be read although another process has deleted it.
        self._file = file
        self.dtype, self.shape, self.sha256, self.about = np.dtype(dtype), tuple(shape), sha256, about
        self._start = os.fstat(file.fileno()).st_size - size(self.shape, dtype)  # behind numpy's header

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """Read rows: one, a slice, or those at an array of positions."""
        # Mapped anew each time: what was read stays in the system's cache, not in this process' memory.
        return np.array(np.memmap(self._file, self.dtype, "r", self._start, self.shape)[rows])

    def is_whole(self) -> bool:
        """Compare the values with their hash, which reads them all."""
        self._file.seek(max(self._start, 0))
        return hashlib.file_digest(self._file, "sha256").hexdigest() == self.sha256


class Writer:
    """Takes the rows of a new array, in order; see `writing`.

    Attributes
    ----------
    about : dict
        Notes to keep beside the array; may be filled until the end.
    array : StoredArray
        What was written, once the block has ended. It can be read although another process has deleted it.
    """

    array: StoredArray

    def __init__(self, file: io.BufferedIOBase, dtype: np.dtype, shape: tuple[int, ...]):
        self.about: dict[str, Any] = {}
        self.left = shape[0]
        self.file, self.dtype = file, dtype
        self.digest = hashlib.sha256()  # of the values
        # numpy's format does not know bfloat16: the header says how many bits, the JSON says which type.
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": f"<u{dtype.itemsize}", "fortran_order": False, "shape": shape}
        )
        atomic.allocate(file, len(header.getvalue()) + size(shape, dtype))
        file.write(header.getvalue())

    def append(self, rows: np.ndarray) -> None:
        """Write the next rows, (n, ...)."""
        values = np.ascontiguousarray(rows, self.dtype).tobytes()
        self.digest.update(values)
        self.file.write(values)
        self.left -= len(rows)


@contextlib.contextmanager
def writing(path: Path, key: Mapping[str, Any], dtype: Any, shape: tuple[int, ...]) -> Iterator[Writer]:
    """Make an array that appears whole when the block ends, or not at all.

    All the disk that it needs is taken when the block begins.

    Parameters
    ----------
    path : Path
        Ends in ``.npy``.
    key : mapping
        What the array is made from, in JSON's types.
    dtype : str or numpy.dtype
    shape : tuple of int
        (rows, ...): as many rows as will be appended.

    Raises
    ------
    ValueError
        If rows are missing at the end of the block.
    OSError
        If the disk is full.
    """
    dtype = np.dtype(dtype)
    with contextlib.ExitStack() as closing, contextlib.ExitStack() as publishing:
        beside(path).unlink(missing_ok=True)  # it vouches for the array that is to be replaced
        partial = publishing.enter_context(atomic.partial(path))
        file = closing.enter_context(locks.again(lambda: partial.open("w+b"), path.parent))
        locks.share(file)
        writer = Writer(file, dtype, shape)
        yield writer
        if writer.left:
            raise ValueError(f"{path}: {writer.left} of {shape[0]} rows are missing.")
        file.flush()
        made = {"dtype": dtype.name, "shape": shape, "sha256": writer.digest.hexdigest(), "about": writer.about}
        writer.array = StoredArray(file, **made)
        with contextlib.suppress(FileNotFoundError):  # somebody has deleted the folder: only this process has the array
            publishing.close()
            atomic.write_atomic(beside(path), sealed({"key": dict(key), **made}))
        closing.pop_all()  # the array reads from it


def find(path: Path, key: Mapping[str, Any], log: Callable[[str], None] = print) -> StoredArray | None:
    """Open an array that was made from just this, and compare it with its hash, which reads all of it.

    Parameters
    ----------
    path : Path
        Ends in ``.npy``.
    key : mapping
        What it must have been made from.
    log : callable
        Is told of a file that is there and is not used.

    Returns
    -------
    StoredArray or None
    """
    with contextlib.ExitStack() as closing:
        try:
            notes = unsealed(beside(path).read_bytes())
            if notes.pop("key") != dict(key):
                log(f"{path} is of other data, weights or settings: not used")
                return None
            file = closing.enter_context(path.open("rb"))
            locks.share(file)
            array = StoredArray(file, **notes)
            if not array.is_whole():
                raise ValueError("not the values that were written")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            log(f"{path} is damaged: not used")
            return None
        closing.pop_all()
    with contextlib.suppress(OSError):  # deleted meanwhile, or another user's
        os.utime(path)  # the array that was not used for longest goes first when room is needed
    return array


def beside(path: Path) -> Path:
    """Give the path of the JSON file that vouches for an array."""
    return path.with_suffix(".json")


def size(shape: tuple[int, ...], dtype: Any) -> int:
    """How many bytes an array takes."""
    return math.prod(shape) * np.dtype(dtype).itemsize
