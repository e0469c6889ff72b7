"""The command that scores a file against a server."""

import json

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.requests.request_table import write_requests
from export.client import Client
from tests.commands import assert_refused, run
from tests.export.toy_server import (
    BUCKETS,
    double,
    in_process,
    make_request,
    models,
    running,
    server,
)

__all__ = ["double", "models", "running", "server"]


SIGNATURE = {"buckets": BUCKETS.to_dict()}


@pytest.fixture
def requests_file(double, tmp_path):
    requests = [make_request(seed, seed, seed % 4) for seed in range(9)]
    with Client(double.grpc_server, timeout_seconds=20.0) as client:
        write_requests(tmp_path / "in.parquet", requests, client.inputs())
    return requests, tmp_path


def test_the_command_scores_a_file(double, server, requests_file):
    requests, folder = requests_file
    table = pq.read_table(folder / "in.parquet")
    table = table.append_column("note", pa.array(map(str, range(9))))
    cities = [None, *(request["user_city"] for request in requests[1:])]
    column = table.schema.get_field_index("user_city")
    table = table.set_column(column, "user_city", pa.array(cities))
    requests[0]["user_city"] = ""
    pq.write_table(table, folder / "in.parquet")
    (folder / "signature.json").write_text(json.dumps(SIGNATURE))
    double.calls.clear()
    double.labels["stable"] = 1
    done = run(
        "export.client",
        f"--server={server}",
        "--input=in.parquet",
        "--output=out.parquet",
        "--signature=signature.json",
        "--model_label=stable",
        cwd=folder,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "out.parquet: scores of 9 requests\n"
    shapes = {inputs["behavior_time"] for _, inputs in double.calls}
    assert shapes == {(4, 4), (1, 4), (4, 8)}
    scored = pq.read_table(folder / "out.parquet")
    rows = scored.drop_columns("probability")
    assert rows.schema == table.schema
    # As text, where NaN is equal to NaN.
    assert str(rows.to_pylist()) == str(table.to_pylist())
    assert scored.schema.field("probability").type == pa.list_(pa.float32())
    scores = scored.column("probability").to_pylist()
    for request, score in zip(requests, scores, strict=True):
        np.testing.assert_allclose(
            score, in_process(double, request), rtol=0, atol=1e-6
        )
    assert sorted(path.name for path in folder.iterdir()) == [
        "in.parquet",
        "out.parquet",
        "signature.json",
    ]


def test_the_command_refuses(command, double, requests_file):
    _, folder = requests_file

    def refuse(*parts, **changes):
        flags = {
            "server": double.grpc_server,
            "input": folder / "in.parquet",
            "output": folder / "out.parquet",
            **changes,
        }
        arguments = [f"--{name}={value}" for name, value in flags.items()]
        done = command("export.client", *arguments)
        assert_refused(done, *parts)
        assert not (folder / "out.parquet").exists()

    refuse(f"{double.grpc_server}: NOT_FOUND: ", model="other")
    refuse(f"{double.grpc_server}: NOT_FOUND: ", model_version=9)
    refuse("Unrecognized servable version label: other", model_label="other")
    refuse("without a version", model_label="stable", model_version=1)
    refuse("absent.parquet", input=folder / "absent.parquet")
    refuse(
        f"there is no folder {folder / 'none'}",
        output=folder / "none" / "out.parquet",
    )
    double.faults.extend([grpc.StatusCode.INTERNAL])
    refuse("INTERNAL: a fault of the test")
    bad = pq.read_table(folder / "in.parquet").to_pylist()
    bad[8]["behavior_time"][3] = 10**9 + 1
    pq.write_table(pa.Table.from_pylist(bad), folder / "bad.parquet")
    refuse(
        "bad.parquet: request 8: `behavior_time` is not in order",
        input=folder / "bad.parquet",
    )
    (folder / "signature.json").write_text("{}")
    refuse("signature.json has no buckets", signature=folder / "signature.json")
