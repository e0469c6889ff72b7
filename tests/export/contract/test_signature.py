"""What the signatures say, without TensorFlow."""

import dataclasses
import json
import subprocess
import sys

import pytest

from export.contract.signature import (
    missing_of_inputs,
    missing_of_tables,
    signature_json,
    signatures,
    state_tensors,
)
from sparsectr.config import ModelConfig
from tests.make_requests import SCHEMA

CONFIG = ModelConfig()


def _shapes(tensors):
    return {tensor.name: tensor.shape for tensor in tensors}


def test_state_has_one_size_whatever_the_history():
    shapes = _shapes(state_tensors(SCHEMA, CONFIG))
    # 16 chunks, 2 transition behaviours each, 5 local ones and the user.
    assert shapes["state_keys"] == ("B", 2, 54, 32)
    assert shapes["state_key_time"] == ("B", 53)
    assert shapes["state_user"] == ("B", 3 * 32)
    numbers = 2 * (2 * 54 * 32) * 4 + 53 * 8 + 54 + 96 * 4 + 8
    assert numbers <= 64 * 1024


def test_full_attention_has_a_key_for_each_behavior():
    full = dataclasses.replace(CONFIG, attention="full")
    shapes = _shapes(state_tensors(SCHEMA, full))
    assert shapes["state_keys"] == ("B", 2, "S", 32)
    assert shapes["state_key_time"] == ("B", "T")


def test_mean_pooling_has_no_state():
    pooling = dataclasses.replace(CONFIG, name="mean_pooling")
    assert list(signatures(SCHEMA, pooling)) == [
        *("serving_default", "serving_examples")
    ]


@pytest.mark.parametrize("bucket", [(1, 1024, 128), (3, 5, 7)])
def test_compiled_signature_has_one_shape(bucket):
    name = "serving_xla_b{}_l{}_c{}".format(*bucket)
    batch, length, num_candidates = bucket
    inputs, outputs = signatures(SCHEMA, CONFIG, [bucket])[name]
    shapes = _shapes(inputs)
    assert shapes["request_time"] == (batch,)
    assert shapes["behavior_time"] == (batch, length)
    assert shapes["candidate_price"] == (batch, num_candidates)
    assert _shapes(outputs) == {"probability": (batch, num_candidates)}


def test_every_tensor_is_described():
    described = signature_json(
        SCHEMA, CONFIG, fingerprint=5, buckets={"batch_sizes": [1]}
    )
    assert described["fingerprint"] == 5
    assert described["buckets"] == {"batch_sizes": [1]}
    for signature in described["signatures"].values():
        for tensor in [*signature["inputs"], *signature["outputs"]]:
            assert tensor["meaning"]
            is_list = tensor["name"].startswith(("behavior_", "candidate_"))
            assert is_list <= (tensor["padding"] is not None)


def test_missing_values_are_those_of_the_tables():
    table = SCHEMA.table("brand")
    text = dataclasses.replace(
        SCHEMA,
        tables=tuple(
            dataclasses.replace(t, value_type="string") if t == table else t
            for t in SCHEMA.tables
        ),
    )
    missing = {"brand": "\0missing", "city": 5 - 2**63}
    described = json.loads(
        json.dumps(
            signature_json(
                text, CONFIG, fingerprint=5, buckets={}, missing=missing
            )
        )
    )
    by_table = missing_of_tables(described)
    assert by_table == {t.name: -(2**63) for t in SCHEMA.tables} | missing
    by_input = missing_of_inputs(described)
    assert by_input["behavior_brand"] == by_input["candidate_brand"]
    assert by_input["candidate_brand"] == "\0missing"
    assert by_input["user_city"] == 5 - 2**63
    assert by_input["user_age"] == -(2**63)
    assert by_input.keys() == {
        *("user_age", "user_city", "user_gender", "behavior_item"),
        *("behavior_brand", "candidate_brand", "candidate_item"),
        "candidate_place",
    }
    for signature in described["signatures"].values():
        for tensor in signature["inputs"]:
            if tensor["name"] == "user_city":
                assert "-9223372036854775803 if missing" in tensor["meaning"]


def test_needs_no_tensorflow(repository):
    code = (
        "import sys, export.contract.signature; "
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
