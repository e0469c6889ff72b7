"""A process with PyTorch in it, which trains when it is told to.

TensorFlow and PyTorch crash in one process (TensorFlow 2.21, PyTorch 2.14).
"""

import multiprocessing
import os
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from sparsectr.errors import InputError
from sparsectr.schema import DatasetSchema


class Worker:
    """One model in PyTorch, and its training step on one batch.

    Args:
        name: Of `benchmarks.pytorch.models.MODELS`.
        schema: The fields.
        batch: As the reader makes it.
        rate: Learning rate.
    """

    def __init__(
        self,
        name: str,
        schema: DatasetSchema,
        batch: Mapping[str, Any],
        rate: float,
    ) -> None:
        # Its threads must not spin while others are timed.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, name, schema, batch, rate), daemon=True
        )
        self._process.start()
        theirs.close()

    def __call__(self) -> float:
        """Returns the loss of one more step.

        Raises:
            InputError: If the process is gone.
        """
        try:
            self._connection.send(None)
            loss: float = self._connection.recv()
        except (EOFError, OSError) as error:
            raise InputError("The process with PyTorch is gone.") from error
        return loss

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join()


def _serve(
    connection: Connection,
    name: str,
    schema: DatasetSchema,
    batch: Mapping[str, Any],
    rate: float,
) -> None:
    import torch

    from benchmarks.pytorch.models import Step

    torch.manual_seed(0)
    step = Step(name, schema, batch, rate)
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        connection.send(step())
