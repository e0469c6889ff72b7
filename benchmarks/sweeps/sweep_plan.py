"""The runs of a sweep before any of them: flags, recipes and their costs."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping, Sequence

from absl import flags

from configs.sweep import MAX_HISTORY, Sweep
from data_pipelines.stores.store import Store
from sparsectr import config_flags
from sparsectr.config import Config
from sparsectr.errors import InputError
from sparsectr.model_recipe import RequestShape


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedVariant:
    """A variant as it will be trained.

    Args:
        name: Its name.
        flags: What it adds to the flags of all, without `MAX_HISTORY`.
        config: What it trains, with the seed of no run.
        flops: Operations of a forward pass of one request: a full history,
            and as many candidates as a request of the store has on average.
        state_bytes: What a server keeps of a user with a full history.
    """

    name: str
    flags: tuple[str, ...]
    config: Config
    flops: int
    state_bytes: int


def sweep_names() -> tuple[str, ...]:
    """Returns the names of all sweeps: files of `configs/sweeps/`."""
    package = importlib.import_module("configs.sweeps")
    return tuple(
        sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    )


def read_sweep(name: str) -> Sweep:
    """Returns a sweep.

    Args:
        name: The name of its file in `configs/sweeps/`.

    Raises:
        InputError: If there is no such sweep. It names those that there are.
    """
    if name not in sweep_names():
        raise InputError(
            f"--sweep must be one of {', '.join(sweep_names())}. "
            f"Received: {name}"
        )
    sweep: Sweep = importlib.import_module(f"configs.sweeps.{name}").SWEEP
    return sweep


def plan_variants(
    variants: Mapping[str, Sequence[str]], shared: Sequence[str], store: Store
) -> list[PlannedVariant]:
    """Parses the flags of every variant, so that none is refused later.

    Args:
        variants: Flags of each by its name.
        shared: Flags of all, `--dataset` among them.
        store: What they will be trained on.

    Raises:
        InputError: If a flag is refused; it names the variant.
    """
    planned = []
    counts = store.manifest["counts"]["train"]
    num_candidates = round(counts["candidates"] / max(counts["requests"], 1))
    for name, given in variants.items():
        resolved = with_max_history(given, shared)
        try:
            config = parse([*shared, *resolved])
            schema = store.schema.without(config.data.leave_out)
            config.model.check_schema(schema)
        except (flags.Error, InputError, ValueError) as error:
            raise InputError(f"variant {name}: {error}") from error
        length = config.data.max_history
        shape = RequestShape(1, length, max(num_candidates, 1))
        planned.append(
            PlannedVariant(
                name=name,
                flags=resolved,
                config=config,
                flops=config.model.flops(schema, shape),
                state_bytes=config.model.state_spec(schema).num_bytes(length),
            )
        )
    return planned


def with_max_history(
    given: Sequence[str], shared: Sequence[str]
) -> tuple[str, ...]:
    """Returns a variant's flags with the length of its histories in them."""
    if not any(MAX_HISTORY in flag for flag in given):
        return tuple(given)
    known = [flag for flag in given if MAX_HISTORY not in flag]
    length = parse([*shared, *known]).data.max_history
    return tuple(flag.replace(MAX_HISTORY, str(length)) for flag in given)


def parse(arguments: Sequence[str]) -> Config:
    """Returns what a command line of `sparsectr.train` would train.

    Raises:
        flags.Error: If there is no such flag, or its value does not parse.
        InputError: If a value breaks a rule.
    """
    values = flags.FlagValues()  # type: ignore[no-untyped-call]
    config_flags.define_config_flags(values, arguments)
    # That of the command which changes nothing of what is trained.
    flags.DEFINE_string("compilation_cache", None, "", flag_values=values)
    rest = values(["train", *arguments])
    if len(rest) > 1:
        raise InputError(f"{rest[1]!r} is no flag.")
    return config_flags.config_from_flags(values)
