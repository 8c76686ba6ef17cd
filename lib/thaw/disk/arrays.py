"""Arrays kept on disk, and only used for what they were made from.

Each is an HDF5 file of its own: the values, what they were made from (the
key), and a hash of the values. A file that is damaged, or of something else
under the same name, is as good as none.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from thaw.disk.atomic import partial, remove_abandoned

PIECE = 2**24  # bytes read at once where a file is read as a whole
SMALL = 50_000  # bytes: a file that is no more holds a note alone


class Stored:
    """An array on disk, or some rows of it, that reads only what is asked for.

    Attributes
    ----------
    dtype : tf.DType
    shape : tuple of int
        (rows, ...).
    about : dict
        What was noted of it when it was made.
    sha256 : str
        The hash of all its values.
    """

    def __init__(self, file, offset: int, dtype: tf.DType, shape: tuple[int, ...], rows: range, about: dict, sha256=""):
        self._file, self._offset, self._whole, self._rows = file, offset, shape, rows
        self.dtype, self.shape, self.about, self.sha256 = dtype, (len(rows), *shape[1:]), about, sha256

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: int | slice | np.ndarray) -> np.ndarray:
        """Read rows: one, a slice, or those at an array of positions."""
        # Mapped anew each time: pages once read stay in the system's cache, but not in this process' memory.
        values = np.memmap(self._file, self.dtype.as_numpy_dtype, "r", self._offset, self._whole)
        chosen = np.arange(self._rows.start, self._rows.stop)[which]
        return np.array(values[chosen])

    def part(self, start: int, stop: int) -> "Stored":
        """Some of the rows, not read yet."""
        return Stored(
            self._file, self._offset, self.dtype, self._whole, self._rows[start:stop], self.about, self.sha256
        )


class Writer:
    """An array that is written row after row, and appears whole with `finish` or not at all.

    Parameters
    ----------
    path : Path
    key : mapping
        What it is made from, in JSON's types.
    dtype : tf.DType
    shape : tuple of int
    """

    def __init__(self, path: Path, key: Mapping[str, Any], dtype: tf.DType, shape: tuple[int, ...]):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.key, self.dtype, self.shape = path, dict(key), dtype, shape
        self.written, self._digest = 0, hashlib.sha256()
        self._publishing = contextlib.ExitStack()
        self.partial = self._publishing.enter_context(partial(path))
        self._h5 = h5py.File(self.partial, "w")
        # HDF5 knows no bfloat16; what is kept are its bits.
        bits = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[dtype.size]
        self._values = self._h5.create_dataset("values", shape, bits)

    def append(self, rows: np.ndarray) -> None:
        """Write the next rows."""
        rows = np.ascontiguousarray(rows).view(self._values.dtype)
        self._digest.update(rows)
        self._values[self.written : self.written + len(rows)] = rows
        self.written += len(rows)

    def seconds_to_read(self, start: int, stop: int, cold: bool) -> float:
        """Time the reading of rows that have been written: from the disk itself (cold), or from the system's memory."""
        self._h5.flush()
        with self.partial.open("rb") as file:
            if cold and hasattr(os, "posix_fadvise"):
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            began = time.perf_counter()
            values = Stored(file, self._values.id.get_offset(), self.dtype, self.shape, range(self.shape[0]), {})
            tf.constant(values[np.arange(start, stop)])
            return time.perf_counter() - began

    def finish(self, **about: Any) -> Stored:
        """Let the file appear, with what is to be noted of it."""
        assert self.written == len(self._values), "rows are missing"
        offset, sha256 = self._values.id.get_offset(), self._digest.hexdigest()
        self._values.attrs.update({"dtype": self.dtype.name, "sha256": sha256})
        self._note(about)
        # Opened before another process can see it, and delete it; Windows would not rename what is open.
        file = None if os.name == "nt" else self.partial.open("rb")
        self._publishing.close()
        file = file or self.path.open("rb")
        return Stored(file, offset, self.dtype, self.shape, range(self.shape[0]), about, sha256)

    def give_up(self, **about: Any) -> None:
        """Keep nothing but a note of why."""
        self._h5.close()
        self._h5 = h5py.File(self.partial, "w")  # HDF5 would not give the values' room back
        self._note(about)
        self._publishing.close()

    def discard(self) -> None:
        """Leave nothing, if not finished yet."""
        with contextlib.suppress(OSError, RuntimeError):  # a full disk
            self._h5.close()
        self._publishing.__exit__(GeneratorExit, GeneratorExit(), None)  # as an error would: nothing is published

    def _note(self, about: dict) -> None:
        self._h5["key"], self._h5["about"] = _text(self.key), json.dumps(about)
        self._h5.close()


