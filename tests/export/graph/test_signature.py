"""What the signatures say, without TensorFlow."""

import dataclasses
import subprocess
import sys

import pytest

from configs.models.sparse_ctr import SparseCTRRecipe
from export.graph.signature import (
    signature_json,
    signatures,
    state_tensors,
)
from tests.make_requests import SCHEMA

CONFIG = SparseCTRRecipe()


def _shapes(tensors):
    return {tensor.name: tensor.shape for tensor in tensors}


def test_state_has_one_size_whatever_the_history():
    shapes = _shapes(state_tensors(SCHEMA, CONFIG))
    # 16 chunks, 2 transition behaviours each, 5 local ones and the user.
    assert shapes["state_keys"] == ("B", 2, 54, 32)
    assert shapes["state_key_time"] == ("B", 53)
    # Four fields, a set among them, and a number.
    assert shapes["state_user"] == ("B", 4 * 32 + 1)
    numbers = 2 * (2 * 54 * 32) * 4 + 53 * (8 + 1 + 4) + 54 + 129 * 4
    assert CONFIG.state_spec(SCHEMA).num_bytes(1024) == numbers <= 64 * 1024


def test_full_attention_has_a_key_for_each_behavior():
    full = dataclasses.replace(CONFIG, attention="full")
    shapes = _shapes(state_tensors(SCHEMA, full))
    assert shapes["state_keys"] == ("B", 2, "L", 32)
    assert shapes["state_key_time"] == ("B", "L")


class BoundRecipe(SparseCTRRecipe):
    def state_spec(self, schema):
        spec = super().state_spec(schema)
        return dataclasses.replace(spec, bound_to_request_time=True)


def test_a_state_that_is_bound_to_a_time_is_made_for_it():
    for recipe, is_bound in ((CONFIG, False), (BoundRecipe(), True)):
        inputs, _ = signatures(SCHEMA, recipe)["encode_user"]
        assert ("request_time" in _shapes(inputs)) == is_bound


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
        SCHEMA,
        CONFIG,
        fingerprint=5,
        buckets={"batch_sizes": [1]},
        vocabularies={"brand": "0f"},
    )
    assert described["fingerprint"] == 5
    assert described["buckets"] == {"batch_sizes": [1]}
    assert described["vocabularies"] == {"brand": "0f"}
    for signature in described["signatures"].values():
        for tensor in [*signature["inputs"], *signature["outputs"]]:
            assert tensor["meaning"]
            is_list = tensor["name"].startswith(("behavior_", "candidate_"))
            assert is_list <= (tensor["padding"] is not None)


def test_every_raw_value_says_what_means_missing():
    text = dataclasses.replace(
        SCHEMA,
        tables=tuple(
            dataclasses.replace(table, value_type="string")
            if table.name == "brand"
            else table
            for table in SCHEMA.tables
        ),
    )
    described = signature_json(
        text, CONFIG, fingerprint=5, buckets={}, vocabularies={}
    )
    spaces = {
        tensor["name"]: tensor["id_space"]["missing"]
        for tensor in described["signatures"]["serving_default"]["inputs"]
        if tensor["id_space"]
    }
    texts = {"behavior_brand", "candidate_brand"}
    assert texts < spaces.keys()
    for name, missing in spaces.items():
        assert missing == ("" if name in texts else str(-(2**63)))


def test_needs_no_tensorflow(repository):
    code = (
        "import sys, export.graph.signature; print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
