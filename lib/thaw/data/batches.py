"""Photos, or what a frozen part made of them, in batches."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from thaw.disk.arrays import StoredArray


def batches(
    columns: Sequence[np.ndarray | StoredArray],
    labels: np.ndarray,
    order: tf.data.Dataset,
    preprocess: Callable | None = None,
    augment: Callable | None = None,
    first: int = 0,
) -> tf.data.Dataset:
    """Read a network's inputs and labels in batches.

    Parameters
    ----------
    columns : sequence of ndarray or StoredArray, (photos, ...)
        The photos, or the activations at each tensor of a frontier.
    labels : ndarray of int64, (photos,)
    order : Dataset of int64 (m,)
        The positions of the photos of each batch.
    preprocess : callable, optional
        Applied to each input of a batch as float32.
    augment : callable, optional
        Before that, from a batch of photos (m, size, size, 3), float32 of 0
        to 255, and its number, to the photos changed.
    first : int
        The first batch's number.

    Returns
    -------
    Dataset of (tuple of (m, ...), or the one of them, int64 (m,))
    """
    kinds = [tf.as_dtype(column.dtype) for column in columns]

    def read(chosen):
        return [column[chosen] for column in columns]

    def gather(number, chosen):
        batch = tf.numpy_function(read, [chosen], kinds)
        for part, column in zip(batch, columns, strict=True):
            part.set_shape((None, *column.shape[1:]))
        if augment is not None:
            batch = [augment(tf.cast(part, tf.float32), number) for part in batch]
        if preprocess is not None:
            batch = [preprocess(tf.cast(part, tf.float32)) for part in batch]
        return tuple(batch) if len(batch) > 1 else batch[0], tf.gather(tf.constant(labels), chosen)

    options = tf.data.Options()
    # Its thread is waited for at every epoch's end: seconds, where an epoch takes no longer.
    options.autotune.enabled = False
    # One batch ahead is enough: reading one takes a fiftieth of training on it, and it may have 50 MB.
    return order.enumerate(first).map(gather).prefetch(1).with_options(options)


def in_order(rows: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Give some photos' positions in batches, in their own order."""
    return tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)


def shuffled(rows: np.ndarray, batch_size: int, seed: int, epochs: range) -> tf.data.Dataset:
    """Give the positions of the training photos in batches: another order each epoch.

    The order depends on the seed and the epoch's number alone. So two
    configurations of one seed see the same batches, and a run that was stopped
    goes on with the batches it would have seen.

    Parameters
    ----------
    rows : ndarray of int64, (k, photos)
        Epoch e has the photos of row e mod k.
    batch_size, seed : int
    epochs : range
        The epochs' numbers.
    """

    def epoch_order(epoch):
        photos = tf.constant(rows)[epoch % len(rows)]
        order = tf.random.experimental.stateless_shuffle(photos, seed=[seed, epoch])
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    return tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(epoch_order)
