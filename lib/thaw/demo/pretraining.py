"""Networks pre-trained on the spot, on drawn things."""

import hashlib
import json
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from thaw.demo.drawn import LICENCE, SIDE, THINGS, draw_things
from thaw.disk.atomic import write_atomic


class _Progress(keras.callbacks.Callback):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def on_epoch_end(self, epoch, logs=None):
        of = f"epoch {epoch + 1} of {self.params['epochs']}"
        print(f"pre-training {self.backbone}: {of}, accuracy {logs['accuracy']:.2f}", flush=True)


def _initialise(model, seed):
    """Start where a signal passes unchanged, so that few photos are enough.

    Convolutions are orthogonal, depthwise ones nearly the identity (Xiao et al., 2018: "Dynamical isometry and a mean
    field theory of CNNs"); each residual branch starts at zero (Goyal et al., 2017: "Accurate, large minibatch SGD").
    The statistics of BatchNorm must settle within a few hundred steps, not Keras' thousands.
    """
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            kernel = rng.normal(0, 0.3, layer.kernel.shape)
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] += 1
            layer.kernel.assign(kernel)
        elif isinstance(layer, keras.layers.Conv2D):
            layer.kernel.assign(keras.initializers.Orthogonal(seed=int(rng.integers(2**31)))(layer.kernel.shape))
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
        elif isinstance(layer, keras.layers.Add):
            last = layer.input[-1]._keras_history.operation
            if isinstance(last, keras.layers.BatchNormalization):
                last.gamma.assign(np.zeros(last.gamma.shape))


def pretrain(backbone, base, preprocess, path, photos=1600, epochs=None, side=None, batch_size=16, seed=0):
    """Teach a network the drawn things, and keep its weights for ``base.load_weights(path)``.

    A network with shortcuts learns from fewer, smaller photos than one without; the defaults keep either to a minute
    or two on one core.

    Parameters
    ----------
    backbone : str
        What to call it.
    base : keras.Model
        From photos of (SIDE, SIDE, 3) to feature maps. Its weights are replaced by what was learnt.
    preprocess : callable
        From float32 photos of 0 to 255 to what `base` takes.
    path : path-like
        Ends in ``.weights.h5``. The description goes beside it, as ``.json``. Neither is ever there in part.
    photos : int
        To learn from; a tenth as many more are held out.
    epochs : int, optional
    side : int, optional
        In pixels, of the photos in training.
    batch_size : int
    seed : int

    Returns
    -------
    dict
        What the description says.

    Raises
    ------
    ValueError
        If `path` does not end in ``.weights.h5``.
    """
    path = Path(path)
    if not path.name.endswith(".weights.h5"):
        raise ValueError(f"path = {str(path)!r}: must end in .weights.h5, so that Keras can read it back.")
    started = time.monotonic()
    keras.utils.set_random_seed(seed)
    shortcuts = any(isinstance(layer, keras.layers.Add) for layer in base.layers)
    epochs = epochs or (3 if shortcuts else 5)
    side = side or (48 if shortcuts else SIDE)
    images, labels = draw_things(photos + photos // 10, seed)

    def flip(photo, label):
        return tf.image.random_flip_left_right(tf.image.random_flip_up_down(photo)), label

    def batches(part, train):
        data = tf.data.Dataset.from_tensor_slices((images[part], labels[part]))
        if train:
            data = data.shuffle(photos).map(flip)
        data = data.batch(batch_size, drop_remainder=train)
        data = data.map(lambda x, y: (preprocess(tf.image.resize(tf.cast(x, tf.float32), (side, side))), y))
        options = tf.data.Options()
        options.autotune.enabled = False  # on one core its thread keeps an epoch from ending, by up to the epoch's time
        return data.with_options(options)

    # A copy takes photos of another size, and keeps the training's momentum out of `base`.
    learner = keras.models.clone_model(base, input_tensors=keras.Input((side, side, 3)))
    _initialise(learner, seed)
    classifier = keras.layers.Dense(len(THINGS), activation="softmax")
    model = keras.Sequential([learner, keras.layers.GlobalAveragePooling2D(), classifier])
    steps = epochs * (photos // batch_size)
    warm = 1 + steps // 10
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm), warmup_target=2e-3 if shortcuts else 5e-3, warmup_steps=warm
    )
    # Adam's usual memory of 1,000 steps (beta_2 = 0.999) is longer than this training.
    optimizer = keras.optimizers.Adam(rate, beta_2=0.98, epsilon=1e-5)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(batches(slice(photos), True), epochs=epochs, shuffle=False, verbose=0, callbacks=[_Progress(backbone)])
    accuracy = model.evaluate(batches(slice(photos, None), False), verbose=0)[1]
    base.set_weights(learner.get_weights())

    about = {
        "backbone": backbone,
        "title": f"{backbone}, drawn things",
        "official": False,
        "description": f"Pre-trained on {photos:,} drawn photos of {len(THINGS)} things that are not flowers; "
        f"it tells {accuracy:.0%} of those held out.",
        "licence": LICENCE,
        "source_accuracy": accuracy,
        "photos": photos,
        "photos_held_out": len(images) - photos,
        "epochs": epochs,
        "side": side,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
    }

    def save(partial: Path) -> None:
        base.save_weights(partial)
        about["sha256"] = hashlib.sha256(partial.read_bytes()).hexdigest()
        beside = path.with_name(path.name.removesuffix(".weights.h5") + ".json")
        # Before the weights appear: they are what is looked for.
        write_atomic(beside, lambda part: part.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8"))

    write_atomic(path, save)
    return about
