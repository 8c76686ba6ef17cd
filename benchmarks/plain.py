"""The same experiment in plain Keras, as a competent user would write it.

Photos are decoded and resized once and stay in memory; ``model.fit`` runs the
whole network, its frozen part included, in every epoch. Initial weights and
the order of photos are Thaw's, so that the losses can be compared.

    python benchmarks/plain.py '{"backbone": "resnet50", "strategy": "blocks", "amount": 2, ...}'

``"by_hand": true`` among the parameters of a frozen base computes its features once, and trains the head on them, as
Keras' guide to transfer learning suggests. Prints its times in seconds, its losses and its peak memory as JSON.
"""

import json
import os
import re
import resource
import sys
import time

began = time.perf_counter()

import keras
import numpy as np
import photos
import tensorflow as tf

parameters = json.loads(sys.argv[1])
size, batch_size = parameters["image_size"], parameters["batch_size"]
keras.config.set_dtype_policy(parameters["precision"])
imported = time.perf_counter()

# ---- data ----
images, labels, classes, (train, validation, test) = photos.decoded(
    parameters["dataset"], parameters["max_examples"], size
)
first = train.stop
decoded = time.perf_counter()

# ---- network ----
module, builder, block = {
    "resnet50": (keras.applications.resnet, keras.applications.ResNet50, r"(conv[2-5]_block\d+)_"),
    "mobilenet": (keras.applications.mobilenet, keras.applications.MobileNet, r"conv_(?:pad|dw|pw)_(\d+)"),
}[parameters["backbone"]]
local = os.path.join(os.environ.get("THAW_WEIGHTS_DIR", ""), f"{parameters['backbone']}.h5")
base = builder(include_top=False, weights=None, input_shape=(size, size, 3))
base.load_weights(local) if os.path.exists(local) else base.set_weights(
    builder(include_top=False, weights="imagenet", input_shape=(224, 224, 3)).get_weights()
)
pooled = keras.layers.GlobalAveragePooling2D()(base.output)
start = keras.initializers.GlorotUniform(parameters["seed"])
model = keras.Model(
    base.input, keras.layers.Dense(classes, "softmax", kernel_initializer=start, dtype="float32")(pooled)
)


def batches(part, epochs=None):
    kept, answers = images[part], labels[part]
    order = tf.range(len(answers))
    if epochs is None:
        orders = tf.data.Dataset.from_tensor_slices(order).batch(batch_size)
    else:

        def shuffled(epoch):
            seed = [parameters["seed"], epoch]
            again = tf.random.experimental.stateless_shuffle(tf.cast(order, tf.int64), seed)
            return tf.data.Dataset.from_tensor_slices(again).batch(batch_size)

        orders = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(shuffled)

    def gather(chosen):
        batch = tf.numpy_function(lambda rows: kept[rows], [chosen], kept.dtype)
        batch.set_shape((None, *kept.shape[1:]))
        batch = module.preprocess_input(tf.cast(batch, tf.float32)) if kept.dtype == "uint8" else batch
        return batch, tf.gather(answers, chosen)

    return orders.map(gather, num_parallel_calls=2).prefetch(2)


# ---- training ----
class Clock(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.times = [time.perf_counter()]

    def on_epoch_end(self, epoch, logs=None):
        self.times.append(time.perf_counter())


def fit(epochs, learning_rate):
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    clock, steps = Clock(), -(-first // batch_size)
    history = model.fit(
        batches(train, epochs),
        epochs=len(epochs),
        steps_per_epoch=steps,
        validation_data=batches(validation),
        callbacks=[clock],
        verbose=0,
    ).history
    return history, np.diff(clock.times).tolist()


head_epochs, finetune_epochs = parameters["head_epochs"], parameters["finetune_epochs"]
base.trainable = False
features_began = time.perf_counter()
if parameters.get("by_hand"):
    images = keras.Model(base.input, pooled).predict(batches(slice(0, len(labels))), verbose=0)
    features = keras.Input(images.shape[1:])
    model = keras.Model(features, model.layers[-1](features))
features_took = time.perf_counter() - features_began if parameters.get("by_hand") else 0.0
history, head = fit(range(head_epochs), parameters["head_learning_rate"])
finetune = []
if parameters["strategy"] != "frozen":
    units = [[layer] for layer in base.layers]
    if parameters["strategy"] == "blocks":
        found = {}
        for layer in base.layers:
            if match := re.match(block, layer.name):
                found.setdefault(match[1], []).append(layer)
        units = list(found.values())
    chosen = {layer.name for unit in units[-parameters["amount"] :] for layer in unit}
    base.trainable = True
    for layer in base.layers:
        layer.trainable = layer.name in chosen
    epochs = range(head_epochs, head_epochs + finetune_epochs)
    history, finetune = fit(epochs, parameters["finetune_learning_rate"])

# ---- test ----
test_began = time.perf_counter()
model.evaluate(batches(test), verbose=0)
ended = time.perf_counter()

print(
    json.dumps(
        {
            "start": imported - began + test_began - decoded - features_took - sum(head) - sum(finetune),
            "photos": decoded - imported,
            "activations": features_took,
            "activations_a_photo": features_took / len(labels),
            "head": head,
            "finetune": finetune,
            "test": ended - test_began,
            "whole": ended - began,
            "train_loss": history["loss"][-1],
            "validation_loss": history["val_loss"][-1],
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
            "disk_mb": 0.0,
        }
    )
)
