"""Layers that are arguments of other layers, in and out of a config."""

from typing import Any

import keras


def serialized(layer: keras.layers.Layer) -> dict[str, Any]:
    """Returns what a config holds of a layer: class and arguments."""
    config: dict[str, Any] = keras.saving.serialize_keras_object(layer)
    # The shapes that it was built for are no argument.
    config.pop("build_config", None)
    return config


def deserialized(layer: Any) -> Any:
    """Returns a layer that is given as itself, as its config, or as `None`."""
    if isinstance(layer, dict):
        return keras.saving.deserialize_keras_object(layer)
    return layer
