"""Training in phases, on activations of the frozen part that are computed once."""

import os

from thaw.disk.streams import stderr_to

with stderr_to(os.devnull):
    import tensorflow  # noqa: F401 - its C++ code tells of its start-up, whatever it is told
