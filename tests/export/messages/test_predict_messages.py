import math
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_log_pb2,
)

from export.messages import predict_messages
from export.messages.predict_messages import (
    predict_request,
    to_array,
    to_tensor,
)
from tests.commands import ROOT

ARRAYS = {
    "float32": np.array([[0.5, math.nan, -math.inf]], np.float32),
    "float64": np.array([1e300, -0.0]),
    "int32": np.array([[1], [-(2**31)]], np.int32),
    "int64": np.array([-(2**63), 2**53 + 1]),
    "bool": np.array([[True, False, True]]),
    "bytes": np.array([b"", b"\xff\x00", b"ab"], object),
    "scalar": np.int64(7),
    "empty": np.zeros((2, 0, 3), np.float32),
    "no texts": np.zeros((0, 2), object),
    "big endian": np.arange(3, dtype=">i8"),
    "not contiguous": np.arange(6).reshape(2, 3).T,
}


@pytest.mark.parametrize("name", ARRAYS)
def test_tensorflow_reads_a_tensor(name):
    array = ARRAYS[name]
    bytes_ = to_tensor(array).SerializeToString()
    theirs = tf.make_ndarray(tensor_pb2.TensorProto.FromString(bytes_))
    assert theirs.dtype == np.asarray(array).dtype.newbyteorder("=")
    np.testing.assert_array_equal(theirs, array)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_tensor_comes_back(name):
    array = ARRAYS[name]
    back = to_array(to_tensor(array))
    assert back.dtype == np.asarray(array).dtype.newbyteorder("=")
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("name", ARRAYS)
def test_tensors_of_tensorflow_are_read(name):
    array = np.asarray(ARRAYS[name])
    theirs = tf.make_tensor_proto(array.astype(array.dtype.newbyteorder("=")))
    np.testing.assert_array_equal(to_array(theirs), array)


@pytest.mark.parametrize(
    ("dtype", "field", "values"),
    [
        ("float32", "float_val", [0.5, 0.25]),
        ("float64", "double_val", [0.5, 0.25]),
        ("int32", "int_val", [3, -1]),
        ("int64", "int64_val", [3, -(2**63)]),
        ("bool", "bool_val", [False, True]),
        ("string", "string_val", [b"a", b""]),
    ],
)
@pytest.mark.parametrize("size", [2, 5])
def test_values_in_the_field_of_their_type(dtype, field, values, size):
    theirs = tensor_pb2.TensorProto(
        dtype=tf.as_dtype(dtype).as_datatype_enum,
        tensor_shape=tf.TensorShape([size]).as_proto(),
        **{field: values},
    )
    # TensorFlow repeats the last value where some are left out.
    expected = values + values[-1:] * (size - 2)
    assert tf.make_ndarray(theirs).tolist() == expected
    ours = predict_messages.TensorProto.FromString(theirs.SerializeToString())
    assert to_array(ours).tolist() == expected
    assert to_array(ours).dtype == tf.make_ndarray(theirs).dtype


def test_texts_are_sent_as_utf_8():
    for array in (np.array(["é", ""]), np.array(["é", b""], object)):
        assert to_array(to_tensor(array)).tolist() == ["é".encode(), b""]


def test_a_list_of_texts_is_sent_as_it_is():
    texts = ["a\0", b"\0", "longer"]
    assert to_array(to_tensor(texts)).tolist() == [b"a\0", b"\0", b"longer"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([None]), "Not a text: None"),
        (["a", 3], "Not a text: 3"),
        (np.array([1.0], np.float16), "type float16 cannot be sent"),
        (np.array(["2026"], "datetime64"), "datetime64.* cannot be sent"),
    ],
)
def test_what_cannot_be_sent(array, message):
    with pytest.raises(ValueError, match=message):
        to_tensor(array)


