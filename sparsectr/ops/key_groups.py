"""Groups of keys, as masks.

Axes: B batch, Q queries, S keys.
"""

from collections.abc import Mapping

from keras import ops

from sparsectr.ops.tensor import Tensor


def in_columns(mask: Tensor, part: slice) -> Tensor:
    """Returns the mask within a part of the keys, False elsewhere.

    Args:
        mask: bool `[B, Q, S]`.
        part: Which keys.
    """
    place = ops.arange(ops.shape(mask)[-1])  # [S]
    is_in = place >= (part.start or 0)
    if part.stop is not None:
        is_in = ops.logical_and(is_in, place < part.stop)
    return ops.logical_and(mask, is_in)


def first_keys(mask: Tensor, count: int = 1) -> Tensor:
    """Returns which keys are the first of each query, bool `[B, Q, S]`.

    Args:
        mask: bool `[B, Q, S]`.
        count: How many.
    """
    number = ops.cumsum(ops.cast(mask, "int32"), axis=-1)
    return ops.logical_and(mask, number <= count)


def last_key(mask: Tensor) -> Tensor:
    """Returns which key is the last of each query, bool `[B, Q, S]`.

    Args:
        mask: bool `[B, Q, S]`.
    """
    return ops.flip(first_keys(ops.flip(mask, axis=-1)), axis=-1)


def share_out(mask: Tensor, groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns groups that no key is in twice.

    Args:
        mask: bool `[B, Q, S]`.
        groups: bool `[B, Q, S]` by name; a key of several is in the first.

    Returns:
        The same groups, and what is left of the mask as `other`.
    """
    found: dict[str, Tensor] = {}
    for name, group in groups.items():
        found[name] = ops.logical_and(mask, group)
        mask = ops.logical_and(mask, ops.logical_not(group))
    return {**found, "other": mask}
