"""What every model of the registry promises (spec: the model contract).

Sizes are a different prime for every axis.
"""

import dataclasses
import json
import pathlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from sparsectr.layers.inputs.embedding_table import EmbeddingTable
from sparsectr.model_recipe import RequestShape
from sparsectr.model_registry import model_names, recipe_class
from sparsectr.models.ranking_model import RankingModel
from sparsectr.optimizers.lazy_adam import LazyAdam
from sparsectr.training.devices import make_strategy
from sparsectr.training.train_step import TrainStep
from tests.keras_weights import random_model, without_user_fields
from tests.make_requests import (
    LENGTH,
    LOGGED_SCHEMA,
    NUM_CANDIDATES,
    SCHEMA,
    SMALL_CONFIG,
    TIMED_SCHEMA,
    make_requests,
    pad_left,
    sized_recipe,
    subset,
)
from tests.matrix_products import matrix_products

SLOW = pytest.mark.slow
NUM_VALID = [LENGTH, 0, 1, 6, 17]
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
"""Other shapes sum in another order; logits are of the size of 1."""

RECIPES = {
    **{name: sized_recipe(name) for name in model_names()},
    "full_attention": sized_recipe(
        "sparse_ctr", attention="full", encoding="none"
    ),
    "learned_sink": sized_recipe(
        "sparse_ctr", sink="learned", num_candidate_local=7
    ),
    "full_attention_off_by_one": sized_recipe(
        "sparse_ctr", attention="full", encoding="none", sink="off_by_one"
    ),
    "gate_by_head": sized_recipe(
        "sparse_ctr", sink="off_by_one", output_gate="head"
    ),
    "key_value_sink": sized_recipe(
        "sparse_ctr", sink="key_value", num_registers=5
    ),
    "boundary_sinks": sized_recipe("sparse_ctr", boundary_sinks=True),
    "full_attention_in_full": sized_recipe(
        "sparse_ctr",
        attention="full",
        encoding="none",
        sink="key_value",
        output_gate="element",
    ),
    "fixed_chunks": sized_recipe(
        "sparse_ctr", chunking="fixed", max_history=31
    ),
    "balanced_chunks": sized_recipe("sparse_ctr", chunking="balanced"),
    "similar_chunks": sized_recipe("sparse_ctr", chunking="similarity"),
    "hstu_bias": sized_recipe("sparse_ctr", encoding="hstu", max_history=31),
    "t5_bias": sized_recipe("sparse_ctr", encoding="t5"),
    "t5_bias_in_full": sized_recipe(
        "sparse_ctr", encoding="t5", attention="full"
    ),
    "alibi": sized_recipe("sparse_ctr", encoding="alibi"),
    "rope": sized_recipe("sparse_ctr", width=42, encoding="rope"),
    "rope_in_full": sized_recipe(
        "sparse_ctr", width=42, encoding="rope", attention="full"
    ),
    "t_rope_relative": sized_recipe(
        "sparse_ctr", width=42, encoding="t_rope_relative"
    ),
    "t_rope_published": sized_recipe(
        "sparse_ctr", width=42, encoding="t_rope_published"
    ),
    "dilated": sized_recipe(
        "sparse_ctr", attention="dilated", num_local_heads=1
    ),
    "semi_local": sized_recipe("sparse_ctr", attention="semi_local"),
    "semi_local_all": sized_recipe(
        "sparse_ctr", attention="semi_local", semi_local_candidates="all"
    ),
    "linformer": sized_recipe(
        "sparse_ctr", attention="linformer", encoding="none"
    ),
    "nsa": sized_recipe("sparse_ctr", attention="nsa"),
    "nsa_by_mask": sized_recipe(
        "sparse_ctr", attention="nsa", nsa_num_selected=5, nsa_num_forced=3
    ),
    "bst_mean": sized_recipe("bst", pool="mean"),
    "bst_faithful": sized_recipe("bst", mode="faithful", pool="mean"),
    "din_with_dice": sized_recipe(
        "din", attention_activation="dice", head_activation="dice"
    ),
    "stca_with_gap": sized_recipe("stca", reads_gap=True),
    "longer_in_full": sized_recipe(
        "longer",
        merge=3,
        merged_width=21,
        inner_transformer=True,
        num_queries=5,
        num_layers=3,
        max_positions=11,
    ),
}

