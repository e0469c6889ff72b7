"""What goes into the SavedModel and what comes out, by name.

The one place that says so: the graph is traced from it, `signature.json`
beside the graph is written from it, the client and the checks read either.
Nothing here imports TensorFlow.

Axes: B requests, L history length, C candidates.

What a request may hold that it should not, and the answer. None changes
another request of the same call, unless it says that the call fails:

| in a request | answer |
|---|---|
| a tensor is missing, or has another dtype | the call fails |
| an unknown tensor | the call fails; over REST it is not looked at |
| inputs differ in B, histories in L, or candidates in C | the call fails |
| an unknown id | that of all unknown values |
| an empty history: L = 0, or padding alone | a score for no history |
| no candidates: C = 0 | `probability` of shape `[B, 0]` |
| more behaviors than the model's `max_history` | the newest are read |
| times out of order, at or after the request's | finite scores, no meaning |
| NaN or infinity in a dense feature | the feature counts as missing |
| a state of another version of the model | NaN for all its candidates |
| a state of another shape | the call fails |
| a tf.Example without `request_time` or part of a list | NaN for its scores |
| what is no tf.Example, or has a feature of another type | the call fails |
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.requests.raw_tensors import (
    PROBABILITY,
    RIGHT_PADDING,
    Tensor,
    behavior_inputs,
    candidate_inputs,
    user_inputs,
)
from sparsectr.model_recipe import ModelRecipe
from sparsectr.schema import DatasetSchema

FORMAT = "sparsectr-signature"
FORMAT_VERSION = 1

WHOLE_PASS = "serving_default"
ENCODE_USER = "encode_user"
SCORE = "score"
EXAMPLES = "serving_examples"

STATE_PREFIX = "state_"
"""Begins the names of what `encode_user` returns."""

FINGERPRINT = STATE_PREFIX + "fingerprint"

Signature = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""Inputs and outputs."""


def state_tensors(
    schema: DatasetSchema, recipe: ModelRecipe
) -> tuple[Tensor, ...]:
    """Returns what `encode_user` hands to `score`, as the recipe says it."""
    return (
        *(
            Tensor(
                STATE_PREFIX + tensor.name,
                tensor.dtype,
                ("B", *tensor.shape),
                tensor.meaning,
            )
            for tensor in recipe.state_spec(schema).tensors
        ),
        Tensor(
            FINGERPRINT,
            "int64",
            ("B",),
            "Which model made the state, a number of 53 bits",
        ),
    )


def signatures(
    schema: DatasetSchema,
    recipe: ModelRecipe,
    xla_buckets: Sequence[tuple[int, int, int]] = (),
) -> dict[str, Signature]:
    """Returns inputs and outputs of every signature.

    Args:
        schema: The fields of the model.
        recipe: The model.
        xla_buckets: B, L and C of each compiled signature.
    """
    users = (
        *user_inputs(schema),
        *behavior_inputs(schema),
    )
    candidates = candidate_inputs(schema)
    whole = (*users, *candidates)
    probability = Tensor(
        PROBABILITY,
        "float32",
        ("B", "C"),
        "Probability of a click",
        RIGHT_PADDING,
    )
    found: dict[str, Signature] = {WHOLE_PASS: (whole, (probability,))}
    state = state_tensors(schema, recipe)
    if recipe.state_spec(schema).bound_to_request_time:
        users = (*users, candidates[0])
    found[ENCODE_USER] = (users, state)
    found[SCORE] = ((*state, *candidates), (probability,))
    examples = Tensor(
        "examples",
        "string",
        ("B",),
        f"Serialized tf.Example, features named as in {WHOLE_PASS}, histories "
        "and candidates of any length; NaN for one that is malformed",
    )
    found[EXAMPLES] = (
        (examples,),
        (dataclasses.replace(probability, padding="right: 0"),),
    )
    for bucket in xla_buckets:
        found[xla_name(bucket)] = (
            _with_sizes(whole, bucket),
            _with_sizes((probability,), bucket),
        )
    return found


def xla_name(bucket: tuple[int, int, int]) -> str:
    """Returns the name of the signature compiled for B, L and C."""
    return "serving_xla_b{}_l{}_c{}".format(*bucket)


def signature_json(
    schema: DatasetSchema,
    recipe: ModelRecipe,
    *,
    fingerprint: int,
    buckets: Mapping[str, Any],
    vocabularies: Mapping[str, str],
    xla_buckets: Sequence[tuple[int, int, int]] = (),
) -> dict[str, Any]:
    """Returns the content of `signature.json`.

    Args:
        schema: The fields of the model.
        recipe: The model.
        fingerprint: What its states carry.
        buckets: The shapes that requests are padded to.
        vocabularies: SHA-256 of the values behind the ids, by table.
        xla_buckets: B, L and C of each compiled signature.
    """
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "buckets": buckets,
        "vocabularies": dict(vocabularies),
        "signatures": {
            name: {
                "inputs": [dataclasses.asdict(tensor) for tensor in inputs],
                "outputs": [dataclasses.asdict(tensor) for tensor in outputs],
            }
            for name, (inputs, outputs) in signatures(
                schema, recipe, xla_buckets
            ).items()
        },
    }


def _with_sizes(
    tensors: tuple[Tensor, ...], bucket: tuple[int, int, int]
) -> tuple[Tensor, ...]:
    sizes: dict[str | int, int] = dict(zip("BLC", bucket, strict=True))
    return tuple(
        dataclasses.replace(
            tensor, shape=tuple(sizes.get(axis, axis) for axis in tensor.shape)
        )
        for tensor in tensors
    )
