"""The layer contract accepts a good layer and rejects each kind of bad one."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.layer_contract import check_layer

BATCH, LENGTH, WIDTH, UNITS = 2, 3, 5, 7
INPUTS = np.random.default_rng(0).normal(size=(BATCH, LENGTH, WIDTH))
INPUTS = INPUTS.astype("float32")

register = keras.saving.register_keras_serializable("layer_contract_test")


@register
class Scaled(keras.layers.Layer):
    """A dense layer times a scale: keeps every promise."""

    def __init__(self, units: int, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.scale = scale

    def build(self, input_shape: tuple) -> None:
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), name="kernel"
        )
        self.built = True

    def call(self, inputs: Any) -> Any:
        return ops.matmul(inputs, self.kernel) * self.scale

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict:
        config = super().get_config()
        return {**config, "units": self.units, "scale": self.scale}


def check(layer_class: type, **kwargs: Any) -> None:
    kwargs = {"expected_output_shape": (BATCH, LENGTH, UNITS), **kwargs}
    check_layer(layer_class, {"units": UNITS, "scale": 2.5}, INPUTS, **kwargs)


def test_accepts_a_good_layer() -> None:
    policy = keras.config.dtype_policy()
    check(Scaled)
    assert keras.config.dtype_policy() == policy
    with pytest.raises(AssertionError, match="expected"):
        check(Scaled, expected_output_shape=(BATCH, UNITS, LENGTH))
    with pytest.raises(AssertionError, match="without gradients"):
        check(Scaled, expects_gradients=False)
    with pytest.raises(AssertionError, match="no trainable weights"):
        check_layer(keras.layers.Flatten, {}, INPUTS)


def test_accepts_nested_inputs_and_outputs() -> None:
    @register
    class Nested(Scaled):
        def build(self, features_shape: dict, times_shape: tuple) -> None:
            super().build(features_shape["left"])

        def call(
            self,
            features: dict,
            times: Any,
            left_mask: Any = None,
            twice: bool = False,
        ) -> dict:
            left = super().call(features["left"])
            left = left * ops.cast(left_mask, left.dtype)[..., None]
            gap = times[:, 1:] - times[:, :-1]
            return {
                "left": left * (2 if twice else 1),
                "rest": (gap, left_mask),
            }

        def compute_output_shape(
            self, features_shape: dict, times_shape: tuple
        ) -> dict:
            # Keras passes no shape for arguments called `..._mask`.
            left = (*features_shape["left"][:-1], self.units)
            gap = (times_shape[0], times_shape[1] - 1)
            return {"left": left, "rest": (gap, times_shape)}

    check_layer(
        Nested,
        {"units": UNITS, "scale": 2.5},
        (
            {"left": INPUTS},
            1_494_604_800 + np.arange(BATCH * LENGTH).reshape(BATCH, LENGTH),
        ),
        call_kwargs={
            "left_mask": np.ones((BATCH, LENGTH), bool),
            "twice": True,
        },
        expected_output_shape={
            "left": (BATCH, LENGTH, UNITS),
            "rest": [(BATCH, LENGTH - 1), (BATCH, LENGTH)],
        },
    )


def test_pinned_to_float32_is_said() -> None:
    @register
    class Pinned(Scaled):
        def __init__(self, units: int, scale: float, **kwargs: Any) -> None:
            super().__init__(units, scale, **{**kwargs, "dtype": "float32"})

    check(Pinned, pinned_float32=True)
    with pytest.raises(AssertionError, match="float32 under mixed_bfloat16"):
        check(Pinned)


def test_registration_is_needed() -> None:
    class Unregistered(Scaled):
        pass

    check(Unregistered, custom_objects={"Unregistered": Unregistered})
    with pytest.raises(AssertionError, match="not registered"):
        check(Unregistered)


def _config_with(scale: Any) -> Callable[..., dict]:
    return lambda self: {**Scaled.get_config(self), "scale": scale}


def _without_scale(self: Scaled) -> dict:
    config = Scaled.get_config(self)
    del config["scale"]
    return config


def _edit_in_build(self: Scaled, input_shape: tuple) -> None:
    Scaled.build(self, input_shape)
    self.scale = self.scale / input_shape[-1]


def _edit_in_call(self: Scaled, inputs: Any) -> Any:
    self.scale += 1.0
    return Scaled.call(self, inputs)


def _no_gradient(self: Scaled, inputs: Any) -> Any:
    return ops.matmul(inputs, ops.stop_gradient(self.kernel)) * self.scale


def _infinite_gradient(self: Scaled, inputs: Any) -> Any:
    root = ops.sqrt(ops.relu(-ops.abs(self.kernel[0])))
    return Scaled.call(self, inputs) + root


def _tells_eager(self: Scaled, inputs: Any) -> Any:
    # A value that tracing freezes at its first call.
    self.calls = getattr(self, "calls", 0) + 1
    return Scaled.call(self, inputs) * self.calls


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        ("get_config", _without_scale, "lacks `scale`"),
        ("get_config", _config_with(1.0), r"scale=1\.0 for 2\.5"),
        ("get_config", _config_with(np.ones(2)), "not JSON"),
        (
            "from_config",
            classmethod(lambda cls, config: cls(**{**config, "scale": 9.0})),
            "has another config",
        ),
        ("build", _edit_in_build, "build changed the config"),
        ("call", _edit_in_call, "call changed the config"),
        (
            "compute_output_shape",
            keras.layers.Layer.compute_output_shape,
            "compute_output_shape is not defined",
        ),
        ("compute_output_shape", lambda self, shape: shape, "static shape"),
        (
            "compute_output_shape",
            lambda self, shape: (shape[0] or 1, *shape[1:-1], self.units),
            "symbolic shape",
        ),
        ("call", _no_gradient, r"no gradient for .*kernel"),
        ("call", _infinite_gradient, "not finite"),
        ("call", _tells_eager, "graph differs from eager"),
        (
            "save_own_variables",
            lambda self, store: store.__setitem__("0", 0 * self.kernel.numpy()),
            r"loaded from \.keras",
        ),
        (
            "call",
            lambda self, x: ops.cast(Scaled.call(self, x), "float32"),
            "is float32 under mixed_bfloat16",
        ),
    ],
)
def test_rejects(name: str, method: Any, message: str) -> None:
    broken = register(type("Broken", (Scaled,), {name: method}))
    with pytest.raises(AssertionError, match=message):
        check(broken)


def test_rejects_sub_layer_built_by_call() -> None:
    @register
    class LateWeights(Scaled):
        def __init__(self, units: int, scale: float, **kwargs: Any) -> None:
            super().__init__(units, scale, **kwargs)
            self.dense = keras.layers.Dense(units)

        def call(self, inputs: Any) -> Any:
            return super().call(inputs) + self.dense(inputs)

    with pytest.raises(AssertionError, match="call made weights"):
        check(LateWeights)


def test_rejects_integers_that_the_policy_rounds() -> None:
    @register
    class RoundsTime(keras.layers.Layer):
        def call(self, times: Any) -> Any:
            return ops.cast(ops.cast(times, self.compute_dtype), "int32")

        def compute_output_shape(self, times_shape: tuple) -> tuple:
            return times_shape

    times = np.array([[257, 1001], [3, 4]], "int32")
    with pytest.raises(AssertionError, match="changed integers"):
        check_layer(RoundsTime, {}, times, expects_gradients=False)


def test_supports_jit_false_spares_xla() -> None:
    @register
    class Uncompiled(Scaled):
        def call(self, inputs: Any) -> Any:
            # Text has no XLA kernel.
            text = tf.strings.as_string(ops.cast(inputs, "float32"))
            inputs = ops.cast(tf.strings.to_number(text), self.compute_dtype)
            return super().call(inputs)

    check(Uncompiled, supports_jit=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="XLA"):
        check(Uncompiled)
