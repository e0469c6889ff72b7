"""Raw values get the very ids of the store, in the graph that is served."""

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from data_pipelines.prepare import prepare
from data_pipelines.requests.raw_tensors import (
    MISSING_INTEGER,
    MISSING_TEXT,
    user_inputs,
)
from data_pipelines.requests.request_table import RequestTable
from data_pipelines.requests.tensor_type import TensorType
from data_pipelines.stores.hashing import mix, split_mix
from data_pipelines.stores.vocabulary import Vocabulary, arrow_type
from export.requests.logged_requests import logged_batches
from sparsectr.config import DataConfig
from sparsectr.prediction.raw_ids import RawIds
from sparsectr.schema import CategoricalField, DatasetSchema, Table
from tests.data_pipelines import own_shop, raw_files
from tests.tiny_run import tiny_folder, tiny_store

__all__ = ["tiny_folder", "tiny_store"]

LOWEST, HIGHEST = -(2**63), 2**63 - 1
INTEGERS = [0, 1, -1, 7, 2**53, 2**53 + 1, HIGHEST, HIGHEST - 1, LOWEST + 1]
TEXTS = ["a", " a", "a ", "ä", "长", "a\tb", "a\0b", "1", "NULL", "#"]


def _raw_ids(folder, **tables):
    """Returns the look-up of tables by their vocabulary."""
    schema = DatasetSchema(
        name="made",
        tables=tuple(v.table for v in tables.values()),
        user_fields=(),
        behavior_fields=(CategoricalField(name="b", table=next(iter(tables))),),
        candidate_fields=(
            CategoricalField(name="c", table=next(iter(tables))),
        ),
    )
    folder.mkdir(exist_ok=True)
    return RawIds(schema, tables, folder, 10)


def _vocabulary(values, value_type):
    return Vocabulary(Table(name="t", value_type=value_type), values)


@tf.function(autograph=False)
def _mixed(numbers):
    return split_mix(
        tf.bitcast(numbers, tf.uint64),
        tf.bitwise.right_shift,
        lambda number: tf.constant(number, tf.uint64),
    )


def test_one_arithmetic_in_numpy_and_in_a_graph():
    drawn = np.random.default_rng(1).integers(LOWEST, HIGHEST, 9973)
    numbers = np.concatenate([[*INTEGERS, LOWEST], drawn])
    np.testing.assert_array_equal(_mixed(numbers).numpy(), mix(numbers))


@pytest.mark.parametrize("size", [3, 5, 1009, 2**31 - 1])
def test_hashed_ids(size, tmp_path):
    vocabulary = Vocabulary(Table(name="t", kind="hashed", size=size))
    drawn = np.random.default_rng(2).integers(LOWEST + 1, HIGHEST, 997)
    numbers = np.concatenate([INTEGERS, drawn]).reshape(2, -1)
    ids = _raw_ids(tmp_path, t=vocabulary).ids("t", tf.constant(numbers))
    assert ids.dtype == tf.int32
    expected = vocabulary.encode(pa.chunked_array([numbers.ravel()]))
    np.testing.assert_array_equal(ids.numpy().ravel(), expected)


@pytest.mark.parametrize(
    ("values", "value_type", "unknown"),
    [
        (INTEGERS, "int", [2, -7, 2**53 - 1]),
        (TEXTS, "string", ["b", "a\0", "A", "a\n"]),
        ([*TEXTS, "a\nb", "\r", "b\r"], "string", ["a\n", "b", "a\r"]),
        ([], "int", [0, 5]),
        ([], "string", ["a"]),
    ],
)
def test_vocabulary_ids(values, value_type, unknown, tmp_path):
    vocabulary = _vocabulary(values, value_type)
    raw = [*values, *unknown]
    dtype = {"int": tf.int64, "string": tf.string}[value_type]
    raw_ids = _raw_ids(tmp_path, t=vocabulary)
    found = raw_ids.ids("t", tf.constant(raw, dtype))
    assert found.dtype == tf.int32
    column = pa.chunked_array([pa.array(raw)])
    assert found.numpy().tolist() == vocabulary.encode(column).tolist()
    assert found.numpy().tolist()[len(values) :] == [1] * len(unknown)


@pytest.mark.parametrize(
    ("table", "values", "missing"),
    [
        (Table(name="t"), [5, LOWEST + 1], MISSING_INTEGER),
        (Table(name="t"), [], MISSING_INTEGER),
        (Table(name="t", kind="hashed", size=9), None, MISSING_INTEGER),
        (Table(name="t", value_type="string"), ["a"], MISSING_TEXT),
        (Table(name="t", value_type="string"), [], MISSING_TEXT),
    ],
)
def test_missing_in_files_and_in_requests(table, values, missing, tmp_path):
    vocabulary = Vocabulary(table, values)
    raw_ids = _raw_ids(tmp_path, t=vocabulary)
    assert raw_ids.ids("t", tf.constant([missing])).numpy() == [0]
    column = pa.chunked_array([[None, missing]], arrow_type(table))
    assert vocabulary.encode(column).tolist() == [0, 0]


def _save(folder, values, value_type):
    raw_ids = _raw_ids(folder, t=_vocabulary(values, value_type))
    module = tf.Module()
    module.lookups = list(raw_ids.lookups.values())
    dtype = {"int": tf.int64, "string": tf.string}[value_type]
    module.ids = tf.function(
        lambda raw: raw_ids.ids("t", raw),
        input_signature=[tf.TensorSpec([None], dtype)],
        autograph=False,
    )
    tf.saved_model.save(module, str(folder / "model"))
    for path in folder.glob("*.txt"):
        path.unlink()
    # Not where it was written.
    return tf.saved_model.load(str((folder / "model").rename(folder / "1")))


