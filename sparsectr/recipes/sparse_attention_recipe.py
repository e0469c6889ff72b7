"""What the attentions that EvoAttention is compared with add to its recipe.

Nothing here imports TensorFlow.
"""

import dataclasses
import math
from typing import Any

from sparsectr.config_fields import config_field, require
from sparsectr.model_recipe import ModelRecipe
from sparsectr.ops.compressed_blocks import num_compressed_blocks


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseAttentionRecipe(ModelRecipe):
    """Sizes of sparse attentions; by default each reads 53 keys a query.

    So many has EvoAttention with its defaults, beside the user's.
    """

    num_heads: int = config_field(
        8, "Attention heads; must divide width.", minimum=1
    )
    num_local: int = config_field(
        5, "Behaviours w in the local window.", minimum=1
    )
    longest_history: int = config_field(
        1024,
        "Behaviors of the longest history, by which attention=dilated, "
        "linformer and nsa are sized.",
        minimum=1,
    )
    num_keys: int = config_field(
        53, "Keys of a query of attention=dilated and linformer.", minimum=1
    )
    num_local_heads: int = config_field(
        0,
        "Heads of attention=dilated that read the newest behaviors and not "
        "every s-th.",
        minimum=0,
    )

    num_first: int = config_field(
        16, "First behaviors k2 of attention=semi_local.", minimum=1
    )
    num_recent: int = config_field(
        37, "Last behaviors k1 of attention=semi_local.", minimum=1
    )
    semi_local_candidates: str = config_field(
        "budget",
        "What candidates read with attention=semi_local: budget for what the "
        "newest behavior reads, all for every behavior, as published.",
        choices=("budget", "all"),
    )

    nsa_block: int = config_field(
        64, "Behaviors of a compressed block of attention=nsa.", minimum=1
    )
    nsa_stride: int = config_field(
        64, "From one compressed block of attention=nsa to the next.", minimum=1
    )
    nsa_selected_block: int = config_field(
        16, "Behaviors of a block that attention=nsa selects.", minimum=1
    )
    nsa_num_selected: int = config_field(
        2, "Blocks that a query of attention=nsa selects.", minimum=1
    )
    nsa_num_forced: int = config_field(
        1,
        "How many of a query's own block, the one before and the first are "
        "among the selected ones of attention=nsa in any case.",
        minimum=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.num_local_heads <= self.num_heads,
            "num_local_heads",
            f"be at most num_heads={self.num_heads}",
            self.num_local_heads,
        )
        most = min(3, self.nsa_num_selected)
        require(
            self.nsa_num_forced <= most,
            "nsa_num_forced",
            f"be at most {most}",
            self.nsa_num_forced,
        )

    @property
    def _stride(self) -> int:
        """Returns s of dilated attention: so that K keys reach everything."""
        return math.ceil(self.longest_history / self.num_keys)

    def sparse_arguments(self, attention: str) -> dict[str, Any]:
        """Returns the layer's arguments beside heads, encoding and sink.

        Args:
            attention: One of this file's.
        """
        arguments: dict[str, dict[str, Any]] = {
            "dilated": {
                "num_keys": self.num_keys,
                "stride": self._stride,
                "num_local_heads": self.num_local_heads,
            },
            "semi_local": {
                "num_first": self.num_first,
                "num_recent": self.num_recent,
                "candidates": self.semi_local_candidates,
            },
            "linformer": {
                "num_keys": self.num_keys,
                "longest_history": self.longest_history,
            },
            "nsa": {
                "sizes": (
                    self.nsa_block,
                    self.nsa_stride,
                    self.nsa_selected_block,
                ),
                "num_selected": self.nsa_num_selected,
                "num_forced": self.nsa_num_forced,
                "num_window": self.num_local,
                "longest_history": self.longest_history,
            },
        }
        return arguments[attention]

    def sparse_keys(self, attention: str) -> tuple[int | str, int | str]:
        """Returns how many keys have a place, and how many there are.

        Args:
            attention: One of this file's.
        """
        keys: int | str = self.num_keys + self._num_dilated_local
        if attention == "semi_local":
            is_all = self.semi_local_candidates == "all"
            keys = "L" if is_all else self.num_first + self.num_recent
        if attention == "linformer":
            return 0, self.num_keys
        if attention == "nsa":
            keys = f"L + {self._num_nsa_blocks + self.num_local}"
        return keys, keys

    def sparse_products(
        self, attention: str, length: int, num_candidates: int, *, is_last: bool
    ) -> int:
        """Returns products of one block's attention for one request.

        Those of queries and results are not among them.

        Args:
            attention: One of this file's.
            length: L.
            num_candidates: C.
            is_last: Whether no behaviors ask.
        """
        rows = 0 if is_last else length
        products = {
            "dilated": self._dilated_products,
            "semi_local": self._semi_local_products,
            "linformer": self._linformer_products,
            "nsa": self._nsa_products,
        }
        return products[attention](length, rows, num_candidates)

    @property
    def _num_dilated_local(self) -> int:
        """Returns the keys of a local head of dilated attention."""
        has_local = self.num_local_heads > 0
        return min(self._stride, self.num_keys) if has_local else 0

    def _dilated_products(
        self, length: int, rows: int, num_candidates: int
    ) -> int:
        del length
        local = self.width // self.num_heads * self.num_local_heads
        strided = self.width - local
        num_local = self._num_dilated_local
        total = 2 * (self.num_keys + num_local + rows) * self.width**2
        keys = self.num_keys * strided + num_local * local
        total += 2 * num_candidates * keys
        # Each class in full, and blocks of local rows against two blocks.
        in_class = math.ceil(rows / self._stride)
        total += 2 * self._stride * in_class**2 * strided
        if num_local:
            blocks = math.ceil(rows / num_local)
            total += 2 * blocks * num_local * 2 * num_local * local
        return total

    def _semi_local_products(
        self, length: int, rows: int, num_candidates: int
    ) -> int:
        keys, projected = length, length
        if self.semi_local_candidates == "budget":
            keys = self.num_first + self.num_recent
            projected = keys + rows
        blocks = math.ceil(rows / self.num_recent)
        pairs = num_candidates * keys
        pairs += (
            blocks * self.num_recent * (self.num_first + 2 * self.num_recent)
        )
        return 2 * projected * self.width**2 + 2 * pairs * self.width

    def _linformer_products(
        self, length: int, rows: int, num_candidates: int
    ) -> int:
        read = min(length, self.longest_history)
        pairs = (read + rows + num_candidates) * self.num_keys
        return 2 * pairs * self.width + 2 * self.num_keys * self.width**2

    @property
    def _num_nsa_blocks(self) -> int:
        """Returns the compressed blocks of native sparse attention."""
        return num_compressed_blocks(
            self.longest_history, self.nsa_block, self.nsa_stride
        )

    def _nsa_products(self, length: int, rows: int, num_candidates: int) -> int:
        count, size = self._num_nsa_blocks, self.nsa_selected_block
        reach = (count - 1) * self.nsa_stride + self.nsa_block
        made = reach + count + length + self.num_local + rows
        queries = rows + num_candidates
        selected = min(self.nsa_num_selected * size, length)
        if 4 * self.nsa_num_selected * size >= self.longest_history:
            selected = length  # a mask of all pairs
        block = max(self.num_local, 16)
        window = math.ceil(rows / block) * block * 2 * block
        pairs = queries * (count + selected) + window
        pairs += num_candidates * self.num_local
        importance = queries * count * math.ceil(length / size)
        gates = queries * 3 * self.num_heads * self.width
        total = 2 * made * self.width**2 + 2 * pairs * self.width
        return total + importance + gates
