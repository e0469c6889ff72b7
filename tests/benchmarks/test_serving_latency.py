"""Waiting for scores: from made-up seconds, and as a user runs it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.measuring.request_times import Timed, summary, time_requests
from benchmarks.serving.agreement import differences
from benchmarks.serving.model import raw_inputs, split_inputs
from benchmarks.serving.paths import Case, make_call, scores_of
from benchmarks.serving.table import table
from benchmarks.serving_latency import TARGETS, Workload, cases_of, compare
from configs.models.sparse_ctr import SparseCTRRecipe
from tests import commands

WHOLE = "Whole pass"
WORKLOAD = Workload(
    lengths=(10, 1024),
    candidates=(1, 100),
    compiled_lengths=(1024,),
    pointwise_lengths=(10,),
    pointwise_rows=16,
    pointwise_seconds=0.5,
    full_length=10,
    num_rows=50,
    num_blocks=2,
    num_requests=9,
    num_rounds=3,
    grpc=True,
)


def test_times_as_many_requests_as_asked_for() -> None:
    served: dict[str, list[int]] = {"a": [], "b": []}
    things = {
        name: Timed(call=numbers.append) for name, numbers in served.items()
    }
    seconds = time_requests(things, num_requests=11, num_rounds=3)
    assert [len(found) for found in seconds["a"]] == [4, 4, 3]
    assert summary(seconds["b"])["num_requests"] == 11
    # One before the first round and one in each are not timed.
    assert len(served["a"]) == 11 + 3 + 1
    assert served["a"][:6] == [0, 0, 0, 1, 2, 3]


def test_a_turn_ends_when_its_time_is_over() -> None:
    served: list[int] = []
    slow = Timed(call=served.append, seconds=0.0)
    seconds = time_requests({"a": slow}, num_requests=100, num_rounds=4)
    assert [len(found) for found in seconds["a"]] == [1, 1, 1, 1]
    # All of them are timed: a request may take many seconds.
    assert served == [0, 0, 0, 0]


def test_percentiles_are_over_all_requests() -> None:
    found = summary([[0.001] * 60, [0.002] * 39, [0.5]])
    assert found["num_requests"] == 100
    assert found["p50"] == pytest.approx(1.0)
    assert found["p90"] == pytest.approx(2.0)
    # Between the 99th and the 100th.
    assert 2.0 < found["p99"] < 500.0


def test_cases() -> None:
    cases = cases_of(WORKLOAD)
    assert len(set(cases)) == len(cases)
    # Two lengths: encode, and whole and score for two numbers of candidates.
    assert sum(case.transport == "grpc" for case in cases) == 2 * (1 + 2 * 2)
    assert [c.num_candidates for c in cases if c.path == "pointwise"] == [100]
    full = [case for case in cases if case.attention == "full"]
    assert {(c.path, c.num_behaviors) for c in full} == {
        ("whole", 10),
        ("compiled", 10),
    }
    compiled = {c for c in cases if c.path == "compiled"} - set(full)
    assert {(c.num_behaviors, c.num_candidates) for c in compiled} == {
        (1024, 1),
        (1024, 100),
    }
    without = dataclasses.replace(
        WORKLOAD, full_length=0, grpc=False, compiled_lengths=()
    )
    assert {(c.transport, c.attention) for c in cases_of(without)} == {
        ("process", "evo")
    }
    assert "compiled" not in {case.path for case in cases_of(without)}


def _seconds() -> dict[Case, list[list[float]]]:
    """As long as a formula says, in a slow, a usual and a fast round."""

    def cost(case: Case) -> float:
        score = 1e-3 + 1e-5 * case.num_candidates
        encode = 1e-5 * case.num_behaviors
        if case.attention == "full":
            encode *= 300
        return {
            "whole": encode + score,
            "compiled": 0.5 * (encode + score),
            "encode": encode,
            "score": score,
            "pointwise": case.num_candidates * (encode + 1e-3),
        }[case.path]

    return {
        case: [[1.1 * cost(case)], [cost(case)], [0.9 * cost(case)]]
        for case in cases_of(WORKLOAD)
    }


def _result() -> dict[str, Any]:
    seconds = _seconds()
    return {
        "workload": dataclasses.asdict(WORKLOAD),
        "milliseconds": [
            {**case._asdict(), **summary(rounds)}
            for case, rounds in seconds.items()
        ],
        **compare(WORKLOAD, seconds),
        "state_bytes": 29_158,
        "agreement": {
            "num_requests": 8,
            "num_candidates": 404,
            "lowest": 0.125,
            "highest": 0.75,
            "to_keras": {"process whole": 1e-7, "grpc pointwise": 3e-6},
            "largest": 3.1e-6,
            "auc": {"keras": 0.5, "process whole": 0.5000002},
        },
        "memory": {
            "weight_bytes": 2**20,
            "one_version_bytes": 3 * 2**20,
            "two_versions_bytes": 5 * 2**20,
        },
        "targets": TARGETS,
        "load": {"load_average_before": 0.0, "others_share": 0.25},
        "environment": {"gpus": [], "processor": "made-up", "cpu_cores": 2},
    }


def test_compares_round_by_round() -> None:
    found = compare(WORKLOAD, _seconds())
    whole = found["whole_over_score"]["process 1024 100"]
    assert whole["median"] == pytest.approx((10.24 + 2.0) / 2.0)
    pointwise = found["pointwise_over_score"]["10 100"]
    assert pointwise["median"] == pytest.approx(100 * 1.1 / 2.0)
    full = found["full_over_evo"]["whole 1024 1"]
    assert full["median"] == pytest.approx((30 + 1.01) / (10.24 + 1.01))
    longest = found["score_of_longest_over_shortest"]["grpc 100"]
    assert longest["interval"] == pytest.approx([1.0, 1.0])
    # Each path where both were timed.
    assert found["full_over_evo"].keys() == {
        f"{path} {candidates}"
        for path in ("whole 10", "whole 1024", "compiled 1024")
        for candidates in (1, 100)
    }
    assert longest["median"] is None


def test_table_has_percentiles_targets_and_load() -> None:
    lines = table(_result()).splitlines()
    row = next(line for line in lines if line.startswith("encode   "))
    assert row.split()[1:] == ["10", "0.1", "0.108", "0.1098"]
    (row,) = (line for line in lines if line.startswith("pointwise"))
    assert row.split()[1:4] == ["10", "-", "110"]
    assert row.endswith("(3 requests)")
    wanted = [line.strip() for line in lines if "(wanted: 20)" in line]
    assert [(line.split("  ")[0], line.split()[-1]) for line in wanted] == [
        ("process, L=1024, C=100", "MISSED"),
        ("grpc, L=1024, C=100", "MISSED"),
    ]
    verdicts = [line.partition("(wanted: ")[2] for line in lines]
    # Full attention for C = 1 and 100, two paths; score for both and by both
    # transports.
    assert verdicts.count("1): reached") == 4
    assert verdicts.count("1, give or take 10%): reached") == 4
    assert verdicts.count("at most 65,536): reached") == 1
    assert verdicts.count("at most 1e-06): MISSED") == 1
    assert verdicts.count("equal to 6 digits): reached") == 1
    (row,) = (line for line in lines if line.startswith("  grpc pointwise"))
    assert row.split() == ["grpc", "pointwise", "3e-06", "-"]
    assert "0.1250 to 0.7500" in table(_result())
    assert "3 MiB with one version, 5 with two" in table(_result())
    assert "Others than these took 25% of the processors." in lines


@pytest.mark.parametrize(
    ("what", "name", "median", "is_missed"),
    [
        ("score_of_longest_over_shortest", "process 100", 1.11, True),
        ("score_of_longest_over_shortest", "process 100", 1.09, False),
        ("full_over_evo", "whole 1024 100", 0.99, True),
        # Neither is faster.
        ("full_over_evo", "whole 1024 100", None, False),
    ],
)
def test_table_says_what_was_missed(
    what: str, name: str, median: float | None, is_missed: bool
) -> None:
    result = _result()
    before = table(result).count("MISSED")
    result[what][name] = {"median": median, "interval": [0.9, 1.2]}
    assert table(result).count("MISSED") == before + is_missed


def test_draws_each_way_once(tmp_path: Path) -> None:
    serving_plot = pytest.importorskip("benchmarks.serving.plot")
    from matplotlib import image

    result = _result()
    by_length, by_candidates = serving_plot.latency_figure(result).axes
    labels = [line.get_label() for line in by_length.lines]
    assert len(set(labels)) == len(labels) == 10
    (whole,) = (line for line in by_length.lines if line.get_label() == WHOLE)
    assert [list(values) for values in whole.get_data()] == [
        [10, 1024],
        pytest.approx([2.1, 12.24]),
    ]
    # Encoding reads no candidate; pointwise has the shorter length alone.
    missing = {"Encode", "Encode, gRPC", "Pointwise"}
    shown = {line.get_label() for line in by_candidates.lines}
    assert shown == set(labels) - missing
    path = tmp_path / "plot.png"
    serving_plot.draw_latency(result, path)
    pixels = image.imread(path)
    assert pixels.shape[:2] == (650, 1200)
    assert pixels.std() > 0.05


class _Model:
    """Scores that depend on user and candidate alone, and takes notes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[int, ...]]] = []

    def __call__(
        self, signature_name: str, inputs: dict[str, Any]
    ) -> dict[str, Any]:
        times = inputs.get("behavior_time")
        if signature_name == "encode_user":
            return {"state_sum": times.sum(axis=1)}
        price = inputs["candidate_price"]
        self.calls.append((signature_name, price.shape))
        user = (
            inputs["state_sum"]
            if signature_name == "score"
            else times.sum(axis=1)
        )
        return {"probability": price + 1e-9 * user[:, None]}


