"""Command-line flags made from the configuration dataclasses.

Every field is a flag: those of `TrainConfig` under their own names, those of
`DataConfig` and of the model's recipe as `--data.<field>` and
`--model.<field>`. `--model.name` chooses the model, and with it which flags
there are. A flag that is not given leaves the value of the data set's recipe.
"""

import argparse
import dataclasses
import importlib
import importlib.util
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from absl import flags

from sparsectr.config import Config, DataConfig, TrainConfig
from sparsectr.errors import InputError
from sparsectr.model_recipe import ModelRecipe
from sparsectr.model_registry import model_names, recipe_class

# The flags belong to the command that asks for them: `--help` shows the flags
# of the main module alone.
flags.disclaim_key_flags()

DATASETS = (
    "alibaba",
    "eleme",
    "movielens",
    "kuairand",
    "ebnerd",
    "completejourney",
    "parquet",
)

DEFAULT_MODEL = "sparse_ctr"

TOPOLOGY = ("num_devices",)
"""Fields of `TrainConfig` that say where a run is, and not what it is: they may
change when it goes on.
"""

_PREFIXES = {"model": "model.", "data": "data.", "train": ""}

_Part = TypeVar("_Part", ModelRecipe, DataConfig, TrainConfig)


class _IntegersParser(flags.ArgumentParser[tuple[int, ...]]):
    """Reads a comma list of integers; an empty text is the empty tuple."""

    syntactic_help = "a comma separated list of integers"

    def parse(self, argument: Any) -> tuple[int, ...]:
        if isinstance(argument, str):
            argument = argument.split(",") if argument else ()
        return tuple(int(item) for item in argument)

    def flag_type(self) -> str:
        return "comma separated list of integers"


class _TextsParser(flags.ArgumentParser[tuple[str, ...]]):
    """Reads a comma list of texts; an empty text is the empty tuple."""

    syntactic_help = "a comma separated list"

    def parse(self, argument: Any) -> tuple[str, ...]:
        if isinstance(argument, str):
            argument = argument.split(",") if argument else ()
        return tuple(argument)

    def flag_type(self) -> str:
        return "comma separated list"


_PARSERS: dict[Any, type[flags.ArgumentParser[Any]]] = {
    int: flags.IntegerParser,
    float: flags.FloatParser,
    str: flags.ArgumentParser,
    tuple[int, ...]: _IntegersParser,
    tuple[str, ...]: _TextsParser,
}


