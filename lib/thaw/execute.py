"""Notebooks run by papermill, with their progress shown and their files whole."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from thaw.errors import ThawError
from thaw.files import write_whole


def execute(notebook: Path, output: Path, parameters: Mapping[str, Any], label: str) -> None:
    """Run a notebook with parameters, and keep it once it is finished.

    What its cells print goes to standard error, each line under the label.

    Parameters
    ----------
    notebook, output : Path
        The notebook, and where its executed copy is to appear.
    parameters : mapping
        Papermill's.
    label : str
        Names the run in what is printed.

    Raises
    ------
    ThawError
        If a cell fails: with its message alone if that is meant for users, and
        otherwise with the traceback. What was run until then is kept beside
        `output` as ``<name>.failed.ipynb``, and what the libraries logged as
        ``<name>.log``.
    """
    failed, log = output.with_suffix(".failed.ipynb"), output.with_suffix(".log")
    output.parent.mkdir(parents=True, exist_ok=True)

    def run(partial: Path) -> None:
        try:
            with stderr_to(log) as terminal:
                papermill.execute_notebook(
                    notebook,
                    partial,
                    dict(parameters),
                    progress_bar=False,
                    kernel_name="python3",
                    stdout_file=Labelled(terminal, label),
                )
        except PapermillExecutionError:
            partial.replace(failed)
            raise

    try:
        write_whole(output, run)
    except PapermillExecutionError as error:
        known = {kind.__name__ for kind in _kinds(ThawError)}
        message = error.evalue if error.ename in known else str(error)
        raise ThawError(f"{label}: {message}\nThe notebook up to there: {failed}") from None
    except DeadKernelError:
        raise ThawError(
            f"{label}: the notebook's kernel died, most often for want of memory. What it said last: {log}"
        ) from None
    for leftover in (failed, log):
        leftover.unlink(missing_ok=True)


@contextmanager
def stderr_to(log: str | Path) -> Iterator[TextIO]:
    """Send standard error to a file, of this process and of those it starts.

    TensorFlow's C++ code notes its start-up there whatever one asks for.

    Yields
    ------
    TextIO
        The standard error that was.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with open(log, "wb") as file, open(kept, "w", buffering=1) as terminal:
        os.dup2(file.fileno(), 2)
        try:
            yield terminal
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)


class Labelled:
    """A text stream that puts the time and a label before each line."""

    def __init__(self, stream: TextIO, label: str):
        self.stream, self.label, self.rest = stream, label, ""

    def write(self, text: str) -> None:
        *lines, self.rest = (self.rest + text).split("\n")
        for line in filter(None, lines):
            # One call a line: several processes write to one terminal.
            self.stream.write(f"{time.strftime('%H:%M:%S')}  {self.label}: {line}\n")
        self.stream.flush()

    def flush(self) -> None:
        self.stream.flush()


def _kinds(error: type) -> set[type]:
    return {error}.union(*map(_kinds, error.__subclasses__()))
