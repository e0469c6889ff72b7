"""Full attention that computes every pair of behaviours."""

import dataclasses

import keras

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.layers.attention.attention import Attention
from sparsectr.model_recipe import RequestShape
from sparsectr.models.sparse_ctr import SparseCTR
from sparsectr.ops.query_blocks import query_block_bounds
from sparsectr.schema import DatasetSchema


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllPairsRecipe(SparseCTRRecipe):
    """SparseCTR with full attention that does not skip later keys."""

    network = "benchmarks.attention.all_pairs:AllPairs"

    def flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns those of `SparseCTRRecipe`, and of what it skips."""
        bounds = query_block_bounds(shape.length)
        pairs = sum((end - start) * end for start, end in bounds)
        skipped = (self.num_blocks - 1) * (shape.length**2 - pairs)
        return (
            super().flops(schema, shape)
            + 2 * shape.batch_size * 2 * skipped * self.width
        )


@keras.saving.register_keras_serializable(package="sparsectr_benchmarks")
class AllPairs(SparseCTR):
    """`SparseCTR` with full attention that does not skip later keys.

    Behaviours ask in one block, and the causal mask throws away half of what
    was computed, as in TensorFlow's and Keras's own attention layers.
    Layers, weights and scores are those of `SparseCTR` with
    `attention="full"`.
    """

    def make_attention(self) -> Attention:
        """Returns full attention with a single block of queries."""
        attention = super().make_attention()
        return type(attention).from_config(
            {**attention.get_config(), "num_query_blocks": 1}
        )
