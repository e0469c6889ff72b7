"""The double answers as TensorFlow Serving is known to."""

import json
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export.client_parts.grpc_transport import GrpcTransport
from export.client_parts.rest_transport import RestTransport
from export.client_parts.server_error import ServerError
from export.stand_in_server.serving import serving
from tests.commands import assert_refused
from tests.export.toy_model import save_toy_model

INPUTS = {
    "user_city": np.array(["a", "b"], object),
    "behavior_brand": np.array([[1, 2, 3], [4, 5, 6]]),
    "behavior_time": np.array([[10, 20, 30], [0, 0, 20]]),
    "request_time": np.array([40, 50]),
    "candidate_brand": np.array([[1, 2], [3, 4]]),
    "candidate_price": np.array([[0.5, np.nan], [1.5, 2.0]], np.float32),
}


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "4"
    save_toy_model(path, fingerprint=7)
    with serving(path) as double:
        double.labels["stable"] = 4
        yield double


@pytest.fixture
def expected(double):
    inputs = {
        **INPUTS,
        "user_city": np.array([b"a", b"b"], object),
    }
    return double.run("serving_default", inputs)["probability"]


@pytest.fixture
def stub(double):
    with grpc.insecure_channel(double.grpc_server) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def to_request(
    inputs, signature="", model="sparsectr", version=None, label=None
):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


def call_rest(double, path, body=None):
    """Returns status and JSON of an answer, as curl would get them."""
    content = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            double.rest_server + path, content, timeout=20
        ) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def as_lists(inputs):
    return {name: array.tolist() for name, array in inputs.items()}


@pytest.mark.parametrize("which", [{}, {"version": 4}, {"label": "stable"}])
def test_predict_by_grpc(stub, expected, which):
    answer = stub.Predict(to_request(INPUTS, **which))
    assert list(answer.outputs) == ["probability"]
    # The server sends values in the field of their type.
    assert len(answer.outputs["probability"].float_val) == 4
    array = tf.make_ndarray(answer.outputs["probability"])
    np.testing.assert_array_equal(array, expected)


