"""A model server by gRPC. No TensorFlow is imported."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from data_pipelines.requests.tensor_type import Array, TensorType
from export.client_parts.server_error import ServerError
from export.client_parts.transport import ServedSignature
from export.messages.predict_messages import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    PredictRequest,
    PredictResponse,
    SignatureDefMap,
    data_type_name,
    model_spec,
    predict_request,
    to_array,
)
from sparsectr.errors import InputError

_SERVICE = "/tensorflow.serving.PredictionService"
_METADATA_FIELD = "signature_def"

_CHANNEL_OPTIONS = [
    # gRPC refuses answers above 4 MiB by default, such as the states of a
    # hundred users.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # By default a lost connection is not tried again within the first second,
    # which would make the retries of a client with a short deadline useless.
    # This is the least that gRPC takes. The option min_reconnect_backoff_ms
    # is not its like: it limits how long a connection may take to be made.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class GrpcTransport:
    """One channel to a server, without encryption.

    Args:
        server: Host and port, or any other name that gRPC resolves.
        model_name: Name under which the server knows the model.
        version: Which version.
        label: Or the label of one. Without both it is the newest.

    Raises:
        InputError: If grpcio is not installed.
    """

    def __init__(
        self,
        server: str,
        model_name: str,
        version: int | None = None,
        label: str | None = None,
    ) -> None:
        self.model_name = model_name
        self.version = version
        self.label = label
        self._grpc = _import_grpc()
        self._channel = self._grpc.insecure_channel(server, _CHANNEL_OPTIONS)
        self._predict = self._channel.unary_unary(
            f"{_SERVICE}/Predict",
            request_serializer=PredictRequest.SerializeToString,
            response_deserializer=PredictResponse.FromString,
        )
        self._get_metadata = self._channel.unary_unary(
            f"{_SERVICE}/GetModelMetadata",
            request_serializer=GetModelMetadataRequest.SerializeToString,
            response_deserializer=GetModelMetadataResponse.FromString,
        )

    def signatures(self, timeout: float) -> dict[str, ServedSignature]:
        """Returns the signatures of the model, by name."""
        request = GetModelMetadataRequest(
            model_spec=model_spec(self.model_name, self.version, self.label),
            metadata_field=[_METADATA_FIELD],
        )
        answer = self._call(self._get_metadata, request, timeout)
        signatures = SignatureDefMap.FromString(
            answer.metadata[_METADATA_FIELD].value
        ).signature_def
        try:
            return {
                name: ServedSignature(_types(one.inputs), _types(one.outputs))
                for name, one in signatures.items()
                # The initialization of a SavedModel is listed among its
                # signatures, though nobody can run it.
                if one.inputs
            }
        except ValueError as error:
            raise ServerError("UNKNOWN", str(error)) from error

    def predict(
        self,
        signature_name: str,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, TensorType],
        timeout: float,
    ) -> dict[str, Array]:
        """Runs a signature once."""
        request = predict_request(
            self.model_name, signature_name, inputs, self.version, self.label
        )
        request.output_filter.extend(outputs)
        answer = self._call(self._predict, request, timeout)
        try:
            return {name: to_array(answer.outputs[name]) for name in outputs}
        except ValueError as error:
            raise ServerError("UNKNOWN", str(error)) from error

    def close(self) -> None:
        """Closes the channel. A call afterwards raises ValueError."""
        self._channel.close()

    def _call(
        self, method: Callable[..., Any], request: Any, timeout: float
    ) -> Any:
        try:
            return method(request, timeout=timeout)
        except self._grpc.RpcError as error:
            raise ServerError(error.code().name, error.details()) from error


def _types(infos: Mapping[str, Any]) -> dict[str, TensorType]:
    return {
        name: TensorType(
            data_type_name(info.dtype),
            tuple(dim.size for dim in info.tensor_shape.dim),
        )
        # A map of a message has no order of its own.
        for name, info in sorted(infos.items())
    }


def _import_grpc() -> ModuleType:
    try:
        import grpc
    except ModuleNotFoundError as error:
        if error.name != "grpc":
            raise
        raise InputError(
            "gRPC needs grpcio, which the extra `client` installs: pip "
            "install 'sparsectr[client]'. A server at http:// does not."
        ) from error
    return grpc