TIMED = {f"{name}_with_times": RECIPES[name] for name in model_names()}
TIMED["din_with_times_in_score"] = sized_recipe("din", gap_to_request="score")
RECIPES |= TIMED
SCHEMAS = {name: TIMED_SCHEMA if name in TIMED else SCHEMA for name in RECIPES}

BY_DEFAULT = {
    *model_names(),
    "full_attention",
    "learned_sink",
    "similar_chunks",
    "semi_local",
    "bst_faithful",
    "din_with_dice",
    *(f"{n}_with_times" for n in ("sparse_ctr", "din", "mean_pooling")),
    "din_with_times_in_score",
}
"""The rest, which reads nothing in another way, is slow."""

every_model = pytest.mark.parametrize(
    "name",
    [
        name if name in BY_DEFAULT else pytest.param(name, marks=SLOW)
        for name in RECIPES
    ],
)

Inputs = dict[str, Any]


class Models(dict[str, RankingModel]):
    """Models with random weights, each made when it is first asked for."""

    def __missing__(self, name: str) -> RankingModel:
        self[name] = random_model(SCHEMAS[name], RECIPES[name], 1)
        return self[name]


@pytest.fixture(scope="module")
def models() -> Models:
    return Models()


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return make_requests(2, NUM_VALID)


def _logits(model: RankingModel, inputs: Inputs) -> np.ndarray:
    return model(inputs).logits.numpy()


def _split(name: str, inputs: Inputs) -> tuple[Inputs, Inputs]:
    """Returns what a state is made of, and the request."""
    user = {k: v for k, v in inputs.items() if k[:4] in ("user", "beha")}
    request = {k: v for k, v in inputs.items() if k not in user}
    if RECIPES[name].state_spec(SCHEMAS[name]).bound_to_request_time:
        user["request_time"] = inputs["request_time"]
    return user, request


@every_model
def test_order_of_candidates_changes_nothing(
    name: str, models: Models, inputs: Inputs
) -> None:
    logits = _logits(models[name], inputs)
    order = np.array([3, 0, 4, 1, 2])
    moved = _logits(models[name], subset(inputs, "candidate_", order))
    np.testing.assert_allclose(moved, logits[:, order], **TOLERANCE)
    assert np.all(np.std(logits, axis=1) > 0.01)


@every_model
def test_candidates_do_not_see_each_other(
    name: str, models: Models, inputs: Inputs
) -> None:
    logits = _logits(models[name], inputs)
    for index in range(NUM_CANDIDATES):
        columns = slice(index, index + 1)
        alone = _logits(models[name], subset(inputs, "candidate_", columns))
        np.testing.assert_allclose(alone, logits[:, columns], **TOLERANCE)
    others = make_requests(3, NUM_VALID)
    for key in inputs:
        if key.startswith("candidate_"):
            others[key][:, 2] = inputs[key][:, 2]
        else:
            others[key] = inputs[key]
    replaced = _logits(models[name], others)
    np.testing.assert_allclose(replaced[:, 2], logits[:, 2], **TOLERANCE)
    changed = np.abs(replaced - logits)[:, [0, 1, 3, 4]]
    assert np.all(np.mean(changed, axis=1) > 0.01)


@every_model
def test_batch_mates_change_nothing(
    name: str, models: Models, inputs: Inputs
) -> None:
    logits = _logits(models[name], inputs)
    for row in range(len(NUM_VALID)):
        alone = {k: v[row : row + 1] for k, v in inputs.items()}
        np.testing.assert_allclose(
            _logits(models[name], alone), logits[row : row + 1], **TOLERANCE
        )


@every_model
@pytest.mark.parametrize("columns", [1, 13])
def test_left_padding_changes_nothing(
    name: str, columns: int, models: Models, inputs: Inputs
) -> None:
    logits = _logits(models[name], inputs)
    padded = _logits(models[name], pad_left(inputs, columns))
    np.testing.assert_allclose(padded, logits, **TOLERANCE)


