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

    Returns
    -------
    Dataset of (tuple of (m, ...), or the one of them, int64 (m,))
    """
    kinds = [tf.as_dtype(column.dtype) for column in columns]

    def read(chosen):
        return [column[chosen] for column in columns]

    def gather(chosen):
        batch = tf.numpy_function(read, [chosen], kinds)
        for part, column in zip(batch, columns, strict=True):
            part.set_shape((None, *column.shape[1:]))
        if preprocess is not None:
            batch = [preprocess(tf.cast(part, tf.float32)) for part in batch]
        return tuple(batch) if len(batch) > 1 else batch[0], tf.gather(tf.constant(labels), chosen)

    options = tf.data.Options()
    # Its thread is waited for at every epoch's end: seconds, where an epoch takes no longer.
    options.autotune.enabled = False
    # One batch ahead is enough: reading one takes a fiftieth of training on it, and it may have 50 MB.
    return order.map(gather).prefetch(1).with_options(options)


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
    rows : ndarray of int64, (photos,)
    batch_size, seed : int
    epochs : range
        The epochs' numbers.
    """

    def epoch_order(epoch):
        order = tf.random.experimental.stateless_shuffle(tf.constant(rows), seed=[seed, epoch])
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    return tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(epoch_order)


def mirrored(dataset: tf.data.Dataset, seed: int, first: int) -> tf.data.Dataset:
    """Mirror each photo of each batch or not, at random.

    The choice depends on the seed and the batch's number alone.

    Parameters
    ----------
    dataset : Dataset of ((m, size, size, 3), labels)
    seed : int
    first : int
        The first batch's number, counted over all epochs.
    """

    def mirror(number, batch):
        photos, labels = batch
        heads = tf.random.stateless_uniform((tf.shape(photos)[0], 1, 1, 1), seed=[seed, number]) < 0.5
        return tf.where(heads, tf.reverse(photos, axis=[2]), photos), labels

    return dataset.enumerate(first).map(mirror)
