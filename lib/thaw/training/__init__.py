"""Training in phases, on activations of the frozen part that are computed once."""

import gc
import os

from thaw.disk.streams import stderr_to

_collects = gc.isenabled()
gc.disable()  # all that these imports make stays: to look through it again and again would take a second
with stderr_to(os.devnull):
    import tensorflow  # its C++ code tells of its start-up, whatever it is told

    tensorflow.config.list_physical_devices()  # and of a GPU's driver that is not there, as of an error
    import keras  # noqa: F401
gc.freeze()  # later collections, many of them while a network is traced, leave it out
if _collects:
    gc.enable()