def test_tensors_that_are_not_whole():
    tensor = to_tensor(np.zeros([3]))
    tensor.tensor_content = tensor.tensor_content[:16]
    with pytest.raises(ValueError, match=r"shape \(3,\) with 2 values"):
        to_array(tensor)
    tensor.tensor_content = b""
    with pytest.raises(ValueError, match=r"shape \(3,\) with 0 values"):
        to_array(tensor)
    tensor.dtype = 8
    with pytest.raises(ValueError, match="data type 8"):
        to_array(tensor)
    tensor = to_tensor(np.array(["a"]))
    tensor.tensor_content = b"\x01a"
    with pytest.raises(ValueError, match="Texts in `tensor_content`"):
        to_array(tensor)


@pytest.mark.parametrize(
    ("version", "label"), [(None, None), (0, None), (12, None), (None, "new")]
)
def test_a_request_is_that_of_tensorflow_serving(version, label):
    ours = predict_request(
        "sparsectr",
        "score",
        {
            "candidate_price": ARRAYS["float32"],
            "candidate_brand": np.array([["x", "yz"]]),
        },
        version,
        label,
    )
    theirs = predict_pb2.PredictRequest()
    theirs.model_spec.name = "sparsectr"
    theirs.model_spec.signature_name = "score"
    if version is not None:
        theirs.model_spec.version.value = version
    if label is not None:
        theirs.model_spec.version_label = label
    theirs.inputs["candidate_price"].CopyFrom(
        tf.make_tensor_proto(ARRAYS["float32"])
    )
    theirs.inputs["candidate_brand"].CopyFrom(
        tf.make_tensor_proto(np.array([["x", "yz"]]))
    )
    received = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
    # Both print a tensor's bytes, and a map in the order of its keys.
    assert str(received) == str(theirs)
    assert ours.SerializeToString(deterministic=True) == (
        theirs.SerializeToString(deterministic=True)
    )


def test_a_log_and_an_answer_are_those_of_tensorflow_serving():
    log = predict_messages.PredictionLog()
    request = predict_request("sparsectr", "score", {"x": [1, 2]})
    log.predict_log.request.CopyFrom(request)
    log.predict_log.response.outputs["probability"].CopyFrom(
        to_tensor(np.float32([0.5]))
    )
    theirs = prediction_log_pb2.PredictionLog.FromString(
        log.SerializeToString()
    )
    assert theirs.WhichOneof("log_type") == "predict_log"
    assert theirs.predict_log.request.model_spec.signature_name == "score"
    output = theirs.predict_log.response.outputs["probability"]
    assert tf.make_ndarray(output).tolist() == [0.5]


def test_metadata_are_those_of_tensorflow_serving():
    request = predict_messages.GetModelMetadataRequest(
        metadata_field=["signature_def"]
    )
    request.model_spec.name = "sparsectr"
    their_request = get_model_metadata_pb2.GetModelMetadataRequest.FromString(
        request.SerializeToString()
    )
    assert their_request.metadata_field == ["signature_def"]
    assert their_request.model_spec.name == "sparsectr"

    signatures = get_model_metadata_pb2.SignatureDefMap()
    info = signatures.signature_def["score"].inputs["state_values"]
    info.dtype = tf.float32.as_datatype_enum
    info.tensor_shape.CopyFrom(tf.TensorShape([None, 3]).as_proto())
    theirs = get_model_metadata_pb2.GetModelMetadataResponse()
    theirs.metadata["signature_def"].Pack(signatures)
    ours = predict_messages.GetModelMetadataResponse.FromString(
        theirs.SerializeToString()
    )
    read = predict_messages.SignatureDefMap.FromString(
        ours.metadata["signature_def"].value
    )
    info = read.signature_def["score"].inputs["state_values"]
    assert predict_messages.data_type_name(info.dtype) == "float32"
    assert [dim.size for dim in info.tensor_shape.dim] == [-1, 3]


def test_tensorflow_is_not_needed():
    code = (
        "import sys\n"
        "sys.modules['tensorflow'] = sys.modules['tensorflow_serving'] = None\n"
        "from export.messages.predict_messages import *\n"
        "request = predict_request('m', 's', {'x': [1, 2]})\n"
        "print(to_array(request.inputs['x']).tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (done.stdout, done.stderr) == ("[1, 2]\n", "")
