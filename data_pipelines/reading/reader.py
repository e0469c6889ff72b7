"""Whole batches through tf.data."""

from typing import Any

import numpy as np
import tensorflow as tf

from data_pipelines.reading.batches import Batches


def element_spec(batches: Batches, rows: int) -> dict[str, tf.TensorSpec]:
    """Returns name, dtype and shape of every tensor of a batch.

    Args:
        batches: Where batches come from.
        rows: Requests of an element.

    Returns:
        The dict of `tf.TensorSpec`; L and C are `None`, since they are
        those of the batch's buckets.
    """
    example = batches.empty(rows, 1, 1)
    return {
        name: tf.TensorSpec(
            (rows, *[None] * (value.ndim - 1)), value.dtype, name=name
        )
        for name, value in example.items()
    }


def read(
    batches: Batches,
    first_step: int,
    last_step: int,
    *,
    parts: range = range(1),
    num_parts: int = 1,
    prefetch: int = 4,
) -> tf.data.Dataset:
    """Returns the batches of a range of steps.

    Each element is a pure function of its index, so that the dataset has no
    state to save: after a stop, it is read from the next step on.

    Args:
        batches: Where batches come from; those of one worker, if there are
            several.
        first_step: First step, since the start of training.
        last_step: One past the last.
        parts: The parts of each batch that this reader yields, one after
            another: one for each of its replicas.
        num_parts: Into how many parts a batch is cut.
        prefetch: Elements that are made ahead.

    Returns:
        A dataset of dicts of tensors, `len(parts)` elements a step.

    Raises:
        ValueError: If `num_parts` does not divide the batch size.
    """
    if batches.batch_size % num_parts:
        raise ValueError(
            f"`num_parts` must divide the batch size {batches.batch_size}. "
            f"Received: num_parts={num_parts}"
        )
    spec = element_spec(batches, batches.batch_size // num_parts)

    def gather(index: np.int64) -> list[Any]:
        step, place = divmod(int(index), len(parts))
        batch = batches.batch(first_step + step, parts[place], num_parts)
        return [batch[name] for name in spec]

    def to_tensors(index: tf.Tensor) -> dict[str, tf.Tensor]:
        values = tf.numpy_function(
            gather, [index], [s.dtype for s in spec.values()]
        )
        for value, tensor_spec in zip(values, spec.values(), strict=True):
            value.set_shape(tensor_spec.shape)
        return dict(zip(spec, values, strict=True))

    count = (last_step - first_step) * len(parts)
    # One call at a time: two are slower, since NumPy holds the interpreter's
    # lock while it gathers (benchmarks/LOG.md). The training step needs the
    # cores.
    dataset = tf.data.Dataset.range(count).map(to_tensors).prefetch(prefetch)
    # There is nothing to tune, and the thread that tunes makes the end of a
    # dataset wait until it wakes, up to a minute later (benchmarks/LOG.md).
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