@every_model
def test_ids_of_padding_change_nothing(
    name: str, models: Models, inputs: Inputs
) -> None:
    """Time 0 alone says what is padding."""
    logits = _logits(models[name], inputs)
    padding = inputs["behavior_time"] == 0
    other = dict(inputs)
    for key in ("behavior_item", "behavior_brand"):
        other[key] = np.where(padding, 7, inputs[key]).astype("int32")
    np.testing.assert_allclose(
        _logits(models[name], other), logits, **TOLERANCE
    )


@every_model
def test_every_behavior_is_read_by_candidates(
    name: str, models: Models, inputs: Inputs
) -> None:
    # The first request once a behaviour, and each time that one is another.
    copies = {k: np.repeat(v[:1], LENGTH, axis=0) for k, v in inputs.items()}
    logits = _logits(models[name], copies)
    change = np.eye(LENGTH, dtype="int32")
    copies["behavior_item"] = (copies["behavior_item"] + change) % 23
    moved = _logits(models[name], copies)
    assert np.all(np.max(np.abs(moved - logits), axis=1) > 1e-4)


@every_model
@pytest.mark.parametrize("offset", [0, 5, -1])
def test_ids_outside_the_table_are_out_of_vocabulary(
    name: str, offset: int, models: Models, inputs: Inputs
) -> None:
    known, foreign = dict(inputs), dict(inputs)
    for kind, fields in (
        ("user", SCHEMA.user_fields),
        ("behavior", SCHEMA.behavior_fields),
        ("candidate", SCHEMA.candidate_fields),
    ):
        for field in fields:
            key = f"{kind}_{field.name}"
            index = (0, 0) if kind == "candidate" else 0
            foreign_id = (
                -1 if offset < 0 else SCHEMA.table(field.table).size + offset
            )
            known[key], foreign[key] = inputs[key].copy(), inputs[key].copy()
            known[key][index], foreign[key][index] = 1, foreign_id
    logits = _logits(models[name], known)
    np.testing.assert_array_equal(_logits(models[name], foreign), logits)
    assert np.any(logits[0] != _logits(models[name], inputs)[0])


@every_model
def test_empty_histories_are_finite(name: str, models: Models) -> None:
    requests = make_requests(6, [0, 0], length=1)
    logits = _logits(models[name], requests)
    assert np.all(np.isfinite(logits))
    empty = {k: v[:, :0] if k[:4] == "beha" else v for k, v in requests.items()}
    np.testing.assert_allclose(
        _logits(models[name], empty), logits, **TOLERANCE
    )


@every_model
@pytest.mark.parametrize("has_user", [True, False])
@pytest.mark.parametrize("num_valid", [NUM_VALID, [0, 0, 0]])
def test_every_gradient_is_finite(
    name: str, num_valid: list[int], has_user: bool
) -> None:
    schema = SCHEMAS[name]
    schema = schema if has_user else without_user_fields(schema)
    unread = {"age", "city", "gender"} if not has_user else set()
    schema = dataclasses.replace(
        schema, tables=tuple(t for t in schema.tables if t.name not in unread)
    )
    model = random_model(schema, RECIPES[name], 5)
    requests = make_requests(6, num_valid, schema)
    with tf.GradientTape() as tape:
        scores = model(requests, training=True)
        loss = tf.reduce_sum(tf.nn.softplus(scores.logits))
        for extra in scores.auxiliary.values():
            loss += tf.reduce_sum(tf.nn.softplus(extra.logits))
    sources = [weight.value for weight in model.trainable_weights]
    gradients = tape.gradient(loss, sources)
    for weight, gradient in zip(
        model.trainable_weights, gradients, strict=True
    ):
        assert gradient is not None, f"no gradient for {weight.path}"
        values = tf.convert_to_tensor(getattr(gradient, "values", gradient))
        assert np.all(np.isfinite(values)), weight.path
        if num_valid is NUM_VALID:
            assert np.any(values != 0), f"gradient of {weight.path} is 0"