@pytest.mark.parametrize(
    ("values", "value_type"),
    [(INTEGERS, "int"), (TEXTS, "string"), ([*TEXTS, "\n"], "string")],
)
def test_two_versions_in_one_process(values, value_type, tmp_path):
    first = _save(tmp_path / "a", values, value_type)
    second = _save(tmp_path / "b", values[::-1], value_type)
    ids = list(range(2, 2 + len(values)))
    raw = tf.constant(values)
    assert first.ids(raw).numpy().tolist() == ids
    assert second.ids(raw).numpy().tolist() == ids[::-1]


def test_history_is_cut_and_masked(tmp_path):
    raw_ids = _raw_ids(tmp_path, t=_vocabulary([5, 6], "int"))
    time = np.array([[0, *range(1, 12)], [-3] * 9 + [0, 8, 9]])
    values = np.full(time.shape, 6)
    found = raw_ids.behaviors(
        {"behavior_time": tf.constant(time), "behavior_b": tf.constant(values)}
    )
    expected = np.maximum(time[:, -10:], 0)
    np.testing.assert_array_equal(found["behavior_time"], expected)
    np.testing.assert_array_equal(found["behavior_b"], 3 * (expected > 0))


# Real stores: requests as they were logged get the ids that training reads.


def _assert_same_ids(store, folder):
    vocabularies = store.vocabularies()
    raw_ids = RawIds(store.schema, vocabularies, folder, 1024)
    config = DataConfig(max_history=1024, length_buckets=(16, 128))
    num_requests = num_ids = 0
    for raw, ids in logged_batches(store, config, 64):
        tensors = {name: tf.constant(v) for name, v in raw.items()}
        found = raw_ids.request(tensors)
        # What is behind the last candidate is not read.
        is_real = ids["candidate_mask"]
        assert found.keys() == ids.keys() - {"label", "candidate_mask"}
        for name, value in found.items():
            assert value.dtype == ids[name].dtype, name
            expected = _as_wide(ids[name], value.shape)
            if name.startswith("candidate_"):
                value, expected = value.numpy()[is_real], expected[is_real]
            np.testing.assert_array_equal(value, expected, name)
            num_ids += np.count_nonzero(expected)
        num_requests += len(is_real)
    assert num_requests == min(store.num_requests("test"), 256)
    assert num_ids > 0


def _as_wide(sets, shape):
    """The reader's sets are as wide as the longest of the store."""
    if sets.ndim < 3:
        return sets
    return np.pad(sets, [(0, 0), (0, 0), (0, shape[2] - sets.shape[2])])


def test_movielens_store(tmp_path):
    raw_dir = raw_files.write(tmp_path / "raw", raw_files.MOVIELENS)
    _assert_same_ids(
        prepare("movielens", raw_dir, tmp_path / "store"), tmp_path
    )


def test_alibaba_sample(tiny_store, tmp_path):
    _assert_same_ids(tiny_store, tmp_path)


def test_own_tables(tmp_path):
    hashed = '[tables.thing]\nkind = "hashed"\nsize = 1000\n'
    store = own_shop.make(tmp_path, own_shop.SCHEMA + hashed)
    assert store.schema.table("thing").kind == "hashed"
    _assert_same_ids(store, tmp_path)


def test_kuairand(shared_data, tmp_path):
    raw_dir = shared_data / "kuairand_pure"
    store = prepare("kuairand", pathlib.Path(raw_dir), tmp_path / "store")
    _assert_same_ids(store, tmp_path)


@pytest.mark.parametrize("others", ["tv", ""])
def test_null_and_empty_texts_are_one(others, tmp_path):
    """In preparation, graph, its signature and the client's table."""
    null, test_only = None, "new"
    device = [null, "", others, others, "", "", test_only, "tv"]
    store = own_shop.make(
        tmp_path, tables=own_shop.changed("shown", device=device)
    )
    vocabulary = store.vocabulary("device")
    values = vocabulary.values.to_pylist()
    assert values == [text for text in {others} if text]
    raw_ids = RawIds(store.schema, {"device": vocabulary}, tmp_path, 4)
    sent = ["", test_only, *values]
    ids = raw_ids.ids("device", tf.constant(sent)).numpy().tolist()
    assert ids == [0, 1, *range(2, len(sent))]
    of_text = dict(zip(sent, ids, strict=True))
    columns = [store.shards[0].splits[s] for s in ("train", "test")]
    found = [c.users["device"].tolist() for c in columns]
    # Views a, b and c; e, and d of the other user.
    assert found == [
        [of_text[others], 0, 0],
        [of_text[test_only], 0],
    ]
    (tensor,) = user_inputs(store.schema)[1:]
    assert (tensor.name, tensor.id_space["missing"]) == ("user_device", "")
    table = pa.table({"user_device": pa.array([None, "", test_only])})
    pq.write_table(table, tmp_path / "requests.parquet")
    inputs = {"user_device": TensorType("string", (-1,))}
    reader = RequestTable(tmp_path / "requests.parquet", inputs)
    ((_, requests),) = reader.batches(3)
    texts = tf.constant([r["user_device"] for r in requests])
    assert raw_ids.ids("device", texts).numpy().tolist() == [0, 0, 1]
    _assert_same_ids(store, tmp_path)


def test_a_vocabulary_holds_no_missing_value():
    for value_type, missing in (("string", ""), ("int", LOWEST)):
        with pytest.raises(ValueError, match="'t' has a row for a missing"):
            _vocabulary([missing], value_type)
