"""A key of each query beside those that all queries share.

Axes: B batch, Q queries, S shared keys, H heads, D width.
"""

from keras import ops

from sparsectr.ops.masked_softmax import MASKED_LOGIT
from sparsectr.ops.tensor import Tensor


class OwnKey:
    """A key of each query that no other query reads: itself.

    Its logit stands in the softmax beside those of the shared keys, so that
    no tensor of all queries by all queries is made.

    Args:
        query: float `[B, Q, D]`, the heads side by side.
        key: float `[B, Q, D]`, that of each query.
        num_heads: H.
    """

    def __init__(self, query: Tensor, key: Tensor, num_heads: int) -> None:
        width = query.shape[-1]
        head_width = width // num_heads
        self._by_head = (-1, ops.shape(query)[1], num_heads, head_width)
        products = ops.cast(query, "float32") * ops.cast(key, "float32")
        logits = ops.sum(ops.reshape(products, self._by_head), axis=-1)
        self._logits = logits * head_width**-0.5  # [B, Q, H]
        self._share: Tensor = None

    def numerators(
        self, logits: Tensor, mask: Tensor, head_axis: int
    ) -> tuple[Tensor, Tensor]:
        """Returns what `masked_exponentials` does; itself is in the sum."""
        own = self._logits
        if head_axis == 1:
            own = ops.transpose(own, (0, 2, 1))
        own = ops.expand_dims(own, -1)
        logits = ops.where(mask, ops.cast(logits, "float32"), MASKED_LOGIT)
        highest = ops.max(logits, axis=-1, keepdims=True, initial=MASKED_LOGIT)
        highest = ops.stop_gradient(ops.maximum(highest, own))
        weights, own = ops.exp(logits - highest), ops.exp(own - highest)
        total = ops.sum(weights, axis=-1, keepdims=True) + own
        share = ops.squeeze(own / total, axis=-1)
        if head_axis == 1:
            share = ops.transpose(share, (0, 2, 1))
        self._share = share
        return weights, total

    def weighted(self, value: Tensor) -> Tensor:
        """Returns what each query reads of itself, after `numerators`.

        Args:
            value: float `[B, Q, D]`.
        """
        by_head = ops.cast(ops.reshape(value, self._by_head), "float32")
        weighted = by_head * ops.expand_dims(self._share, -1)
        return ops.cast(ops.reshape(weighted, ops.shape(value)), value.dtype)
