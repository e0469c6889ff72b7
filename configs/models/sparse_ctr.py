"""SparseCTR: the model of the paper; the defaults are its Sparsity-2.

Command: `python -m sparsectr.train --dataset=movielens`
Measured: README.md, "Results".
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from sparsectr.config_fields import config_field, require
from sparsectr.model_recipe import (
    Preset,
    RequestShape,
    StateSpec,
    StateTensor,
    embedding_flops,
    prediction_flops,
    user_state,
    user_width,
)
from sparsectr.ops.query_blocks import query_block_bounds
from sparsectr.recipes.sparse_attention_recipe import SparseAttentionRecipe
from sparsectr.schema import DatasetSchema

FEED_FORWARD_MULTIPLIER = 3
"""Hidden width of the feed-forward network in widths d (section 3.3)."""

ROTARY = ("rope", "t_rope_relative", "t_rope_published")
"""Encodings that turn pairs of columns."""

BRANCHES = ("global", "transition", "local")
"""Those of EvoAttention."""

TEMPORAL_BIASES = ("time", "hour", "weekend")
"""Those of RelTemporal."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseCTRRecipe(SparseAttentionRecipe):
    """SparseBlocks over chunk summaries, transition and local behaviours."""

    network = "sparsectr.models.sparse_ctr:SparseCTR"

    # The four configurations of the paper's Figure 3, and a competitor's own.
    presets: ClassVar[Mapping[str, Preset]] = {
        "sparsity-1": {"num_chunks": 8, "num_transition": 1, "num_local": 2},
        "sparsity-2": {"num_chunks": 16, "num_transition": 2, "num_local": 5},
        "sparsity-3": {"num_chunks": 16, "num_transition": 3, "num_local": 10},
        "sparsity-4": {"num_chunks": 32, "num_transition": 4, "num_local": 20},
        # At 1024 behaviors, 16 blocks of 64 are all of them.
        "nsa_published": {
            "attention": "nsa",
            "nsa_block": 32,
            "nsa_stride": 16,
            "nsa_selected_block": 64,
            "nsa_num_selected": 16,
            "nsa_num_forced": 3,
            "num_local": 512,
        },
    }

    num_blocks: int = config_field(2, "Number of SparseBlocks.", minimum=1)
    num_chunks: int = config_field(16, "Chunks |P| of a history.", minimum=1)
    num_transition: int = config_field(
        2, "Transition behaviours m of a chunk.", minimum=1
    )
    num_candidate_local: int = config_field(
        0,
        "Newest behaviours that a candidate reads with attention=evo; 0 for "
        "as many as a behavior does, num_local.",
        minimum=0,
    )
    attention: str = config_field(
        "evo",
        "evo for EvoAttention, full for full attention (variant A1), dilated "
        "for every s-th behavior, semi_local for the first and the last, "
        "linformer for sums of all, nsa for native sparse attention.",
        choices=("evo", "full", "dilated", "semi_local", "linformer", "nsa"),
    )
    chunking: str = config_field(
        "time",
        "Where EvoAttention cuts a history: time, at the largest gaps; fixed, "
        "every max_history / num_chunks behaviors from the newest; balanced, "
        "the same by the history's own length; similarity, where neighbors "
        "are least alike.",
        choices=("time", "fixed", "balanced", "similarity"),
    )
    max_history: int = config_field(
        1024,
        "Longest history that fixed chunks and the distances of hstu are made "
        "for; longer ones are read too.",
        minimum=1,
    )
    encoding: str = config_field(
        "rel_temporal",
        "What times and positions do to the logits: add a bias as "
        "rel_temporal, hstu, t5 and alibi do; turn queries and keys as rope, "
        "t_rope_relative and t_rope_published do; or none (variant B1).",
        choices=("rel_temporal", "hstu", "t5", "alibi", *ROTARY, "none"),
    )
    branches: tuple[str, ...] = config_field(
        BRANCHES,
        "Branches of attention=evo, two at least: without global (variant A2), "
        "transition (A3) or local (A4), which has the user's key.",
    )
    temporal_biases: tuple[str, ...] = config_field(
        TEMPORAL_BIASES,
        "Biases of encoding=rel_temporal: without time (variant B2), hour (B3) "
        "or weekend (B4).",
    )
    sink: str = config_field(
        "none",
        "What a query may read beside its keys: none, off_by_one for a logit "
        "of 0, learned for a logit of each head, key_value for a learned key "
        "and value.",
        choices=("none", "off_by_one", "learned", "key_value"),
    )
    output_gate: str = config_field(
        "none",
        "Sigmoid gate on the output of attention: none, head for one a head, "
        "element for one a column.",
        choices=("none", "head", "element"),
    )
    num_registers: int = config_field(
        0,
        "Learned rows that the local branch of evo reads beside the user.",
        minimum=0,
    )
    boundary_sinks: bool = config_field(
        False,
        "Learned keys at the chunks' boundaries, by the gap that was cut at; "
        "for evo.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.width % self.num_heads == 0,
            "num_heads",
            f"divide width={self.width}",
            self.num_heads,
        )
        require(
            self.attention == "evo" or not self.num_registers,
            "num_registers",
            "be 0 without attention=evo, which alone has a local branch",
            self.num_registers,
        )
        require(
            self.attention == "evo" or not self.boundary_sinks,
            "boundary_sinks",
            "be false without attention=evo, which alone has chunks",
            self.boundary_sinks,
        )
        self._check_parts()
        head_width = self.width // self.num_heads
        require(
            self.encoding not in ROTARY or head_width % 2 == 0,
            "encoding",
            f"not turn heads of an odd width, width / num_heads={head_width}",
            self.encoding,
        )
        has_unturned = self.num_registers > 0 or self.boundary_sinks
        has_unturned |= self.sink == "key_value"
        require(
            self.encoding not in ROTARY or not has_unturned,
            "encoding",
            "not turn queries beside a sink of key_value, registers or "
            "boundary sinks, whose keys do not turn with them",
            self.encoding,
        )
        is_plain = self.attention in ("evo", "full")
        require(
            is_plain or self.encoding not in ROTARY,
            "encoding",
            f"not turn queries with attention={self.attention}",
            self.encoding,
        )
        require(
            is_plain or self.sink != "key_value",
            "sink",
            f"not be key_value with attention={self.attention}",
            self.sink,
        )
        require(
            self.attention != "linformer" or self.encoding == "none",
            "encoding",
            "be none for attention=linformer, whose keys stand at no time",
            self.encoding,
        )

    def _check_parts(self) -> None:
        """Checks which branches and biases there are."""
        for name, known, least in (
            ("branches", BRANCHES, 2),
            ("temporal_biases", TEMPORAL_BIASES, 1),
        ):
            values = getattr(self, name)
            in_order = tuple(part for part in known if part in values)
            require(
                values == in_order and len(values) >= least,
                name,
                f"be {least} or more of {', '.join(known)}, in this order",
                values,
            )
        require(
            self.attention == "evo" or self.branches == BRANCHES,
            "branches",
            "be all without attention=evo, which alone has branches",
            self.branches,
        )
        require(
            self.encoding == "rel_temporal"
            or self.temporal_biases == TEMPORAL_BIASES,
            "temporal_biases",
            "be all without encoding=rel_temporal, which alone has them",
            self.temporal_biases,
        )
        require(
            "local" in self.branches or not self.num_registers,
            "num_registers",
            "be 0 without the local branch",
            self.num_registers,
        )
        has_window = self.attention == "evo" and "local" in self.branches
        require(
            has_window or not self.num_candidate_local,
            "num_candidate_local",
            "be 0 without attention=evo and its local branch",
            self.num_candidate_local,
        )
        require(
            "transition" in self.branches or not self.boundary_sinks,
            "boundary_sinks",
            "be false without the transition branch",
            self.boundary_sinks,
        )

    def state_spec(self, schema: DatasetSchema) -> StateSpec:
        """Returns keys and values of every block, beside the profile.

        EvoAttention has as many keys for every history; full attention has
        one for each behaviour. For the others see `sparse_keys`.
        """
        times: int | str = "L"
        keys: int | str = "L"
        if self.attention == "evo":
            has_local = "local" in self.branches
            times = self._num_selected + has_local * self.num_newest
            # 1 is that of the user.
            keys = times + has_local * (1 + self.num_registers)
        elif self.attention != "full":
            times, keys = self.sparse_keys(self.attention)
        rows = (self.num_blocks, keys, self.width)
        return StateSpec(
            (
                StateTensor("keys", "float32", rows, "Keys of every block"),
                StateTensor("values", "float32", rows, "Values of every block"),
                StateTensor(
                    "key_time",
                    "int64",
                    (times,),
                    "Unix seconds of the keys, rounded down",
                ),
                StateTensor(
                    "key_has_fraction",
                    "bool",
                    (times,),
                    "True for a key a fraction of a second after its time",
                ),
                StateTensor(
                    "key_position",
                    "int32",
                    (times,),
                    "Position of the keys, the newest behavior 1",
                ),
                StateTensor("key_mask", "bool", (keys,), "True for a key"),
                *user_state(self, schema),
            ),
            self.binds_state(schema),
        )

    def flops(self, schema: DatasetSchema, shape: RequestShape) -> int:
        """Returns additions and multiplications of one forward pass.

        Masked keys are counted where they are not skipped: all of
        EvoAttention, and of full attention those up to the end of a block of
        queries. Zeros in between, of heads side by side, are not.
        """
        blocks = sum(
            self._block_products(shape, is_last=index == self.num_blocks - 1)
            for index in range(self.num_blocks)
        )
        user = user_width(self, schema)
        if self.attention == "evo" and "local" in self.branches and user:
            blocks += user * self.width + self.width**2
        return (
            embedding_flops(self, schema, shape)
            + prediction_flops(self, schema, shape)
            + 2 * shape.batch_size * blocks
        )

    @property
    def num_newest(self) -> int:
        """Newest behaviours that a candidate reads."""
        return self.num_candidate_local or self.num_local

    @property
    def _num_selected(self) -> int:
        """Keys of the global and the transition branch."""
        keys = int("global" in self.branches)
        if "transition" in self.branches:
            keys += self.num_transition + self.boundary_sinks
        return self.num_chunks * keys

    def _block_products(self, shape: RequestShape, *, is_last: bool) -> int:
        """Returns products of one SparseBlock for one request."""
        width, length = self.width, shape.length
        rows = 0 if is_last else length
        queries = rows + shape.num_candidates
        total = 2 * queries * width**2  # queries and results
        total += 3 * FEED_FORWARD_MULTIPLIER * queries * width**2
        own_keys = int(self.sink == "key_value")
        gates = {"none": 0, "head": self.num_heads, "element": width}
        total += queries * width * gates[self.output_gate]
        if self.attention == "full":
            bounds = query_block_bounds(length)
            pairs = sum((end - start) * end for start, end in bounds)
            total += 2 * length * width**2  # keys and values
            scores = (0 if is_last else pairs) + shape.num_candidates * length
            scores += queries * own_keys
            return total + 2 * scores * width
        if self.attention != "evo":
            sizes = (self.attention, length, shape.num_candidates)
            return total + self.sparse_products(*sizes, is_last=is_last)
        keys, branches = self._num_selected, len(self.branches)
        if "local" in self.branches:
            keys += self.num_local + 1 + self.num_registers
            wider = self.num_newest - self.num_local
            total += 2 * wider * width**2
            total += 2 * shape.num_candidates * wider * width
            total += 2 * rows * width**2  # keys and values of windows
        total += 2 * keys * width**2
        if "global" in self.branches:
            # Means of chunks, and two layers each for keys and values.
            total += self.num_chunks * length * width
            total += 4 * self.num_chunks * width**2
        # A weight for each branch, from the outputs of all: the gate.
        total += queries * branches**2 * width
        # One of the sink's own in each branch.
        return total + 2 * queries * (keys + branches * own_keys) * width
