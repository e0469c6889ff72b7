"""What the stand-in answers, whatever the interface.

Status codes and messages are those of the server.
"""

import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2


def do_nothing() -> None:
    """What comes before a call, unless told otherwise."""


class RefusedError(Exception):
    """An answer that is a status."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> RefusedError:
    """Returns the refusal of a bad request."""
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, message)


class Version(NamedTuple):
    """One version of a model.

    Attributes:
        number: As in its path.
        model: The loaded SavedModel.
        signature_defs: Signatures by name, as the file has them.
    """

    number: int
    model: Any
    signature_defs: Any


_Call = tuple[str, dict[str, tuple[int, ...]]]


class StandInServer:
    """One model, in as many versions as are loaded, and faults on demand.

    Args:
        path: Folder of the version, whose name is its number.
        model_name: Name under which it is served.

    Attributes:
        labels: Label to the number of a version.
        grpc_server: What a client takes as its server, for gRPC.
        rest_server: And for REST.
        faults: Statuses that answer the next calls, one each.
        before_call: Called first in every call, which waits as long as it does.
        calls: Signature and shapes of the calls that were computed; a deque
            that forgets keeps a long-lived one small.
    """

    def __init__(self, path: Path, model_name: str = "sparsectr") -> None:
        self.model_name = model_name
        self.labels: dict[str, int] = {}
        self.faults: collections.deque[grpc.StatusCode] = collections.deque()
        self.before_call: Callable[[], object] = do_nothing
        self.calls: collections.deque[_Call] = collections.deque()
        self.grpc_server = self.rest_server = ""
        self.load(path)

    def load(self, *paths: Path) -> None:
        """Serves these versions from now on, and no others."""
        self._versions = {int(path.name): _load(path) for path in paths}

    @property
    def version(self) -> int:
        """The newest."""
        return max(self._versions)

    def find(
        self, name: str, version: int | None = None, label: str = ""
    ) -> Version:
        """Returns a version, or refuses what is not served."""
        if label:
            if label not in self.labels:
                raise invalid(f"Unrecognized servable version label: {label}")
            version = self.labels[label]
        number = self.version if version is None else version
        if name != self.model_name or number not in self._versions:
            suffix = "" if version is None else f", version {version}"
            raise RefusedError(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: {name}{suffix}",
            )
        return self._versions[number]

    def run(
        self,
        name: str,
        inputs: dict[str, Any],
        version: Version | None = None,
    ) -> dict[str, Any]:
        """Runs a signature on NumPy arrays."""
        version = version or self._versions[self.version]
        self.before_call()
        if self.faults:
            raise RefusedError(self.faults.popleft(), "a fault of the test")
        if name not in version.signature_defs:
            raise RefusedError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f'Serving signature key "{name}" not found.',
            )
        infos = version.signature_defs[name].inputs
        if infos.keys() != inputs.keys():
            raise invalid(
                "input size does not match signature: "
                f"{sorted(inputs)} against {sorted(infos)}"
            )
        for key, array in inputs.items():
            expected = tf.as_dtype(infos[key].dtype)
            if tf.as_dtype(array.dtype) != expected:
                raise invalid(
                    f"{key}: expects {expected.name}, got {array.dtype}"
                )
        self.calls.append((name, {k: v.shape for k, v in inputs.items()}))
        constants = {key: tf.constant(a) for key, a in inputs.items()}
        try:
            outputs = version.model.signatures[name](**constants)
        except tf.errors.InvalidArgumentError as error:
            raise invalid(error.message) from error
        return {key: value.numpy() for key, value in outputs.items()}


def _load(path: Path) -> Version:
    saved = saved_model_pb2.SavedModel.FromString(
        (path / "saved_model.pb").read_bytes()
    )
    return Version(
        int(path.name),
        tf.saved_model.load(str(path)),
        saved.meta_graphs[0].signature_def,
    )


def signature_map(version: Version) -> Any:
    """Returns the metadata of a version, a `SignatureDefMap`."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in version.signature_defs.items():
        signatures.signature_def[name].CopyFrom(signature)
    return signatures
