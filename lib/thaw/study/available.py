"""Whether TF Flowers and the ImageNet weights are there or can be fetched.

Run as a file, ``python lib/thaw/available.py [PROFILE]``, before there is an
environment: nothing but the standard library is imported. It prints the
profile to run and the reason; the answer takes seconds, also where the network
swallows requests.
"""

import os
import sys
import threading
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path

PHOTOS_URL = "http://download.tensorflow.org/example_images/flower_photos.tgz"
WEIGHTS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
# What keras.applications fetches, by the names of our backbones.
WEIGHTS = {
    "resnet50": "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "mobilenet": "mobilenet/mobilenet_1_0_224_tf_no_top.h5",
}
PATIENCE = 5  # seconds, for all requests together


def flowers_on_disk() -> bool:
    """Whether TFDS has TF Flowers prepared, in ``$TFDS_DATA_DIR`` or its own folder."""
    folder = Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    return any(folder.glob("tf_flowers/[0-9]*.[0-9]*.[0-9]*/dataset_info.json"))


def weights_on_disk(backbone: str) -> bool:
    """Whether a backbone's weights are in ``$THAW_WEIGHTS_DIR`` or in Keras' own folder."""
    places = [Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models" / Path(WEIGHTS[backbone]).name]
    if os.environ.get("THAW_WEIGHTS_DIR"):
        places.append(Path(os.environ["THAW_WEIGHTS_DIR"]).expanduser() / f"{backbone}.h5")
    return any(place.is_file() for place in places)


def reachable(urls: list[str]) -> set[str]:
    """Those of some addresses that answer within `PATIENCE` seconds."""
    answered: set[str] = set()

    def ask(url: str) -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
                answered.add(url)
        except Exception:  # whatever it is, it is not reachable
            pass

    # Looking up a name has no time limit of its own: daemon threads, left behind if need be.
    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return set(answered)


def missing(datasets: Iterable[str] = ("tf_flowers",), backbones: Iterable[str] = tuple(WEIGHTS)) -> str:
    """What is neither on this machine nor to be fetched, as a clause; empty if nothing is.

    Parameters
    ----------
    datasets, backbones : iterable of str
        What is wanted: data sets, of which only ``tf_flowers`` is looked for,
        and backbones with ImageNet weights, of which those in `WEIGHTS` are.
    """
    wanted = {}
    if "tf_flowers" in datasets and not flowers_on_disk():
        wanted["TF Flowers"] = PHOTOS_URL
    for name in sorted(set(backbones) & set(WEIGHTS)):
        if not weights_on_disk(name):
            wanted[f"the ImageNet weights of {name}"] = WEIGHTS_URL + WEIGHTS[name]
    answered = reachable(list(wanted.values())) if wanted else set()
    lacking = [what for what, url in wanted.items() if url not in answered]
    if not lacking:
        return ""
    *first, last = lacking
    plural = first or "weights" in last
    return f"{', '.join(first)}{' and ' * bool(first)}{last} {'are' if plural else 'is'} neither on this machine nor to be fetched"


HOW_TO_PROVIDE = (
    "Connect to the internet; or set TFDS_DATA_DIR to a folder in which TFDS has prepared tf_flowers, and THAW_WEIGHTS_DIR to one with "
    "resnet50.h5 and mobilenet.h5; or run PROFILE=demo, which needs neither."
)


def choose() -> tuple[str, str]:
    """The profile to run where none is asked for, and why."""
    if lacking := missing():
        return "demo", f"{lacking}."
    return "quick", "TF Flowers and the ImageNet weights are there or can be fetched."


if __name__ == "__main__":
    print(*(choose() if len(sys.argv) < 2 or not sys.argv[1] else (sys.argv[1], "")))
