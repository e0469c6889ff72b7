"""The files of export/serving: they parse, and they fit each other."""

import base64
import http.server
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format, wrappers_pb2

from configs.models.sparse_ctr import SparseCTRRecipe
from data_pipelines.datasets.movielens import SCHEMA
from data_pipelines.requests.buckets import Buckets
from export.graph.signature import signatures
from export.messages.message_classes import Messages, message_classes

yaml = pytest.importorskip("yaml")

GRPC_PORT = 8500
REST_PORT = 8501

# Of tensorflow_serving/model_servers/main.cc, release 2.19.1.
SERVER_FLAGS = """
    allow_version_labels_for_unavailable_models batching_parameters_file
    enable_batching enable_model_warmup enable_per_model_batching_parameters
    file_system_poll_wait_seconds flush_filesystem_caches
    grpc_channel_arguments grpc_max_threads load_retry_interval_micros
    max_num_load_retries model_base_path model_config_file
    model_config_file_poll_wait_seconds model_name monitoring_config_file
    num_load_threads num_request_iterations_for_warmup num_unload_threads
    per_process_gpu_memory_fraction port rest_api_num_threads rest_api_port
    rest_api_timeout_in_ms ssl_config_file tensorflow_inter_op_parallelism
    tensorflow_intra_op_parallelism tensorflow_session_config_file
    tensorflow_session_parallelism xla_cpu_compilation_enabled
    xla_gpu_compilation_enabled
"""

_INT64_VALUE = ".google.protobuf.Int64Value"

# Fields of the messages that tensorflow-serving-api leaves out, by number:
# servables/tensorflow/session_bundle_config.proto and
# config/monitoring_config.proto, release 2.19.1.
MESSAGES: Messages = {
    "BatchingParameters": [
        (1, "max_batch_size", _INT64_VALUE),
        (2, "batch_timeout_micros", _INT64_VALUE),
        (3, "max_enqueued_batches", _INT64_VALUE),
        (4, "num_batch_threads", _INT64_VALUE),
        (5, "thread_pool_name", ".google.protobuf.StringValue"),
        (6, "allowed_batch_sizes", "repeated int64"),
        (7, "pad_variable_length_inputs", "bool"),
        (8, "enable_large_batch_splitting", ".google.protobuf.BoolValue"),
        (9, "max_execution_batch_size", _INT64_VALUE),
    ],
    "PrometheusConfig": [(1, "enable", "bool"), (2, "path", "string")],
    "MonitoringConfig": [(1, "prometheus_config", "PrometheusConfig")],
}

_message_class = message_classes(
    {"made": MESSAGES}, known=[wrappers_pb2.DESCRIPTOR]
)


def _parse_as(message: str, text: str) -> Any:
    return text_format.Parse(text, _message_class(f"made.{message}")())


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "export" / "serving"


@pytest.fixture(scope="module")
def readme(folder: Path) -> str:
    return (folder / "README.md").read_text("utf-8")


def _services(file: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(file.read_text("utf-8"))["services"])


@pytest.fixture(scope="module")
def services(folder: Path) -> dict[str, Any]:
    return _services(folder / "compose.yaml")


@pytest.fixture(scope="module")
def with_batching(folder: Path) -> dict[str, Any]:
    """What compose.batching.yaml puts in the place of, or beside, the rest."""
    return _services(folder / "compose.batching.yaml")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    pytest.importorskip("tensorflow_serving")
    from tensorflow_serving.config import model_server_config_pb2

    text = (folder / "config" / "models.config").read_text("utf-8")
    config = text_format.Parse(
        text, model_server_config_pb2.ModelServerConfig()
    )
    (found,) = config.model_config_list.config
    return found


def _flags(flags: list[str]) -> dict[str, str]:
    return dict(flag.removeprefix("--").split("=", 1) for flag in flags)


def _mounts(service: dict[str, Any]) -> dict[str, str]:
    return {mount["target"]: mount["source"] for mount in service["volumes"]}


def _resolve(text: str, variables: dict[str, str]) -> str:
    """Fills in `${NAME:-default}`, as compose does."""
    return re.sub(
        r"\$\{(\w+):-([^}]*)\}",
        lambda match: variables.get(match[1]) or match[2],
        text,
    )


def test_labels_name_versions_that_are_served(model: Any) -> None:
    assert model.name == "sparsectr"
    assert model.model_platform == "tensorflow"
    assert set(model.version_labels) == {"stable", "canary"}
    versions = set(model.model_version_policy.specific.versions)
    assert set(model.version_labels.values()) <= versions


