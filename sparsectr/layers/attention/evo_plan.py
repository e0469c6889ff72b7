"""What all blocks of EvoAttention share, computed once a pass.

Axes: B batch, L history length, P chunks, m transition behaviours a chunk,
w local window, w_c that of candidates, r registers, S keys.
"""

from typing import NamedTuple

from sparsectr.layers.chunking.chunking import Chunks
from sparsectr.layers.encoding.encoding import Features
from sparsectr.ops.places import Places
from sparsectr.ops.tensor import Tensor


class HistoryPlan(NamedTuple):
    """What behaviours read of each other.

    Attributes:
        features: Of the encoding, of behaviours against chunks and transition
            behaviours, `[B, L, P + m P]` each.
        mask: bool `[B, L, P + m P]`.
        window_features: Those against their own window, the user and the
            registers, `[B, L, w + 1 + r]` each.
        window_mask: bool `[B, L, w + 1 + r]`.

    Without the local branch there is no window.
    """

    features: Features
    mask: Tensor
    window_features: Features | None
    window_mask: Tensor | None


class EvoPlan(NamedTuple):
    """What all blocks of EvoAttention share.

    Attributes:
        chunks: The `Chunks` of the histories.
        behaviors: Places of the behaviours, `[B, L]`.
        newest_index: int32 `[B, w_c]`, indices of the newest behaviours,
            which candidates read.
        keys: Places of every key but the user's and the registers', which
            have none, `[B, S - 1 - r]`.
        key_mask: bool `[B, S]`.
        gap: int32 `[B, P]`, rows of the boundary sinks; `None` without.
        history: `None` where only candidates will ask.
    """

    chunks: Chunks
    behaviors: Places
    newest_index: Tensor
    keys: Places
    key_mask: Tensor
    gap: Tensor | None
    history: HistoryPlan | None
