"""The sections `[statistics.NAME]` of a schema file."""

from collections.abc import Mapping
from typing import Any

from data_pipelines.datasets.schema_file import SchemaFile
from data_pipelines.datasets.schema_keys import Keys, check_keys
from sparsectr.errors import InputError, did_you_mean
from sparsectr.statistic import COUNTS, USER_ID, Statistic, parse_span

_KEYS: Keys = {
    "of": None,
    "counts": None,
    "windows": None,
    "bucket": str,
    "delay": str,
    "prior": None,
}

_USER = "user"
"""What the user's id is called in `of`."""


def read_statistics(described: SchemaFile) -> tuple[Statistic, ...]:
    """Returns the statistics that a schema file asks for.

    Raises:
        InputError: If one is not as documented; the message names the file
            and the key.
    """
    found = []
    for name, values in described.statistics.items():
        where = f"statistics.{name}"
        try:
            check_keys(where, values, _KEYS, ["of"])
            found.append(_statistic(described, name, values))
        except InputError as error:
            raise described.error("", str(error)) from error
        except ValueError as error:
            raise described.error(where, str(error)) from error
    return tuple(found)


def _statistic(
    described: SchemaFile, name: str, values: Mapping[str, Any]
) -> Statistic:
    fields = [_field(described, text) for text in _texts(values, "of", [])]
    counts = _texts(values, "counts", ["impressions", "clicks", "rate"])
    unknown = [count for count in counts if count not in COUNTS]
    if unknown:
        raise ValueError(
            f"`counts` are among {', '.join(COUNTS)}. Received: "
            f"{unknown[0]!r}." + did_you_mean(unknown[0], COUNTS)
        )
    if "windows" not in values and counts != ["age"]:
        raise ValueError(
            '`windows` is missing: a list such as ["1h", "3d", "all"]'
        )
    prior = values.get("prior", 20)
    if type(prior) not in (int, float):
        raise ValueError(f"`prior` must be a number. Received: {prior!r}")
    return Statistic(
        name=name,
        fields=tuple(fields),
        counts=tuple(counts),  # type: ignore[arg-type] # checked above
        windows=tuple(
            None if text == "all" else _span("windows", text)
            for text in _texts(values, "windows", [])
        ),
        bucket=_span("bucket", values.get("bucket", "1h")),
        delay=_span("delay", values.get("delay", "0h")),
        prior=float(prior),
    )


def _texts(
    values: Mapping[str, Any], key: str, default: list[str]
) -> list[str]:
    """Returns a text or a list of texts as a list."""
    found = values.get(key, default)
    texts = [found] if key == "of" and isinstance(found, str) else found
    if not isinstance(texts, list) or not all(
        isinstance(text, str) for text in texts
    ):
        raise ValueError(
            f"`{key}` must be a list of texts in quotes. Received: {found!r}"
        )
    return texts


def _span(key: str, text: str) -> int:
    try:
        return parse_span(text)
    except ValueError as error:
        raise ValueError(f"`{key}`: {error}") from error


def _field(described: SchemaFile, text: str) -> str:
    """Returns what a statistic calls a field that the file names."""
    if text == _USER:
        return USER_ID
    group, _, name = text.rpartition(".")
    kinds = {"": "candidate_fields", "candidate": "candidate_fields"}
    kinds[_USER] = "user_fields"
    others = ("behavior_fields", "candidate_dense_fields")
    known = {
        kind: [field.name for field in described.fields if field.kind == kind]
        for kind in (*kinds.values(), *others)
    }
    if group in kinds and name in known[kinds[group]]:
        return f"{group or 'candidate'}.{name}"
    shown = described.impressions
    label = described.files[shown].label
    if text in (label, f"{shown}.{label}"):
        raise ValueError(
            f"`of`: {label!r} is the label of [{shown}], the answer itself. "
            "Name a candidate field; its clicks are counted anyway"
        )
    if name in known["candidate_dense_fields"]:
        raise ValueError(
            f"`of`: {name!r} is a number, and a statistic is of ids. Make it "
            "a candidate field"
        )
    if name in known["behavior_fields"]:
        why = (
            "is not known of a candidate"
            if "behaviors" in described.files
            else "may follow the impression, as the label does"
        )
        raise ValueError(
            f"`of`: {name!r} is a behavior field and no candidate field: it "
            f"{why}"
        )
    fields = [_USER, *known["candidate_fields"]]
    fields += [f"{_USER}.{field}" for field in known["user_fields"]]
    raise ValueError(
        f"`of`: there is no field {text!r}; there are {', '.join(fields)}."
        + did_you_mean(text, fields)
    )
