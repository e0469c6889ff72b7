"""TimeChunking: cuts at the largest time gaps.

Axes: B batch, L history length, P chunks, K gaps.
"""

import math

import keras
from keras import ops

from sparsectr.layers.chunking.chunking import (
    Chunking,
    between_cuts,
    newest_of_highest,
)
from sparsectr.ops.places import Places
from sparsectr.ops.tensor import Tensor

# Bits of the smallest normal float32: what lies below may be taken for 0.
_SMALLEST_NORMAL_BITS = 1 << 23

# How many normal float32 are positive, and how many are negative: enough for
# gaps of 135 years.
_NUM_NORMALS = (1 << 31) - (1 << 24)


@keras.saving.register_keras_serializable(package="sparsectr")
class TimeChunking(Chunking):
    """Cuts each history at its largest time gaps (section 3.4.1).

    The cuts are the `num_chunks - 1` largest gaps between neighbouring valid
    behaviours. Of equal gaps the more recent wins. Rows are not read.

    Arguments, call arguments and returns are those of `Chunking`.

    Numerics:
        Integers throughout.

    Cost:
        O(L log P) for the cuts, O(L P) for the weights.

    Differs from the paper:
        Its "top |P| intervals" counts the cut between padding and the first
        valid behaviour, so that a full history would get one chunk more.
    """

    def cut(
        self, history: Places, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns where chunks start and end, int32 `[B, P]` each."""
        del rows
        time, valid = history.time, history.valid
        gap = time[:, 1:] - time[:, :-1]  # [B, L - 1]
        # A gap is never negative in sorted times; -1 never wins.
        gap = ops.where(valid[:, :-1], ops.maximum(gap, 0), -1)
        scores = as_ordered_floats(gap)
        cut = newest_of_highest(scores, self.num_chunks - 1)
        return between_cuts(history, cut)


def as_ordered_floats(gap: Tensor) -> Tensor:
    """Floats in the very order of the gaps.

    Compilers have a fast top_k for floats alone: XLA's on a CPU takes a tenth
    of the time of the one for integers. The bits of positive floats, read as
    integers, are in the order of the floats, those of negative ones in the
    reverse: so the gaps are numbered from the lowest normal float to the
    highest.

    Args:
        gap: int64 `[B, K]`, seconds, -1 for none.

    Returns:
        float32 `[B, K]`, -inf where there is no gap.
    """
    number = gap - _NUM_NORMALS
    size = ops.cast(ops.where(number < 0, -1 - number, number), "int32")
    # `view` wants to know the size of the last axis.
    bits = ops.expand_dims(size + _SMALLEST_NORMAL_BITS, -1)
    floats = ops.squeeze(ops.view(bits, "float32"), -1)
    floats = ops.where(number < 0, -floats, floats)
    return ops.where(gap < 0, -math.inf, floats)
