"""Warm-up records: what the server reads, and which shapes there are."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from configs.models.sparse_ctr import SparseCTRRecipe
from data_pipelines.requests.buckets import Buckets
from export.graph.signature import (
    ENCODE_USER,
    EXAMPLES,
    SCORE,
    WHOLE_PASS,
    signatures,
)
from export.messages.request_example import serialized_example
from export.messages.tf_record import write_records
from export.requests.warm_up import (
    MAX_RECORDS,
    examples_of,
    read_warm_up,
    resized,
    warm_up_requests,
    write_warm_up,
)
from sparsectr.errors import InputError
from sparsectr.schema import (
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)

SCHEMA = DatasetSchema(
    name="shop",
    tables=(
        Table(name="item", size=11),
        Table(name="place", size=7, value_type="string"),
    ),
    user_fields=(CategoricalField(name="home", table="place"),),
    behavior_fields=(
        CategoricalField(name="item", table="item"),
        CategoricalField(name="place", table="place"),
    ),
    candidate_fields=(CategoricalField(name="item", table="item"),),
    candidate_dense_fields=(DenseField(name="price"),),
)
BUCKETS = Buckets(
    history_lengths=(2, 5), num_candidates=(3, 7), batch_sizes=(1, 4)
)
REQUESTS = {
    "user_home": np.array(["north", "süd"], object),
    "behavior_item": np.array([[0, 12, 13], [21, 22, 23]]),
    "behavior_place": np.array([["", "b", "c"], ["d", "e", "f"]], object),
    "behavior_time": np.array([[0, 102, 103], [201, 202, 203]]),
    "request_time": np.array([110, 210]),
    "candidate_item": np.array([[31, 32], [41, 42]]),
    "candidate_price": np.array([[1.5, np.nan], [2.5, 3.5]], np.float32),
}


def encode_user(inputs):
    """Stands for a model: the state tells what it was made from."""
    assert set(inputs) == {
        *("user_home", "behavior_item", "behavior_place", "behavior_time")
    }
    rows, length = inputs["behavior_time"].shape
    return {
        "state_keys": np.full((rows, 1, length, 1), 0.5, np.float32),
        "state_values": np.zeros((rows, 1, length, 1), np.float32),
        "state_key_time": inputs["behavior_time"],
        "state_key_has_fraction": np.zeros((rows, length), bool),
        "state_key_position": np.zeros((rows, length), np.int32),
        "state_key_mask": inputs["behavior_time"] > 0,
        "state_user": np.zeros((rows, 32), np.float32),
        "state_fingerprint": np.full(rows, 2**53 - 1),
    }


def records(config=None, xla_buckets=()):
    listed = signatures(SCHEMA, config or SparseCTRRecipe(), xla_buckets)
    return listed, warm_up_requests(listed, REQUESTS, BUCKETS, encode_user)


def shapes(found, signature, *names):
    return [
        tuple(inputs[name].shape for name in names)
        for name, inputs in found
        if name == signature
    ]


def test_every_shape_of_every_signature():
    listed, found = records()
    assert shapes(
        found, WHOLE_PASS, "request_time", "behavior_place", "candidate_price"
    ) == [
        ((b,), (b, length), (b, count))
        for b in (1, 4)
        for length in (2, 5)
        for count in (3, 7)
    ]
    assert shapes(found, ENCODE_USER, "user_home", "behavior_item") == [
        ((b,), (b, length)) for b in (1, 4) for length in (2, 5)
    ]
    # EvoAttention: the state is the same size for every history.
    assert shapes(found, SCORE, "request_time", "candidate_item") == [
        ((b,), (b, count)) for b in (1, 4) for count in (3, 7)
    ]
    assert shapes(found, EXAMPLES, "examples") == [((1,),), ((4,),)]
    for name, inputs in found:
        assert list(inputs) == [tensor.name for tensor in listed[name][0]]
    assert {name for name, _ in found} == listed.keys()


def test_state_as_long_as_the_history():
    _, found = records(dataclasses.replace(SparseCTRRecipe(), attention="full"))
    assert shapes(found, SCORE, "state_key_time", "candidate_item") == [
        ((b, length), (b, count))
        for b in (1, 4)
        for length in (2, 5)
        for count in (3, 7)
    ]


def test_compiled_signature_has_its_one_shape():
    _, found = records(xla_buckets=[(2, 3, 9)])
    assert shapes(
        found, "serving_xla_b2_l3_c9", "behavior_time", "candidate_price"
    ) == [((2, 3), (2, 9))]


def test_state_without_a_model():
    listed = signatures(SCHEMA, SparseCTRRecipe())
    with pytest.raises(ValueError, match="`encode_user` is needed"):
        warm_up_requests(listed, REQUESTS, BUCKETS)
    without_state = {WHOLE_PASS: listed[WHOLE_PASS]}
    assert len(warm_up_requests(without_state, REQUESTS, BUCKETS)) == 8


def test_resized():
    found = resized(REQUESTS, 3, 2, 3)
    assert found["request_time"].tolist() == [110, 210, 110]
    assert found["behavior_time"].tolist() == [
        *([102, 103], [202, 203], [102, 103])
    ]
    assert found["candidate_item"].tolist() == [
        *([31, 32, 31], [41, 42, 41], [31, 32, 31])
    ]
    found = resized(REQUESTS, 1, 5, 1)
    assert found["behavior_time"].tolist() == [[0, 0, 0, 102, 103]]
    assert found["behavior_place"].tolist() == [["", "", "", "b", "c"]]
    assert found["user_home"].tolist() == ["north"]


def _parsed(serialized):
    features = tf.train.Example.FromString(serialized).features.feature
    return {
        name: list(getattr(feature, feature.WhichOneof("kind")).value)
        for name, feature in features.items()
    }


def test_examples_have_no_padding():
    first, second = examples_of(REQUESTS, [1, 2])
    assert _parsed(first) == {
        "user_home": [b"north"],
        "behavior_item": [12, 13],
        "behavior_place": [b"b", b"c"],
        "behavior_time": [102, 103],
        "request_time": [110],
        "candidate_item": [31],
        "candidate_price": [1.5],
    }
    assert _parsed(second)["behavior_item"] == [21, 22, 23]
    assert _parsed(second)["user_home"] == ["süd".encode()]
    assert _parsed(second)["candidate_item"] == [41, 42]
    assert len(_parsed(examples_of(REQUESTS)[0])["candidate_price"]) == 2


def test_a_text_that_is_none():
    request = {"user_home": "a\ud83d", "request_time": 1}
    with pytest.raises(InputError, match="`user_home` has half of a character"):
        serialized_example(request)


def test_empty_lists_keep_their_kind():
    example = tf.train.Example.FromString(
        serialized_example(
            {
                "number": np.zeros(0, np.int64),
                "price": np.zeros(0, np.float32),
                "text": np.zeros(0, object),
            }
        )
    )
    kinds = {
        name: feature.WhichOneof("kind")
        for name, feature in example.features.feature.items()
    }
    assert kinds == {
        "number": "int64_list",
        "price": "float_list",
        "text": "bytes_list",
    }


def test_the_server_reads_what_is_written(tmp_path):
    _, found = records()
    path = tmp_path / "records"
    write_warm_up(path, found, "shop")
    contents = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    assert len(contents) == len(found)
    for content, (signature, inputs) in zip(contents, found, strict=True):
        log = prediction_log_pb2.PredictionLog.FromString(content)
        request = log.predict_log.request
        assert request.model_spec.name == "shop"
        assert request.model_spec.signature_name == signature
        assert request.inputs.keys() == inputs.keys()
        for name, value in inputs.items():
            tensor = tf.make_ndarray(request.inputs[name])
            assert tensor.shape == value.shape
            if value.dtype == object:
                texts = [
                    x if isinstance(x, bytes) else x.encode()
                    for x in value.ravel()
                ]
                assert tensor.ravel().tolist() == texts
            else:
                assert tensor.dtype == value.dtype
                np.testing.assert_array_equal(tensor, value)


def test_read_again(tmp_path):
    _, found = records()
    path = tmp_path / "records"
    write_warm_up(path, found, "shop")
    again = read_warm_up(path)
    assert [name for name, _ in again] == [name for name, _ in found]
    (_, first), (_, expected) = again[0], found[0]
    assert first.keys() == expected.keys()
    np.testing.assert_array_equal(
        first["candidate_price"], expected["candidate_price"]
    )
    assert first["user_home"].tolist() == [b"north"]


def test_more_than_the_server_reads(tmp_path):
    path = tmp_path / "records"
    record = (EXAMPLES, {"examples": np.array([b""], object)})
    write_warm_up(path, [record] * MAX_RECORDS, "shop")
    assert len(read_warm_up(path)) == 1000
    with pytest.raises(ValueError, match="at most 1000"):
        write_warm_up(path, [record] * (MAX_RECORDS + 1), "shop")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xff\xff", "records, record 0: "),
        (b"", "records, record 0: not a request to predict"),
    ],
)
def test_records_that_are_no_requests(content, message, tmp_path):
    path = tmp_path / "records"
    write_records(path, [content])
    with pytest.raises(InputError, match=message):
        read_warm_up(path)
