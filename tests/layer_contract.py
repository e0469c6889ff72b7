"""The contract that every layer of the project keeps, as one check.

    def test_contract():
        check_layer(
            SwiGLU,
            {"hidden_width": 7},
            np.ones((2, 3, 5), "float32"),
            expected_output_shape=(2, 3, 5),
        )

A broken promise raises `AssertionError` with one line that names it.
"""

import contextlib
import inspect
import json
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# XLA and the graph reorder float32 sums.
RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-5

Layer = keras.layers.Layer


def check_layer(
    layer_class: type[Layer],
    init_kwargs: Mapping[str, Any],
    call_inputs: Any,
    *,
    expected_output_shape: Any = None,
    call_kwargs: Mapping[str, Any] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    supports_jit: bool = True,
    expects_gradients: bool = True,
    pinned_float32: bool = False,
) -> None:
    """Checks all that a layer promises.

    Args:
        layer_class: The layer.
        init_kwargs: Arguments of its constructor. Values that differ from
            the defaults catch more.
        call_inputs: Arrays. A tuple is the positional arguments of `call`;
            an array, a dict or a list is its first argument. The first axis
            of every array is the batch.
        expected_output_shape: Shape of the output, or a dict, list or tuple
            of shapes where there are several.
        call_kwargs: Keyword arguments of `call`. Arrays become tensors, the
            rest is passed as it is.
        custom_objects: Classes that loading needs. Without it the layer must
            be registered for serialization.
        supports_jit: Whether XLA compiles the layer.
        expects_gradients: Whether the layer has trainable weights; each then
            needs a finite gradient.
        pinned_float32: Whether the layer computes in float32 under every
            policy.

    Raises:
        AssertionError: If the layer breaks a promise.
    """
    arguments = _Arguments(call_inputs, call_kwargs or {})
    # The same weights whatever ran before: sums in another order differ more
    # for some than for others.
    keras.utils.set_random_seed(0)
    with _dtype_policy("float32"):
        layer = _build(layer_class, init_kwargs, arguments)
        _check_weights(layer, expects_gradients)
        _perturb(layer)
        outputs = layer(*arguments.args, **arguments.kwargs)
        _check_shapes(layer, arguments, outputs, expected_output_shape)
        _check_executions(layer, arguments, supports_jit)
        with keras.saving.custom_object_scope(dict(custom_objects or {})):
            _check_config(layer, init_kwargs, arguments, outputs)
            _check_saving(layer, arguments, outputs)
    _check_dtypes(layer, init_kwargs, arguments, outputs, pinned_float32)


