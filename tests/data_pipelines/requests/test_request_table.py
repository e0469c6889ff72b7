import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.requests.padding import check_request
from data_pipelines.requests.request_table import (
    RequestTable,
    request_tables,
    write_requests,
)
from data_pipelines.requests.score_writer import score_writer
from data_pipelines.requests.tensor_type import TensorType
from sparsectr.errors import InputError

INPUTS = {
    "user_age": TensorType("int64", (-1,)),
    "user_city": TensorType("string", (-1,)),
    "behavior_shop": TensorType("int64", (-1, -1)),
    "behavior_tag": TensorType("string", (-1, -1)),
    "behavior_time": TensorType("int64", (-1, -1)),
    "request_time": TensorType("int64", (-1,)),
    "candidate_price": TensorType("float32", (-1, -1)),
}

REQUESTS = [
    {
        "user_age": -(2**63),
        "user_city": "é",
        "behavior_shop": np.array([2**63 - 1, 7]),
        "behavior_tag": np.array(["x", ""], object),
        "behavior_time": np.array([5, 6]),
        "request_time": 9,
        "candidate_price": np.float32([np.nan, 1.5, -2.0]),
    },
    {
        "user_age": 3,
        "user_city": "",
        "behavior_shop": np.zeros(0, np.int64),
        "behavior_tag": np.zeros(0, object),
        "behavior_time": np.zeros(0, np.int64),
        "request_time": 8,
        "candidate_price": np.zeros(0, np.float32),
    },
]

ROW = {
    "user_age": 1,
    "user_city": "a",
    "behavior_shop": [1, 2],
    "behavior_tag": ["x", "y"],
    "behavior_time": [5, 6],
    "request_time": 9,
    "candidate_price": [0.5],
}


def write(path, columns, rows=2):
    """Writes rows that are `ROW` but for some columns."""
    table = {name: [value] * rows for name, value in ROW.items()} | columns
    pq.write_table(pa.table(table), path)
    return path


def read(path, size=10):
    return [
        request
        for _, requests in RequestTable(path, INPUTS).batches(size)
        for request in requests
    ]


def test_columns_of_nothing_have_no_type(tmp_path):
    """What pandas writes of a batch of new users."""
    path = write(
        tmp_path / "requests.parquet",
        {
            "user_city": pa.nulls(2),
            "behavior_shop": pa.array([[], []], pa.list_(pa.null())),
            "behavior_tag": pa.nulls(2),
            "behavior_time": pa.array([[], None], pa.list_(pa.null())),
            "candidate_price": [[None], [None]],
        },
    )
    for request in read(path):
        assert request["user_city"] == ""
        for name in ("behavior_shop", "behavior_tag", "behavior_time"):
            assert request[name].shape == (0,)
        assert np.isnan(request["candidate_price"]).tolist() == [True]


SETS = {
    "user_likes": TensorType("string", (-1, 2)),
    "behavior_tags": TensorType("int64", (-1, -1, 3)),
}


def test_sets_are_padded_and_cut(tmp_path):
    path = tmp_path / "requests.parquet"
    table = pa.table(
        {
            "user_likes": [["a"], None, ["b", None, "c"]],
            "behavior_tags": [[[1, 2, 3, 4], []], [], [None, [5]]],
        }
    )
    pq.write_table(table, path)
    ((_, requests),) = RequestTable(path, SETS).batches(10)
    nothing = -(2**63)
    assert [r["user_likes"].tolist() for r in requests] == [
        ["a", ""],
        ["", ""],
        ["b", ""],
    ]
    assert [r["behavior_tags"].tolist() for r in requests] == [
        [[1, 2, 3], [nothing] * 3],
        [],
        [[nothing] * 3, [5, nothing, nothing]],
    ]
    # As lists they are what a client takes.
    again = check_request(
        {"user_likes": ["b", "", "c"], "behavior_tags": [[], [5]]}, SETS, "it"
    )
    for name, value in again.items():
        np.testing.assert_array_equal(value, requests[2][name])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1, "x"]], "must be integers"),
        ([1, 2], "must be a list of lists"),
        ([[1.5]], "must be integers"),
    ],
)
def test_bad_sets(value, message):
    request = {"user_likes": ["a"], "behavior_tags": value}
    with pytest.raises(InputError, match=message):
        check_request(request, SETS, "it")


