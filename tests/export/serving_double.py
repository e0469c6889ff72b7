"""A test double of TensorFlow Serving: for tests, never for production.

It answers what the client asks, on loopback, over a SavedModel in this
process: Predict and GetModelMetadata of the gRPC PredictionService, and the
REST interface version 1. Status codes and messages are those of the server;
batching, warm-up and the loading of versions it does not have.
"""

import base64
import collections
import contextlib
import http.server
import json
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class RefusedError(Exception):
    """An answer that is a status."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _invalid(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, message)


class ServingDouble:
    """One model, and the faults that a test asks for.

    Args:
        path: Folder of the version, whose name is its number.
        model_name: Name under which it is served.

    Attributes:
        grpc_server: What a client takes as its server, for gRPC.
        rest_server: And for REST.
        faults: Statuses that answer the next calls, one each.
        delay_seconds: How long every call takes at least.
        calls: Signature and shapes of the calls that were computed.
    """

    def __init__(self, path: Path, model_name: str = "sparsectr") -> None:
        self.model_name = model_name
        self.faults: collections.deque[grpc.StatusCode] = collections.deque()
        self.delay_seconds = 0.0
        self.calls: list[tuple[str, dict[str, tuple[int, ...]]]] = []
        self.grpc_server = self.rest_server = ""
        self.load(path)

    def load(self, path: Path) -> None:
        """Serves another version from now on."""
        self.version = int(path.name)
        self._model = tf.saved_model.load(str(path))
        saved = saved_model_pb2.SavedModel.FromString(
            (path / "saved_model.pb").read_bytes()
        )
        self.signature_defs = saved.meta_graphs[0].signature_def

    def find(self, name: str, version: int | None) -> None:
        """Refuses a model that is not served."""
        if name != self.model_name or version not in (None, self.version):
            suffix = "" if version is None else f", version {version}"
            raise RefusedError(
                grpc.StatusCode.NOT_FOUND,
                f"Servable not found for request: {name}{suffix}",
            )

    def run(self, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Runs a signature on NumPy arrays."""
        time.sleep(self.delay_seconds)
        if self.faults:
            raise RefusedError(self.faults.popleft(), "a fault of the test")
        if name not in self.signature_defs:
            raise RefusedError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f'Serving signature key "{name}" not found.',
            )
        infos = self.signature_defs[name].inputs
        if infos.keys() != inputs.keys():
            raise _invalid(
                "input size does not match signature: "
                f"{sorted(inputs)} against {sorted(infos)}"
            )
        for key, array in inputs.items():
            expected = tf.as_dtype(infos[key].dtype)
            if tf.as_dtype(array.dtype) != expected:
                raise _invalid(
                    f"{key}: expects {expected.name}, got {array.dtype}"
                )
        self.calls.append((name, {k: v.shape for k, v in inputs.items()}))
        constants = {key: tf.constant(a) for key, a in inputs.items()}
        try:
            outputs = self._model.signatures[name](**constants)
        except tf.errors.InvalidArgumentError as error:
            raise _invalid(error.message) from error
        return {key: value.numpy() for key, value in outputs.items()}


@contextlib.contextmanager
def serving(path: Path) -> Iterator[ServingDouble]:
    """Serves a version on two free ports of loopback."""
    double = ServingDouble(path)
    grpc_server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=8),
        # As the server has it, where Python's default is 4 MiB.
        options=[("grpc.max_receive_message_length", -1)],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _Servicer(double), grpc_server
    )
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    double.grpc_server = f"127.0.0.1:{port}"
    grpc_server.start()
    handler = type("Handler", (_RestHandler,), {"double": double})
    rest_server = _RestServer(("127.0.0.1", 0), handler)
    double.rest_server = f"http://127.0.0.1:{rest_server.server_port}"
    thread = threading.Thread(target=rest_server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield double
    finally:
        grpc_server.stop(None).wait()
        rest_server.shutdown()
        thread.join()
        rest_server.server_close()


class _Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, double: ServingDouble) -> None:
        self._double = double

    def Predict(self, request, context):  # noqa: N802
        with _aborting(context):
            self._find(request.model_spec)
            outputs = self._double.run(
                request.model_spec.signature_name or "serving_default",
                {k: tf.make_ndarray(t) for k, t in request.inputs.items()},
            )
            response = predict_pb2.PredictResponse()
            for name in request.output_filter or outputs:
                response.outputs[name].CopyFrom(_as_fields(outputs[name]))
            return response

    def GetModelMetadata(self, request, context):  # noqa: N802
        with _aborting(context):
            self._find(request.model_spec)
            if list(request.metadata_field) != ["signature_def"]:
                raise _invalid("Metadata field is not supported")
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.metadata["signature_def"].Pack(
                _signature_map(self._double)
            )
            return response

    def _find(self, spec: Any) -> None:
        version = spec.version.value if spec.HasField("version") else None
        self._double.find(spec.name, version)


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
            tf.int64: "int64_val",
            tf.bool: "bool_val",
        }[tf.as_dtype(tensor.dtype)]
        tensor.ClearField("tensor_content")
        getattr(tensor, field).extend(array.ravel().tolist())
    return tensor


