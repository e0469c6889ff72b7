"""A user's state between the calls that encode and score."""

import dataclasses
import io
import zipfile
from typing import Any

import numpy as np

from export.transport import Array

_NEWEST_TIME = "newest_time"


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
    """

    tensors: dict[str, Array]
    newest_time: int

    def to_bytes(self) -> bytes:
        """Returns the state as bytes, for a cache."""
        file = io.BytesIO()
        arrays: dict[str, Any] = dict(self.tensors)
        arrays[_NEWEST_TIME] = np.int64(self.newest_time)
        np.savez(file, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "UserState":
        """Returns the state that `to_bytes()` gave.

        Raises:
            ValueError: If it is none.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                tensors = dict(arrays)
            return cls(
                newest_time=int(tensors.pop(_NEWEST_TIME)), tensors=tensors
            )
        except (EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(f"Not a user state: {error}") from error