@pytest.mark.parametrize("size", [1, 3, 10])
def test_requests_come_back(tmp_path, size):
    path = tmp_path / "requests.parquet"
    write_requests(path, REQUESTS * 2, INPUTS)
    found = read(path, size)
    assert len(found) == RequestTable(path, INPUTS).num_requests == 4
    for request, expected in zip(found, REQUESTS * 2, strict=True):
        for name, value in expected.items():
            array = np.asarray(request[name])
            kind = {"int64": "i", "float32": "f", "string": "OU"}
            assert array.dtype.kind in kind[INPUTS[name].dtype], name
            np.testing.assert_array_equal(array, value, name)


def test_no_requests(tmp_path):
    path = tmp_path / "requests.parquet"
    write_requests(path, [], INPUTS)
    assert read(path) == []
    assert RequestTable(path, INPUTS).num_requests == 0


def test_nulls_are_missing_values_and_empty_lists(tmp_path):
    nulls = {
        "user_age": pa.array([None, 4]),
        "user_city": pa.array([None, "b"]),
        "behavior_shop": pa.array([[None, 3], None]),
        "behavior_tag": pa.array([["x", None], None]),
        "behavior_time": pa.array([[5, 6], None]),
        "candidate_price": pa.array([[None, 0.5], [1.0]]),
    }
    path = write(tmp_path / "a.parquet", nulls)
    first, second = read(path)
    assert first["user_age"] == -(2**63)
    assert first["user_city"] == ""
    assert first["behavior_shop"].tolist() == [-(2**63), 3]
    assert first["behavior_tag"].tolist() == ["x", ""]
    np.testing.assert_array_equal(first["candidate_price"], [np.nan, 0.5])
    assert (second["user_age"], second["user_city"]) == (4, "b")
    for name in ("behavior_shop", "behavior_tag", "behavior_time"):
        assert second[name].shape == (0,)
    assert second["candidate_price"].tolist() == [1.0]


def test_types_that_hold_the_same(tmp_path):
    others = {
        "user_age": pa.array([1, 1], pa.int8()),
        "user_city": pa.array([b"a", None], pa.large_binary()),
        "behavior_shop": pa.array([[1, 2]] * 2, pa.large_list(pa.uint64())),
        "behavior_time": pa.array([[5, 6]] * 2, pa.list_(pa.int32(), 2)),
        "candidate_price": pa.array([[1], [2**24 + 1]], pa.list_(pa.int64())),
    }
    path = write(tmp_path / "a.parquet", others)
    first, second = read(path)
    assert first["user_age"].dtype == np.int64
    assert first["user_city"] == b"a"
    assert second["user_city"] == b""
    assert first["behavior_shop"].dtype == np.int64
    assert first["behavior_time"].tolist() == [5, 6]
    assert second["candidate_price"].tolist() == [2.0**24]
    assert second["candidate_price"].dtype == np.float32


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_age": [1.0, 2.0]}, "`user_age` must be integers.*double"),
        ({"user_age": ["1", "2"]}, "`user_age` must be integers.*string"),
        ({"user_age": [[1], [2]]}, "`user_age` must be integers.*list"),
        ({"user_city": [1, 2]}, "`user_city` must be texts.*int64"),
        ({"behavior_shop": [1, 2]}, "`behavior_shop` must be lists of integ"),
        ({"behavior_tag": [[1]] * 2}, "`behavior_tag` must be lists of texts"),
        (
            {"candidate_price": [["a"]] * 2},
            "`candidate_price` must be lists",
        ),
    ],
)
def test_columns_of_another_type(tmp_path, columns, message):
    path = write(tmp_path / "a.parquet", columns)
    with pytest.raises(InputError, match=f"a.parquet: column {message}"):
        RequestTable(path, INPUTS)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"request_time": [1, None]}, "row 1: `request_time` has a null"),
        (
            {"behavior_time": [[5, 6], [5, None]]},
            "row 1: `behavior_time` has a null",
        ),
        (
            {"user_age": pa.array([1, 2**63], pa.uint64())},
            "row 1: `user_age` has an integer above 9223372036854775807",
        ),
        (
            {
                "behavior_shop": pa.array(
                    [[], [1, 2**63]], pa.list_(pa.uint64())
                )
            },
            "row 1: `behavior_shop` has an integer above",
        ),
        (
            {"candidate_price": [[1.0], [None, float("inf")]]},
            r"row 1: `candidate_price` has a number above 3.4e\+38",
        ),
        (
            {"candidate_price": [[-1e39], []]},
            r"row 0: `candidate_price` has a number above 3.4e\+38 or below",
        ),
    ],
)
@pytest.mark.parametrize("size", [1, 2])
def test_values_that_cannot_be(tmp_path, columns, message, size):
    path = write(tmp_path / "a.parquet", columns)
    with pytest.raises(InputError, match=f"a.parquet, {message}"):
        read(path, size)


