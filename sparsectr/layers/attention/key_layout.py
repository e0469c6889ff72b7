"""Which of EvoAttention's keys each branch reads."""

import dataclasses
from collections.abc import Sequence

from sparsectr.ops.tensor import Tensor

BRANCHES = ("global", "transition", "local")
"""What a query reads by, in the order of the keys."""


@dataclasses.dataclass(frozen=True)
class KeyLayout:
    """The order of the S keys: global, transition, local ones.

    Args:
        branches: Which of `BRANCHES` there are.
        num_chunks: P, chunks of a history.
        num_transition: Keys of a chunk in the transition branch.
        num_local: Keys of the local branch, the user's among them.
    """

    branches: Sequence[str]
    num_chunks: int
    num_transition: int
    num_local: int

    def part(self, branch: str, num_keys: Tensor | int) -> slice:
        """Returns the keys of a branch.

        Args:
            branch: One of `branches`.
            num_keys: S. P follows from it: in training it is at most L.
        """
        first, second = self._of_chunk("global"), self._of_chunk("transition")
        rest = self.num_local * ("local" in self.branches)
        num_chunks = (num_keys - rest) // (first + second)
        transition = num_chunks * first
        if branch == "global":
            return slice(0, transition)
        local = transition + num_chunks * second
        if branch == "transition":
            return slice(transition, local)
        return slice(local, None)

    def most(self, branch: str) -> int:
        """Returns how many keys a branch has, if none is left out."""
        if branch == "local":
            return self.num_local
        return self.num_chunks * self._of_chunk(branch)

    def _of_chunk(self, branch: str) -> int:
        size = 1 if branch == "global" else self.num_transition
        return size * (branch in self.branches)


def check_branches(
    branches: Sequence[str], num_registers: int, has_boundaries: bool
) -> None:
    """Raises ValueError if branches lack what others of the layer need."""
    known = [name for name in BRANCHES if name in branches]
    if list(branches) != known or len(known) < 2:
        raise ValueError(
            f"`branches` must be two or three of {', '.join(BRANCHES)}, in "
            f"this order. Received: branches={branches!r}"
        )
    if "local" not in branches and num_registers:
        raise ValueError(
            "`num_registers` must be 0 without the local branch. "
            f"Received: num_registers={num_registers}"
        )
    if "transition" not in branches and has_boundaries:
        raise ValueError(
            "`boundary_sinks` must be None without the transition branch."
        )
