"""Thaw: how much of a pre-trained network should one unfreeze?

The rooms, from the ground up; none imports one above it:

`disk`, `errors`
    files that appear whole, locks, arrays, folders; what can go wrong, in words
`experiment`
    what one run is: its validated parameters
`network`, `data`
    the pre-trained networks; the photos
`training`
    phases of training, on activations of the frozen part that are computed once
`records`
    what a finished run leaves on disk
`study`
    a profile's experiments as a graph of jobs
`report`
    from the records to tables, figures, sentences, HTML and PDF
"""

import os

# Yours stay where they are set.
ENVIRONMENT = {
    # TensorFlow's C++ start-up notes are of no use to a reader of a notebook.
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "ERROR",
    # The faster convolutions that TensorFlow has, but does not use by itself on processors without AVX-512.
    "TF_ENABLE_ONEDNN_OPTS": "1",
    # A training step asks for the same large blocks as the one before. The C library of Linux would give each back to
    # the system and get it anew, page by page: so it keeps them, in one place for all threads. Read by processes that
    # start.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