@every_model
@pytest.mark.parametrize("has_user", [True, False])
def test_the_state_is_what_the_recipe_says(name: str, has_user: bool) -> None:
    schema = SCHEMAS[name]
    schema = schema if has_user else without_user_fields(schema)
    for policy in ("float32", "mixed_bfloat16"):
        model = random_model(schema, RECIPES[name], 1, policy)
        user, _ = _split(name, make_requests(2, NUM_VALID, schema))
        state = model.encode_user(user)
        spec = model.recipe.state_spec(schema)
        assert list(state) == [tensor.name for tensor in spec.tensors]
        for tensor in spec.tensors:
            sizes = tensor.sizes(LENGTH)
            found = state[tensor.name]
            assert tuple(found.shape) == (len(NUM_VALID), *sizes), tensor
            is_float = tensor.dtype == "float32"
            wanted = model.compute_dtype if is_float else tensor.dtype
            assert found.dtype.name == wanted, tensor
        if policy == "float32":
            size = sum(np.asarray(value).nbytes for value in state.values())
            assert spec.num_bytes(LENGTH) == size // len(NUM_VALID)


@every_model
def test_score_of_the_state_equals_the_call(
    name: str, models: Models, inputs: Inputs
) -> None:
    model = models[name]
    user, request = _split(name, inputs)
    state = model.encode_user(user)
    logits = _logits(model, inputs)
    # One state serves any number of candidates.
    for columns in ([0, 1, 2, 3, 4], [1], [4, 2, 0]):
        found = model.score(state, subset(request, "candidate_", columns))
        np.testing.assert_allclose(
            found.logits, logits[:, columns], **TOLERANCE
        )
    later = {**request, "request_time": request["request_time"] + 86400}
    rebuilt = model({**inputs, **later}).logits
    found = model.score(state, later).logits
    is_equal = np.allclose(found, rebuilt, **TOLERANCE)
    spec = model.recipe.state_spec(SCHEMAS[name])
    assert is_equal != spec.bound_to_request_time


def _signature(inputs: Inputs) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec([None] * values.ndim, values.dtype, name=name)
        for name, values in inputs.items()
    }


@every_model
def test_dynamic_shapes_equal_eager(name: str, models: Models) -> None:
    """Batch, history and candidates of any size, from two graphs."""
    model = models[name]
    user, request = _split(name, make_requests(0, [3]))
    encode = tf.function(
        lambda user: model.encode_user(user),
        input_signature=[_signature(user)],
    )
    state = encode.get_concrete_function().structured_outputs
    spec = {k: tf.TensorSpec(v.shape, v.dtype) for k, v in state.items()}
    score = tf.function(
        lambda state, request: model.score(state, request).logits,
        input_signature=[spec, _signature(request)],
    )
    for length, num_valid, num_candidates in (
        (LENGTH, NUM_VALID, 5),
        (1, [1, 0, 1], 1),  # shorter than chunks and window
        (0, [0, 0, 0], 2),
    ):
        requests = make_requests(
            5, num_valid, length=length, num_candidates=num_candidates
        )
        expected = _logits(model, requests)
        assert expected.shape == (len(num_valid), num_candidates)
        given = {k: tf.constant(v) for k, v in requests.items()}
        user, request = _split(name, given)
        state = encode(user)
        for tensor in model.recipe.state_spec(SCHEMAS[name]).tensors:
            shape = (len(num_valid), *tensor.sizes(length))
            assert tuple(state[tensor.name].shape) == shape
        logits = score(state, request)
        np.testing.assert_allclose(logits, expected, **TOLERANCE)


@every_model
def test_a_trace_changes_nothing(
    name: str, models: Models, inputs: Inputs
) -> None:
    plain = models[name](inputs)
    assert plain.trace == {}
    traced = models[name](inputs, trace=True)
    np.testing.assert_array_equal(traced.logits, plain.logits)
    for key, value in traced.trace.items():
        assert value.shape[0] == len(NUM_VALID), key