def test_paths_score_the_same_candidates() -> None:
    (request,) = raw_inputs(50, 7, 11, 1)
    model = _Model()
    found = scores_of(model, request, pointwise_rows=4)
    assert model.calls == [
        ("serving_default", (1, 11)),
        ("serving_default", (4, 1)),
        ("serving_default", (4, 1)),
        ("score", (1, 11)),
    ]
    expected = model("serving_default", request)["probability"][0]
    assert found.keys() == {"whole", "score", "pointwise"}
    for scores in found.values():
        np.testing.assert_array_equal(scores, expected)


def test_differences_are_between_any_two_ways() -> None:
    keras = np.array([0.125, 0.5, 0.75])
    found = differences(
        {
            "keras": keras,
            "process whole": keras + np.array([0.0, 0.25, 0.0]),
            "grpc score": keras - np.array([0.0, 0.125, 0.0]),
            "process pointwise": keras,
        },
        np.array([0.0, 0.0, 1.0]),
    )
    assert found["largest"] == 0.375
    assert found["to_keras"] == {
        "process whole": 0.25,
        "grpc score": 0.125,
        "process pointwise": 0.0,
    }
    # A tie counts one half.
    assert found["auc"] == {
        "keras": 1.0,
        "process whole": 0.75,
        "grpc score": 1.0,
    }
    assert (found["lowest"], found["highest"]) == (0.125, 0.75)