def test_batching_agrees_with_the_export(folder: Path) -> None:
    text = (folder / "config" / "batching.config").read_text("utf-8")
    found = _parse_as("BatchingParameters", text)
    assert found == _parse_as(
        "BatchingParameters", Buckets().batching_params_text()
    )
    assert tuple(found.allowed_batch_sizes) == Buckets().batch_sizes
    assert found.allowed_batch_sizes[-1] == found.max_batch_size.value
    # Pads at the wrong end with a repeated value.
    assert not found.pad_variable_length_inputs
    # Parts of a request to serving_examples can differ in width.
    assert not found.enable_large_batch_splitting.value


def test_a_typo_does_not_parse() -> None:
    with pytest.raises(text_format.ParseError, match="max_batch"):
        _parse_as("BatchingParameters", "max_batch { value: 1 }")


def test_metrics_are_where_the_readme_says(folder: Path, readme: str) -> None:
    text = (folder / "config" / "monitoring.config").read_text("utf-8")
    found = _parse_as("MonitoringConfig", text).prometheus_config
    assert found.enable
    assert f"http://localhost:{REST_PORT}{found.path}\n" in readme


def test_session_sets_nothing_that_flags_overwrite(folder: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    text = (folder / "config" / "session.config").read_text("utf-8")
    found = text_format.Parse(text, tensorflow.compat.v1.ConfigProto())
    assert found.gpu_options.allow_growth
    assert found.intra_op_parallelism_threads == 0
    assert found.inter_op_parallelism_threads == 0
    assert found.gpu_options.per_process_gpu_memory_fraction == 0.0


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_service(
    kind: str,
    services: dict[str, Any],
    with_batching: dict[str, Any],
    folder: Path,
) -> None:
    service = services[kind]
    assert service["profiles"] == [kind]
    assert service["ports"] == [
        f"{port}:{port}" for port in (GRPC_PORT, REST_PORT)
    ]
    image = _resolve(service["image"], {})
    name, tag = image.split(":")
    assert name == "tensorflow/serving"
    assert re.fullmatch(r"\d+\.\d+\.\d+(-gpu)?", tag)
    assert tag.endswith("-gpu") == (kind == "gpu")
    flags = _flags(service["command"])
    flags |= _flags(with_batching[kind]["entrypoint"][1:])
    assert set(flags) <= set(SERVER_FLAGS.split())
    config = folder / _mounts(service)["/config"]
    files = {
        value.removeprefix("/config/")
        for value in flags.values()
        if value.startswith("/config/")
    }
    assert files == {path.name for path in config.iterdir()}


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_batching_comes_as_a_whole(
    kind: str, services: dict[str, Any], with_batching: dict[str, Any]
) -> None:
    # The server does not start with a file and without batching.
    assert "batching" not in " ".join(services[kind]["command"])
    # Nothing else of the service is replaced.
    assert with_batching[kind].keys() == {"entrypoint"}
    program, *given = with_batching[kind]["entrypoint"]
    assert program == "/usr/bin/tf_serving_entrypoint.sh"
    flags = _flags(given)
    assert flags == {
        "enable_batching": "true",
        "batching_parameters_file": "/config/batching.config",
        "enable_per_model_batching_parameters": "true",
    }


def test_readme_turns_batching_on(readme: str, folder: Path) -> None:
    (found,) = re.findall(r"docker compose -f (\S+) -f (\S+)", readme)
    assert all((folder / file).is_file() for file in found)
    # The later one replaces what both have.
    assert found == ("compose.yaml", "compose.batching.yaml")


class _Status(http.server.BaseHTTPRequestHandler):
    """Says what the server says of a version in some state."""

    state = ""

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        assert self.path == "/v1/models/sparsectr"
        version = {
            "version": "1",
            "state": self.state,
            "status": {"error_code": "UNAVAILABLE", "error_message": ""},
        }
        body = json.dumps({"model_version_status": [version]}, indent=1)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.fixture
def status_port() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Status)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("state", "is_healthy"), [("AVAILABLE", True), ("LOADING", False)]
)
def test_health_check(
    state: str,
    is_healthy: bool,
    services: dict[str, Any],
    status_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_Status, "state", state)
    for service in services.values():
        kind, *arguments = service["healthcheck"]["test"]
        assert kind == "CMD"
        assert f"/127.0.0.1/{REST_PORT} " in arguments[-1]
        # Compose would take it for a variable.
        assert "$" not in arguments[-1]
        arguments[-1] = arguments[-1].replace(str(REST_PORT), str(status_port))
        result = subprocess.run(arguments, timeout=30, check=False)
        assert (result.returncode == 0) == is_healthy


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_models_are_where_the_server_looks(
    kind: str, services: dict[str, Any], model: Any, folder: Path
) -> None:
    mounts = _mounts(services[kind])
    models = next(target for target in mounts if target == "/models")
    assert Path(model.base_path) == Path(models) / model.name
    # And where the README lets the export write them.
    source = (folder / _resolve(mounts[models], {})).resolve()
    assert source == folder.parent.parent / "models"


