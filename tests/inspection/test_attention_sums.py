"""What is summed up equals what the NumPy reference of the paper reads.

Axes: L history length, H heads.
"""

import collections
import dataclasses
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.errors import InputError
from sparsectr.inspection.attention_report import (
    BranchReport,
    report_of,
    table,
)
from sparsectr.inspection.attention_sums import (
    AttentionSums,
    added,
    check_traced,
)
from tests import reference
from tests.keras_weights import (
    random_model,
    reference_weights,
    without_user_fields,
)
from tests.make_requests import (
    LENGTH,
    SCHEMA,
    SMALL_CONFIG,
    make_requests,
    sized_recipe,
)
from tests.reference import attention as equations
from tests.reference import sparse_attention as sparse_equations

NUM_VALID = [LENGTH, 0, 1, 23]
HEADS = SMALL_CONFIG.num_heads

SEMI_LOCAL = {"attention": "semi_local", "num_first": 3, "num_recent": 5}


class Read(NamedTuple):
    """What one query of the reference has read in one branch.

    Attributes:
        keys: Numbers of the keys that it may read.
        weights: For each head, of those keys and the sink behind them.
        largest: For each head, the largest logit of a key.
    """

    keys: list[int]
    weights: list[np.ndarray]
    largest: list[float]


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Without a graph, which takes longer than what it computes."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def _reads_of_reference(
    patch: pytest.MonkeyPatch, *arguments: Any
) -> tuple[list[list[Read]], list[list[np.ndarray]]]:
    """Returns what each call of `attend` read, and the weights of each gate."""
    logits: list[np.ndarray] = []
    calls, gates = [], []
    softmax, attend, gate = equations.softmax, equations.attend, equations.gate

    def recorded_softmax(x: np.ndarray) -> np.ndarray:
        logits.append(x)
        return softmax(x)

    def recorded_attend(*given: Any) -> np.ndarray:
        logits.clear()
        outputs = attend(*given)
        visible, sink = given[5], (*given, None)[8]
        left = iter(logits)
        reads = []
        for keys in visible:
            is_read = bool(keys) or sink is not None
            own = [next(left) for _ in range(HEADS)] if is_read else []
            largest = [max(x[: len(keys)], default=np.nan) for x in own]
            reads.append(Read(list(keys), [softmax(x) for x in own], largest))
        assert next(left, None) is None
        calls.append(reads)
        return outputs

    def recorded_gate(*given: Any) -> np.ndarray:
        logits.clear()
        outputs = gate(*given)
        gates.append([softmax(x) for x in logits])
        return outputs

    patch.setattr(equations, "softmax", recorded_softmax)
    for module in (equations, sparse_equations):
        patch.setattr(module, "attend", recorded_attend)
    patch.setattr(equations, "gate", recorded_gate)
    reference.forward(*arguments)
    return calls, gates


def _group(branch: str, key: int, read: Read, first: range) -> str:
    """Names what a key of the reference is."""
    if branch == "global":
        return "oldest" if key == 0 else "other"
    behaviors = [k for k in read.keys if k < LENGTH]
    if key >= LENGTH:
        if branch == "transition":
            return "boundary_sinks"
        return "user" if key == LENGTH else "registers"
    if key == max(behaviors):
        return "newest"
    is_oldest = branch != "local" and key in first
    return "oldest" if is_oldest else "other"


def _expected(
    reads: list[tuple[Read, range]], branch: str, has_sink: bool
) -> dict[str, Any]:
    """Returns what a report says, from the reads of all real queries."""
    mass: dict[str, np.ndarray] = collections.defaultdict(
        lambda: np.zeros(HEADS)
    )
    entropies, relative = [], []
    kept = [(read, first) for read, first in reads if read.keys]
    for read, first in kept:
        for head, weights in enumerate(read.weights):
            assert len(weights) == len(read.keys) + has_sink
            for key, weight in zip(read.keys, weights, strict=False):
                mass[_group(branch, key, read, first)][head] += weight
            if has_sink:
                mass["sink"][head] += weights[-1]
        own = [-np.sum(w * np.log(np.maximum(w, 1e-300))) for w in read.weights]
        entropies.append(own)
        if len(read.keys) + has_sink > 1:
            relative.append(np.array(own) / np.log(len(read.keys) + has_sink))
    return {
        "num_queries": len(reads),
        "num_empty": len(reads) - len(kept),
        "num_with_choice": len(relative),
        "mass": {name: total / len(kept) for name, total in mass.items()},
        "entropy": np.mean(entropies, axis=0),
        "relative_entropy": np.mean(relative, axis=0),
        "largest_logit": np.max([read.largest for read, _ in kept], axis=0),
    }


def _check(report: BranchReport, expected: dict[str, Any]) -> None:
    found = report.to_dict()
    for name in ("num_queries", "num_empty", "num_with_choice"):
        assert found[name] == expected[name], name
    mass = found["mass"]
    np.testing.assert_allclose(
        np.sum(list(mass.values()), axis=0), 1.0, atol=1e-5
    )
    assert set(expected["mass"]) <= set(mass)
    for name, values in mass.items():
        np.testing.assert_allclose(
            values, expected["mass"].get(name, np.zeros(HEADS)), atol=1e-5
        )
    for name in ("entropy", "relative_entropy", "largest_logit"):
        scale = max(1.0, np.max(np.abs(expected[name])))
        np.testing.assert_allclose(
            found[name], expected[name], atol=1e-5 * scale, err_msg=name
        )