BAD_INPUTS = {
    "missing": {k: v for k, v in INPUTS.items() if k != "request_time"},
    "extra": {**INPUTS, "label": INPUTS["candidate_brand"]},
    "float ids": {**INPUTS, "behavior_brand": np.zeros([2, 3], np.float32)},
    "int32 ids": {**INPUTS, "behavior_brand": np.zeros([2, 3], np.int32)},
    "shapes": {**INPUTS, "candidate_brand": np.zeros([2, 5], np.int64)},
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_inputs_by_grpc(stub, case):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(to_request(BAD_INPUTS[case]))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"signature": "other"}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"model": "other"}, grpc.StatusCode.NOT_FOUND),
        ({"version": 3}, grpc.StatusCode.NOT_FOUND),
        ({"label": "other"}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_codes_of_grpc(stub, changes, code):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(to_request(INPUTS, **changes))
    assert caught.value.code() == code


def test_metadata_by_grpc(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        metadata_field=["signature_def"]
    )
    request.model_spec.name = "sparsectr"
    answer = stub.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    score = signatures.signature_def["score"]
    assert score.inputs["state_values"].dtype == tf.float32.as_datatype_enum
    request.model_spec.name = "other"
    with pytest.raises(grpc.RpcError) as caught:
        stub.GetModelMetadata(request)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("version", ["", "/versions/4", "/labels/stable"])
def test_predict_by_columns(double, expected, version):
    path = f"/v1/models/sparsectr{version}:predict"
    status, answer = call_rest(double, path, {"inputs": as_lists(INPUTS)})
    assert status == 200
    # The name of an only output is left out.
    np.testing.assert_array_equal(np.float32(answer["outputs"]), expected)


def test_predict_by_rows(double, expected):
    columns = as_lists(INPUTS)
    rows = [{k: v[row] for k, v in columns.items()} for row in range(2)]
    path = "/v1/models/sparsectr:predict"
    status, answer = call_rest(double, path, {"instances": rows})
    assert status == 200
    np.testing.assert_array_equal(np.float32(answer["predictions"]), expected)
    users = [
        {k: v for k, v in row.items() if k.startswith(("user_", "behavior_"))}
        for row in rows
    ]
    status, answer = call_rest(
        double, path, {"signature_name": "encode_user", "instances": users}
    )
    assert status == 200
    assert [sorted(row) for row in answer["predictions"]] == [
        ["state_fingerprint", "state_key_mask", "state_values"]
    ] * 2
    assert answer["predictions"][0]["state_fingerprint"] == 7


@pytest.mark.parametrize(
    ("case", "status"),
    [
        ("missing", 400),
        # The server takes from the JSON what it looks for.
        ("extra", 200),
        ("float ids", 400),
        ("shapes", 400),
    ],
)
def test_bad_inputs_by_rest(double, case, status):
    found, answer = call_rest(
        double,
        "/v1/models/sparsectr:predict",
        {"inputs": as_lists(BAD_INPUTS[case])},
    )
    assert found == status
    assert ("error" in answer) == (status != 200)


@pytest.mark.parametrize(
    ("name", "values", "status"),
    [
        ("behavior_brand", [[1, 2, 3], [4, 5, 6.0]], 400),
        ("behavior_brand", [[1, 2, 3], [4, 5, True]], 400),
        ("behavior_brand", [[1, 2, 3], [4, 5]], 400),
        # Any number is good for a float.
        ("candidate_price", [[0.5, 1], [2, 3]], 200),
        ("candidate_price", [[0.5, 1], [2, True]], 400),
        ("candidate_price", [[0.5, 1], [2, "3"]], 400),
        ("candidate_price", [[0.5, 1], [2, None]], 400),
        ("user_city", ["a", {"b64": "YQ=="}], 200),
        ("user_city", ["a", 1], 400),
        ("user_city", ["a", ["b"]], 400),
        ("user_city", [["a"], "b"], 400),
    ],
)
def test_types_by_rest(double, name, values, status):
    body = {"inputs": {**as_lists(INPUTS), name: values}}
    found, answer = call_rest(double, "/v1/models/sparsectr:predict", body)
    assert found == status, answer


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("other:predict", {"inputs": {}}, 404),
        ("sparsectr/versions/3:predict", {"inputs": {}}, 404),
        ("sparsectr:predict", {"inputs": {}, "signature_name": "other"}, 400),
        ("sparsectr:predict", {}, 400),
        ("sparsectr/labels/other:predict", {"inputs": {}}, 400),
        ("sparsectr:classify", {"examples": []}, 400),
        ("other", None, 404),
        ("other/metadata", None, 404),
        ("sparsectr/labels/other/metadata", None, 400),
    ],
)
def test_statuses_of_rest(double, path, body, status):
    found, answer = call_rest(double, f"/v1/models/{path}", body)
    assert found == status
    assert list(answer) == ["error"]


def test_status_by_rest(double):
    assert call_rest(double, "/v1/models/sparsectr") == (
        200,
        {
            "model_version_status": [
                {
                    "version": "4",
                    "state": "AVAILABLE",
                    "status": {"error_code": "OK", "error_message": ""},
                }
            ]
        },
    )


@pytest.mark.parametrize("version", ["", "/versions/4", "/labels/stable"])
def test_metadata_by_rest(double, version):
    path = f"/v1/models/sparsectr{version}/metadata"
    status, answer = call_rest(double, path)
    assert status == 200
    assert answer["model_spec"]["version"] == "4"
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    info = signatures["score"]["inputs"]["state_values"]
    assert info["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in info["tensor_shape"]["dim"]] == ["-1", "2"]


@pytest.mark.parametrize("case", ["missing", "float ids", "shapes"])
@pytest.mark.parametrize("is_rest", [False, True])
def test_the_transports_name_the_code(double, is_rest, case):
    transport = (
        RestTransport(double.rest_server, "sparsectr")
        if is_rest
        else GrpcTransport(double.grpc_server, "sparsectr")
    )
    outputs = transport.signatures(20.0)["serving_default"].outputs
    with pytest.raises(ServerError, match=r"^INVALID_ARGUMENT: "):
        transport.predict("serving_default", BAD_INPUTS[case], outputs, 20.0)
    transport.close()


def test_both_transports_read_the_same_signatures(double):
    by_grpc = GrpcTransport(double.grpc_server, "sparsectr", label="stable")
    by_rest = RestTransport(double.rest_server, "sparsectr", 4)
    signatures = by_grpc.signatures(20.0)
    assert signatures == by_rest.signatures(20.0)
    assert sorted(signatures) == ["encode_user", "score", "serving_default"]
    by_grpc.close()
    by_rest.close()


def test_command_refuses_what_is_no_version(command, tmp_path):
    done = command("export.stand_in_server", f"--version={tmp_path}")
    assert_refused(done, f"--version: {tmp_path} is not a version")