def define_config_flags(
    flag_values: flags.FlagValues = flags.FLAGS,
    arguments: Sequence[str] | None = None,
    model: str | None = None,
) -> None:
    """Defines `--dataset`, `--model.name` and one flag for every field.

    Args:
        flag_values: Where the flags are defined.
        arguments: The command line that will be parsed, which says of which
            model the flags are; `sys.argv` if not given.
        model: The model of a run that is gone on with, for a command line
            that names none.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    name = _model_name(arguments, model)
    # An unknown name is refused when the flags are parsed.
    recipe = recipe_class(name if name in model_names() else DEFAULT_MODEL)
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
        "model.name",
        None,
        model_names(),
        "Model, a file of configs/models/. Its fields are the flags "
        f"--model.<field>; below are those of {recipe_name(recipe)} "
        f"(default: that of the data set, or {DEFAULT_MODEL})",
        flag_values=flag_values,
    )
    if recipe.presets:
        flags.DEFINE_enum(
            "model.preset",
            None,
            list(recipe.presets),
            "Sets several fields of the model at once; an explicit flag of "
            "one of them wins.",
            flag_values=flag_values,
        )
    classes = {"model": recipe, "data": DataConfig, "train": TrainConfig}
    for part, config_class in classes.items():
        types = typing.get_type_hints(config_class)
        for field in dataclasses.fields(config_class):
            _define_flag(
                _PREFIXES[part] + field.name,
                types[field.name],
                field,
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
    return _with_all_flags(_recipe(flag_values["dataset"].value), flag_values)


def config_with_flags(
    config: Config, flag_values: flags.FlagValues = flags.FLAGS
) -> Config:
    """Returns a configuration with the given flags applied.

    Args:
        config: That of another run.
        flag_values: Parsed flags of `define_config_flags`.

    Raises:
        InputError: If a flag breaks a rule.
    """
    return _with_all_flags(config, flag_values)


def contradictions(
    config: Config, flag_values: flags.FlagValues = flags.FLAGS
) -> list[str]:
    """Returns what the given flags ask of a run that it does not have.

    Args:
        config: What the run has.
        flag_values: Parsed flags of `define_config_flags`.

    Returns:
        For each value, a text such as "--batch_size=256, not 64".

    Raises:
        InputError: If a flag breaks a rule.
    """
    asked = _with_all_flags(config, flag_values)
    pairs: list[tuple[str, Any, Any]] = [
        ("dataset", config.dataset, flag_values["dataset"].value),
        ("model.name", config.model.name, asked.model.name),
    ]
    for part, prefix in _PREFIXES.items():
        ours, theirs = getattr(config, part), getattr(asked, part)
        if type(ours) is type(theirs):
            pairs += [
                (
                    prefix + f.name,
                    getattr(ours, f.name),
                    getattr(theirs, f.name),
                )
                for f in dataclasses.fields(ours)
                if f.name not in TOPOLOGY
            ]
    return [
        f"--{name}={_text(value)}, not {_text(other)}"
        for name, value, other in pairs
        if other is not None and other != value
    ]


def with_topology(
    config: Config, flag_values: flags.FlagValues = flags.FLAGS
) -> Config:
    """Returns the configuration of a run, on the devices that flags name.

    Args:
        config: What the run has.
        flag_values: Parsed flags of `define_config_flags`.
    """
    given: dict[str, Any] = {
        name: flag_values[name].value
        for name in TOPOLOGY
        if flag_values[name].value is not None
    }
    train = dataclasses.replace(config.train, **given)
    return dataclasses.replace(config, train=train)


def _with_all_flags(config: Config, flag_values: flags.FlagValues) -> Config:
    model = config.model
    name = flag_values["model.name"].value
    if name is not None and name != model.name:
        model = recipe_class(name)()
    if model.presets and flag_values["model.preset"].value is not None:
        model = model.with_preset(flag_values["model.preset"].value)
    return dataclasses.replace(
        config,
        model=_with_flags("model", model, flag_values),
        data=_with_flags("data", config.data, flag_values),
        train=_with_flags("train", config.train, flag_values),
    )


def flags_of(config: Config) -> list[str]:
    """Returns the flags of which `config_from_flags` makes a configuration.

    Those of values that the recipe of the data set has anyway are left out.

    Args:
        config: The configuration.
    """
    base = _recipe(config.dataset)
    flags_given = [f"--dataset={config.dataset}"]
    if config.model.name != base.model.name:
        flags_given.append(f"--model.name={config.model.name}")
        model = recipe_class(config.model.name)()
        base = dataclasses.replace(base, model=model)
    for part, prefix in _PREFIXES.items():
        values, usual = getattr(config, part), getattr(base, part)
        for field in dataclasses.fields(values):
            value = getattr(values, field.name)
            if value == getattr(usual, field.name):
                continue
            name = prefix + field.name
            if isinstance(value, bool):
                flags_given.append(f"--{name}" if value else f"--no{name}")
            else:
                flags_given.append(f"--{name}={_text(value)}")
    return flags_given


def all_values(config: Config) -> dict[str, Any]:
    """Returns the values of a configuration by the names of their flags.

    Those that say where it runs are left out.
    """
    return {
        "dataset": config.dataset,
        "model.name": config.model.name,
        **{
            prefix + field.name: getattr(getattr(config, part), field.name)
            for part, prefix in _PREFIXES.items()
            for field in dataclasses.fields(getattr(config, part))
            if field.name not in TOPOLOGY
        },
    }


def whose_flag(name: str) -> str | None:
    """Says which models have a flag that the chosen one has not.

    Args:
        name: Name of the unknown flag.

    Returns:
        A sentence, or `None` if no model has it.
    """
    prefix, _, field = name.rpartition(".")
    if prefix not in ("model", "nomodel"):
        return None
    owners = [
        model
        for model in model_names()
        if field in {f.name for f in dataclasses.fields(recipe_class(model))}
        or (field == "preset" and recipe_class(model).presets)
    ]
    if not owners:
        return None
    return f"It is one of {', '.join(owners)}; --model.name chooses the model"


def recipe_name(recipe: type[ModelRecipe]) -> str:
    """Returns the name of a recipe's model."""
    return recipe.__module__.rpartition(".")[2]


def _model_name(arguments: Sequence[str], default: str | None) -> str:
    """Returns the model that a command line names, or its data set's.

    Args:
        arguments: The command line.
        default: What stands before that of the data set.
    """
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, exit_on_error=False
    )
    parser.add_argument("--model.name", "-model.name", dest="name")
    parser.add_argument("--dataset", "-dataset")
    try:
        known, _ = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError:
        # A flag without its value, refused when the flags are parsed.
        return default or DEFAULT_MODEL
    known.name = known.name or default
    if known.name is None and known.dataset in _built_datasets():
        return _recipe(known.dataset).model.name
    return known.name or DEFAULT_MODEL


def _define_flag(
    name: str,
    kind: Any,
    field: "dataclasses.Field[Any]",
    flag_values: flags.FlagValues,
) -> None:
    text = f"{field.metadata['help']} (default: {_text(field.default)})"
    choices = field.metadata["choices"]
    if kind is bool:
        flags.DEFINE_boolean(name, None, text, flag_values=flag_values)
    elif choices:
        flags.DEFINE_enum(name, None, choices, text, flag_values=flag_values)
    else:
        flags.DEFINE(
            _PARSERS[kind](), name, None, text, flag_values=flag_values
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