@every_model
def test_config_and_weights_make_the_same_model(
    name: str, models: Models, inputs: Inputs
) -> None:
    model = models[name]
    before = [weight.path for weight in model.weights]
    assert len(set(before)) == len(before)
    text = json.dumps(model.get_config())
    rebuilt = type(model).from_config(json.loads(text))
    assert json.dumps(rebuilt.get_config()) == text
    rebuilt.build()
    rebuilt.set_weights(model.get_weights())
    np.testing.assert_array_equal(
        _logits(rebuilt, inputs), _logits(model, inputs)
    )
    assert [weight.path for weight in model.weights] == before


# Keras 3.15 hands its variables to NumPy 2 in the old way.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
@every_model
def test_keras_file_round_trip(
    name: str, models: Models, inputs: Inputs, tmp_path: pathlib.Path
) -> None:
    models[name].save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(models[name])
    assert (loaded.schema, loaded.recipe) == (SCHEMAS[name], RECIPES[name])
    np.testing.assert_array_equal(
        _logits(loaded, inputs), _logits(models[name], inputs)
    )


@every_model
def test_dropout_acts_in_training_alone(name: str, inputs: Inputs) -> None:
    recipe = dataclasses.replace(RECIPES[name], dropout_rate=0.5)
    model = random_model(SCHEMAS[name], recipe, 1)
    logits = _logits(model, inputs)
    np.testing.assert_array_equal(_logits(model, inputs), logits)
    assert np.any(model(inputs, training=True).logits != logits)


@every_model
def test_tables_are_what_the_recipe_says(name: str, models: Models) -> None:
    found = {
        layer.name: (layer.num_rows, layer.width)
        for layer in models[name]._flatten_layers()
        if isinstance(layer, EmbeddingTable)
    }
    said = models[name].recipe.tables(SCHEMAS[name])
    assert len(said) == len(found)
    assert {f"table_{t.name}": (t.num_rows, t.width) for t in said} == found


@every_model
@pytest.mark.parametrize("length", [LENGTH, 139])
def test_operations_are_what_the_recipe_says(
    name: str, length: int, models: Models
) -> None:
    requests = make_requests(3, [5, length], length=length)
    shape = RequestShape(2, length, NUM_CANDIDATES)
    said = models[name].recipe.flops(SCHEMAS[name], shape)
    counted = matrix_products(models[name], requests)
    assert 0.97 * said <= counted <= 1.03 * said


COMPILED_BY_DEFAULT = ("sparse_ctr", "din", "sim_soft")
"""For the others a compiler's ten seconds are slow."""


@pytest.mark.parametrize(
    ("name", "jit_compile"),
    [
        *((name, name in COMPILED_BY_DEFAULT) for name in model_names()),
        *(
            pytest.param(name, True, marks=SLOW)
            for name in model_names()
            if name not in COMPILED_BY_DEFAULT
        ),
    ],
)
def test_learns_by_one_step(name: str, jit_compile: bool) -> None:
    model = random_model(LOGGED_SCHEMA, sized_recipe(name, SMALL_CONFIG), 1)
    inputs = make_requests(2, NUM_VALID, LOGGED_SCHEMA)
    optimizer = LazyAdam(0.01)
    optimizer.build(model.trainable_variables)
    step = TrainStep(model, optimizer, make_strategy(1), jit_compile)
    label = (np.arange(NUM_CANDIDATES) % 2 == 0).astype("float32")
    batch = {k: tf.constant(v) for k, v in inputs.items()}
    batch["label"] = tf.constant(np.tile(label, (len(NUM_VALID), 1)))
    losses = [float(step(batch)) for _ in range(20)]
    assert step.num_traces == 1
    assert np.all(np.isfinite(losses))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", model_names())
def test_recipes_are_complete(name: str) -> None:
    recipe = recipe_class(name)()
    assert recipe.name == name
    for field in dataclasses.fields(recipe):
        assert field.metadata["help"].endswith("."), field.name
    for preset in recipe.presets:
        assert recipe.with_preset(preset).to_dict()["name"] == name
