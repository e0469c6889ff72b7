"""A test double of TensorFlow Serving: for tests, never for production.

It answers what the client asks, on loopback, over a SavedModel in this
process: Predict and GetModelMetadata of the gRPC PredictionService, and the
REST interface version 1. Status codes and messages are those of the server;
batching, warm-up and the loading of new versions it does not have.
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
from typing import Any, NamedTuple

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


class _Version(NamedTuple):
    number: int
    model: Any
    signature_defs: Any


class ServingDouble:
    """One model, and the faults that a test asks for.

    Args:
        path: Folder of the version, whose name is its number.
        model_name: Name under which it is served.

    Attributes:
        labels: Label to the number of a version.
        grpc_server: What a client takes as its server, for gRPC.
        rest_server: And for REST.
        faults: Statuses that answer the next calls, one each.
        delay_seconds: How long every call takes at least.
        calls: Signature and shapes of the calls that were computed.
    """

    def __init__(self, path: Path, model_name: str = "sparsectr") -> None:
        self.model_name = model_name
        self.labels: dict[str, int] = {}
        self.faults: collections.deque[grpc.StatusCode] = collections.deque()
        self.delay_seconds = 0.0
        self.calls: list[tuple[str, dict[str, tuple[int, ...]]]] = []
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
    ) -> _Version:
        """Returns a version, or refuses what is not served."""
        if label:
            if label not in self.labels:
                raise _invalid(f"Unrecognized servable version label: {label}")
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
        version: _Version | None = None,
    ) -> dict[str, Any]:
        """Runs a signature on NumPy arrays."""
        version = version or self._versions[self.version]
        time.sleep(self.delay_seconds)
        if self.faults:
            raise RefusedError(self.faults.popleft(), "a fault of the test")
        if name not in version.signature_defs:
            raise RefusedError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f'Serving signature key "{name}" not found.',
            )
        infos = version.signature_defs[name].inputs
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
            outputs = version.model.signatures[name](**constants)
        except tf.errors.InvalidArgumentError as error:
            raise _invalid(error.message) from error
        return {key: value.numpy() for key, value in outputs.items()}


def _load(path: Path) -> _Version:
    saved = saved_model_pb2.SavedModel.FromString(
        (path / "saved_model.pb").read_bytes()
    )
    return _Version(
        int(path.name),
        tf.saved_model.load(str(path)),
        saved.meta_graphs[0].signature_def,
    )


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
            version = self._find(request.model_spec)
            outputs = self._double.run(
                request.model_spec.signature_name or "serving_default",
                {k: tf.make_ndarray(t) for k, t in request.inputs.items()},
                version,
            )
            response = predict_pb2.PredictResponse()
            for name in request.output_filter or outputs:
                response.outputs[name].CopyFrom(_as_fields(outputs[name]))
            return response

    def GetModelMetadata(self, request, context):  # noqa: N802
        with _aborting(context):
            version = self._find(request.model_spec)
            if list(request.metadata_field) != ["signature_def"]:
                raise _invalid("Metadata field is not supported")
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.metadata["signature_def"].Pack(_signature_map(version))
            return response

    def _find(self, spec: Any) -> _Version:
        version = spec.version.value if spec.HasField("version") else None
        return self._double.find(spec.name, version, spec.version_label)


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


def _signature_map(version: _Version) -> Any:
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in version.signature_defs.items():
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

    def _find(self) -> tuple[_Version, str]:
        """Returns the version that the path names, and what follows it."""
        path, _, method = self.path.partition(":")
        parts = path.strip("/").split("/")
        if parts[:2] != ["v1", "models"] or len(parts) < 3:
            raise _invalid(f"Malformed request: {self.command} {self.path}")
        name, *rest = (urllib.parse.unquote(part) for part in parts[2:])
        version, label = None, ""
        if rest[:1] == ["versions"]:
            version, rest = int(rest[1]), rest[2:]
        elif rest[:1] == ["labels"]:
            label, rest = rest[1], rest[2:]
        found = self.double.find(name, version, label)
        return found, "/".join(rest) or method

    def _get(self, body: bytes) -> Any:
        del body  # A GET has none.
        version, what = self._find()
        if what == "metadata":
            return {
                "model_spec": {
                    "name": self.double.model_name,
                    "signature_name": "",
                    "version": str(version.number),
                },
                "metadata": {
                    "signature_def": json_format.MessageToDict(
                        _signature_map(version),
                        preserving_proto_field_name=True,
                        always_print_fields_with_no_presence=True,
                    )
                },
            }
        status = {"error_code": "OK", "error_message": ""}
        return {
            "model_version_status": [
                {
                    "version": str(version.number),
                    "state": "AVAILABLE",
                    "status": status,
                }
            ]
        }

    def _predict(self, body: bytes) -> Any:
        version, method = self._find()
        if method != "predict":
            raise _invalid(f"Malformed request: POST {self.path}")
        try:
            request = json.loads(body)
        except ValueError as error:
            raise _invalid(f"JSON Parse error: {error}") from error
        name = request.get("signature_name", "serving_default")
        if name not in version.signature_defs:
            raise _invalid(
                f'Serving signature name: "{name}" not found in signature def'
            )
        infos = version.signature_defs[name].inputs
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
            name,
            {k: _from_json(columns[k], i) for k, i in infos.items()},
            version,
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
    try:
        array = np.array(_converted(values, dtype), dtype.as_numpy_dtype)
    except ValueError as error:
        raise _invalid("Encountered list at unexpected size") from error
    if any(isinstance(value, list) for value in array.flat):
        raise _invalid("Encountered list at unexpected level")
    return array


# What the server takes: integers for floats too, but no other conversion.
_JSON_TYPES = {
    tf.float32: (float, int),
    tf.int64: (int,),
    tf.bool: (bool,),
    tf.string: (str, dict),
}


def _converted(value: Any, dtype: Any) -> Any:
    if isinstance(value, list):
        return [_converted(entry, dtype) for entry in value]
    # Not isinstance(): a bool is an int to Python.
    if type(value) not in _JSON_TYPES[dtype]:
        raise _invalid(
            f"JSON Value: {value} is not of expected type: {dtype.name}"
        )
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode() if dtype == tf.string else value