def test_a_misspelt_column(tmp_path):
    path = write(tmp_path / "a.parquet", {})
    table = pq.read_table(path).rename_columns({"user_age": "user_agee"})
    pq.write_table(table, path)
    with pytest.raises(InputError, match=r"`user_age`.*mean 'user_agee'\?"):
        RequestTable(path, INPUTS)


def test_a_model_that_is_no_click_model(tmp_path):
    path = write(tmp_path / "a.parquet", {})
    inputs = {"user_age": TensorType("int32", (-1,))}
    with pytest.raises(InputError, match="`user_age` as int32; tables are for"):
        RequestTable(path, inputs)


def test_files_that_are_not_whole(tmp_path):
    path = write(tmp_path / "a.parquet", {}, rows=3)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns("user_age"), tmp_path / "b.parquet")
    with pytest.raises(
        InputError,
        match=r"b.parquet has no column `user_age`, integers; docs/requests.md",
    ):
        RequestTable(tmp_path / "b.parquet", INPUTS)
    (tmp_path / "c.parquet").write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"c.parquet is not a Parquet file"):
        RequestTable(tmp_path / "c.parquet", INPUTS)
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    (tmp_path / "d.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"d.parquet: "):
        read(tmp_path / "d.parquet")


def test_a_folder_of_files(tmp_path):
    for name in ("b.parquet", "a.parquet", "_c.parquet", "d.txt"):
        write(tmp_path / name, {"user_age": [ord(name[0])] * 2})
    tables = request_tables(tmp_path, INPUTS)
    assert [table.path.name for table in tables] == ["a.parquet", "b.parquet"]
    # 2 rows of 3 plain values and 7 in lists.
    assert tables[0].num_values == 20
    write(tmp_path / "e.parquet", {"user_age": pa.array([1, 1], pa.int32())})
    with pytest.raises(
        InputError, match=r"e.parquet differ in `user_age` \(int64, int32\)"
    ):
        request_tables(tmp_path, INPUTS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty has no file that ends in"):
        request_tables(tmp_path / "empty", INPUTS)


def test_what_is_read_at_a_time_is_no_row_group(tmp_path):
    path = write(tmp_path / "a.parquet", {}, rows=40)
    assert pq.ParquetFile(path).num_row_groups == 1
    table = RequestTable(path, INPUTS)
    assert [len(requests) for _, requests in table.batches(16)] == [16, 16, 8]
    with score_writer(tmp_path / "b.parquet", table.schema) as write_rows:
        for rows, requests in table.batches(16):
            write_rows(rows, [np.zeros(1, np.float32)] * len(requests))
    # And what is written with it is not a row group each.
    assert pq.ParquetFile(tmp_path / "b.parquet").num_row_groups == 1


def test_scores_are_one_more_column(tmp_path):
    source = write(tmp_path / "a.parquet", {"note": ["p", "q", "r"]}, rows=3)
    table = RequestTable(source, INPUTS)
    scores = [np.float32([0.1, 0.2]), np.zeros(0, np.float32), np.float32([1])]
    with score_writer(tmp_path / "b.parquet", table.schema) as write_rows:
        for index, (rows, _) in enumerate(table.batches(2)):
            write_rows(rows, scores[2 * index : 2 * index + 2])
            assert not (tmp_path / "b.parquet").exists()
    found = pq.read_table(tmp_path / "b.parquet")
    assert found.drop_columns("probability") == pq.read_table(source)
    lists = found.column("probability").to_pylist()
    assert lists == [score.tolist() for score in scores]
    with pytest.raises(InputError, match="column `probability` already"):
        score_writer(tmp_path / "c.parquet", found.schema).__enter__()


def test_nothing_is_left_where_writing_fails(tmp_path):
    path = tmp_path / "b.parquet"
    path.write_text("the last one")

    def fail():
        with score_writer(path, pa.schema([])):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "the last one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "is a folder"), ("none/b.parquet", "there is no folder .*none")],
)
def test_where_no_file_can_be(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        score_writer(tmp_path / name, pa.schema([])).__enter__()
