"""Networks with their pre-trained weights."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.disk import downloads, places
from thaw.errors import UnsupportedNetwork, WeightsMismatch, WeightsNotFound, did_you_mean, first_line
from thaw.experiment import is_file
from thaw.network import backbones

if TYPE_CHECKING:  # Keras takes seconds to import, and weights can be looked for without it
    import keras

_DOWNLOAD = "import sys; from thaw.network import backbones; backbones.get(sys.argv[1]).build(224, weights='imagenet')"


def load_pretrained(
    name: str, image_size: int, weights: str, preprocessing: str = "network"
) -> tuple[keras.Model, dict]:
    """Build a backbone and give it its weights.

    Parameters
    ----------
    name : str
        The name of a network of `keras.applications` in lower case, or the path of a ``.keras`` file.
    image_size : int
        Side of the square photos, in pixels.
    weights : str
        ``imagenet``; ``demo``, which the package ships; ``none``, random; or the path of a weights file. For
        ``imagenet``, ``$THAW_WEIGHTS_DIR/<name>.h5`` or ``<name>.weights.h5`` is used if it is there, else Keras' own
        download; a ``.keras`` file keeps its own weights.
    preprocessing : str
        See `thaw.network.backbones.Backbone.preprocess`. Only checked here: a ``.keras`` file does not always tell it.

    Returns
    -------
    base : keras.Model
        From photos (n, image_size, image_size, 3) to features (n, height, width, channels). Its frozen layers run in
        inference mode, and its operations have the same names in every process.
    provenance : dict
        Where the weights come from: the description beside the file where there is one, and a hash of all tensors.

    Raises
    ------
    WeightsNotFound, WeightsMismatch
        If there are no such weights, or they do not fit the network.
    """
    import keras

    from thaw.network import frozen, graph, own
    from thaw.network.convolutions import quicken
    from thaw.network.normalization import fuse

    backbone = backbones.get(name, preprocessing)
    path, about = find_weights(name, weights)
    base = backbone.build(image_size)
    if path is not None:
        try:
            own.check_weights(f"weights = {weights!r}", path, path.stat().st_size)
            base.load_weights(path)
            own.check_numbers(f"weights = {weights!r}", base)
        except UnsupportedNetwork as error:
            raise WeightsMismatch(str(error)) from None
        except Exception as error:  # h5py and Keras raise many kinds for one cause: a file that does not fit
            raise WeightsMismatch(
                f"weights = {weights!r}: {path} does not fit {backbone.title} ({first_line(error)}). "
                "Give weights of the same network without its classifier (include_top=False)."
            ) from None
    elif weights == "imagenet" and not backbone.is_file:
        # The weights for 224 pixels at every size: Keras has others of MobileNet for 128, 160 and 192.
        base.set_weights(_download(backbone).get_weights())
    elif weights == "none" and backbone.is_file:
        base = keras.models.clone_model(base)  # the layers of the file, begun anew
    if weights == "imagenet":
        backbone.settle(base)
    # Only now: a weights file refers to Keras' own layers.
    fuse(base)
    quicken(base)
    frozen.hold(base)
    graph.name_operations(base)
    digest = hashlib.sha256()
    for tensor in base.get_weights():
        digest.update(tensor.tobytes())
    return base, {"weights": weights, **about, **backbone.identity, "tensors_sha256": digest.hexdigest()}


def find_weights(name: str, weights: str) -> tuple[Path | None, dict]:
    """Find the file of a backbone's weights, and its description.

    Returns
    -------
    path : Path or None
        None if the weights are random, or Keras has to fetch them.
    about : dict
        At least a title, whether these are the official weights, and a description.

    Raises
    ------
    WeightsNotFound
        If a file was asked for that does not exist.
    WeightsMismatch
        If the description beside the file is unreadable, or describes another file.
    """
    backbone = backbones.get(name)
    if backbone.is_file and weights == "imagenet":
        about = {"title": "those in its file", "official": False, "own": True, "description": ""}
        return None, about
    if weights == "none":
        return None, {"title": "random weights", "official": False, "description": "Not pre-trained at all."}
    if weights == "demo":
        path = places.shipped("weights", f"{name}.weights.h5")
        if not path.is_file():
            there = (file.name.split(".")[0] for file in path.parent.glob("*.weights.h5"))
            raise WeightsNotFound(
                f"weights = 'demo': the package ships none of {backbone.title}. "
                f"Set backbone to one of: {', '.join(sorted(there))}; or weights to imagenet, none or a file's path."
            )
    elif weights == "imagenet":
        folder = os.environ.get("THAW_WEIGHTS_DIR")
        path = Path(folder or "", f"{name}.h5").expanduser()
        if folder and not path.is_file():
            path = path.with_suffix(".weights.h5")
        if not folder or not path.is_file():
            return None, {
                "title": f"{backbone.title}, ImageNet",
                "official": True,
                "description": "Keras' own ImageNet weights, fetched by keras.applications.",
            }
    else:
        path = places.in_project(weights)
        if not path.is_file():
            raise WeightsNotFound(
                f"weights = {weights!r}: there is no such file. Give the path of a weights file, or a name. "
                f"{did_you_mean(weights, ('demo', 'imagenet', 'none'))}"
            )
        if is_file(weights):
            raise WeightsMismatch(
                f"weights = {weights!r}: a .keras file holds a network, and not its weights alone. "
                f"Set backbone to {weights!r}, and weights to imagenet, which means those in the file."
            )
    return path, _description(path)


def _description(path: Path) -> dict:
    """Read the JSON file beside a weights file; say so where there is none."""
    about = {"title": path.name, "official": False, "description": "No description beside the file."}
    beside = path.with_name(path.name.split(".")[0] + ".json")
    if not beside.exists():
        return about
    try:
        about |= dict(json.loads(beside.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise WeightsMismatch(f"{beside}: not a JSON description ({error}). Correct it or remove it.") from None
    for key, kind in ("title", str), ("description", str), ("official", bool):
        if not isinstance(about[key], kind):
            raise WeightsMismatch(
                f"{beside}: {key} = {about[key]!r}: not {'text' if kind is str else 'true or false'}. "
                "Correct it or remove the file."
            )
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if about.get("sha256", found) != found:
        raise WeightsMismatch(
            f"{path}: {beside.name} describes another file (its sha256 differs). Replace one of the two."
        )
    return about


def on_disk(name: str) -> bool:
    """Whether a backbone's ImageNet weights are in ``$THAW_WEIGHTS_DIR`` or in Keras' own folder."""
    path, _ = find_weights(name, "imagenet")
    # Keras calls the files efficientnetv2-b0_notop.h5, NASNet-mobile-no-top.h5 and so on.
    there = (re.sub("[^a-z0-9]", "", file.name.lower()) for file in _kept().glob("*"))
    return path is not None or any(re.search(rf"{name}(?!v\d)", file) for file in there)  # not MobileNetV2's


def _kept() -> Path:
    """Give the folder where Keras keeps weights: a temporary one if its own cannot be written to."""
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        home = Path("/tmp" if Path("/tmp").is_dir() else tempfile.gettempdir(), ".keras")
    return home / "models"


def _download(backbone: backbones.Backbone) -> keras.Model:
    try:
        if not on_disk(backbone.name):
            kept = _kept()
            kept.mkdir(parents=True, exist_ok=True)
            # Keras writes to a file's own name, and takes half of one for whole: so elsewhere first.
            with tempfile.TemporaryDirectory(prefix=".thaw-", dir=kept) as home:
                what = f"the ImageNet weights of {backbone.title}"
                downloads.download(_DOWNLOAD, backbone.name, what, [Path(home)], KERAS_HOME=home)
                for file in Path(home, "models").iterdir():
                    file.replace(kept / file.name)
        return backbone.build(224, weights="imagenet")
    except Exception as error:  # urllib, http and Keras' checksum test each raise their own
        do = f"Delete half a file in {_kept()}" if on_disk(backbone.name) else "Connect to the internet"
        raise WeightsNotFound(
            f"weights = 'imagenet': Keras could not fetch those of {backbone.title} ({first_line(error)}). "
            f"{do}, or put {backbone.name}.h5 in a folder and set THAW_WEIGHTS_DIR to it."
        ) from None
