"""Command-line flags made from the configuration dataclasses.

Every field is a flag: those of `TrainConfig` under their own names, those of
`ModelConfig` and `DataConfig` as `--model.<field>` and `--data.<field>`. A
flag that is not given leaves the value of the recipe in `configs/`.
"""

import dataclasses
import importlib
import importlib.util
import re
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

from absl import flags

from sparsectr.config import (
    SPARSITY_PRESETS,
    Config,
    DataConfig,
    ModelConfig,
    TrainConfig,
)
from sparsectr.errors import InputError

# The flags belong to the command that asks for them: `--help` shows the flags
# of the main module alone.
flags.disclaim_key_flags()

DATASETS = ("alibaba", "eleme", "movielens", "kuairand", "parquet")

_PREFIXES = {"model": "model.", "data": "data.", "train": ""}
_CLASSES = {"model": ModelConfig, "data": DataConfig, "train": TrainConfig}

_Part = TypeVar("_Part", ModelConfig, DataConfig, TrainConfig)


class _IntegersParser(flags.ArgumentParser[tuple[int, ...]]):
    """Reads a comma list of integers; an empty text is the empty tuple."""

    syntactic_help = "a comma separated list of integers"

    def parse(self, argument: Any) -> tuple[int, ...]:
        if isinstance(argument, str):
            argument = argument.split(",") if argument else ()
        return tuple(int(item) for item in argument)

    def flag_type(self) -> str:
        return "comma separated list of integers"


_PARSERS: dict[Any, type[flags.ArgumentParser[Any]]] = {
    int: flags.IntegerParser,
    float: flags.FloatParser,
    str: flags.ArgumentParser,
    tuple[int, ...]: _IntegersParser,
}


def define_config_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines `--dataset`, `--model.preset` and one flag for every field.

    Args:
        flag_values: Where the flags are defined.
    """
    flags.DEFINE_enum(
        "dataset",
        None,
        DATASETS,
        "Data set. Its recipe, configs/datasets/<dataset>.py, holds the values "
        "of all flags that are not given; the defaults below are those of no "
        "recipe.",
        flag_values=flag_values,
    )
    flags.DEFINE_enum(
        "model.preset",
        None,
        list(SPARSITY_PRESETS),
        "Sets num_chunks, num_transition and num_local at once; an explicit "
        "flag of one of them wins.",
        flag_values=flag_values,
    )
    for part, config_class in _CLASSES.items():
        types = typing.get_type_hints(config_class)
        for field in dataclasses.fields(config_class):
            _define_flag(
                _PREFIXES[part] + field.name,
                types[field.name],
                f"{field.metadata['help']} (default: {_text(field.default)})",
                flag_values,
            )


def config_from_flags(flag_values: flags.FlagValues = flags.FLAGS) -> Config:
    """Returns the recipe of `--dataset` with the given flags applied.

    The preset is applied first, then the explicit flags.

    Args:
        flag_values: Parsed flags of `define_config_flags`.

    Raises:
        InputError: If there is no recipe or a flag breaks a rule.
    """
    config = _recipe(flag_values["dataset"].value)
    model = config.model
    preset = flag_values["model.preset"].value
    if preset is not None:
        model = model.with_preset(preset)
    return dataclasses.replace(
        config,
        model=_with_flags("model", model, flag_values),
        data=_with_flags("data", config.data, flag_values),
        train=_with_flags("train", config.train, flag_values),
    )


def _define_flag(
    name: str, kind: Any, help_text: str, flag_values: flags.FlagValues
) -> None:
    if kind is bool:
        flags.DEFINE_boolean(name, None, help_text, flag_values=flag_values)
        return
    flags.DEFINE(
        _PARSERS[kind](), name, None, help_text, flag_values=flag_values
    )


def _text(value: Any) -> str:
    """Returns a default the way it would be given on the command line."""
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _recipe(dataset: str | None) -> Config:
    built = list(_built_datasets())
    if dataset is None:
        raise InputError(f"--dataset is missing. One of: {', '.join(built)}")
    if dataset not in built:
        raise InputError(
            f"--dataset={dataset} is not built yet. One of: {', '.join(built)}"
        )
    module = importlib.import_module(f"configs.datasets.{dataset}")
    config: Config = module.CONFIG
    return config


def _built_datasets() -> Iterator[str]:
    for dataset in DATASETS:
        if importlib.util.find_spec(f"configs.datasets.{dataset}") is not None:
            yield dataset


def _with_flags(
    part: str, values: _Part, flag_values: flags.FlagValues
) -> _Part:
    prefix = _PREFIXES[part]
    given: dict[str, Any] = {
        field.name: flag_values[prefix + field.name].value
        for field in dataclasses.fields(values)
        if flag_values[prefix + field.name].value is not None
    }
    try:
        return dataclasses.replace(values, **given)
    except ValueError as error:
        # "`num_heads` must ..." becomes "--model.num_heads must ...".
        message = re.sub(r"^`(\w+)`", rf"--{prefix}\1", str(error))
        raise InputError(message) from error
