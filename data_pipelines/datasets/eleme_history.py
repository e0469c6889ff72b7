"""Histories of Ele.me: lists of text in a row, and behaviors made of them.

Every row of the raw files repeats the history of its request in columns of
text, one a field, whose values are joined by `;`. `parse_histories` turns
them into columns of lists while the files are read, where a bad row still has
a line; `union_of_histories` makes behaviors of them when all rows of a user
are together.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.preparation.tables import is_first
from data_pipelines.raw.raw_dataset import MadeBehaviors
from data_pipelines.raw.raw_rows import RawRows
from sparsectr.time_zone import TimeZone

Array = npt.NDArray[Any]

TIME_ZONE = TimeZone.fixed(8 * 60)

TIMEDIFF_UNITS = {"ms": 1, "s": 1000, "min": 60_000}
"""Milliseconds of the units in which `timediff_list` may be."""

_INT = pa.int64()
_TEXT = pa.string()

BEHAVIOR_FIELDS = {
    "shop_id": ("shop_id_list", _INT),
    "item_id": ("item_id_list", _INT),
    "category_1_id": ("category_1_id_list", _INT),
    "merge_standard_food_id": ("merge_standard_food_id_list", _INT),
    "brand_id": ("brand_id_list", _INT),
    "shop_aoi_id": ("shop_aoi_id_list", _INT),
    "shop_geohash_6": ("shop_geohash6_list", _TEXT),
    "hours": ("hours_list", _INT),
}
"""Ids of a behavior: the raw column, and the type of its values."""

BEHAVIOR_NUMBERS = {"price": ("price_list", pa.float32())}
"""Numbers of a behavior likewise."""

_FIELDS = {**BEHAVIOR_FIELDS, **BEHAVIOR_NUMBERS}

_MISSING: tuple[tuple[str, int | str], ...] = (
    ("shop_aoi_id", -1),
    ("shop_geohash_6", "-1"),
)
"""What stands for a missing value in some of them, beside an empty text."""

_TIMEDIFF = ("timediff_list", pa.float64())

LIST_COLUMNS = tuple(name for name, _ in (*_FIELDS.values(), _TIMEDIFF))
"""Raw columns of the history that are read."""

_YEAR_MS = 366 * 86_400_000


def history_column(field: str) -> str:
    """Returns the name of the column of lists that a field of a history has.

    Args:
        field: A field of a behavior, or "time".
    """
    return f"history_{field}"


def check(rows: RawRows, rules: Mapping[str, Array], *, drop: bool) -> None:
    """Refuses corrupted rows, or drops and counts them.

    Args:
        rows: The rows.
        rules: What is wrong with a row, and the rows where it is not.
        drop: Whether corrupted rows are dropped.

    Raises:
        InputError: If a row is corrupted and `drop` is false.
    """
    if drop:
        sound = np.logical_and.reduce(list(rules.values()))
        rows.drop_unless(sound, "corrupted rows")
        return
    for rule, sound in rules.items():
        rows.require(sound, rule)


def parse_histories(rows: RawRows, unit: str, *, drop: bool) -> None:
    """Replaces the texts of the histories by columns of lists.

    They are called by `history_column`, and are of one length within a row.
    Padding is left out: entries with neither a shop nor an item. Times are
    Unix seconds, null where `timediff_list` is empty.

    Args:
        rows: Rows with `times`, in Unix seconds, and `LIST_COLUMNS`.
        unit: Unit of `timediff_list`, one of `TIMEDIFF_UNITS`.
        drop: Whether rows are dropped and counted whose lists do not fit each
            other, hold no number where one belongs, or reach far beyond the
            30 days that they are said to.

    Raises:
        InputError: If there is such a row and `drop` is false.
    """
    length = _split_texts(rows, drop=drop)
    owner = np.repeat(np.arange(len(length)), length)
    entries: dict[str, pa.Array] = {}
    rules: dict[str, Array] = {}
    for field, (name, kind) in {**_FIELDS, "time": _TIMEDIFF}.items():
        entries[field], is_read = _values(rows, name, kind)
        rules[f"`{name}` has a value that is not a number"] = is_read
    for field, missing in _MISSING:
        entries[field] = without(entries[field], missing)
    # The authors of the paper pad with 0.
    shop, item = (without(entries[n], 0) for n in ("shop_id", "item_id"))
    is_real = _numpy(pc.or_(shop.is_valid(), item.is_valid()))
    request = _numpy(rows.table["times"])[owner]
    entries["time"], is_near = _times(request, entries["time"], unit)
    rules[
        "a behavior is a year or more away from its request; is "
        f"--timediff_unit={unit} right?"
    ] = is_near | ~is_real

    def bounds(kept: Array) -> Array:
        return np.append(
            0, np.cumsum(np.bincount(owner[kept], minlength=len(length)))
        )

    offsets = pa.array(bounds(is_real), pa.int32())
    rows.table = rows.table.drop_columns(list(LIST_COLUMNS))
    for field, values in entries.items():
        rows.table = rows.table.append_column(
            history_column(field),
            pa.ListArray.from_arrays(offsets, values.filter(pa.array(is_real))),
        )
    check(
        rows,
        {rule: np.diff(bounds(~kept)) == 0 for rule, kept in rules.items()},
        drop=drop,
    )


def _split_texts(rows: RawRows, *, drop: bool) -> Array:
    """Replaces texts by lists of texts, and returns how long they are."""
    columns = {}
    for name in LIST_COLUMNS:
        # An empty text is a list of one missing value, not of none: a history
        # of one behavior without a brand has no other list of brands.
        texts = pc.fill_null(_array(rows.table[name]), "")
        columns[name] = pc.split_pattern(texts, ";")
    lengths = [_numpy(pc.list_value_length(c)) for c in columns.values()]
    rows.table = rows.table.drop_columns(list(LIST_COLUMNS))
    for name, column in columns.items():
        rows.table = rows.table.append_column(name, column)
    is_even = np.logical_and.reduce([n == lengths[0] for n in lengths])
    rule = "the lists of the history are of unequal lengths"
    check(rows, {rule: is_even}, drop=drop)
    found: Array = lengths[0][is_even]
    return found


def _times(
    request_time: Array, timediff: pa.Array, unit: str
) -> tuple[pa.Array, Array]:
    """Returns Unix seconds, and which are less than a year away."""
    passed = _numpy(timediff.fill_null(0.0)) * TIMEDIFF_UNITS[unit]
    is_near = np.abs(passed) < _YEAR_MS
    milliseconds = np.floor(
        1000 * request_time - np.where(is_near, passed, 0.0)
    )
    seconds = milliseconds.astype(np.int64) // 1000
    return pa.array(seconds, mask=_numpy(timediff.is_null())), is_near


def union_of_histories(impressions: pa.Table) -> MadeBehaviors:
    """Returns the behaviors in the histories of all requests.

    A behavior is in the history of every later request until 50 newer ones
    have displaced it, so the same one comes many times. All have to be at the
    same second and equal in all fields to count as one.

    Args:
        impressions: Rows of whole requests, with the columns that
            `parse_histories` has added.
    """
    # All candidates of a request repeat its history.
    names = [history_column(n) for n in ("time", *_FIELDS)]
    requests = impressions.filter(
        pa.array(is_first(impressions.select(["user_id", "request"])))
    ).select(["user_id", "time", *names])
    lists = [_array(requests[name]) for name in names]
    owner = pc.list_parent_indices(lists[0])
    request_time = requests["time"].take(owner)
    behaviors = pa.table(
        {
            "user_id": requests["user_id"].take(owner),
            "time": pc.list_flatten(lists[0]),
            **{
                field: pc.list_flatten(values)
                for field, values in zip(_FIELDS, lists[1:], strict=True)
            },
        }
    )
    has_time = behaviors["time"].is_valid()
    is_earlier = pc.less(behaviors["time"], request_time)
    behaviors = behaviors.filter(pc.fill_null(is_earlier, False))
    num_timed = int(pc.sum(has_time).as_py() or 0)
    hour = TIME_ZONE.local(_numpy(behaviors["time"])) // 3600 % 24
    differs = pc.not_equal(behaviors["hours"], pa.array(hour))
    return MadeBehaviors(
        table=behaviors,
        dropped={
            "behaviors without a time": len(has_time) - num_timed,
            "behaviors at or after their request": num_timed - len(behaviors),
        },
        incomplete={
            # Nearly all, if `timediff_list` is in another unit than was said.
            "behaviors whose hour is not that of their time": int(
                pc.sum(differs).as_py() or 0
            ),
        },
    )


def without(values: pa.Array, missing: int | str) -> pa.Array:
    """Returns `values` with null where they are `missing`."""
    return pc.if_else(pc.equal(values, missing), None, values)


def _values(
    rows: RawRows, name: str, kind: pa.DataType
) -> tuple[pa.Array, Array]:
    """Returns the values of a column of lists of texts, one after another.

    Returns:
        The values, null where a text is empty or no number, and for each
        whether it is sound.
    """
    texts = without(pc.list_flatten(_array(rows.table[name])), "")
    if kind == _TEXT:
        return texts, np.ones(len(texts), bool)
    try:
        values = texts.cast(kind)
    except pa.ArrowInvalid:
        numbers = [t for t in pc.unique(texts).drop_null() if _is_a(t, kind)]
        values = pc.if_else(
            pc.is_in(texts, value_set=pa.array(numbers, _TEXT)), texts, None
        ).cast(kind)
    if pa.types.is_floating(kind):
        values = pc.if_else(pc.is_finite(values), values, None)
    return values, _numpy(pc.equal(values.is_null(), texts.is_null()))


def _is_a(text: pa.Scalar, kind: pa.DataType) -> bool:
    try:
        text.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):  # without a chunk
        return pa.array([], column.type)
    return combined


def _numpy(values: pa.Array | pa.ChunkedArray) -> Array:
    if isinstance(values, pa.ChunkedArray):
        values = _array(values)
    found: Array = values.to_numpy(zero_copy_only=False)
    return found
