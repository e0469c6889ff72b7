"""What SparseCTR promises beyond the contract of all models."""

import dataclasses
import itertools
import json
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.models.sparse_ctr import BRANCHES, SparseCTRRecipe
from sparsectr.model_recipe import RequestShape
from sparsectr.models.ranking_model import RankingModel
from sparsectr.models.sparse_ctr import SparseCTR
from sparsectr.ops.places import places_of_history
from tests.keras_weights import random_model, without_user_fields
from tests.make_requests import (
    CONFIG,
    DAY,
    LENGTH,
    NUM_CANDIDATES,
    SCHEMA,
    SMALL_CONFIG,
    WEEK,
    make_requests,
    pad_left,
)
from tests.matrix_products import matrix_products

NUM_VALID = [LENGTH, 0, 1, 6, 17]

CONFIGS = {
    "evo": CONFIG,
    "full": dataclasses.replace(CONFIG, attention="full"),
}

every_attention = pytest.mark.parametrize("name", CONFIGS)

Models = dict[str, RankingModel]
Inputs = dict[str, Any]


@pytest.fixture(scope="module")
def models() -> Models:
    return {
        name: random_model(SCHEMA, config, 1)
        for name, config in CONFIGS.items()
    }


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return make_requests(2, NUM_VALID)


def _moved(inputs: Inputs, seconds: int) -> Inputs:
    times = inputs["behavior_time"]
    return {
        **inputs,
        "behavior_time": np.where(times > 0, times + seconds, 0),
        "request_time": inputs["request_time"] + seconds,
    }


@every_attention
@pytest.mark.parametrize("weeks", [1, -3, 100])
def test_whole_weeks_change_nothing(
    name: str, weeks: int, models: Models, inputs: Inputs
) -> None:
    logits = models[name](inputs).logits
    later = models[name](_moved(inputs, weeks * WEEK)).logits
    np.testing.assert_array_equal(later, logits)


@every_attention
def test_days_of_the_week_matter(
    name: str, models: Models, inputs: Inputs
) -> None:
    """So that the test above can fail."""
    logits = models[name](inputs).logits.numpy()
    differences = [
        np.max(np.abs(models[name](_moved(inputs, days * DAY)).logits - logits))
        for days in range(1, 7)
    ]
    assert max(differences) > 0.01


@every_attention
@pytest.mark.parametrize("changed", [28, 27, 20, 12])
def test_the_future_does_not_change_the_past(
    name: str, changed: int, models: Models, inputs: Inputs
) -> None:
    """A behaviour's row after a block reads nothing behind itself."""
    model: Any = models[name]
    hidden = model.embedding.behaviors(inputs)
    user = tf.zeros_like(hidden[:, 0])
    block = model.blocks[0]
    plan = block.attention.plan(
        places_of_history(inputs["behavior_time"]), hidden, for_history=True
    )
    other = hidden.numpy()
    other[:, changed] += 1.0
    rows, others = (
        block.encode(tf.constant(x), user, plan, is_last=False)[0].numpy()
        for x in (hidden, other)
    )
    np.testing.assert_array_equal(others[:, :changed], rows[:, :changed])
    # The full history is read by all that come later in it.
    later = np.max(np.abs(others - rows)[0, changed:], axis=1)
    assert np.all(later > 1e-6) if name == "full" else later[0] > 1e-6


@pytest.mark.parametrize(
    ("preset", "keys"),
    [
        ("sparsity-1", 8 + 8 * 1 + 2 + 1),
        ("sparsity-2", 16 + 16 * 2 + 5 + 1),
        ("sparsity-3", 16 + 16 * 3 + 10 + 1),
        ("sparsity-4", 32 + 32 * 4 + 20 + 1),
    ],
)
@pytest.mark.parametrize("length", [5, 101])
def test_the_state_does_not_grow_with_the_history(
    preset: str, keys: int, length: int
) -> None:
    recipe = SparseCTRRecipe(
        width=4, embedding_dim=2, num_heads=2, num_blocks=1
    ).with_preset(preset)
    model = random_model(SCHEMA, recipe)
    state = model.encode_user(make_requests(4, [5, 0], length=length))
    assert tuple(state["keys"].shape) == (2, 1, keys, 4)
    assert tuple(state["key_time"].shape) == (2, keys - 1)


