"""Standard error, sent elsewhere for a while."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def stderr_to(log: str | Path) -> Iterator[TextIO]:
    """Send standard error to a file, for this process and those it starts.

    TensorFlow's C++ code always logs its start-up there.

    Yields
    ------
    TextIO
        The standard error from before.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(log).open("wb") as file, os.fdopen(kept, "w", buffering=1) as terminal:
        os.dup2(file.fileno(), 2)
        try:
            yield terminal
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
