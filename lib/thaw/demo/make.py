"""Make the files that the package ships: ``python -m thaw.demo.make``.

Reads TF Flowers by TFDS and MobileNet's ImageNet weights by Keras, and writes into ``data`` and ``weights`` beside
this file. ``NOTICE.md`` names sources and licences.
"""

import hashlib
import io
import json
import shutil

import keras
import tensorflow_datasets as tfds
from PIL import Image

from thaw.disk import places
from thaw.network import backbones, pretrained

PER_CLASS = 80  # photos
SIDE, QUALITY = 128, 85  # the longest side in pixels, and JPEG's quality: 4 KB a photo


class DemoFlowers(tfds.core.GeneratorBasedBuilder):
    """The first photos of each class of TF Flowers, as thumbnails; one of each class in turn.

    TFDS' order of TF Flowers is random, so they are a random sample of each class. Because the classes take turns,
    train, validation and test photos hold every class equally often.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        classes = tfds.builder("tf_flowers").info.features["label"].names
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=classes)}
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Thumbnails of the first {PER_CLASS} photos of each class of TF Flowers, shipped with Thaw. "
            "Creative Commons BY 2.0, by their authors on Flickr.",
            features=tfds.features.FeaturesDict(features | {"tfds_id": tfds.features.Text()}),
            supervised_keys=("image", "label"),
            homepage="https://www.tensorflow.org/datasets/catalog/tf_flowers",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        photos = tfds.load(
            "tf_flowers", split="train", read_config=tfds.ReadConfig(add_tfds_id=True), shuffle_files=False
        )
        chosen: dict[int, list] = {label: [] for label in range(self.info.features["label"].num_classes)}
        for photo in photos.as_numpy_iterator():
            if len(chosen[photo["label"]]) < PER_CLASS:
                chosen[photo["label"]].append(photo | {"image": thumbnail(photo["image"])})
        yield from enumerate(photo for turn in zip(*chosen.values(), strict=True) for photo in turn)


def thumbnail(pixels) -> io.BytesIO:
    """Shrink a photo, uint8 (height, width, 3), to a small JPEG file."""
    image, file = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    file.seek(0)
    return file


def make_weights(name: str) -> None:
    """Save a backbone's ImageNet weights in 16-bit numbers, with a description."""
    base, provenance = pretrained.load_pretrained(name, 224, "imagenet")
    assert provenance["official"], "Keras' own weights are to be shipped"
    backbone = backbones.get(name)
    keras.config.set_dtype_policy("float16")
    rounded = backbone.build(224)
    rounded.set_weights(base.get_weights())
    path = places.shipped("weights", f"{name}.weights.h5")
    path.parent.mkdir(exist_ok=True)
    rounded.save_weights(path)
    about = {
        "title": f"{backbone.title}, ImageNet, rounded to 16 bits",
        "official": False,
        "description": "Keras' own ImageNet weights (include_top=False), each rounded to a 16-bit floating-point "
        "number. They come with Thaw.",
        "licence": "Apache-2.0",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    path.with_name(f"{name}.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    shutil.rmtree(places.shipped("data"), ignore_errors=True)
    DemoFlowers(data_dir=places.shipped("data")).download_and_prepare()
    make_weights("mobilenet")
