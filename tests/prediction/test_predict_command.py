"""The command that scores files of requests without a server."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.requests.buckets import Buckets
from data_pipelines.requests.request_table import request_tables
from data_pipelines.requests.tensor_type import TensorType
from export.client import Client
from export.stand_in_server.serving import serving
from sparsectr.errors import InputError
from sparsectr.predict import score_tables
from tests.commands import assert_refused
from tests.tiny_run import command, finished_run, tiny_folder, tiny_store

__all__ = ["command", "finished_run", "tiny_folder", "tiny_store"]

NUM_REQUESTS = 30


@pytest.fixture(scope="module")
def rows(tiny_store):
    """Requests as they were logged, with more columns than the inputs."""
    table = pq.read_table(tiny_store.sampled_requests)
    return table.slice(0, NUM_REQUESTS)


@pytest.fixture(scope="module")
def version(finished_run):
    return finished_run.path / "saved_model" / "1"


@pytest.fixture(scope="module")
def served(rows, version):
    """What a server answers to each request."""
    with (
        serving(version) as server,
        Client(server.grpc_server, timeout_seconds=60) as client,
    ):
        names = client.inputs()
        requests = [
            {name: row[name] for name in names} for row in _without_nulls(rows)
        ]
        return client.score_requests(requests)


def _without_nulls(rows):
    for row in rows.to_pylist():
        yield {
            name: [_sent(v) for v in value]
            if isinstance(value, list)
            else _sent(value)
            for name, value in row.items()
        }


def _sent(value):
    return -(2**63) if value is None else value


def predict(command, **flags):
    return command(
        "sparsectr.predict", *(f"--{n}={v}" for n, v in flags.items())
    )


@pytest.mark.parametrize("source", ["run", "version"])
def test_scores_are_the_served_ones(
    command, finished_run, version, rows, served, source, tmp_path
):
    folder = tmp_path / "requests"
    folder.mkdir()
    pq.write_table(rows.slice(0, 12), folder / "part-0.parquet")
    pq.write_table(rows.slice(12), folder / "part-1.parquet")
    model = {"workdir": finished_run.path}
    if source == "version":
        model = {"model": version}
    done = predict(
        command, **model, input=folder, output=tmp_path / "scores.parquet"
    )
    assert done.returncode == 0, done.stderr
    found = pq.read_table(tmp_path / "scores.parquet")
    assert found.drop_columns("probability").equals(rows)
    scores = found["probability"].to_pylist()
    num_candidates = sum(map(len, served))
    assert done.stdout == (
        f"{tmp_path}/scores.parquet: {num_candidates} scores of "
        f"{NUM_REQUESTS} requests\n"
    )
    assert [len(s) for s in scores] == [len(s) for s in served]
    found, expected = np.concatenate(scores), np.concatenate(served)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["requests", "scores.parquet"]


def test_what_is_refused(command, finished_run, version, rows, tmp_path):
    path, output = tmp_path / "in.parquet", tmp_path / "out.parquet"

    def refuse(*parts, **changes):
        flags = {"workdir": finished_run.path, "input": path, "output": output}
        flags |= changes
        flags = {k: v for k, v in flags.items() if v is not None}
        assert_refused(predict(command, **flags), *parts)
        assert not list(tmp_path.glob("*out.parquet*"))

    pq.write_table(rows, path)
    refuse("a run by --workdir or a version by --model", workdir=None)
    refuse("a run by --workdir or a version by --model", model=version)
    refuse("--input: ", "does not exist", input=tmp_path / "none.parquet")
    refuse("there is no folder", output=tmp_path / "none" / "out.parquet")
    refuse("on this machine", output="s3://bucket/out.parquet")
    refuse(
        "saved_model is no version of a SavedModel",
        workdir=None,
        model=version.parent,
    )

    pq.write_table(rows.drop_columns("behavior_time"), path)
    refuse("no column `behavior_time`, lists of integers; docs/requests.md")


class Counting:
    """Scores a candidate by how many behaviors its request has."""

    buckets = Buckets(
        history_lengths=(2, 3), num_candidates=(3,), batch_sizes=(1,)
    )
    inputs = {  # noqa: RUF012
        "behavior_time": TensorType("int64", (-1, -1)),
        "request_time": TensorType("int64", (-1,)),
        "candidate_item": TensorType("string", (-1, -1)),
    }

    def __init__(self):
        self.shapes = []

    def __call__(self, batch):
        shape = batch["candidate_item"].shape
        self.shapes.append((*batch["behavior_time"].shape, shape[1]))
        counts = (batch["behavior_time"] > 0).sum(axis=1, keepdims=True)
        return np.broadcast_to(np.float32(counts), shape)


TIMES = [[1, 2], [], [4], [1, 2, 3, 4], [2, 3]]


def write(path, times=TIMES, request_time=(9, 9, 9, 9, 9)):
    items = [["a"] * (row % 3 + 1) for row in range(5)]
    columns = [times, list(request_time), items]
    pq.write_table(
        pa.table(dict(zip(Counting.inputs, columns, strict=True))), path
    )


def score(scorer, folder, batch_size=2):
    tables = request_tables(folder / "in.parquet", scorer.inputs)
    output = folder / "out.parquet"
    counts = score_tables(scorer, tables, output, batch_size)
    return counts, pq.read_table(output)["probability"].to_pylist()


def test_requests_are_padded_to_shapes(tmp_path):
    write(tmp_path / "in.parquet")
    scorer = Counting()
    counts, found = score(scorer, tmp_path)
    assert counts == (5, 9)
    # Of the longest history as much as the longest bucket holds.
    assert found == [[2], [0, 0], [1, 1, 1], [3], [2, 2]]
    assert scorer.shapes == [(2, 2, 3), (2, 2, 3), (1, 3, 3)]


def test_requests_of_many_candidates_make_small_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("sparsectr.prediction.scorer._MOST_CANDIDATES", 2)
    write(tmp_path / "in.parquet")
    scorer = Counting()
    _, found = score(scorer, tmp_path)
    assert found == [[2], [0, 0], [1, 1, 1], [3], [2, 2]]
    assert [shape[0] for shape in scorer.shapes] == [1] * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"times": [*TIMES[:4], [3, 2]]},
            "row 4: `behavior_time` is not in order, oldest first",
        ),
        ({"times": [*TIMES[:4], [0, 2]]}, "row 4: `behavior_time` has 0"),
        (
            {"request_time": (9, 9, 9, 4, 9)},
            "row 3: `request_time` 4 is not after the newest behavior",
        ),
        ({"request_time": (9, 9, None, 9, 9)}, "row 2: `request_time` has a"),
    ],
)
@pytest.mark.parametrize("rows_at_a_time", [1, 9])
def test_the_row_is_named(
    tmp_path, monkeypatch, changes, message, rows_at_a_time
):
    monkeypatch.setattr("sparsectr.predict._READ_REQUESTS", rows_at_a_time)
    write(tmp_path / "in.parquet", **changes)
    with pytest.raises(InputError, match=f"in.parquet, {message}"):
        score(Counting(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_the_page_has_the_columns(finished_run, version, repository):
    page = (repository / "docs" / "requests.md").read_text("utf-8")
    text = (version / "assets.extra" / "signature.json").read_text("utf-8")
    inputs = json.loads(text)["signatures"]["serving_default"]["inputs"]
    for prefix in {i["name"].partition("_")[0] for i in inputs}:
        assert f"`{prefix}_" in page
