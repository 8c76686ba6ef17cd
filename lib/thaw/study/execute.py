"""Notebooks run by papermill, with their progress shown and their files whole."""

import contextlib
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError
from papermill.exceptions import PapermillExecutionError

from thaw.disk.atomic import write_atomic
from thaw.disk.streams import stderr_to
from thaw.errors import Diverged, ThawError, explained, lacks
from thaw.study.kernels import Manager

# If both nbclient's task and its kernel are interrupted, asyncio logs a traceback that tells nothing more.
logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def execute(
    notebook: Path, output: Path, parameters: Mapping[str, Any], label: str, hours: float, **metadata: Any
) -> None:
    """Run a notebook with parameters, and keep it if it finishes.

    What its cells print goes to standard error, each line under the label.

    Parameters
    ----------
    notebook, output : Path
        The notebook, and where its executed copy is to appear.
    parameters : mapping
        Papermill's.
    label : str
        Names the run in what is printed.
    hours : float
        The longest that a cell may take.
    **metadata
        Kept in the executed notebook, under ``thaw`` of its metadata.

    Raises
    ------
    ThawError
        If a cell fails or hangs, or the kernel dies. The notebook as far as it
        ran is kept beside `output` as ``<name>.failed.ipynb``, with the
        traceback, and what the libraries logged as ``<name>.log``. A diverged
        run counts as finished.
    KeyboardInterrupt
        If the kernel was interrupted.
    """
    failed, log, kills = output.with_suffix(".failed.ipynb"), output.with_suffix(".log"), _kills_for_memory()

    def run(partial: Path) -> None:
        try:
            with stderr_to(log) as terminal:
                papermill.execute_notebook(
                    notebook,
                    partial,
                    dict(parameters),
                    progress_bar=False,
                    kernel_name="python3",
                    kernel_manager_class=Manager,
                    stdout_file=Labelled(terminal, label),
                    execution_timeout=math.ceil(3600 * hours),
                    shutdown_kernel="immediate",  # all is saved: no need to wait until TensorFlow has tidied up
                )
        except (PapermillExecutionError, CellTimeoutError, RuntimeError) as error:
            kind = getattr(error, "ename", "")
            if kind == KeyboardInterrupt.__name__:
                raise KeyboardInterrupt from None
            reason = _reason(error, hours, log, _kills_for_memory() > kills)
            if kind != Diverged.__name__:
                if partial.exists():
                    partial.replace(failed)
                raise ThawError(f"{label}: {reason}\nThe notebook up to there: {failed}") from None
            print(f"{label}: {reason}", flush=True)
        executed = nbformat.read(partial, as_version=4)
        # It may be published: without the folders of this machine.
        executed.metadata.papermill |= {"input_path": notebook.name, "output_path": output.name}
        executed.metadata.thaw = metadata
        nbformat.write(executed, partial)

    try:
        write_atomic(output, run)
    except (OSError, RuntimeError) as error:  # for example a kernel that does not start
        raise ThawError(f"{label}: {explained(type(error).__name__, str(error))}") from None
    for leftover in (failed, log):
        leftover.unlink(missing_ok=True)


def _kills_for_memory() -> int:
    """Count the processes that Linux has killed since it started because memory ran out; 0 elsewhere."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/vmstat").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("oom_kill ")).split()[1])
    return 0


def _reason(error: Exception, hours: float, log: Path, for_memory: bool) -> str:
    """Say why a notebook failed, and what to do."""
    if isinstance(error, PapermillExecutionError):
        known = error.ename in {kind.__name__ for kind in _kinds(ThawError)}
        return error.evalue if known else explained(error.ename, error.evalue)
    if isinstance(error, CellTimeoutError):
        return (
            f"a cell took more than {hours:g} hours and was stopped. If it was not hanging, allow more in the profile: "
            f"study: {{hours: {2 * hours:g}}}."
        )
    if "Kernel died" not in str(error):
        return explained(type(error).__name__, str(error))
    if not for_memory:
        with contextlib.suppress(OSError):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            if said := next((line for line in reversed(lines[-100:]) if lacks(line)), ""):
                return f"the notebook's kernel died: {explained('it logged', said)}"
    died = "was killed by the system: memory ran out" if for_memory else "died, most often because memory ran out"
    return (
        f"the notebook's kernel {died}. Close other programs, run fewer experiments at once (--cores 1), or give a "
        f"smaller batch_size or image_size. What it logged last: {log}"
    )


class Labelled:
    """A text stream that puts the time and a label before each line."""

    def __init__(self, stream: TextIO, label: str):
        self.stream, self.label, self.rest = stream, label, ""

    def write(self, text: str) -> None:
        """Write whole lines, and keep the rest for later."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in filter(None, lines):
            # One call a line: several processes write to one terminal.
            self.stream.write(f"{time.strftime('%H:%M:%S')}  {self.label}: {line}\n")
        self.stream.flush()

    def flush(self) -> None:
        """Flush the stream behind."""
        self.stream.flush()


def _kinds(error: type) -> set[type]:
    return {error}.union(*map(_kinds, error.__subclasses__()))
