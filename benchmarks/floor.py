"""How short a training step of MobileNet could be: each operation as fast as the machine can do any like it.

    python benchmarks/floor.py            # a quarter of a minute, with nothing else running

Of what trains with the last 4 and the last 10 blocks, in float32, photos of 224 pixels in batches of 32: the 1 x 1
convolutions at the speed of the fastest matrix product or convolution; the depthwise ones as TensorFlow has them;
BatchNorm with ReLU6, Adam and the reading of what is kept as fast as memory gives it. Share: the step's operations in
that time, of the fastest convolution's.
"""

from math import prod

import keras
import tensorflow as tf
from compare import peak
from gradients import BATCH, median

from thaw.experiment import Experiment
from thaw.network import backbones, unfreezing

PASSES = 8  # over a tensor, of BatchNorm with ReLU6: three forwards, and five backwards
OF_ADAM = 7  # numbers read and written for each that trains: gradient, weight and two means


def main() -> None:
    """Print a line for each number of blocks."""
    fastest = 1e9 * max(peak("float32"))
    memory = bandwidth()
    print(f"fastest convolution {fastest / 1e9:.0f} GFLOP/s, memory {memory / 1e9:.0f} GB/s")
    print("| last blocks | 1 x 1, ms | depthwise | elementwise | Adam | reading | sum | share |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    network = backbones.get("mobilenet")
    base = network.build(224)
    for amount in 4, 10:
        experiment = Experiment(backbone="mobilenet", strategy="blocks", amount=amount)
        layers = unfreezing.unfrozen(base, network, experiment)
        pointwise = [layer for layer in layers if type(layer) is keras.layers.Conv2D]
        deep = [layer for layer in layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
        norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
        work = [6 * BATCH * prod(layer.output.shape[1:3]) * prod(layer.kernel.shape) for layer in (*pointwise, *deep)]
        seconds = [
            sum(work[: len(pointwise)]) / fastest,
            sum(of_depthwise(layer) for layer in deep),
            sum(PASSES * 4 * BATCH * prod(layer.output.shape[1:]) for layer in norms) / memory,
            OF_ADAM * 4 * sum(layer.count_params() for layer in layers) / memory,
            4 * BATCH * prod(layers[0].input.shape[1:]) / memory,
        ]
        cells = [*seconds, sum(seconds)]
        share = sum(work) / sum(seconds) / fastest
        print(f"| {amount} | {' | '.join(f'{1e3 * cell:.1f}' for cell in cells)} | {share:.0%} |", flush=True)


def bandwidth() -> float:
    """Measure bytes a second, read and written, of a tensor that no cache holds."""
    numbers = tf.random.normal((2**26,))

    @tf.function
    def double():
        return (numbers * 2.0)[0]

    return 2 * 4 * 2**26 / median(double)


def of_depthwise(layer: keras.layers.DepthwiseConv2D) -> float:
    """Measure a depthwise convolution and its gradients, in seconds."""
    inputs = tf.random.normal((BATCH, *layer.input.shape[1:]))
    kernel = tf.convert_to_tensor(layer.kernel)
    strides, padding = [1, *layer.strides, 1], layer.padding.upper()

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch([inputs, kernel])
            given = tf.nn.depthwise_conv2d(inputs, kernel, strides, padding)
        gradients = tape.gradient(given, [inputs, kernel], given)
        return tf.add_n([tf.reduce_max(gradient) for gradient in gradients])

    return median(step)


if __name__ == "__main__":
    main()
