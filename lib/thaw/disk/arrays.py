"""Arrays kept on disk, and only used for what they were made from.

Each is a ``.npy`` file, and beside it a ``.json`` that vouches for it: what the
array was made from (the key), a hash of its values, and notes. An array that
is damaged, or of something else under the same name, is not used.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (gives numpy its bfloat16)
import numpy as np

from thaw.disk import atomic

PIECE = 2**24  # bytes read at once where a file is hashed


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

    def __init__(self, path: Path, dtype: str, sha256: str, about: dict[str, Any]):
        # The file stays open: it can be read although another process has deleted it.
        self._file = path.open("rb")
        version = np.lib.format.read_magic(self._file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        self.shape, _, _ = read_header[version](self._file)
        self._start = self._file.tell()
        self.dtype, self.sha256, self.about = np.dtype(dtype), sha256, about

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """Read rows: one, a slice, or those at an array of positions."""
        # Mapped anew each time: what was read stays in the system's cache, not in this process' memory.
        return np.array(np.memmap(self._file, self.dtype, "r", self._start, self.shape)[rows])

    def is_whole(self) -> bool:
        """Compare the values with their hash, which reads them all."""
        self._file.seek(self._start)
        digest = hashlib.sha256()
        while piece := self._file.read(PIECE):
            digest.update(piece)
        return digest.hexdigest() == self.sha256


class Writer:
    """Takes the rows of a new array, in order; see `writing`.

    Attributes
    ----------
    about : dict
        Notes to keep beside the array; may be filled until the end.
    """

    def __init__(self, file, dtype: np.dtype, shape: tuple[int, ...]):
        self.about: dict[str, Any] = {}
        self.left = shape[0]
        self.digest = hashlib.sha256()
        self._file, self._dtype = file, dtype
        # numpy's format does not know bfloat16: the header says how many bits, the JSON says which type.
        header = {"descr": f"<u{dtype.itemsize}", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

    def append(self, rows: np.ndarray) -> None:
        """Write the next rows, (n, ...)."""
        values = np.ascontiguousarray(rows, self._dtype).tobytes()
        self.digest.update(values)
        self._file.write(values)
        self.left -= len(rows)


@contextlib.contextmanager
def writing(path: Path, key: Mapping[str, Any], dtype: Any, shape: tuple[int, ...]) -> Iterator[Writer]:
    """Make an array that appears whole when the block ends, or not at all.

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
    """
    dtype = np.dtype(dtype)
    beside(path).unlink(missing_ok=True)  # it vouches for the array that is to be replaced
    with atomic.partial(path) as partial, partial.open("wb") as file:
        writer = Writer(file, dtype, shape)
        yield writer
        if writer.left:
            raise ValueError(f"{path}: {writer.left} of {shape[0]} rows are missing.")
    content = {"key": dict(key), "dtype": dtype.name, "sha256": writer.digest.hexdigest(), "about": writer.about}
    atomic.write_atomic(beside(path), json.dumps(content))


def find(path: Path, key: Mapping[str, Any], log: Callable[[str], None] = print, verify: bool = True):
    """Open an array that was made from just this.

    Parameters
    ----------
    path : Path
        Ends in ``.npy``.
    key : mapping
        What it must have been made from.
    log : callable
        Is told of a file that is there and is not used.
    verify : bool
        Whether to compare the values with their hash, which reads them all.

    Returns
    -------
    StoredArray or None
    """
    try:
        content = json.loads(beside(path).read_text(encoding="utf-8"))
        if content["key"] != dict(key):
            log(f"{path} is of other data, weights or settings: not used")
            return None
        array = StoredArray(path, content["dtype"], content["sha256"], dict(content["about"]))
        if verify and not array.is_whole():
            raise ValueError("not the values that were written")
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        log(f"{path} is damaged: not used")
        return None
    with contextlib.suppress(OSError):  # deleted meanwhile, or another user's
        os.utime(path)  # the array that was not used for longest goes first when room is needed
    return array


def beside(path: Path) -> Path:
    """Give the path of the JSON file that vouches for an array."""
    return path.with_suffix(".json")


def size(shape: tuple[int, ...], dtype: Any) -> int:
    """How many bytes an array takes."""
    return math.prod(shape) * np.dtype(dtype).itemsize