def test_each_service_has_what_its_device_needs(
    services: dict[str, Any],
) -> None:
    reservations = services["gpu"]["deploy"]["resources"]["reservations"]
    (device,) = reservations["devices"]
    assert device["capabilities"] == ["gpu"]
    assert services["gpu"]["environment"]["NVIDIA_TF32_OVERRIDE"] == "0"
    assert "deploy" not in services["cpu"]
    assert services["cpu"]["environment"] == {"TF_ENABLE_ONEDNN_OPTS": "0"}


def _bodies(readme: str) -> list[dict[str, Any]]:
    """The JSON that the shell commands of the README send."""
    found = re.findall(r"(?:-d|echo) '(\{\n.*?\n\})'", readme, re.DOTALL)
    return [json.loads(body.replace(r"'\''", "'")) for body in found]


def _names(signature: str) -> set[str]:
    inputs, _ = signatures(SCHEMA, SparseCTRRecipe())[signature]
    return {tensor.name for tensor in inputs}


def _check_tensors(signature: str, values: dict[str, Any]) -> None:
    inputs, _ = signatures(SCHEMA, SparseCTRRecipe())[signature]
    sizes: dict[str | int, int] = {}
    for tensor in inputs:
        if tensor.name not in values:
            continue
        found = np.asarray(values[tensor.name])
        kind = {"string": "U", "int64": "i", "float32": "f"}[tensor.dtype]
        assert found.dtype.kind == kind, tensor.name
        assert found.ndim == len(tensor.shape), tensor.name
        for axis, size in zip(tensor.shape, found.shape, strict=True):
            assert sizes.setdefault(axis, size) == size, tensor.name


def test_readme_has_a_body_for_each_signature(readme: str) -> None:
    bodies = {
        body.get("signature_name", "serving_default"): body["inputs"]
        for body in _bodies(readme)
    }
    assert set(bodies) == {"serving_default", "encode_user", "score"}
    for signature, values in bodies.items():
        _check_tensors(signature, values)
    assert set(bodies["serving_default"]) == _names("serving_default")
    assert set(bodies["encode_user"]) == _names("encode_user")
    # The rest of `score` is the answer of `encode_user`, put in by jq.
    _, state = signatures(SCHEMA, SparseCTRRecipe())["encode_user"]
    given = set(bodies["score"])
    assert given | {tensor.name for tensor in state} == _names("score")
    assert not given & {tensor.name for tensor in state}


def test_the_example_is_the_request_of_the_readme(
    folder: Path, readme: str
) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    assert "-d @examples_request.json" in readme
    text = (folder / "examples_request.json").read_text("utf-8")
    body = json.loads(text)
    assert body["signature_name"] == "serving_examples"
    (example,) = body["inputs"]["examples"]
    parsed = tensorflow.train.Example.FromString(
        base64.b64decode(example["b64"])
    )
    found = {}
    for name, feature in parsed.features.feature.items():
        values = getattr(feature, feature.WhichOneof("kind")).value
        found[name] = [
            v.decode() if isinstance(v, bytes) else v for v in values
        ]
    whole = next(b for b in _bodies(readme) if "signature_name" not in b)
    assert found == {
        # One request; a set in a list stands flat.
        name: np.ravel(values).tolist()
        for name, values in whole["inputs"].items()
    }


def test_commands_of_the_readme_reach_the_server(
    readme: str, model: Any
) -> None:
    urls = re.findall(r"http://localhost:(\d+)(/\S+)", readme)
    assert urls
    labels = "|".join(model.version_labels)
    allowed = (
        rf"/v1/models/{model.name}(/labels/({labels}))?(/metadata|:predict)?"
        r"|/monitoring/prometheus/metrics"
    )
    for port, path in urls:
        assert int(port) == REST_PORT
        assert re.fullmatch(allowed, path.rstrip("`.,)")), path
    found = set(re.findall(r"/labels/(\w+)", readme))
    assert found == set(model.version_labels)
    assert f"localhost:{GRPC_PORT}" in readme