def _signature_map(double: ServingDouble) -> Any:
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in double.signature_defs.items():
        signatures.signature_def[name].CopyFrom(signature)
    return signatures


class _RestServer(http.server.ThreadingHTTPServer):
    """Ends its connections when it is closed, as a process would."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away is no error of the server.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


class _RestHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else the body waits 40 ms for the client to acknowledge the head.
    disable_nagle_algorithm = True
    double: ServingDouble

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._predict)

    def _answer(self, function: Any) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            status, answer = 200, function(body)
        except RefusedError as refusal:
            status = _HTTP_STATUS[refusal.code]
            answer = {"error": refusal.message}
        content = json.dumps(answer).encode()
        # The client may have gone by now.
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def _find(self) -> str:
        """Checks model and version of the path and returns what follows."""
        path, _, method = self.path.partition(":")
        parts = path.strip("/").split("/")
        if parts[:2] != ["v1", "models"] or len(parts) < 3:
            raise _invalid(f"Malformed request: {self.command} {self.path}")
        version = None
        rest = parts[3:]
        if rest[:1] == ["versions"]:
            version, rest = int(rest[1]), rest[2:]
        self.double.find(urllib.parse.unquote(parts[2]), version)
        return "/".join(rest) or method

    def _get(self, body: bytes) -> Any:
        del body  # A GET has none.
        what = self._find()
        version = str(self.double.version)
        if what == "metadata":
            return {
                "model_spec": {
                    "name": self.double.model_name,
                    "signature_name": "",
                    "version": version,
                },
                "metadata": {
                    "signature_def": json_format.MessageToDict(
                        _signature_map(self.double),
                        preserving_proto_field_name=True,
                        always_print_fields_with_no_presence=True,
                    )
                },
            }
        status = {"error_code": "OK", "error_message": ""}
        return {
            "model_version_status": [
                {"version": version, "state": "AVAILABLE", "status": status}
            ]
        }

    def _predict(self, body: bytes) -> Any:
        if self._find() != "predict":
            raise _invalid(f"Malformed request: POST {self.path}")
        try:
            request = json.loads(body)
        except ValueError as error:
            raise _invalid(f"JSON Parse error: {error}") from error
        name = request.get("signature_name", "serving_default")
        if name not in self.double.signature_defs:
            raise _invalid(
                f'Serving signature name: "{name}" not found in signature def'
            )
        infos = self.double.signature_defs[name].inputs
        has_rows = "instances" in request
        if not has_rows and "inputs" not in request:
            raise _invalid("Missing 'inputs' or 'instances' key")
        columns = (
            _columns(request["instances"], infos)
            if has_rows
            else request["inputs"]
        )
        if not isinstance(columns, dict):
            columns = {next(iter(infos)): columns}
        for key in infos:
            if key not in columns:
                raise _invalid(
                    f"Missing named input: {key} in 'inputs' object."
                )
        outputs = self.double.run(
            name, {k: _from_json(columns[k], i) for k, i in infos.items()}
        )
        answer: Any = {k: array.tolist() for k, array in outputs.items()}
        if len(outputs) == 1:
            [answer] = answer.values()
        if not has_rows:
            return {"outputs": answer}
        if len(outputs) > 1:
            answer = [
                dict(zip(answer, row, strict=True))
                for row in zip(*answer.values(), strict=True)
            ]
        return {"predictions": answer}


def _columns(rows: Any, infos: Any) -> dict[str, Any]:
    if len(infos) == 1 and not isinstance(rows[0], dict):
        return {next(iter(infos)): rows}
    return {key: [row[key] for row in rows] for key in rows[0]}


def _from_json(values: Any, info: Any) -> Any:
    dtype = tf.as_dtype(info.dtype)
    leaf = _leaf(values)
    fits = {
        tf.float32: isinstance(leaf, float | int) and leaf is not True,
        tf.int64: type(leaf) is int,
        tf.bool: isinstance(leaf, bool),
        tf.string: isinstance(leaf, str | dict),
    }
    if leaf is not None and not fits[dtype]:
        raise _invalid(
            f"JSON Value: {leaf} is not of expected type: {dtype.name}"
        )
    try:
        if dtype == tf.string:
            return np.array(_decoded(values), object)
        return np.array(values, dtype.as_numpy_dtype)
    except ValueError as error:
        raise _invalid("Encountered list at unexpected size") from error


def _leaf(values: Any) -> Any:
    while isinstance(values, list):
        values = values[0] if values else None
    return values


def _decoded(values: Any) -> Any:
    if isinstance(values, list):
        return [_decoded(value) for value in values]
    if isinstance(values, dict):
        return base64.b64decode(values["b64"])
    return values.encode()
