"""Thaw: how much of a pre-trained network should one unfreeze?

The modules, in the order in which data flow through them: `experiment` (the
parameters of one run), `study` (the runs of a profile), `data`, `backbones`,
`unfreeze`, `training`, `evaluation`, `record`, `statistics`, `figures`,
`narrative`, `report`.
"""

import os

# TensorFlow's C++ start-up notes are of no use to a reader of a notebook.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
