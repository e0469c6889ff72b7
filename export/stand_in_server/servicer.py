"""Predict and GetModelMetadata of the gRPC PredictionService."""

import contextlib
from collections.abc import Iterator
from typing import Any

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export.stand_in_server.stand_in import (
    RefusedError,
    StandInServer,
    Version,
    invalid,
    signature_map,
)


class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The gRPC interface of a stand-in."""

    def __init__(self, stand_in: StandInServer) -> None:
        self._stand_in = stand_in

    def Predict(  # noqa: N802
        self, request: Any, context: grpc.ServicerContext
    ) -> Any:
        """Answers a `PredictRequest`."""
        with _aborting(context):
            version = self._find(request.model_spec)
            outputs = self._stand_in.run(
                request.model_spec.signature_name or "serving_default",
                {k: tf.make_ndarray(t) for k, t in request.inputs.items()},
                version,
            )
            response = predict_pb2.PredictResponse()
            for name in request.output_filter or outputs:
                response.outputs[name].CopyFrom(_as_fields(outputs[name]))
            return response

    def GetModelMetadata(  # noqa: N802
        self, request: Any, context: grpc.ServicerContext
    ) -> Any:
        """Answers a `GetModelMetadataRequest`."""
        with _aborting(context):
            version = self._find(request.model_spec)
            if list(request.metadata_field) != ["signature_def"]:
                raise invalid("Metadata field is not supported")
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.metadata["signature_def"].Pack(signature_map(version))
            return response

    def _find(self, spec: Any) -> Version:
        version = spec.version.value if spec.HasField("version") else None
        return self._stand_in.find(spec.name, version, spec.version_label)


@contextlib.contextmanager
def _aborting(context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
    except RefusedError as refusal:
        context.abort(refusal.code, refusal.message)


def _as_fields(array: Any) -> Any:
    """Returns a tensor with a value field, as the server sends by default."""
    tensor = tf.make_tensor_proto(array)
    if tensor.tensor_content:
        field = {
            tf.float32: "float_val",
            tf.int32: "int_val",
            tf.int64: "int64_val",
            tf.bool: "bool_val",
        }[tf.as_dtype(tensor.dtype)]
        tensor.ClearField("tensor_content")
        getattr(tensor, field).extend(array.ravel().tolist())
    return tensor