def _first_behaviors(times: np.ndarray, config: SparseCTRRecipe) -> range:
    """Returns the behaviors that are called the oldest of a history."""
    if config.attention == "evo":
        chunks = reference.time_chunks(
            [int(time) for time in times], config.num_chunks
        )
        return range(*chunks[0]) if chunks else range(0)
    first = int(np.sum(times == 0))
    is_one = config.attention == "full"
    return range(first, first + (1 if is_one else config.num_first))


@pytest.mark.parametrize(
    ("has_user", "changes"),
    [
        (True, {}),
        (False, {"sink": "learned", "output_gate": "element"}),
        (
            True,
            {
                "sink": "key_value",
                "output_gate": "head",
                "num_registers": 2,
                "boundary_sinks": True,
            },
        ),
        (True, {"attention": "full"}),
        (True, {"attention": "full", "sink": "off_by_one"}),
        (True, SEMI_LOCAL),
        (True, {**SEMI_LOCAL, "semi_local_candidates": "all"}),
    ],
)
def test_equals_the_reference(
    has_user: bool,
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    eagerly: None,
) -> None:
    schema = SCHEMA if has_user else without_user_fields(SCHEMA)
    config = dataclasses.replace(SMALL_CONFIG, num_chunks=4, **changes)
    model = random_model(schema, config, 3)
    inputs = make_requests(4, NUM_VALID, schema)
    inputs["candidate_mask"][0, 1:] = False  # padding
    inputs["candidate_mask"][3, :2] = False
    spec = {
        name: tf.TensorSpec((None, *[None] * (value.ndim - 1)), value.dtype)
        for name, value in inputs.items()
    }
    sums_of = AttentionSums(model, spec)
    tensors = {name: tf.constant(value) for name, value in inputs.items()}
    halves = [
        sums_of({name: value[part] for name, value in tensors.items()})
        for part in (slice(0, 3), slice(3, None))
    ]
    calls, gates = _reads_of_reference(
        monkeypatch, reference_weights(model), inputs, schema, config
    )
    names = list(dict.fromkeys(branch.name for branch in halves[0]))
    is_evo = config.attention == "evo"
    assert names == (["global", "transition", "local"] if is_evo else [""])
    real = {
        "behaviors": inputs["behavior_time"] > 0,
        "candidates": inputs["candidate_mask"],
    }
    num_blocks = config.num_blocks
    assert len(calls) == len(NUM_VALID) * num_blocks * len(names)
    reports = []
    for branch, first_half in halves[0].items():
        report = report_of(*branch, added(first_half, halves[1][branch]))
        reports.append(report)
        part = slice(0, LENGTH)
        if branch.queries == "candidates":
            part = slice(LENGTH, None)
        reads, weights = [], []
        for request, mask in enumerate(real[branch.queries]):
            block = request * num_blocks + branch.block
            call = calls[block * len(names) + names.index(branch.name)]
            first = _first_behaviors(inputs["behavior_time"][request], config)
            reads += [
                (read, first)
                for read, is_real in zip(call[part], mask, strict=True)
                if is_real
            ]
            if gates:
                own = np.reshape(gates[block], (-1, HEADS, 3))[part][mask]
                weights.append(own[..., names.index(branch.name)])
        if "user" not in report.mass:  # its number, which nobody has
            reads = [
                (r._replace(keys=[k + (k >= LENGTH) for k in r.keys]), first)
                for r, first in reads
            ]
        _check(report, _expected(reads, branch.name, config.sink != "none"))
        if gates:
            np.testing.assert_allclose(
                report.gate, np.concatenate(weights).mean(axis=0), atol=1e-5
            )
        else:
            assert report.gate is None
        assert (report.output_gate is None) == (config.output_gate == "none")
        if report.output_gate is not None:
            assert 0.0 < min(report.output_gate) < max(report.output_gate) < 1.0
    # The oldest behaviors may read no chunk, and nobody of no history.
    by_place = {(r.block, r.queries, r.branch): r.num_empty for r in reports}
    if is_evo:
        assert by_place[0, "behaviors", "global"] > 0
        assert by_place[0, "candidates", "transition"] == 5
    assert not any(r.queries == "behaviors" and r.block for r in reports)
    assert table(reports).count("\n") == len(reports) + 1


def test_nothing_read_is_no_number(eagerly: None) -> None:
    model = random_model(SCHEMA, SMALL_CONFIG, 3)
    inputs = make_requests(4, [0])
    inputs["candidate_mask"][:] = False
    sums = AttentionSums(
        model,
        {
            name: tf.TensorSpec([None] * value.ndim, value.dtype)
            for name, value in inputs.items()
        },
    )({name: tf.constant(value) for name, value in inputs.items()})
    reports = [report_of(*branch, own) for branch, own in sums.items()]
    for report in reports:
        found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
        assert found["num_queries"] == 0
        assert found["empty_share"] is None
        assert found["entropy"] is None
        assert found["largest_logit"] is None
        assert set(found["mass"].values()) == {None}
    assert "nan" not in table(reports)


@pytest.mark.parametrize(
    ("name", "changes", "flag"),
    [
        ("din", {}, "--model.name=din"),
        ("sparse_ctr", {"attention": "dilated"}, "--model.attention=dilated"),
    ],
)
def test_refuses_what_records_no_attention(
    name: str, changes: dict[str, Any], flag: str
) -> None:
    model = sized_recipe(name, SMALL_CONFIG, **changes).build(SCHEMA)
    with pytest.raises(InputError, match=f"{flag} cannot be inspected"):
        check_traced(model)
