"""Adam by one kernel: the same numbers as Keras' own."""

import keras
import numpy as np
import pytest

from thaw.training.optimizer import Restart, adam


def network() -> keras.Model:
    entry = keras.Input((4, 4, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, activation="relu")(entry))
    made = keras.Model(entry, keras.layers.Dense(2, "softmax", dtype="float32")(pooled))
    rng = np.random.default_rng(0)
    made.set_weights([rng.normal(size=weight.shape) for weight in made.get_weights()])
    return made


def trained(made: keras.Model, optimizer: keras.optimizers.Optimizer, epochs: int = 20) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    photos, labels = rng.normal(size=(16, 4, 4, 3)).astype("float32"), rng.integers(2, size=16)
    made.compile(optimizer, "sparse_categorical_crossentropy")
    made.fit(photos, labels, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return made.get_weights()


@pytest.mark.parametrize("rate", [1e-5, 1e-2])
def test_forty_steps_end_where_those_of_keras_do(rate):
    ours, theirs, start = network(), network(), network().get_weights()
    mine = trained(ours, adam(ours, rate, {}))
    for found, expected, before in zip(mine, trained(theirs, keras.optimizers.Adam(rate)), start, strict=True):
        moved = np.abs(expected - before).max()
        assert moved > 10 * rate
        assert np.abs(found - expected).max() <= 1e-3 * moved


def test_a_restarted_optimizer_is_a_new_one():
    made = network()
    start = made.get_weights()
    made.compile(adam(made, 1e-2, {}), "sparse_categorical_crossentropy")
    restart = Restart(made)
    first = trained_again(made)
    made.set_weights(start)
    restart(1e-2)
    for found, expected in zip(trained_again(made), first, strict=True):
        np.testing.assert_array_equal(found, expected)


def trained_again(made: keras.Model) -> list[np.ndarray]:
    made.fit(np.ones((4, 4, 4, 3), "float32"), np.array([0, 1, 1, 0]), epochs=3, shuffle=False, verbose=0)
    return made.get_weights()