def find(path: Path, key: Mapping[str, Any], log: Callable[[str], None] = print, verify: bool = True) -> Stored | None:
    """Open an array that was made from just this.

    Parameters
    ----------
    path : Path
    key : mapping
        What it must have been made from.
    log : callable
        Is told of a file that is there but is of no use.
    verify : bool
        Whether to compare the values with their hash, which reads them all.

    Returns
    -------
    Stored or None
    """
    with _sound(path, log):
        file = path.open("rb")  # all is read from this one, whatever takes its place meanwhile
        with h5py.File(file) as h5:
            about = _about(h5, path, key, log)
            if about is None or "values" not in h5:
                return None
            values = h5["values"]
            dtype, expected = tf.as_dtype(values.attrs["dtype"]), values.attrs["sha256"]
            shape, offset = values.shape, values.id.get_offset()
        if verify:
            file.seek(offset)
            digest, left = hashlib.sha256(), int(np.prod(shape)) * dtype.size
            while left and (piece := file.read(min(left, PIECE))):
                digest.update(piece)
                left -= len(piece)
            if digest.hexdigest() != expected:
                raise ValueError("not the values that were written")
        with contextlib.suppress(OSError):  # deleted meanwhile, or another user's
            os.utime(path)  # the longest unused goes first when room is needed
        return Stored(file, offset, dtype, shape, range(shape[0]), about, expected)


def note(path: Path, key: Mapping[str, Any], log: Callable[[str], None] = print) -> dict | None:
    """What was noted of an array, kept or given up; None if there is no such file, or it is of something else."""
    with _sound(path, log), path.open("rb") as file, h5py.File(file) as h5:
        return _about(h5, path, key, log)


def make_room(folder: Path, needed: float, budget: float, keep: Iterable[Path] = ()) -> bool:
    """Delete what has not been used for longest until an array fits; nothing if it cannot.

    Parameters
    ----------
    folder : Path
        All of it counts, with what is being written now.
    needed, budget : float
        Bytes: of the new array, and of all together.
    keep : iterable of Path
        Not to be deleted.

    Returns
    -------
    bool
        Whether it fits.
    """
    keep, files, staying = set(keep), {}, 0
    for inside in {path.parent for path in folder.rglob("*.h5")}:
        remove_abandoned(inside)
    for path in folder.rglob("*.h5"):
        with contextlib.suppress(OSError):  # others delete, too
            stat, unfinished = path.stat(), path.name.startswith(".")
            if unfinished or path in keep:
                staying += stat.st_size
            elif stat.st_size > SMALL:
                files[path] = stat
    free, left = shutil.disk_usage(folder).free, sum(stat.st_size for stat in files.values())

    def fits(left: int, freed: int) -> bool:
        return staying + left + needed <= budget and needed < free + freed

    if not fits(0, left):
        return False
    freed = 0
    for path in sorted(files, key=lambda path: files[path].st_mtime):
        if fits(left - freed, freed):
            break
        with contextlib.suppress(OSError):  # in use, where the system forbids it
            path.unlink(missing_ok=True)
            freed += files[path].st_size
    return fits(left - freed, freed)


@contextlib.contextmanager
def _sound(path: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Leave a file alone that cannot be read, and say so unless there is none: h5py raises many kinds."""
    try:
        yield
    except FileNotFoundError:
        pass
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError):
        log(f"{path} is damaged: not used")


def _about(h5: h5py.File, path: Path, key: Mapping[str, Any], log: Callable[[str], None]) -> dict | None:
    if h5["key"].asstr()[()] != _text(key):
        log(f"{path} is of other data, weights or settings: not used")
        return None
    return dict(json.loads(h5["about"].asstr()[()]))


def _text(key: Mapping[str, Any]) -> str:
    return json.dumps(dict(key), sort_keys=True)
