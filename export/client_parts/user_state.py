"""A user's state between the calls that encode and score."""

import dataclasses
import io
import zlib
from typing import Any

import numpy as np

from data_pipelines.requests.tensor_type import Array

_NEWEST_TIME = "newest_time"
_REQUEST_TIME = "request_time"

_FORMAT = b"sparsectr user state 1\n"


class StaleStateError(RuntimeError):
    """A user state is not of the model that is served now.

    The server has another version than the one that encoded the state; the
    user has to be encoded again.
    """


@dataclasses.dataclass(frozen=True)
class UserState:
    """What scoring needs of a user, kept by the caller.

    It holds for one history: a behavior that comes later needs a new state.

    Args:
        tensors: The answer of `encode_user` for one user, batch axis 1.
        newest_time: Time of the newest behavior in Unix seconds, 0 if there
            is none. No request before it can be scored from this state.
        request_time: Time of the only request that can be, if the model binds
            its states to one.
    """

    tensors: dict[str, Array]
    newest_time: int
    request_time: int | None = None

    def to_bytes(self) -> bytes:
        """Returns the state as bytes, for a cache."""
        file = io.BytesIO()
        arrays: dict[str, Any] = dict(self.tensors)
        arrays[_NEWEST_TIME] = np.int64(self.newest_time)
        if self.request_time is not None:
            arrays[_REQUEST_TIME] = np.int64(self.request_time)
        np.savez(file, **arrays)
        content = file.getvalue()
        return _head(content) + content

    @classmethod
    def from_bytes(cls, content: bytes) -> "UserState":
        """Returns the state that `to_bytes()` gave.

        Raises:
            ValueError: If it is none, or not whole.
        """
        size = len(_head(b""))
        if content[:size] != _head(content[size:]):
            raise ValueError(
                "Not a user state, or a damaged one. "
                f"Received: {len(content)} bytes"
            )
        file = io.BytesIO(content[size:])
        with np.load(file, allow_pickle=False) as arrays:
            tensors = dict(arrays)
        newest_time = int(tensors.pop(_NEWEST_TIME))
        request_time = tensors.pop(_REQUEST_TIME, None)
        return cls(
            tensors=tensors,
            newest_time=newest_time,
            request_time=None if request_time is None else int(request_time),
        )


def _head(content: bytes) -> bytes:
    # What is damaged can fail in many ways when it is read.
    return _FORMAT + zlib.crc32(content).to_bytes(4, "little")
