"""The photos of `plain.py` and `plain_torch.py`: decoded and resized once, in memory, in Thaw's parts."""

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds


def decoded(dataset: str, count: int | None, size: int) -> tuple[np.ndarray, np.ndarray, int, tuple[slice, ...]]:
    """Give images (photos, size, size, 3), their labels, the number of classes, and the three parts as slices."""
    loaded, info = tfds.load(dataset, split=f"train[:{count}]" if count else "train", with_info=True)

    def resize(example):
        image = tf.image.resize(example["image"], (size, size), antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8), example["label"]

    examples = list(tfds.as_numpy(loaded.map(resize, num_parallel_calls=4)))
    images, labels = np.stack([image for image, _ in examples]), np.array([label for _, label in examples])
    first, second = (round(share * len(labels)) for share in (0.75, 0.9))
    parts = slice(0, first), slice(first, second), slice(second, len(labels))
    return images, labels, info.features["label"].num_classes, parts
