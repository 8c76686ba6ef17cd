"""What the gradient of a convolution to its filter costs: TensorFlow's own, and as matrix products.

    python benchmarks/gradients.py            # both precisions, half a minute each

Shapes are those of the last blocks of ResNet50 and MobileNet with photos of 224 pixels, in batches of 32. Of ten
times each the median. `thaw.network.convolutions` takes the products where they are never the slower way.
"""

import time

import numpy as np
import tensorflow as tf

from thaw.network import convolutions

BATCH = 32
SHAPES = [  # side, channels, filters, kernel
    (28, 128, 512, 1), (28, 256, 256, 1), (14, 1024, 256, 1), (14, 256, 1024, 1), (14, 512, 512, 1),
    (7, 2048, 512, 1), (7, 512, 2048, 1), (7, 1024, 1024, 1),
    (56, 64, 64, 3), (28, 128, 128, 3), (14, 128, 32, 3), (14, 256, 256, 3), (10, 384, 384, 3),
    (8, 384, 384, 3), (7, 512, 512, 3), (7, 128, 32, 3), (5, 320, 320, 3),
]  # fmt: skip


def main() -> None:
    """Print a line for each precision and shape."""
    print(
        "| precision | side, channels, filters, kernel | convolution, ms | its gradient, ms | by products, ms | ratio |"
    )
    print("|---|---|--:|--:|--:|--:|", flush=True)
    for kind in tf.float32, tf.bfloat16:
        for shape in SHAPES:
            forward, own, products = measured(*shape, kind)
            print(f"| {kind.name} | {', '.join(map(str, shape))} | {forward:.1f} | {own:.1f} | {products:.1f} "
                  f"| {own / products:.2f} |", flush=True)  # fmt: skip


def measured(side: int, channels: int, filters: int, kernel: int, kind: tf.DType) -> list[float]:
    """Measure the convolution, its gradient to the filter, and the same by products, in milliseconds."""
    inputs = tf.cast(tf.random.normal((BATCH, side, side, channels)), kind)
    weights = tf.cast(tf.random.normal((kernel, kernel, channels, filters)), kind)
    upstream = tf.cast(tf.random.normal((BATCH, side, side, filters)), kind)
    own = {"filter_sizes": weights.shape, "strides": [1, 1, 1, 1], "padding": "SAME"}
    ways = (
        lambda: tf.nn.conv2d(inputs, weights, 1, "SAME")[0, 0, 0],
        lambda: tf.raw_ops.Conv2DBackpropFilter(input=inputs, out_backprop=upstream, **own)[0, 0, 0],
        lambda: convolutions.to_kernel(inputs, weights.shape, upstream, "SAME")[0, 0, 0],
    )
    return [1e3 * median(tf.function(way)) for way in ways]


def median(function: tf.types.experimental.PolymorphicFunction) -> float:
    """Give the median of ten times in seconds, after two that do not count."""
    times = []
    for _ in range(12):
        began = time.perf_counter()
        function().numpy()
        times.append(time.perf_counter() - began)
    return float(np.median(times[2:]))


if __name__ == "__main__":
    main()
