"""Sums over queries of what their attention reads, from the model's trace.

Axes: B batch, Q queries, S keys, H heads.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from sparsectr.errors import InputError
from sparsectr.models.ranking_model import RankingModel
from sparsectr.models.sparse_ctr import SparseCTR

QUERIES = ("behaviors", "candidates")

Sums = dict[str, Any]
"""By name: number of queries, or float64 `[H]` of sums over them."""


class Branch(NamedTuple):
    """Attention of one kind of queries in one branch of one block.

    Attributes:
        block: Number of the block.
        queries: "behaviors" or "candidates".
        name: Of the branch, `""` where the attention has but one.
    """

    block: int
    queries: str
    name: str


def check_traced(model: RankingModel) -> SparseCTR:
    """Returns a model whose trace tells all that its attention reads.

    Raises:
        InputError: If it is none.
    """
    if not isinstance(model, SparseCTR):
        raise InputError(
            f"--model.name={model.recipe.name} cannot be inspected: only the "
            "attention of --model.name=sparse_ctr can."
        )
    if not model.blocks[0].attention.traced_branches:
        raise InputError(
            f"--model.attention={model.recipe.attention} cannot be inspected: "
            "only evo, full and semi_local record all that behaviors and "
            "candidates read."
        )
    return model


class AttentionSums:
    """Sums of one batch, in one graph for all lengths of histories.

    The weights are those that the scores are made with: the model records
    them on its way.

    Args:
        model: A `SparseCTR` whose attention has `traced_branches`.
        spec: `tf.TensorSpec` of a batch by name.

    Cost:
        As much memory as the weights of all branches of a block, a few times.
    """

    def __init__(
        self, model: SparseCTR, spec: Mapping[str, tf.TensorSpec]
    ) -> None:
        self._model = model
        self._attentions = [block.attention for block in model.blocks]
        self._sums = tf.function(
            self._compute, input_signature=[dict(spec)], autograph=False
        )

    def branches(self) -> Iterator[Branch]:
        """Yields all branches; behaviors do not pass the last block."""
        for block, attention in enumerate(self._attentions):
            for queries in QUERIES:
                if queries == "behaviors" and block == self._last:
                    continue
                for name in attention.traced_branches:
                    yield Branch(block, queries, name)

    def __call__(self, batch: Mapping[str, Any]) -> dict[Branch, Sums]:
        """Returns the sums of a batch's requests, as NumPy arrays."""
        found = self._sums(batch)
        return {
            branch: {k: v.numpy() for k, v in sums.items()}
            for branch, sums in zip(self.branches(), found, strict=True)
        }

    @property
    def _last(self) -> int:
        return len(self._attentions) - 1

    def _compute(self, batch: Mapping[str, tf.Tensor]) -> list[Sums]:
        trace = self._model(batch, trace=True).trace
        is_real = {
            "behaviors": trace["behavior_mask"],
            "candidates": batch["candidate_mask"],
        }
        return [
            self._sum_up(branch, trace, is_real[branch.queries])
            for branch in self.branches()
        ]

    def _sum_up(
        self, branch: Branch, trace: Mapping[str, tf.Tensor], is_real: tf.Tensor
    ) -> Sums:
        """Returns the sums of a branch over its real queries."""
        attention = self._attentions[branch.block]
        prefix = self._model.blocks[branch.block].name + "/"
        if branch.queries == "behaviors":
            prefix = f"history/{prefix}"
        own = f"{prefix}{branch.name}/" if branch.name else prefix
        weights = trace[f"{own}weights"]  # [B, Q, H, S]
        mask = tf.logical_and(
            trace[f"{own}mask"], is_real[:, :, tf.newaxis]
        )  # [B, Q, S]
        num_keys = tf.reduce_sum(tf.cast(mask, tf.int64), axis=-1)  # [B, Q]
        reads = num_keys > 0
        sums: Sums = {
            "queries": _count(is_real),
            "queries_with_key": _count(reads),
        }
        groups = attention.key_groups(branch.name, mask)
        for name, group in groups.items():
            share = tf.where(group[:, :, tf.newaxis], weights, 0.0)
            sums[f"mass/{name}"] = _sum(tf.reduce_sum(share, -1), reads)
        entropy = tf.reduce_sum(_entropy(weights), axis=-1)  # [B, Q, H]
        num_shares = num_keys
        if attention.sink.takes_weight:
            sink = trace[f"{own}sink"]  # [B, Q, H]
            sums["mass/sink"] = _sum(sink, reads)
            entropy += _entropy(sink)
            num_shares += 1
        sums["entropy"] = _sum(entropy, reads)
        has_choice = tf.logical_and(reads, num_shares > 1)
        most = tf.math.log(tf.cast(tf.maximum(num_shares, 2), tf.float32))
        sums["queries_with_choice"] = _count(has_choice)
        sums["relative_entropy"] = _sum(
            entropy / most[:, :, tf.newaxis], has_choice
        )
        logits = tf.where(
            mask[:, :, tf.newaxis], trace[f"{own}logits"], -float("inf")
        )
        sums["largest_logit"] = tf.reduce_max(logits, axis=(0, 1, 3))
        if f"{prefix}gate" in trace:
            place = attention.traced_branches.index(branch.name)
            sums["gate"] = _sum(trace[f"{prefix}gate"][..., place], is_real)
        if f"{prefix}output_gate" in trace:
            opened = trace[f"{prefix}output_gate"]  # [B, Q, H or d]
            shape = tf.concat(
                [tf.shape(opened)[:2], [attention.num_heads, -1]], axis=0
            )
            opened = tf.reduce_mean(tf.reshape(opened, shape), axis=-1)
            sums["output_gate"] = _sum(opened, is_real)
        return sums


def _count(mask: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(mask, tf.int64))


def _sum(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns the sum `[H]` of `[B, Q, H]` over the queries of a mask."""
    values = tf.where(mask[:, :, tf.newaxis], values, 0.0)
    return tf.reduce_sum(tf.cast(values, tf.float64), axis=(0, 1))


def _entropy(weights: tf.Tensor) -> tf.Tensor:
    """Returns each weight's part of the entropy in nats, 0 for one of 0."""
    return -tf.math.xlogy(weights, weights)


def added(total: Sums, more: Sums) -> Sums:
    """Returns the sums over two disjoint sets of queries."""
    return {
        name: tf.maximum(value, more[name]).numpy()
        if name == "largest_logit"
        else value + more[name]
        for name, value in total.items()
    }
