"""What a search may change: a flag, and the values that it may have."""

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from sparsectr.config import Config, DataConfig, TrainConfig
from sparsectr.errors import InputError, did_you_mean

DEFAULT_SPACE = (
    "learning_rate=0.0003:0.01",
    "embedding_learning_rate=0.001:0.03",
    "model.dropout_rate=0,0.1,0.2",
)
"""What matters for every model, and every model has."""

Value = float | int | str | bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dimension:
    """One flag and its values: a range, or some of them.

    Args:
        flag: Name of the flag.
        low: Least value of a range, which is searched on a logarithmic scale.
        high: Greatest one.
        choices: The values, if it is no range.
    """

    flag: str
    low: float = math.nan
    high: float = math.nan
    choices: tuple[Value, ...] = ()

    @classmethod
    def parse(cls, text: str, config: Config) -> "Dimension":
        """Reads `flag=low:high` or `flag=value,value`.

        Args:
            text: What the user gave.
            config: Has the flag.

        Raises:
            InputError: If there is no such flag, or no such values.
        """
        flag, _, values = text.partition("=")
        kind = _kind(flag, config)
        if kind not in (float, int, str, bool) or not values:
            raise InputError(
                f"--tune={text}: it must be a flag of one value, '=', and a "
                "range as in 0.001:0.01, or values as in 0,0.1."
            )
        if ":" in values:
            low, _, high = values.partition(":")
            limits = [_value(each, float, text) for each in (low, high)]
            if kind is not float or not 0.0 < limits[0] < limits[1]:
                raise InputError(
                    f"--tune={text}: a range is of a flag with fractions, its "
                    "ends are positive, and the first is the less."
                )
            return cls(flag=flag, low=limits[0], high=limits[1])
        choices = [_value(each, kind, text) for each in values.split(",")]
        return cls(flag=flag, choices=tuple(choices))

    def ask(self, trial: Any) -> Value:
        """Returns the value that a trial of Optuna has for it."""
        value: Value
        if self.choices:
            value = trial.suggest_categorical(self.flag, list(self.choices))
        else:
            value = trial.suggest_float(
                self.flag, self.low, self.high, log=True
            )
        return value

    def usual(self, config: Config) -> Value:
        """Returns the value that the flag has if nothing gives it.

        A range has that of its ends which is closer, if it is outside, and
        values the first of them.
        """
        part, field = _part_and_field(self.flag)
        value: Any = getattr(getattr(config, part), field)
        if self.flag == "embedding_learning_rate" and not value:
            value = config.train.learning_rate
        if self.choices:
            return value if value in self.choices else self.choices[0]
        return min(max(float(value), self.low), self.high)


def with_values(config: Config, values: Mapping[str, Value]) -> Config:
    """Returns a configuration with some flags of other values.

    Raises:
        InputError: If a value breaks a rule.
    """
    for flag, value in values.items():
        part, field = _part_and_field(flag)
        try:
            changed = dataclasses.replace(
                getattr(config, part), **{field: value}
            )
        except ValueError as error:
            raise InputError(f"--tune of {flag}: {error}") from error
        config = dataclasses.replace(config, **{part: changed})
    return config


def parse_space(texts: Sequence[str], config: Config) -> tuple[Dimension, ...]:
    """Reads what a search may change.

    Raises:
        InputError: If one cannot be read, or is there twice.
    """
    space = tuple(Dimension.parse(text, config) for text in texts)
    names = [dimension.flag for dimension in space]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--tune has {name} twice.")
    return space


def _part_and_field(flag: str) -> tuple[str, str]:
    prefix, _, field = flag.rpartition(".")
    return prefix or "train", field


def _kind(flag: str, config: Config) -> Any:
    """Returns the type of a flag's value."""
    kinds = {
        f"{prefix}{field.name}": typing.get_type_hints(part)[field.name]
        for prefix, part in (
            ("", TrainConfig),
            ("data.", DataConfig),
            ("model.", type(config.model)),
        )
        for field in dataclasses.fields(part)
    }
    if flag not in kinds:
        raise InputError(
            f"--tune: {config.model.name} has no flag {flag!r}."
            + did_you_mean(flag, kinds)
        )
    return kinds[flag]


def _value(text: str, kind: Any, whole: str) -> Any:
    """Returns a value of a type.

    Raises:
        InputError: If the text is none.
    """
    if kind is bool:
        if text not in ("true", "false"):
            raise InputError(f"--tune={whole}: {text!r} is not true or false.")
        return text == "true"
    try:
        value = kind(text)
    except ValueError as error:
        raise InputError(
            f"--tune={whole}: {text!r} is not a number."
        ) from error
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"--tune={whole}: {text!r} is not finite.")
    return value
