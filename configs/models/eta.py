"""ETA: retrieval by the Hamming distance of random codes (2021).

Command: `python -m sparsectr.train --dataset=movielens --model.name=eta`
Measured: not yet under the leaderboard's protocol.
"""

import dataclasses

from sparsectr.config_fields import config_field
from sparsectr.model_recipe import RequestShape
from sparsectr.recipes.retrieval_recipe import RetrievalRecipe
from sparsectr.schema import DatasetSchema


@dataclasses.dataclass(frozen=True, kw_only=True)
class ETARecipe(RetrievalRecipe):
    """The behaviors whose random code differs least from the candidate's."""

    network = "sparsectr.models.eta:ETA"

    num_bits: int = config_field(32, "Bits m of a code.", minimum=1)

    def search_flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns operations of search and long interest for one request."""
        length, num_candidates = shape.length, shape.num_candidates
        products = (length + num_candidates) * self.width * self.num_bits
        products += num_candidates * length * self.num_bits
        num_read = min(self.num_retrieved, length)
        return 2 * (
            products
            + self.attention_products(shape, length, num_read, self.width)
        )