@pytest.mark.parametrize(
    "branches", list(itertools.combinations(BRANCHES, 2)), ids="-".join
)
def test_a_branch_that_is_not_there_costs_nothing(
    branches: tuple[str, ...],
) -> None:
    """Variants A2 to A4: operations, state, and no weight of the branch."""
    recipe = dataclasses.replace(CONFIG, branches=branches)
    whole, model = (random_model(SCHEMA, x) for x in (CONFIG, recipe))
    requests = make_requests(3, [5, LENGTH])
    shape = RequestShape(2, LENGTH, NUM_CANDIDATES)
    said = recipe.flops(SCHEMA, shape)
    assert said < CONFIG.flops(SCHEMA, shape)
    assert 0.97 * said <= matrix_products(model, requests) <= 1.03 * said
    state = model.encode_user(requests)
    for spec in recipe.state_spec(SCHEMA).tensors:
        assert list(state[spec.name].shape[1:]) == spec.sizes(LENGTH)
    assert state["keys"].shape[2] < whole.encode_user(requests)["keys"].shape[2]
    names = " ".join(weight.path for weight in model.weights)
    assert ("aggregate" in names) == ("global" in branches)
    assert ("user_mlp" in names) == ("local" in branches)


@pytest.mark.parametrize(
    ("values", "is_known"),
    [
        ({}, False),
        (
            {"sink": "key_value", "boundary_sinks": True, "num_registers": 2},
            True,
        ),
        pytest.param(
            {"branches": ("transition", "local"), "chunking": "similarity"},
            False,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"branches": ("global", "transition"), "chunking": "balanced"},
            True,
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_training_leaves_out_chunks_that_cannot_be(
    values: dict[str, Any], is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same logits and gradients, whether L is known before the pass."""
    recipe = dataclasses.replace(SMALL_CONFIG, num_blocks=2, num_chunks=7)
    recipe = dataclasses.replace(recipe, **values)
    model = random_model(SCHEMA, recipe, 3)
    requests = make_requests(5, [3, 0, 1], length=3)
    requests = {name: tf.constant(value) for name, value in requests.items()}
    numbers: list[tf.Tensor] = []
    chunking = model.blocks[0].attention.chunking
    made = type(chunking).call

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        chunks = made(self, *args, **kwargs)
        numbers.append(tf.shape(chunks.start)[1])
        return chunks

    monkeypatch.setattr(type(chunking), "call", counted)
    shapes = {
        name: value.shape
        if is_known or not name.startswith("behavior")
        else [value.shape[0], None, *value.shape[2:]]
        for name, value in requests.items()
    }

    def run(training: bool) -> tuple[Any, ...]:
        @tf.function(
            input_signature=[
                {
                    n: tf.TensorSpec(shapes[n], x.dtype)
                    for n, x in requests.items()
                }
            ]
        )
        def step(inputs: Inputs) -> Any:
            numbers.clear()
            with tf.GradientTape() as tape:
                logits = model(inputs, training=training).logits
                loss = tf.reduce_sum(tf.sin(logits))
            variables = [weight.value for weight in model.trainable_variables]
            gradients = tape.gradient(loss, variables)
            return (
                logits,
                list(map(tf.convert_to_tensor, gradients)),
                numbers[0],
            )

        return step(requests)

    logits, gradients, count = run(True)
    all_logits, all_gradients, all_count = run(False)
    # Where L is not known, there is one column more.
    assert (int(count), int(all_count)) == (3 if is_known else 4, 7)
    np.testing.assert_allclose(logits, all_logits, rtol=1e-5, atol=1e-5)
    for own, other in zip(gradients, all_gradients, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-5)


def test_a_temporal_bias_that_is_not_there_has_no_slopes() -> None:
    recipe = dataclasses.replace(SMALL_CONFIG, temporal_biases=("hour",))
    names = [weight.name for weight in recipe.build(SCHEMA).weights]
    assert {n for n in names if n.startswith("slopes")} == {"slopes_hour"}
    # The sink begins as a key of a day ago, whose bias is that of the time.
    recipe = dataclasses.replace(recipe, sink="learned")
    sink: Any = recipe.build(SCHEMA)
    assert not np.any(sink.blocks[0].attention.sink.logit)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"branches": ("local",)}, "be 2 or more of global, transition"),
        ({"branches": ("local", "global")}, "in this order"),
        ({"temporal_biases": ()}, "be 1 or more of time, hour, weekend"),
        (
            {"branches": ("global", "local"), "attention": "full"},
            "`branches` must be all without attention=evo",
        ),
        (
            {"temporal_biases": ("time",), "encoding": "none"},
            "`temporal_biases` must be all without",
        ),
        (
            {"branches": ("global", "transition"), "num_registers": 1},
            "`num_registers` must be 0 without the local branch",
        ),
        (
            {"branches": ("global", "local"), "boundary_sinks": True},
            "`boundary_sinks` must be false without the transition",
        ),
    ],
)
def test_refuses_parts_that_do_not_fit(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **values)


def test_dropout_moves_no_cut() -> None:
    recipe = dataclasses.replace(
        SMALL_CONFIG, chunking="similarity", dropout_rate=0.5
    )
    model, requests = random_model(SCHEMA, recipe), make_requests(2, NUM_VALID)
    starts = [
        model.encode_user(requests, training=training, trace=True)[
            "trace/chunk_start"
        ]
        for training in (False, True)
    ]
    np.testing.assert_array_equal(*starts)


def test_a_user_without_fields_has_no_key() -> None:
    schema = without_user_fields(SCHEMA)
    model = random_model(schema, SMALL_CONFIG, 1)
    state = model.encode_user(make_requests(2, NUM_VALID, schema))
    assert not np.any(state["key_mask"][:, -1])


def test_positions_count_back_from_the_request(models: Models) -> None:
    requests = make_requests(2, [LENGTH, 3])
    state = models["evo"].encode_user(requests)
    chunks, transition = CONFIG.num_chunks, CONFIG.num_transition
    local = chunks * (1 + transition)
    newest = np.arange(CONFIG.num_local, 0, -1)
    position = state["key_position"].numpy()
    np.testing.assert_array_equal(position[0, local:], newest)
    np.testing.assert_array_equal(position[1, -3:], newest[-3:])
    mask = state["key_mask"].numpy()[:, :-1]
    for row, count in enumerate((LENGTH, 3)):
        times = requests["behavior_time"][row]
        for place in np.flatnonzero(mask[row, :local]):
            p = position[row, place]
            assert 1 <= p <= count
            # That of a chunk is its newest member's, whose time is not before
            # the mean.
            time = state["key_time"].numpy()[row, place]
            assert times[-p] >= time if place < chunks else times[-p] == time


def test_the_trace_holds_what_was_read(models: Models, inputs: Inputs) -> None:
    trace = models["evo"](inputs, trace=True).trace
    sizes = {
        "global": CONFIG.num_chunks,
        "transition": CONFIG.num_chunks * CONFIG.num_transition,
        "local": CONFIG.num_local + 1,
    }
    queries = (len(NUM_VALID), NUM_CANDIDATES, CONFIG.num_heads)
    mask = models["evo"].encode_user(inputs)["key_mask"].numpy()
    start = 0
    for name, size in sizes.items():
        for block in range(CONFIG.num_blocks):
            weights = trace[f"block_{block}/{name}/weights"].numpy()
            assert weights.shape == (*queries, size)
            has_key = mask[:, start : start + size].any(axis=1)
            expected = np.broadcast_to(has_key[:, None, None], queries)
            np.testing.assert_allclose(weights.sum(-1), expected, rtol=1e-5)
        start += size
    gate = trace["block_1/gate"].numpy()
    assert gate.shape == (*queries, 3)
    np.testing.assert_allclose(gate.sum(-1), 1.0, rtol=1e-5)
    assert trace["chunk_start"].shape == (len(NUM_VALID), CONFIG.num_chunks)
    full = models["full"](inputs, trace=True).trace
    assert full["block_0/weights"].shape == (*queries, LENGTH)
    assert not any(name.endswith("sink") for name in (*trace, *full))


@pytest.mark.parametrize("attention", ["evo", "full"])
@pytest.mark.parametrize("sink", ["off_by_one", "key_value"])
def test_the_trace_holds_what_the_sink_took(
    sink: str, attention: str, inputs: Inputs
) -> None:
    config = dataclasses.replace(CONFIG, attention=attention, sink=sink)
    keras.utils.set_random_seed(1)
    trace = config.build(SCHEMA)(inputs, trace=True).trace
    places = ["block_0", "block_1"]
    if attention == "evo":
        branches = ("global", "transition", "local")
        places = [f"{block}/{name}" for block in places for name in branches]
    for place in places:
        share = trace[f"{place}/sink"].numpy()
        weights = trace[f"{place}/weights"].numpy()
        assert share.shape == weights.shape[:3]
        if attention == "full":  # the sink's own key is none of the user's
            assert weights.shape[3] == LENGTH
        np.testing.assert_allclose(share + weights.sum(-1), 1.0, rtol=1e-6)
        if not place.endswith("local"):  # where the user is always read
            assert np.all(share[1] == 1.0)  # an empty history
        assert np.all(share >= 0.0)
        assert np.any((share[0] > 0.01) & (share[0] < 0.99))


@every_attention
def test_the_trace_of_histories_knows_no_padding(
    name: str, models: Models, inputs: Inputs
) -> None:
    # Of the longer ones, full attention reads two blocks of queries.
    columns = 64 - LENGTH // 2
    trace = models[name](inputs, trace=True).trace
    padded = models[name](pad_left(inputs, columns), trace=True).trace
    valid = trace["behavior_mask"].numpy()
    np.testing.assert_array_equal(padded["behavior_mask"][:, columns:], valid)
    places = ["global/", "transition/", "local/"] if name == "evo" else [""]
    keys = columns if name == "full" else 0
    for place in places:
        expected, found = (
            {
                kind: of[f"history/block_0/{place}{kind}"].numpy()[rows]
                for kind in ("weights", "logits", "mask")
            }
            for of, rows in (
                (trace, valid),
                (padded, np.pad(valid, ((0, 0), (columns, 0)))),
            )
        )
        mask = expected["mask"]
        np.testing.assert_array_equal(found["mask"][:, keys:], mask)
        assert not np.any(found["mask"][:, :keys])
        for kind in ("weights", "logits"):
            np.testing.assert_allclose(
                np.where(mask[:, None], found[kind][..., keys:], 0.0),
                np.where(mask[:, None], expected[kind], 0.0),
                rtol=1e-4,
                atol=1e-4,
            )
    # Behaviors are not computed in the last block.
    assert not any(key.startswith("history/block_1") for key in trace)


@pytest.mark.parametrize("output_gate", ["head", "element"])
def test_output_gates_start_nearly_open(
    output_gate: str, inputs: Inputs
) -> None:
    config = dataclasses.replace(CONFIG, output_gate=output_gate)
    trace = config.build(SCHEMA)(inputs, trace=True).trace
    gate = trace["block_1/output_gate"].numpy()
    size = CONFIG.num_heads if output_gate == "head" else CONFIG.width
    assert gate.shape == (len(NUM_VALID), NUM_CANDIDATES, size)
    np.testing.assert_allclose(gate, 0.9, atol=0.06)
    assert np.std(gate) > 1e-3


def test_takes_a_recipe_as_a_dict() -> None:
    values = json.loads(json.dumps(SMALL_CONFIG.to_dict()))
    model = SparseCTR(dataclasses.asdict(SCHEMA), values)
    assert (model.schema, model.recipe) == (SCHEMA, SMALL_CONFIG)
