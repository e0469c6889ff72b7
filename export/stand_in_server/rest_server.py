"""The REST interface, version 1."""

import base64
import contextlib
import http.server
import json
import socket
import sys
import urllib.parse
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format

from export.stand_in_server.stand_in import (
    RefusedError,
    StandInServer,
    Version,
    invalid,
    signature_map,
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


class RestServer(http.server.ThreadingHTTPServer):
    """The REST interface of a stand-in, on a free port of loopback.

    Ends its connections when it is closed, as a process would.

    Args:
        stand_in: What it answers from.
    """

    def __init__(self, stand_in: StandInServer) -> None:
        handler = type("Handler", (_Handler,), {"stand_in": stand_in})
        super().__init__(("127.0.0.1", 0), handler)
        self._open: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Keeps a connection in mind."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forgets a connection that is done."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Reports an error; a client that goes away is none."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def server_close(self) -> None:
        """Closes the server and its connections."""
        super().server_close()
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else the body waits 40 ms for the client to acknowledge the head.
    disable_nagle_algorithm = True
    stand_in: StandInServer

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

    def _find(self) -> tuple[Version, str]:
        """Returns the version that the path names, and what follows it."""
        path, _, method = self.path.partition(":")
        parts = path.strip("/").split("/")
        if parts[:2] != ["v1", "models"] or len(parts) < 3:
            raise invalid(f"Malformed request: {self.command} {self.path}")
        name, *rest = (urllib.parse.unquote(part) for part in parts[2:])
        version, label = None, ""
        if rest[:1] == ["versions"]:
            version, rest = int(rest[1]), rest[2:]
        elif rest[:1] == ["labels"]:
            label, rest = rest[1], rest[2:]
        found = self.stand_in.find(name, version, label)
        return found, "/".join(rest) or method

    def _get(self, body: bytes) -> Any:
        del body  # A GET has none.
        version, what = self._find()
        if what == "metadata":
            return {
                "model_spec": {
                    "name": self.stand_in.model_name,
                    "signature_name": "",
                    "version": str(version.number),
                },
                "metadata": {
                    "signature_def": json_format.MessageToDict(
                        signature_map(version),
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
            raise invalid(f"Malformed request: POST {self.path}")
        try:
            request = json.loads(body)
        except ValueError as error:
            raise invalid(f"JSON Parse error: {error}") from error
        name = request.get("signature_name", "serving_default")
        if name not in version.signature_defs:
            raise invalid(
                f'Serving signature name: "{name}" not found in signature def'
            )
        infos = version.signature_defs[name].inputs
        has_rows = "instances" in request
        if not has_rows and "inputs" not in request:
            raise invalid("Missing 'inputs' or 'instances' key")
        columns = (
            _columns(request["instances"], infos)
            if has_rows
            else request["inputs"]
        )
        if not isinstance(columns, dict):
            columns = {next(iter(infos)): columns}
        for key in infos:
            if key not in columns:
                raise invalid(f"Missing named input: {key} in 'inputs' object.")
        outputs = self.stand_in.run(
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
        raise invalid("Encountered list at unexpected size") from error
    if any(isinstance(value, list) for value in array.flat):
        raise invalid("Encountered list at unexpected level")
    return array


# What the server takes: integers for floats too, but no other conversion.
_JSON_TYPES = {
    tf.float32: (float, int),
    tf.int32: (int,),
    tf.int64: (int,),
    tf.bool: (bool,),
    tf.string: (str, dict),
}


def _converted(value: Any, dtype: Any) -> Any:
    if isinstance(value, list):
        return [_converted(entry, dtype) for entry in value]
    # Not isinstance(): a bool is an int to Python.
    if type(value) not in _JSON_TYPES[dtype]:
        raise invalid(
            f"JSON Value: {value} is not of expected type: {dtype.name}"
        )
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return value.encode() if dtype == tf.string else value
