"""Batch normalization by TensorFlow's fused kernel.

Keras 3 composes the layer of a dozen elementwise operations, each of which
passes over the whole tensor, and in reduced precision casts it to float32 and
back. TensorFlow has the same formula as one kernel for the forward and one for
the backward pass. On processors, the convolutions around it run near the
machine's peak, so that this is where a training step's time can be had.
"""

import keras
import tensorflow as tf

NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras' layer, to the same numbers within floating-point rounding.

    For tensors (n, height, width, channels), normalised over the last axis;
    for all others Keras' own formula is used. Statistics are in float32 whatever the inputs are (Ioffe
    and Szegedy, 2015, algorithm 1).

    Attributes
    ----------
    keeps_statistics : bool
        Whether the layer normalises by the moving statistics, and leaves them
        as they are, even while its scale and offset train.
    """

    keeps_statistics = False

    def call(self, inputs, training=None, mask=None):
        """Normalise a batch: by its own statistics if the layer trains, else by the moving ones."""
        if len(inputs.shape) != 4 or self.axis not in (-1, 3) or mask is not None:
            return super().call(inputs, training=training and not self.keeps_statistics, mask=mask)
        scale = tf.ones(inputs.shape[-1:]) if self.gamma is None else tf.convert_to_tensor(self.gamma)
        offset = tf.zeros(inputs.shape[-1:]) if self.beta is None else tf.convert_to_tensor(self.beta)
        if not (training and self.trainable) or self.keeps_statistics:
            mean, variance = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
            return tf.compat.v1.nn.fused_batch_norm(
                inputs, scale, offset, mean, variance, epsilon=self.epsilon, is_training=False
            )[0]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, scale, offset, epsilon=self.epsilon, is_training=True
        )
        # The kernel gives the unbiased variance, Keras averages the biased one.
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        self._average(self.moving_mean, mean)
        self._average(self.moving_variance, variance * (count - 1) / count)
        return outputs

    def _average(self, moving: keras.Variable, new: tf.Tensor) -> None:
        moving.assign(moving * self.momentum + new * (1.0 - self.momentum))


def fuse(network: keras.Model) -> None:
    """Let each `BatchNormalization` of a built network compute by the fused kernel."""
    for layer in network.layers:
        _fuse(layer)


def keep_statistics(layer: keras.layers.Layer, keeps: bool) -> None:
    """Set whether a layer keeps its statistics while it trains, if it is a `BatchNormalization`."""
    if keeps:
        _fuse(layer)
    if isinstance(layer, FusedBatchNormalization):
        layer.keeps_statistics = keeps


def _fuse(layer: keras.layers.Layer) -> None:
    if type(layer) is keras.layers.BatchNormalization:
        # Not a copy of the network: layers, weights and their order stay what Keras' builder made.
        layer.__class__ = FusedBatchNormalization