class _Arguments:
    """Arguments of a call: tensors among them, and constants beside them."""

    def __init__(self, call_inputs: Any, call_kwargs: Mapping[str, Any]):
        args = call_inputs if type(call_inputs) is tuple else (call_inputs,)
        self.args = tuple(_map(tf.convert_to_tensor, arg) for arg in args)
        self.kwargs = {
            name: _map(tf.convert_to_tensor, value)
            if _has_arrays(value)
            else value
            for name, value in call_kwargs.items()
        }

    def map(
        self, function: Callable[[tf.Tensor], Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns args and kwargs with every tensor replaced."""
        return (
            tuple(_map(function, arg) for arg in self.args),
            {
                name: _map(function, value) if _has_arrays(value) else value
                for name, value in self.kwargs.items()
            },
        )

    def tensors(self) -> list[tf.Tensor]:
        """Returns every tensor, in the order in which `map` meets it."""
        found: list[tf.Tensor] = []
        self.map(found.append)
        return found

    def with_tensors(
        self, tensors: list[Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns args and kwargs with `tensors` in place of its own."""
        values = iter(tensors)
        return self.map(lambda _: next(values))


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _map(function: Callable[[Any], Any], structure: Any) -> Any:
    """Maps the arrays of nested dicts, lists and tuples; keeps `None`."""
    if structure is None:
        return None
    if isinstance(structure, Mapping):
        return {key: _map(function, v) for key, v in structure.items()}
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*(_map(function, v) for v in structure))
    if isinstance(structure, list | tuple):
        return type(structure)(_map(function, v) for v in structure)
    return function(structure)


def _flatten(structure: Any, path: str = "output") -> dict[str, Any]:
    """Returns path -> array of nested dicts, lists and tuples."""
    if structure is None:
        return {}
    if isinstance(structure, Mapping):
        parts = list(structure.items())
    elif isinstance(structure, list | tuple):
        parts = list(enumerate(structure))
    else:
        return {path: structure}
    flat = {}
    for key, value in parts:
        flat.update(_flatten(value, f"{path}[{key!r}]"))
    return flat


def _has_arrays(structure: Any) -> bool:
    return any(_is_array(value) for value in _flatten(structure).values())


def _flatten_shapes(structure: Any, path: str = "output") -> dict[str, Any]:
    """Returns path -> shape of nested shapes, each a sequence of sizes."""
    if isinstance(structure, list | tuple) and all(
        size is None or isinstance(size, int) for size in structure
    ):
        return {path: tuple(structure)}
    parts = (
        structure.items()
        if isinstance(structure, Mapping)
        else enumerate(structure)
    )
    flat = {}
    for key, value in parts:
        flat.update(_flatten_shapes(value, f"{path}[{key!r}]"))
    return flat


def _shapes(outputs: Any) -> dict[str, Any]:
    return {path: tuple(x.shape) for path, x in _flatten(outputs).items()}


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _keras_tensor(x: tf.Tensor, batch_size: int | None = -1) -> Any:
    shape = tuple(x.shape)
    if batch_size is None and shape:
        shape = (None, *shape[1:])
    return keras.KerasTensor(shape, dtype=x.dtype.name)


def _config_text(layer: Layer) -> str:
    try:
        return json.dumps(layer.get_config(), sort_keys=True)
    except TypeError as error:
        raise AssertionError(f"get_config() is not JSON: {error}") from error


def _build(
    layer_class: type[Layer],
    init_kwargs: Mapping[str, Any],
    arguments: _Arguments,
) -> Layer:
    """Returns the built layer, after checking that building is all it did."""
    layer = layer_class(**init_kwargs)
    before = _config_text(layer)
    args, kwargs = arguments.map(_keras_tensor)
    assert layer_class.compute_output_shape is not Layer.compute_output_shape, (
        "compute_output_shape is not defined"
    )
    # A symbolic call builds, and asks compute_output_shape instead of call.
    layer(*args, **kwargs)
    num_weights = len(layer.weights)
    assert _config_text(layer) == before, "build changed the config"
    layer(*arguments.args, **arguments.kwargs)
    assert _config_text(layer) == before, "call changed the config"
    assert len(layer.weights) == num_weights, (
        f"call made weights that build had not: {num_weights} after build, "
        f"{len(layer.weights)} after call"
    )
    return layer


def _check_weights(layer: Layer, expects_gradients: bool) -> None:
    paths = [weight.path for weight in layer.trainable_weights]
    if expects_gradients:
        assert paths, "no trainable weights; pass expects_gradients=False"
    else:
        assert not paths, f"trainable weights without gradients: {paths}"


def _perturb(layer: Layer) -> None:
    """Moves all weights off their initial values.

    Zeros and ones, and values that a fresh layer draws again, hide weights
    that are not saved or not used.
    """
    random = np.random.default_rng(0)
    for weight in layer.trainable_weights:
        noise = random.normal(0.0, 0.1, size=tuple(weight.shape))
        weight.assign(weight.numpy() + noise)


def _check_shapes(
    layer: Layer, arguments: _Arguments, outputs: Any, expected: Any
) -> None:
    eager = _shapes(outputs)
    if expected is not None:
        wanted = _flatten_shapes(expected)
        assert eager == wanted, f"shape is {eager}, expected {wanted}"

    args, kwargs = arguments.map(_keras_tensor)
    static = _shapes(layer.compute_output_spec(*args, **kwargs))
    assert static == eager, f"static shape {static}, eager shape {eager}"

    args, kwargs = arguments.map(lambda x: _keras_tensor(x, None))
    declared = _shapes(layer(*args, **kwargs))
    _check_compatible("symbolic", declared, eager)

    specs = [
        tf.TensorSpec((None, *x.shape[1:]) if x.shape.rank else (), x.dtype)
        for x in arguments.tensors()
    ]

    @tf.function
    def traced(*tensors: tf.Tensor) -> Any:
        args, kwargs = arguments.with_tensors(list(tensors))
        return layer(*args, **kwargs)

    graph = traced.get_concrete_function(*specs).structured_outputs
    _check_compatible("graph", _shapes(graph), eager)


def _check_compatible(what: str, shapes: Any, eager: Any) -> None:
    """With an unknown batch size, what is known must be right."""
    fits = shapes.keys() == eager.keys() and all(
        len(shape) == len(eager[path])
        and all(
            size is None or size == known
            for size, known in zip(shape, eager[path], strict=True)
        )
        for path, shape in shapes.items()
    )
    assert fits, f"{what} shape {shapes}, eager shape {eager}"


def _check_executions(
    layer: Layer, arguments: _Arguments, supports_jit: bool
) -> None:
    """Eager, graph and XLA agree on values and gradients."""
    paths = [weight.path for weight in layer.trainable_weights]

    def step(*tensors: tf.Tensor) -> tuple[Any, list[Any]]:
        args, kwargs = arguments.with_tensors(list(tensors))
        with tf.GradientTape() as tape:
            outputs = layer(*args, **kwargs)
            loss = _scalar(outputs)
        sources = [weight.value for weight in layer.trainable_weights]
        gradients = tape.gradient(loss, sources) if sources else []
        for path, gradient in zip(paths, gradients, strict=True):
            assert gradient is not None, f"no gradient for {path}"
        return outputs, [
            g.values if isinstance(g, tf.IndexedSlices) else g
            for g in gradients
        ]

    tensors = arguments.tensors()
    outputs, gradients = step(*tensors)
    for path, gradient in zip(paths, gradients, strict=True):
        assert np.all(np.isfinite(gradient)), f"gradient of {path} not finite"
    for path, x in _flatten(outputs).items():
        assert _is_finite(x), f"{path} is not finite"
    modes = {"graph": False, "XLA": True} if supports_jit else {"graph": False}
    for mode, jit_compile in modes.items():
        compiled = tf.function(step, jit_compile=jit_compile)
        other_outputs, other_gradients = compiled(*tensors)
        _check_equal(f"{mode} differs from eager", other_outputs, outputs)
        _check_equal(
            f"{mode} gradients differ from eager",
            dict(zip(paths, other_gradients, strict=True)),
            dict(zip(paths, gradients, strict=True)),
        )


def _scalar(outputs: Any) -> tf.Tensor:
    """A loss that reads every element with a weight of its own.

    Weights that differ keep sums that are constant, as softmax's is, from
    hiding the gradient.
    """
    random = np.random.default_rng(1)
    loss = tf.constant(0.0)
    for x in _flatten(outputs).values():
        if x.dtype.is_floating:
            weights = random.normal(size=tuple(x.shape))
            loss += tf.reduce_sum(tf.cast(x, tf.float32) * weights)
    return loss


def _is_finite(x: tf.Tensor) -> bool:
    return not x.dtype.is_floating or bool(
        np.all(np.isfinite(tf.cast(x, tf.float32)))
    )


def _check_equal(what: str, actual: Any, expected: Any) -> None:
    """Compares structures of tensors; integers and booleans exactly."""
    actual, expected = _flatten(actual), _flatten(expected)
    assert actual.keys() == expected.keys(), (
        f"{what}: {sorted(actual)} for {sorted(expected)}"
    )
    for path, x in expected.items():
        y = actual[path]
        assert y.dtype == x.dtype, f"{what}: {path}: {y.dtype} for {x.dtype}"
        if x.dtype.is_floating:
            equal = np.allclose(
                y,
                x,
                rtol=RELATIVE_TOLERANCE,
                atol=ABSOLUTE_TOLERANCE,
                equal_nan=True,
            )
        else:
            equal = np.array_equal(y, x)
        assert equal, f"{what}: {path}"


def _check_config(
    layer: Layer,
    init_kwargs: Mapping[str, Any],
    arguments: _Arguments,
    outputs: Any,
) -> None:
    layer_class = type(layer)
    config = json.loads(_config_text(layer))
    # The class itself would answer with the arguments of Keras' own __new__.
    signature = inspect.signature(layer_class.__init__)
    for name, parameter in list(signature.parameters.items())[1:]:
        if parameter.kind not in (
            inspect.Parameter.VAR_KEYWORD,
            inspect.Parameter.VAR_POSITIONAL,
        ):
            assert name in config, f"get_config() lacks `{name}`"
    for name, value in init_kwargs.items():
        # Initializers and the like are serialized; plain values are not.
        if isinstance(value, bool | int | float | None):
            assert config.get(name) == value, (
                f"get_config() has {name}={config.get(name)!r} for {value!r}"
            )

    rebuilt = layer_class.from_config(json.loads(_config_text(layer)))
    assert json.loads(_config_text(rebuilt)) == config, (
        "from_config(get_config()) has another config"
    )
    args, kwargs = arguments.map(_keras_tensor)
    rebuilt(*args, **kwargs)
    rebuilt.set_weights(layer.get_weights())
    _check_equal(
        "from_config(get_config()) computes something else",
        rebuilt(*arguments.args, **arguments.kwargs),
        outputs,
    )


def _check_saving(layer: Layer, arguments: _Arguments, outputs: Any) -> None:
    """The round trip through a `.keras` file, in a functional model."""
    registered = keras.saving.get_registered_object(
        keras.saving.get_registered_name(type(layer))
    )
    assert registered is type(layer), (
        f"{type(layer).__name__} is not registered for serialization"
    )
    inputs = [
        keras.Input(
            batch_shape=_keras_tensor(x, None).shape, dtype=x.dtype.name
        )
        for x in arguments.tensors()
    ]
    args, kwargs = arguments.with_tensors(inputs)
    model = keras.Model(inputs, layer(*args, **kwargs))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        with warnings.catch_warnings():
            # Keras 3.15 hands its variables to NumPy 2 in the old way.
            warnings.filterwarnings(
                "ignore", "__array__ implementation", DeprecationWarning
            )
            model.save(path)
        loaded = keras.saving.load_model(path, compile=False)
    _check_equal(
        "the model loaded from .keras computes something else",
        loaded(arguments.tensors()),
        outputs,
    )


def _check_dtypes(
    layer: Layer,
    init_kwargs: Mapping[str, Any],
    arguments: _Arguments,
    outputs: Any,
    pinned_float32: bool,
) -> None:
    for policy, compute_dtype in (
        ("float32", "float32"),
        ("mixed_bfloat16", "bfloat16"),
    ):
        wanted = "float32" if pinned_float32 else compute_dtype
        with _dtype_policy(policy):
            other = type(layer)(**init_kwargs)
            other(*arguments.args, **arguments.kwargs)
            other.set_weights(layer.get_weights())
            found = _flatten(other(*arguments.args, **arguments.kwargs))
        for weight in other.weights:
            assert "bfloat16" not in str(weight.dtype), (
                f"weight {weight.path} is {weight.dtype} under {policy}"
            )
        for path, expected in _flatten(outputs).items():
            x = found[path]
            if expected.dtype.is_floating:
                assert x.dtype.name == wanted, (
                    f"{path} is {x.dtype.name} under {policy}, not {wanted}"
                )
                assert _is_finite(x), f"{path} is not finite under {policy}"
            else:
                _check_equal(f"{policy} changed integers", x, expected)
