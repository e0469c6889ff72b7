"""Finds the recipes of models: every file of `configs/models/` has one."""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

from sparsectr.model_recipe import ModelRecipe


def model_names() -> tuple[str, ...]:
    """Returns the names of all models, in order."""
    package = importlib.import_module("configs.models")
    return tuple(
        sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    )


def recipe_class(name: str) -> type[ModelRecipe]:
    """Returns the recipe of a model.

    Args:
        name: The name of its file in `configs/models/`.

    Raises:
        ValueError: If there is no such model. It names those that there are.
    """
    if name not in model_names():
        raise ValueError(
            f"`name` must be one of {', '.join(model_names())}. "
            f"Received: name={name!r}"
        )
    module = importlib.import_module(f"configs.models.{name}")
    found = [
        value
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, ModelRecipe)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise RuntimeError(
            f"{module.__file__} must hold one ModelRecipe, not {len(found)}."
        )
    return found[0]


def recipe_from_dict(values: Mapping[str, Any]) -> ModelRecipe:
    """Returns the recipe that `ModelRecipe.to_dict()` describes.

    Raises:
        ValueError: If the name or a value is missing, unknown or bad.
    """
    given = dict(values)
    try:
        recipe = recipe_class(given.pop("name"))
    except KeyError as error:
        raise ValueError("A model has no name.") from error
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in given.items()
    }
    try:
        return recipe(**fields)
    except TypeError as error:
        raise ValueError(f"Not a model: {error}") from error
