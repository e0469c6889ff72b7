"""Fields of a configuration: a default, a help text and simple rules."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any


def config_field(
    default: Any,
    help_text: str,
    *,
    minimum: int | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """Returns a field of a configuration, which becomes a flag.

    Args:
        default: Its value where nothing gives another.
        help_text: What it is, in a sentence or two.
        minimum: The least value that `check_fields` lets pass.
        choices: The values that it lets pass, if not all.
    """
    return dataclasses.field(
        default=default,
        metadata={"help": help_text, "minimum": minimum, "choices": choices},
    )


def require(condition: bool, name: str, rule: str, value: Any) -> None:
    """Raises ValueError where a value of a configuration breaks a rule."""
    if not condition:
        raise ValueError(f"`{name}` must {rule}. Received: {name}={value!r}")


def check_fields(config: Any) -> None:
    """Checks every field of a configuration: finite, minimum, choices.

    Raises:
        ValueError: If a value is not among them. It names the field.
    """
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        minimum = each.metadata.get("minimum")
        choices = each.metadata.get("choices")
        if isinstance(value, float):
            require(math.isfinite(value), each.name, "be finite", value)
        if minimum is not None:
            rule = f"be at least {minimum}" if minimum else "not be negative"
            require(value >= minimum, each.name, rule, value)
        if choices:
            rule = f"be one of {', '.join(choices)}"
            require(value in choices, each.name, rule, value)
