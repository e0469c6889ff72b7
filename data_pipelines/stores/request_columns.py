"""The requests of one split as columns, in memory or memory-mapped."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from data_pipelines.stores.id_sets import Column

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RequestColumns:
    """Requests of one split of one shard, and their candidates.

    Args:
        user: int32 `[num_requests]`, row of the user in the shard.
        users: One column a user field, `[num_requests]`, as in `candidates`:
            the profile as of the request.
        time: uint32 `[num_requests]`, Unix seconds, never descending within
            a user.
        history_end: int64 `[num_requests]`, behavior row at which the
            history ends, exclusive. It begins at `behavior_offset[user]`.
        candidate_offset: int64 `[num_requests + 1]`; the candidates of
            request `r` are rows `candidate_offset[r]` to
            `candidate_offset[r + 1]`.
        candidates: One column a candidate field, `[num_candidates]`: ids,
            sets of ids, or float32 with NaN for a missing number. What only
            training knows is among them, the weight too.
        label: uint8 `[num_candidates]`, 0 or 1.
    """

    user: Array
    users: Mapping[str, Column]
    time: Array
    history_end: Array
    candidate_offset: Array
    candidates: Mapping[str, Column]
    label: Array

    @property
    def num_requests(self) -> int:
        """Number of requests."""
        return len(self.user)

    @property
    def num_candidates(self) -> int:
        """Number of candidates of all requests."""
        return len(self.label)
