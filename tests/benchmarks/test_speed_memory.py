"""Speed and memory with tiny shapes, and the arithmetic around them."""

import base64
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import speed_report
from benchmarks.attention.all_pairs import AllPairsRecipe
from benchmarks.attention.contenders import (
    BASELINES,
    EXECUTIONS,
    MODES,
    Shape,
    batches_of,
    make_call,
    model_of,
)
from benchmarks.attention.operation_counts import compiled_operations
from benchmarks.attention.paper_construction import PaperConstructionRecipe
from benchmarks.made_data.requests import made_requests, made_schema
from benchmarks.measuring.interleaved import Turns, speedup, spread, take_turns
from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.model_recipe import RequestShape
from tests.commands import ForkedCommands
from tests.matrix_products import matrix_products

TINY = (
    "--num_behaviors=37",
    "--num_candidates=3",
    "--num_rows=50",
    "--num_rounds=2",
    "--turn_seconds=0",
    "--presets=sparsity-1",
)
SHAPE = Shape(
    batch_size=2,
    num_behaviors=37,
    num_candidates=3,
    num_rows=50,
    precision="float32",
)


@pytest.mark.parametrize("variant", [AllPairsRecipe, PaperConstructionRecipe])
def test_variant_scores_as_full_attention(
    variant: type[SparseCTRRecipe],
) -> None:
    schema = made_schema(50)
    full = SparseCTRRecipe(attention="full").build(schema)
    random = np.random.default_rng(3)
    full.set_weights(
        [
            weight + 0.3 * random.normal(size=weight.shape)
            for weight in full.get_weights()
        ]
    )
    other = variant(attention="full").build(schema)
    other.set_weights(full.get_weights())
    batch = {
        name: tf.constant(value)
        for name, value in made_requests(schema, 3, 141, 7).items()
    }
    # The first request has a short history, the second none.
    time_ = batch["behavior_time"].numpy()
    time_[0, :30] = 0
    time_[1] = 0
    batch["behavior_time"] = tf.constant(time_)
    assert full.blocks[0].attention.num_query_blocks > 1
    if variant is AllPairsRecipe:
        assert other.blocks[0].attention.num_query_blocks == 1
    scores = full(batch).logits.numpy()
    assert scores.std() > 0.1
    np.testing.assert_allclose(
        other(batch).logits, scores, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("variant", [AllPairsRecipe, PaperConstructionRecipe])
def test_operations_of_variants(variant: type[SparseCTRRecipe]) -> None:
    schema, shape = made_schema(50), RequestShape(3, 141, 7)
    recipe = variant(attention="full")
    counted = matrix_products(
        recipe.build(schema), made_requests(schema, *shape)
    )
    assert counted == pytest.approx(recipe.flops(schema, shape), rel=0.03)


@pytest.mark.parametrize("scope", ["block", "attention"])
@pytest.mark.parametrize("name", [*BASELINES, "sparsity-1"])
def test_parts_run(name: str, scope: str) -> None:
    model = model_of(name, SHAPE)
    batches = batches_of(SHAPE)
    for mode in MODES:
        call = make_call(model, name, scope, mode, EXECUTIONS[0], batches)
        for part in call():  # type: ignore[attr-defined]
            assert np.isfinite(part).all()


def test_training_updates_the_weights() -> None:
    model = model_of("sparsity-1", SHAPE)
    before = model.get_weights()
    call = make_call(
        model, "sparsity-1", "model", "training", "graph", batches_of(SHAPE)
    )
    call()
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(before, model.get_weights(), strict=True)
    ]
    assert sum(changed) > len(changed) // 2


def test_takes_turns() -> None:
    order: list[str] = []

    def sleep(name: str, seconds: float) -> None:
        order.append(name)
        time.sleep(seconds)

    seconds = take_turns(
        {"a": lambda: sleep("a", 0.004), "b": lambda: sleep("b", 0.0)},
        Turns(num_rounds=5, seconds=0.0),
    )
    # Each is called once untimed and once timed a turn.
    assert sorted(order) == ["a"] * 5 * 2 + ["b"] * (len(order) - 10)
    assert len(seconds["a"]) == len(seconds["b"]) == 5
    assert spread(seconds["a"])["median"] >= 0.004


