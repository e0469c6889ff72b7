"""MeanPooling against its own equation in NumPy."""

import numpy as np

from tests import reference
from tests.keras_weights import random_model
from tests.make_requests import (
    CONFIG,
    LENGTH,
    SCHEMA,
    make_requests,
    sized_recipe,
)


def test_equals_the_equation() -> None:
    model = random_model(SCHEMA, sized_recipe("mean_pooling"), 1)
    inputs = make_requests(2, [LENGTH, 0, 1, 6])
    user, behaviors, candidates = (
        x.numpy().astype("float64") for x in model.embedding(inputs)
    )
    head = model.prediction
    weights = {
        "candidate": head.candidate_projection.kernel,
        "user": head.user_projection.kernel,
        "kernel_1": head.mlp.hidden[0].kernel,
        "bias_1": head.mlp.hidden[0].bias,
        "kernel_2": head.mlp.output_unit.kernel,
        "bias_2": head.mlp.output_unit.bias,
    }
    weights = {k: w.numpy().astype("float64") for k, w in weights.items()}
    kernel = model.fusion.kernel.numpy().astype("float64")
    expected = []
    for b, times in enumerate(inputs["behavior_time"]):
        valid = behaviors[b, times > 0]
        mean = valid.mean(axis=0) if len(valid) else np.zeros(CONFIG.width)
        rows = [
            np.concatenate([candidate, mean, candidate * mean]) @ kernel
            + model.fusion.bias.numpy()
            for candidate in candidates[b]
        ]
        expected.append(
            reference.prediction_layer(
                weights, np.maximum(np.array(rows), 0.0), user[b]
            )
        )
    np.testing.assert_allclose(
        model(inputs).logits,
        expected,
        rtol=1e-5,
        atol=1e-5 * np.max(np.abs(expected)),
    )
