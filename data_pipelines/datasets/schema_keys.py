"""Keys of a section of a schema file, checked."""

from collections.abc import Iterable, Mapping
from typing import Any

from sparsectr.errors import InputError, did_you_mean

_TYPES: dict[type, str] = {
    str: "text in quotes",
    bool: "true or false",
    int: "a whole number",
    float: "a number with a point, such as 0.1",
    dict: "a section",
}


Keys = Mapping[str, type | tuple[str, ...] | None]
"""Type of each value, or the texts to choose from; `None` is looked at later.
"""


def check_keys(
    where: str, values: Any, keys: Keys, required: Iterable[str] = ()
) -> None:
    """Checks that a section has some keys and no others.

    Args:
        where: Name of the section; empty for the top of the file.
        values: What stands there.
        keys: The keys that there are.
        required: Those that may not be absent.
    """
    if not isinstance(values, dict):
        raise InputError(f"`{where}` must be a section, [{where}]")
    place = f"{where}: " if where else ""
    for name, value in values.items():
        if name not in keys:
            raise InputError(
                f"{place}unknown key {name!r}; known are {', '.join(keys)}."
                + did_you_mean(name, keys)
            )
        kind = keys[name]
        if isinstance(kind, tuple):
            is_valid, expected = value in kind, f"one of {', '.join(kind)}"
        elif kind is not None:
            # To Python a bool is an int.
            is_valid, expected = type(value) is kind, _TYPES[kind]
        else:
            continue
        if not is_valid:
            raise InputError(
                f"{place}`{name}` must be {expected}. Received: {value!r}"
            )
    for name in required:
        if name not in values:
            raise InputError(f"{place}`{name}` is missing")