def test_a_ratio_needs_an_interval_beside_one() -> None:
    random = np.random.default_rng(0)
    noise = random.lognormal(0.0, 0.3, (2, 9))
    clear = speedup(5.0 * noise[0], noise[1])
    low, high = clear["interval"]
    assert 2.0 < low < clear["median"] < high < 10.0
    unclear = speedup(noise[0], noise[1])
    assert unclear["median"] is None
    assert unclear["interval"][0] < 1.0 < unclear["interval"][1]


def test_counts_products_of_a_program() -> None:
    function = tf.function(
        lambda a, b: tf.einsum("bij,bkj->bik", a, b), jit_compile=True
    )
    shapes = tf.zeros((2, 3, 5)), tf.zeros((2, 7, 5))
    text = function.experimental_get_compiler_ir(*shapes)(stage="hlo")
    assert compiled_operations(text) == 2 * 2 * 3 * 5 * 7


@pytest.mark.parametrize(
    "memory_modes", ["", pytest.param("inference", marks=pytest.mark.slow)]
)
def test_measures_and_reports(
    command: ForkedCommands, tmp_path: Path, memory_modes: str
) -> None:
    output = tmp_path / "result.json"
    done = command(
        "benchmarks.speed_memory",
        *TINY,
        "--modes=inference",
        f"--memory_modes={memory_modes}",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    assert json.loads(done.stdout) == result
    names = [*BASELINES, "sparsity-1"]
    assert [(row["name"], row["execution"]) for row in result["times"]] == [
        (name, execution) for name in names for execution in EXECUTIONS
    ]
    for row in result["times"]:
        seconds = row["seconds"]
        assert 0.0 < seconds["lower_quartile"] <= seconds["median"]
    assert [row["target"] for row in result["speedups"]] == [
        18.0,
        None,
        30.0,
    ]
    if memory_modes:
        _check_memory(result)
    floor = {row["name"]: row for row in result["floor"]["rows"]}
    assert list(floor) == names
    for row in floor.values():
        assert row["times_the_floor"] > 1.0
        # Keys laid out block-diagonally are multiplied with zeros as well.
        surplus = row["compiled_operations"] / row["needed_operations"]
        assert surplus == 1.0 or row["name"] == "sparsity-1"
    assert 0.0 <= result["machine"]["others_share"] <= 1.0
    assert result["environment"]["tensorflow"]

    pytest.importorskip("matplotlib")
    done = command(
        "benchmarks.speed_report", f"--input={output}", f"--output={tmp_path}"
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "speed_memory.md").read_text("utf-8")
    assert "FlashAttention" in text
    assert ("## Peak memory, inference" in text) == bool(memory_modes)
    image = (tmp_path / "speed_memory.png").read_bytes()
    page = (tmp_path / "speed_memory.html").read_text("utf-8")
    inlined = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert [base64.b64decode(one) for one in inlined] == [image]
    assert "http" not in page


def _check_memory(result: dict[str, Any]) -> None:
    for row in result["memory"]:
        assert ("compiler" in row["bytes"]) == (row["execution"] == "xla")
    compiled = [row for row in result["memory"] if row["execution"] == "xla"]
    assert all(row["bytes"]["compiler"] > 10_000 for row in compiled)
    assert compiled[0]["share_of_full"]["compiler"] == 1.0
    # The paper's construction passes the candidates through both blocks.
    assert compiled[1]["share_of_full"]["compiler"] > 1.0


def _result(median: float | None, low: float, high: float) -> dict[str, Any]:
    place = {"scope": "model", "mode": "inference"}
    found = {
        **place,
        "preset": "sparsity-1",
        "executions": ["xla", "graph"],
        "median": median,
        "interval": [low, high],
        "target": 18.0,
    }
    return {
        "workload": {"presets": ["sparsity-1"]},
        "times": [{**place, "name": "full", "execution": "xla"}],
        "speedups": [{**found, "against": against} for against in BASELINES],
    }


def test_shows_no_ratio_whose_interval_spans_one() -> None:
    told = speed_report._speedup_tables(_result(17.26, 15.04, 18.94))[0].rows
    assert told[0][1:] == ["17.3"]
    assert told[1][1:] == ["15.0 to 18.9"]
    assert told[2][1:] == ["18"]
    unclear = speed_report._speedup_tables(_result(None, 0.8, 1.3))[0].rows
    assert unclear[0][1:] == ["not told apart"]
