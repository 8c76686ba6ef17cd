"""Convolutions whose gradients are matrix products, where those that TensorFlow has are slow.

The gradient to the filter is where a training step's time goes: in bfloat16,
TensorFlow takes up to four times as long for it as for the convolution itself.
A 1 x 1 convolution is a matrix product, and so is its gradient, (channels,
pixels) times (pixels, filters); that of a larger one is a sum of such products
over shifted pixels (Chellapilla, Puri and Simard, 2006). The numbers are the
same within floating-point rounding.
"""

import keras
import tensorflow as tf

# TensorFlow's own gradient of a larger filter is as fast above so many pixels a side, and below so many filters.
LARGEST_SIDE, FEWEST_FILTERS = 8, 256


class Convolution(keras.layers.Conv2D):
    """Keras' layer, to the same numbers within floating-point rounding, with a faster gradient."""

    def call(self, inputs):
        """Convolve photos or activations (n, height, width, channels) to (n, height, width, filters)."""
        if not _by_products(self, inputs):
            return super().call(inputs)
        if max(self.kernel_size) == 1 < max(self.strides):
            # The other pixels take no part. A window of one pixel leaves them out twenty times as fast as a slice.
            inputs = tf.nn.avg_pool2d(inputs, 1, self.strides, "VALID")
        bias = [tf.convert_to_tensor(self.bias)] if self.use_bias else []
        outputs = _convolve(self.padding.upper())(inputs, tf.convert_to_tensor(self.kernel), *bias)
        return outputs if self.activation is None else self.activation(outputs)


class DepthwiseConvolution(keras.layers.DepthwiseConv2D):
    """Keras' layer; where it strides in 16 bits, its gradient is computed in 32: TensorFlow's takes far longer."""

    def call(self, inputs):
        """Convolve each channel of (n, height, width, channels) by itself."""
        slow = max(self.strides) > 1 == max(self.dilation_rate) and len(set(self.strides)) == 1
        if not slow or self.compute_dtype == "float32" or self.data_format != "channels_last":
            return super().call(inputs)
        outputs = _convolve_each(self.strides, self.padding.upper())(inputs, tf.convert_to_tensor(self.kernel))
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return outputs if self.activation is None else self.activation(outputs)


def quicken(network: keras.Model) -> None:
    """Let the convolutions of a built network compute their gradients in the faster way, unless there is a GPU."""
    if tf.config.list_physical_devices("GPU"):
        return
    faster = {keras.layers.Conv2D: Convolution, keras.layers.DepthwiseConv2D: DepthwiseConvolution}
    for layer in network.layers:
        layer.__class__ = faster.get(type(layer), type(layer))


def _by_products(layer: keras.layers.Conv2D, inputs: tf.Tensor) -> bool:
    """Whether matrix products are never the slower way, as `benchmarks/gradients.py` measures."""
    if layer.groups != 1 or layer.data_format != "channels_last" or max(layer.dilation_rate) != 1:
        return False
    if max(layer.kernel_size) == 1:
        return True
    small = all(side is not None and side <= LARGEST_SIDE for side in inputs.shape[1:3])
    large = layer.filters >= FEWEST_FILTERS and max(layer.strides) == 1
    return small and large and layer.compute_dtype == "bfloat16"


def _convolve(padding: str):
    """Make the convolution of stride 1 with a gradient of its own."""

    @tf.custom_gradient
    def convolve(inputs, kernel, *bias):
        outputs = tf.nn.conv2d(inputs, kernel, 1, padding)
        if bias:
            outputs = tf.nn.bias_add(outputs, *bias)

        def gradient(upstream):
            to_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(inputs),
                filter=kernel,
                out_backprop=upstream,
                strides=[1, 1, 1, 1],
                padding=padding,
            )
            to_bias = [_sum(upstream)] * len(bias)
            return to_inputs, to_kernel(inputs, kernel.shape, upstream, padding), *to_bias

        return outputs, gradient

    return convolve


def _convolve_each(strides: tuple[int, int], padding: str):
    """Make the depthwise convolution whose gradient is computed in 32 bits."""
    how = {"strides": [1, *strides, 1], "padding": padding}

    @tf.custom_gradient
    def convolve(inputs, kernel):
        def gradient(upstream):
            photos, weights, upstream = (tf.cast(tensor, tf.float32) for tensor in (inputs, kernel, upstream))
            to_inputs = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=tf.shape(photos), filter=weights, out_backprop=upstream, **how
            )
            to_kernel = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
                input=photos, filter_sizes=weights.shape, out_backprop=upstream, **how
            )
            return tf.cast(to_inputs, inputs.dtype), tf.cast(to_kernel, kernel.dtype)

        return tf.nn.depthwise_conv2d(inputs, kernel, **how), gradient

    return convolve


def _sum(upstream: tf.Tensor) -> tf.Tensor:
    """Sum over all pixels, (n, height, width, filters) to (filters,): a product with ones is the fastest way."""
    pixels = tf.reshape(upstream, [-1, upstream.shape[-1]])
    return tf.matmul(tf.ones([1, tf.shape(pixels)[0]], pixels.dtype), pixels)[0]


def to_kernel(inputs: tf.Tensor, shape: tf.TensorShape, upstream: tf.Tensor, padding: str) -> tf.Tensor:
    """Compute the gradient to the filter: for each of its positions, what it met times the gradient there.

    Parameters
    ----------
    inputs : Tensor
        Of the convolution, whose stride is 1: (n, height, width, channels).
    shape : TensorShape
        Of the filter: (height, width, channels, filters).
    upstream : Tensor
        The gradient to the outputs: (n, height, width, filters).
    padding : {'SAME', 'VALID'}
    """
    height, width, channels, filters = shape
    if padding == "SAME":
        around = [[(side - 1) // 2, side // 2] for side in (height, width)]
        inputs = tf.pad(inputs, [[0, 0], *around, [0, 0]])
    tall, wide = tf.unstack(tf.shape(upstream)[1:3])
    products = [
        tf.matmul(
            tf.reshape(inputs[:, down : down + tall, right : right + wide], [-1, channels]),
            tf.reshape(upstream, [-1, filters]),
            transpose_a=True,
        )
        for down in range(height)
        for right in range(width)
    ]
    return tf.reshape(tf.stack(products), shape)
