"""A model server by its REST interface."""

import base64
import http
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

import numpy as np
import urllib3
from urllib3.exceptions import HTTPError, ReadTimeoutError

from data_pipelines.requests.tensor_type import Array, TensorType
from export.client_parts.server_error import ServerError
from export.client_parts.transport import ServedSignature
from sparsectr.errors import InputError

# The server turns INVALID_ARGUMENT, FAILED_PRECONDITION and OUT_OF_RANGE all
# into 400.
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

_DTYPES = {
    "DT_FLOAT": "float32",
    "DT_DOUBLE": "float64",
    "DT_INT32": "int32",
    "DT_INT64": "int64",
    "DT_BOOL": "bool",
    "DT_STRING": "string",
}


class RestTransport:
    """Connections that are kept open between requests, one a thread at most.

    Args:
        server: `http://host:port` or `https://host:port`, and behind it the
            path under which a proxy serves the interface, if it does.
        model_name: Name under which the server knows the model.
        version: Which version.
        label: Or the label of one. Without both it is the newest.

    Raises:
        InputError: If `server` is not such an address.
    """

    def __init__(
        self,
        server: str,
        model_name: str,
        version: int | None = None,
        label: str | None = None,
    ) -> None:
        try:
            url = urllib.parse.urlsplit(server)
            _ = url.port  # raises if it is not one
        except ValueError as error:
            raise InputError(f"{server}: {error}") from error
        if url.scheme not in ("http", "https") or not url.hostname:
            raise InputError(f"{server} is not like http://host:8501.")
        self._url = f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"
        self._url += f"/v1/models/{_quoted(model_name)}"
        if version is not None:
            self._url += f"/versions/{version}"
        elif label is not None:
            self._url += f"/labels/{_quoted(label)}"
        # More threads than `maxsize` would connect anew at each call.
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=1000)

    def signatures(self, timeout: float) -> dict[str, ServedSignature]:
        """Returns the signatures of the model, by name."""
        answer = self._call("GET", "/metadata", None, timeout)
        try:
            signatures = answer["metadata"]["signature_def"]["signature_def"]
            return {
                name: ServedSignature(
                    _types(one["inputs"]), _types(one["outputs"])
                )
                for name, one in signatures.items()
                # The initialization of a SavedModel is listed among its
                # signatures, though nobody can run it.
                if one["inputs"]
            }
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _not_understood(error) from error

    def predict(
        self,
        signature_name: str,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, TensorType],
        timeout: float,
    ) -> dict[str, Array]:
        """Runs a signature once."""
        body = {
            "signature_name": signature_name,
            "inputs": {name: _to_json(a) for name, a in inputs.items()},
        }
        # NaN is written as NaN, which the server reads and writes too.
        answer = self._call("POST", ":predict", body, timeout)
        try:
            values = answer["outputs"]
            if len(outputs) == 1:
                # The server leaves out the name of an only output.
                values = dict.fromkeys(outputs, values)
            return {
                name: np.array(
                    values[name],
                    object if type_.dtype == "string" else type_.dtype,
                )
                for name, type_ in outputs.items()
            }
        except (KeyError, TypeError, ValueError) as error:
            raise _not_understood(error) from error

    def close(self) -> None:
        """Closes the connections that are not in use."""
        self._pool.clear()

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        timeout: float,
    ) -> Any:
        """Returns the JSON of an answer."""
        try:
            response = self._pool.request(
                method,
                self._url + path,
                json=body,
                timeout=urllib3.Timeout(total=timeout),
                retries=False,
                redirect=False,
            )
        except HTTPError as error:
            # What happened to the socket says it in fewer words.
            cause = error.__cause__ or error.__context__ or error
            if isinstance(cause, (TimeoutError, ReadTimeoutError)):
                raise ServerError(
                    "DEADLINE_EXCEEDED", f"no answer within {timeout:.3g} s"
                ) from error
            raise ServerError(
                "UNAVAILABLE", f"{type(cause).__name__}: {cause}"
            ) from error
        is_ok = response.status == http.HTTPStatus.OK
        try:
            answer = json.loads(response.data)
        except ValueError as error:
            if is_ok:
                raise _not_understood(error) from error
            # Something in front of the server, which speaks no JSON.
            answer = response.data.decode(errors="replace")
        if not is_ok:
            details = answer.get("error") if isinstance(answer, dict) else None
            raise ServerError(
                _CODES.get(response.status, "UNKNOWN"),
                f"{details or answer} (HTTP status {response.status})",
            )
        return answer


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _types(infos: Mapping[str, Any]) -> dict[str, TensorType]:
    return {
        name: TensorType(
            _DTYPES[info["dtype"]],
            tuple(int(dim["size"]) for dim in info["tensor_shape"]["dim"]),
        )
        # A map of a message has no order of its own.
        for name, info in sorted(infos.items())
    }


def _to_json(array: Array) -> Any:
    values = array.tolist()
    return _texts_to_json(values) if array.dtype == object else values


def _texts_to_json(values: Any) -> Any:
    if isinstance(values, list):
        return [_texts_to_json(value) for value in values]
    if isinstance(values, str):
        return values
    try:
        return values.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(values).decode()}


def _not_understood(error: Exception) -> ServerError:
    return ServerError(
        "UNKNOWN",
        "the answer is not one of TensorFlow Serving: "
        f"{type(error).__name__}: {error}",
    )
