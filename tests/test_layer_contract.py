"""The layer contract accepts a good layer and rejects each kind of bad one."""

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


@keras.saving.register_keras_serializable("layer_contract_test")
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


def register(layer_class: type) -> type:
    return keras.saving.register_keras_serializable("layer_contract_test")(
        layer_class
    )


def test_accepts_a_good_layer() -> None:
    policy = keras.config.dtype_policy()
    check(Scaled)
    assert keras.config.dtype_policy() == policy


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
            left = ops.matmul(features["left"], self.kernel) * self.scale
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


def test_accepts_a_layer_pinned_to_float32() -> None:
    @register
    class Pinned(Scaled):
        def __init__(self, units: int, scale: float, **kwargs: Any) -> None:
            super().__init__(units, scale, **{**kwargs, "dtype": "float32"})

    check(Pinned, pinned_float32=True)
    with pytest.raises(AssertionError, match="float32 under mixed_bfloat16"):
        check(Pinned)


def test_accepts_custom_objects_for_registration() -> None:
    class Unregistered(Scaled):
        pass

    check(Unregistered, custom_objects={"Unregistered": Unregistered})
    with pytest.raises(AssertionError, match="not registered"):
        check(Unregistered)


def test_rejects_missing_config_key() -> None:
    @register
    class MissingKey(Scaled):
        def get_config(self) -> dict:
            config = super().get_config()
            del config["scale"]
            return config

    with pytest.raises(AssertionError, match="lacks `scale`"):
        check(MissingKey)


def test_rejects_wrong_config_value() -> None:
    @register
    class WrongValue(Scaled):
        def get_config(self) -> dict:
            return {**super().get_config(), "scale": 1.0}

    with pytest.raises(AssertionError, match=r"scale=1\.0 for 2\.5"):
        check(WrongValue)


def test_rejects_config_that_is_not_json() -> None:
    @register
    class NotJson(Scaled):
        def get_config(self) -> dict:
            return {**super().get_config(), "scale": np.ones(2)}

    with pytest.raises(AssertionError, match="not JSON"):
        check(NotJson)


def test_rejects_from_config_that_forgets() -> None:
    @register
    class Forgets(Scaled):
        @classmethod
        def from_config(cls, config: dict) -> Scaled:
            return cls(**{**config, "scale": 9.0})

    with pytest.raises(AssertionError, match="has another config"):
        check(Forgets)


def test_rejects_build_that_edits_config() -> None:
    @register
    class EditsInBuild(Scaled):
        def build(self, input_shape: tuple) -> None:
            super().build(input_shape)
            self.scale = self.scale / input_shape[-1]

    with pytest.raises(AssertionError, match="build changed the config"):
        check(EditsInBuild)


def test_rejects_call_that_edits_config() -> None:
    @register
    class EditsInCall(Scaled):
        def call(self, inputs: Any) -> Any:
            self.scale += 1.0
            return super().call(inputs)

    with pytest.raises(AssertionError, match="call changed the config"):
        check(EditsInCall)


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


def test_rejects_missing_static_shape() -> None:
    @register
    class NoShape(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs

    with pytest.raises(AssertionError, match="compute_output_shape"):
        check_layer(NoShape, {}, INPUTS, expects_gradients=False)


def test_rejects_wrong_static_shape() -> None:
    @register
    class WrongShape(Scaled):
        def compute_output_shape(self, input_shape: tuple) -> tuple:
            return input_shape

    with pytest.raises(AssertionError, match="static shape"):
        check(WrongShape)


def test_rejects_static_shape_wrong_for_unknown_batch() -> None:
    @register
    class FixedBatch(Scaled):
        def compute_output_shape(self, input_shape: tuple) -> tuple:
            return (input_shape[0] or 1, *input_shape[1:-1], self.units)

    with pytest.raises(AssertionError, match="symbolic shape"):
        check(FixedBatch)


def test_rejects_unexpected_shape() -> None:
    with pytest.raises(AssertionError, match="expected"):
        check(Scaled, expected_output_shape=(BATCH, UNITS, LENGTH))


def test_rejects_weight_without_gradient() -> None:
    @register
    class NoGradient(Scaled):
        def call(self, inputs: Any) -> Any:
            kernel = ops.stop_gradient(self.kernel)
            return ops.matmul(inputs, kernel) * self.scale

    with pytest.raises(AssertionError, match=r"no gradient for .*kernel"):
        check(NoGradient)


def test_rejects_gradient_that_is_not_finite() -> None:
    @register
    class InfiniteGradient(Scaled):
        def call(self, inputs: Any) -> Any:
            outputs = super().call(inputs)
            return outputs + ops.sqrt(ops.relu(-ops.abs(self.kernel[0])))

    with pytest.raises(AssertionError, match="not finite"):
        check(InfiniteGradient)


def test_rejects_gradient_expectation_that_does_not_fit() -> None:
    with pytest.raises(AssertionError, match="without gradients"):
        check(Scaled, expects_gradients=False)
    with pytest.raises(AssertionError, match="no trainable weights"):
        check_layer(keras.layers.Flatten, {}, INPUTS)


def test_rejects_eager_that_differs_from_graph() -> None:
    @register
    class TellsEager(Scaled):
        def call(self, inputs: Any) -> Any:
            # A value that tracing freezes at its first call.
            self.calls = getattr(self, "calls", 0) + 1
            return super().call(inputs) * self.calls

    with pytest.raises(AssertionError, match="graph differs from eager"):
        check(TellsEager)


def test_rejects_weight_that_is_not_saved() -> None:
    @register
    class LosesWeight(Scaled):
        def save_own_variables(self, store: Any) -> None:
            store["0"] = np.zeros(self.kernel.shape)

    with pytest.raises(AssertionError, match=r"loaded from \.keras"):
        check(LosesWeight)


def test_rejects_output_that_ignores_the_policy() -> None:
    @register
    class AlwaysFloat32(Scaled):
        def call(self, inputs: Any) -> Any:
            return ops.cast(super().call(inputs), "float32")

    with pytest.raises(AssertionError, match="is float32 under mixed_bfloat16"):
        check(AlwaysFloat32)


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
