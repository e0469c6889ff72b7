"""What the client needs of a way to reach a server."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from data_pipelines.requests.tensor_type import Array, TensorType


class ServedSignature(NamedTuple):
    """Inputs and outputs of a signature, by name."""

    inputs: dict[str, TensorType]
    outputs: dict[str, TensorType]


class Transport(Protocol):
    """Reaches one model of one server. Threads may share it."""

    def signatures(self, timeout: float) -> dict[str, ServedSignature]:
        """Returns the signatures of the model, by name.

        Args:
            timeout: Seconds after which it gives up.

        Raises:
            ServerError: If there is no answer.
        """

    def predict(
        self,
        signature_name: str,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, TensorType],
        timeout: float,
    ) -> dict[str, Array]:
        """Runs a signature once.

        Args:
            signature_name: Which one.
            inputs: Its inputs.
            outputs: The outputs to return.
            timeout: Seconds after which it gives up.

        Raises:
            ServerError: If there is no answer.
        """

    def close(self) -> None:
        """Gives up the connections. Nothing is to be called afterwards."""