def test_calls_take_turns_with_the_requests() -> None:
    requests = raw_inputs(50, 7, 5, 2)
    case = Case("score", "process", "evo", 7, 5)
    call = make_call(_Model(), case, requests, pointwise_rows=4)
    answers = [call(number)["probability"] for number in range(3)]
    np.testing.assert_array_equal(answers[0], answers[2])
    assert not np.array_equal(answers[0], answers[1])


def test_made_requests_fit_the_signatures() -> None:
    signature = pytest.importorskip("export.graph.signature")
    from benchmarks.made_data.requests import made_schema

    (request,) = raw_inputs(50, 7, 11, 1)
    inputs = signature.signatures(made_schema(50), SparseCTRRecipe())
    sizes = {"B": 1, "L": 7, "C": 11}
    for tensor in inputs["serving_default"][0]:
        value = request.pop(tensor.name)
        assert value.shape == tuple(sizes[axis] for axis in tensor.shape)
        assert value.dtype == (
            object if tensor.dtype == "string" else tensor.dtype
        )
    assert request == {}


def test_user_and_candidates_are_sent_apart() -> None:
    (request,) = raw_inputs(50, 7, 11, 1)
    user, candidates = split_inputs(request)
    assert user.keys() | candidates.keys() == request.keys()
    assert {name.split("_")[0] for name in user} == {"user", "behavior"}
    assert "request_time" in candidates


@pytest.mark.parametrize(
    ("full_length", "transports"),
    [
        (0, ("process",)),
        pytest.param(16, ("process", "grpc"), marks=pytest.mark.slow),
    ],
)
def test_measures(
    full_length: int,
    transports: tuple[str, ...],
    tmp_path: Path,
) -> None:
    if "grpc" in transports:
        pytest.importorskip("tensorflow_serving")
    output = tmp_path / "result.json"
    # In a fresh process, without Python's TensorFlow: it loads the C library.
    result = commands.run(
        "benchmarks.serving_latency",
        "--lengths=16,32",
        "--candidates=2,3",
        "--pointwise_lengths=16",
        "--pointwise_rows=2",
        "--num_rows=50",
        "--num_blocks=1",
        "--num_requests=4",
        "--num_rounds=2",
        f"--output={output}",
        f"--full_length={full_length}",
        "--grpc" if "grpc" in transports else "--nogrpc",
        "--compiled_lengths=" + ("16,32" if full_length else ""),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "score from state" in result.stdout
    found = json.loads(output.read_text())
    assert found["largest_difference"] <= 1e-6
    agreement = found["agreement"]
    # Two of each shape.
    assert agreement["num_requests"] == 8
    assert agreement["highest"] - agreement["lowest"] > 0.1
    assert agreement["to_keras"].keys() == {
        f"{transport} {path}"
        for transport in transports
        for path in ("whole", "score", "pointwise")
    }
    assert len({f"{value:.6f}" for value in agreement["auc"].values()}) == 1
    memory = found["memory"]
    assert 0 < memory["weight_bytes"] < memory["one_version_bytes"]
    assert memory["two_versions_bytes"] > memory["one_version_bytes"]
    assert 1000 < found["state_bytes"] <= 65536
    timed = [row for row in found["milliseconds"] if row["path"] != "pointwise"]
    assert {row["num_requests"] for row in timed} == {4}
    assert {row["transport"] for row in timed} == set(transports)
    assert all(0.0 < row["p50"] <= row["p99"] for row in timed)
    # Two lengths and two numbers of candidates, both ways.
    assert len(found["full_over_evo"]) == (8 if full_length else 0)
    assert found["environment"]["tensorflow"]
