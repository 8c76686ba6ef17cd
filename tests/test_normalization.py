"""The fused kernel, which must be Keras' layer in all but speed."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from thaw.network import normalization
from thaw.network.normalization import FusedBatchNormalization, fuse


def stepped(kind, shape, dtype, scale, training):
    """One layer's output, gradients and moving statistics."""
    rng = np.random.default_rng(1)
    x = tf.Variable(rng.normal(2, 3, shape).astype(np.float32))
    layer = kind(dtype=dtype, scale=scale, epsilon=1.001e-5, momentum=0.9)
    layer.build(shape)
    for weight, low in zip(layer.weights, (1, -1, -1, 1)):
        weight.assign(rng.uniform(low, low + 2, weight.shape))
    with tf.GradientTape() as tape:
        y = layer(x, training=training)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) * rng.normal(size=shape).astype(np.float32))
    gradients = tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_weights)])
    return y, gradients, [keras.ops.convert_to_numpy(weight) for weight in layer.non_trainable_weights]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("shape", [(4, 5, 5, 3), (2, 1, 1, 8), (1, 7, 3, 2)])
def test_same_output_gradients_and_statistics(shape, scale, training):
    ours, keras_own = (
        stepped(kind, shape, "float32", scale, training)
        for kind in (FusedBatchNormalization, keras.layers.BatchNormalization)
    )
    for mine, theirs in zip(tf.nest.flatten(ours), tf.nest.flatten(keras_own), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-4)


def test_reduced_precision_stays_close_to_the_full_one():
    half, full = (
        stepped(FusedBatchNormalization, (4, 5, 5, 3), dtype, True, True) for dtype in ("mixed_bfloat16", "float32")
    )
    assert half[0].dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(half[0], tf.float32), full[0], rtol=2e-2, atol=5e-2)
    np.testing.assert_allclose(half[2][0], full[2][0], rtol=2e-2, err_msg="statistics are averaged in float32")


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("shape, axis", [((6,), -1), ((4, 5, 6), 1), ((5, 6), -1)])
def test_what_the_kernel_does_not_compute_is_left_to_keras(shape, axis, keeps):
    """Such as batch normalization of pooled features, in a network of somebody's own."""
    photos = keras.Input(shape)
    plain, ours = (keras.Model(photos, layers.BatchNormalization(axis=axis)(photos)) for _ in range(2))
    fuse(ours)
    normalization.keep_statistics(ours.layers[-1], keeps)
    batch = np.random.default_rng(0).normal(3, 2, (8, *shape)).astype("float32")
    for training in (True, False):
        np.testing.assert_allclose(
            ours(batch, training=training), plain(batch, training=training and not keeps), rtol=1e-5
        )
    for mine, theirs in zip(ours.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
