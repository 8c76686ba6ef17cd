"""Training in phases, on activations of the frozen part that are computed once."""

import os

from thaw.disk.streams import stderr_to

with stderr_to(os.devnull):
    import tensorflow  # its C++ code tells of its start-up, whatever it is told

    tensorflow.config.list_physical_devices()  # and of a GPU's driver that is not there, as of an error
