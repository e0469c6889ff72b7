"""Raw rows of one shard to listwise requests over histories stored once.

The history of a request is every behavior of its user strictly before the
request's second.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.preparation.scan import ROW
from data_pipelines.preparation.tables import (
    drop_duplicates,
    is_first,
    look_up,
    stable_order,
)
from data_pipelines.raw.raw_dataset import EXACT_TIME, RawDataset
from data_pipelines.stores.shard import logged_names
from sparsectr.errors import InputError
from sparsectr.schema import LATEST_TIME, DatasetSchema

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawShard:
    """Raw rows of some users, each table in the order of its files.

    Args:
        impressions: Rows of `RawDataset.impressions`.
        behaviors: Rows of `RawDataset.behaviors`, or `None` if it is made
            from the impressions.
        users: Rows of `RawDataset.users`, if there is such a table.
        items: Rows of `RawDataset.items`, at least those that occur.
        earlier_impressions: Rows of days before, oldest first, where behaviors
            are made of impressions.
        idle_users: Ids of users without impressions that are kept all the
            same, for their behaviors to be counted.
    """

    impressions: pa.Table
    behaviors: pa.Table | None
    users: pa.Table | None
    items: pa.Table | None
    earlier_impressions: pa.Table | None = None
    idle_users: pa.Array | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listwise:
    """Users, histories and requests in the order in which they are stored.

    Args:
        user_id: `[num_users]`, ascending.
        behaviors: The behavior fields, one row a behavior.
        behavior_user: `[num_behaviors]`, row of the user, ascending.
        behavior_time: `[num_behaviors]`, ascending within a user.
        profiles: The user fields, one row a request.
        request_user: `[num_requests]`, row of the user, ascending.
        request_time: `[num_requests]`, ascending within a user.
        history_end: `[num_requests]`, behavior row at which it ends.
        candidate_offset: `[num_requests + 1]`, first candidate of each.
        candidates: The candidate fields and `label`, one row a candidate.
        candidate_time: `[num_candidates]`, of its own row: that of its
            request or later.
        dropped: Rows that were left out, by reason.
        incomplete: Rows kept though something is missing, by reason.
    """

    user_id: pa.Array
    behaviors: pa.Table
    behavior_user: Array
    behavior_time: Array
    profiles: pa.Table
    request_user: Array
    request_time: Array
    history_end: Array
    candidate_offset: Array
    candidates: pa.Table
    candidate_time: Array
    dropped: Mapping[str, int]
    incomplete: Mapping[str, int]


def build_listwise(dataset: RawDataset, raw: RawShard) -> Listwise:
    """Groups and sorts the rows of a shard.

    Raises:
        InputError: If a time is none, or a user has two profiles.
    """
    schema = dataset.schema
    dropped: dict[str, int] = {}
    incomplete: dict[str, int] = {}
    impressions = raw.impressions.drop_columns([ROW])
    row_noun, item_noun = dataset.nouns
    if dataset.unique_impressions:
        impressions, count = drop_duplicates(
            impressions, dataset.unique_impressions
        )
        dropped[f"repeated {row_noun}"] = count
    if raw.items is not None:
        items = raw.items.drop_columns([ROW])
        impressions, count = look_up(impressions, dataset.item_key, items)
        incomplete[f"{row_noun} of {item_noun} without features"] = count
    behaviors = raw.behaviors
    if behaviors is None:
        if not callable(dataset.behaviors):
            raise ValueError("`raw` lacks the behaviors of a raw table.")
        shown = _with_earlier(dataset, raw, impressions)
        made = dataset.behaviors(shown)
        behaviors = made.table
        dropped |= made.dropped
        incomplete |= made.incomplete
        # Columns that they were made of can be all there is of their size.
        impressions = impressions.select(_kept(impressions, schema))
    elif raw.items is not None and dataset.item_key in behaviors.column_names:
        names = [
            name
            for name in items.column_names
            if name == dataset.item_key or name not in behaviors.column_names
        ]
        behaviors, count = look_up(
            behaviors, dataset.item_key, items.select(names)
        )
        incomplete[f"behaviors of {item_noun} without features"] = count
    for name, table in (("behaviors", behaviors), ("impressions", impressions)):
        _check_times(name, table["time"])

    user_id = pc.unique(impressions["user_id"])
    if raw.idle_users is not None:
        user_id = pa.concat_arrays([user_id, raw.idle_users])
    user_id = user_id.sort()
    behaviors, behavior_user, counts = _sort_behaviors(
        behaviors, user_id, schema, dataset.unique_behaviors
    )
    dropped |= counts
    behavior_time = _numpy(behaviors["time"])

    user = pc.index_in(impressions["user_id"], value_set=user_id).to_numpy()
    order, start = _group_requests(
        user, _ranks(impressions["request"]), _moments(impressions)
    )
    impressions, user = impressions.take(pa.array(order)), user[order]
    request_user = user[start]
    candidate_time = _numpy(impressions["time"])
    request_time = np.minimum.reduceat(candidate_time, start)

    profiles = impressions.take(pa.array(start))
    if raw.users is not None:
        profiles, num_unknown = _look_up_profiles(profiles, user_id, raw.users)
        dropped["profiles of users without a request"] = (
            len(raw.users) - len(user_id) + num_unknown
        )
        incomplete["users without a profile"] = num_unknown
    incomplete["users without a behavior"] = len(user_id) - len(
        np.unique(behavior_user)
    )
    return Listwise(
        user_id=user_id,
        behaviors=behaviors.select(logged_names(schema, "behavior")),
        behavior_user=behavior_user,
        behavior_time=behavior_time,
        profiles=profiles.select(logged_names(schema, "user")),
        request_user=request_user,
        request_time=request_time,
        history_end=history_ends(
            behavior_user, behavior_time, request_user, request_time
        ),
        candidate_offset=np.append(start, len(user)).astype(np.int64),
        candidates=impressions.select(
            [*logged_names(schema, "candidate"), "label"]
        ),
        candidate_time=candidate_time,
        dropped=dropped,
        incomplete=incomplete,
    )


def without_idle_users(rows: Listwise) -> tuple[Listwise, Array]:
    """Leaves out users that have no request.

    Returns:
        The rest, and which behaviors are in it.
    """
    has_request = np.zeros(len(rows.user_id), bool)
    has_request[rows.request_user] = True
    number = np.cumsum(has_request) - 1
    kept = has_request[rows.behavior_user]
    before = np.concatenate([[0], np.cumsum(kept)])
    return dataclasses.replace(
        rows,
        user_id=rows.user_id.filter(pa.array(has_request)),
        behaviors=rows.behaviors.filter(pa.array(kept)),
        behavior_user=number[rows.behavior_user[kept]],
        behavior_time=rows.behavior_time[kept],
        request_user=number[rows.request_user],
        history_end=before[rows.history_end],
    ), kept


def _with_earlier(
    dataset: RawDataset, raw: RawShard, impressions: pa.Table
) -> pa.Table:
    """Returns impressions with those of the days before, oldest first."""
    if raw.earlier_impressions is None:
        return impressions
    earlier = raw.earlier_impressions.drop_columns([ROW])
    if dataset.unique_impressions:
        earlier, _ = drop_duplicates(earlier, dataset.unique_impressions)
    if raw.items is not None:
        items = raw.items.drop_columns([ROW])
        earlier, _ = look_up(earlier, dataset.item_key, items)
    return pa.concat_tables([earlier, impressions])


def history_ends(
    behavior_user: Array,
    behavior_time: Array,
    request_user: Array,
    request_time: Array,
) -> Array:
    """Returns where each request's history ends, exclusive.

    Args:
        behavior_user: `[num_behaviors]`, ascending.
        behavior_time: `[num_behaviors]`, ascending within a user.
        request_user: `[num_requests]`.
        request_time: `[num_requests]`.

    Returns:
        int64 `[num_requests]`: the first row that belongs to a later user, or
        to the same user at or after the request's second.
    """
    # Users below 2^31 and times below 2^32: the sum stays below 2^63.
    behavior_key = behavior_user * np.int64(LATEST_TIME) + behavior_time
    request_key = request_user * np.int64(LATEST_TIME) + request_time
    return np.searchsorted(behavior_key, request_key, side="left").astype(
        np.int64
    )


def _check_times(name: str, column: pa.ChunkedArray) -> None:
    if not len(column):
        return
    limits = pc.min_max(column)
    low, high = limits["min"].as_py(), limits["max"].as_py()
    if column.null_count or not 0 < low <= high < LATEST_TIME:
        shown = low if column.null_count or low <= 0 else high
        hint = " Milliseconds?" if shown == high >= LATEST_TIME else ""
        raise InputError(
            f"The {name} have a time that is not in Unix seconds: "
            f"{shown}.{hint}"
        )


def _sort_behaviors(
    behaviors: pa.Table, user_id: pa.Array, schema: DatasetSchema, unique: bool
) -> tuple[pa.Table, Array, dict[str, int]]:
    """Sorts by user and time, without the users that have no request.

    Returns:
        The behaviors, the user row of each, and what was dropped.
    """
    columns = ["time", *logged_names(schema, "behavior")]
    if EXACT_TIME in behaviors.column_names:
        columns.append(EXACT_TIME)
    place = pc.index_in(behaviors["user_id"], value_set=user_id)
    dropped = {}
    if place.null_count and unique:
        # What repeats is counted of all users, those without a request too.
        unknown = behaviors.filter(place.is_null())
        _, count = drop_duplicates(unknown, ["user_id", *columns])
        num_unknown = len(unknown) - count
        dropped["repeated behaviors"] = count
    else:
        num_unknown = place.null_count
        dropped["repeated behaviors"] = 0
    if place.null_count:
        behaviors = behaviors.filter(place.is_valid())
        place = place.drop_null()
    user = place.to_numpy()
    order = stable_order(user, _moments(behaviors))
    behaviors = behaviors.select(columns).take(pa.array(order))
    user = user[order]
    if unique:
        kept = _first_of_equals(behaviors, user)
        dropped["repeated behaviors"] += len(kept) - int(kept.sum())
        behaviors, user = behaviors.filter(pa.array(kept)), user[kept]
    else:
        del dropped["repeated behaviors"]
    dropped["behaviors of users without a request"] = num_unknown
    return behaviors, user, dropped


def _first_of_equals(behaviors: pa.Table, user: Array) -> Array:
    """Returns which rows equal no earlier one; sorted by user and time."""
    kept = np.ones(len(user), bool)
    time = _numpy(behaviors["time"])
    is_tied = np.zeros(len(user), bool)
    same = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
    is_tied[1:] |= same
    is_tied[:-1] |= same
    (tied,) = np.nonzero(is_tied)
    if len(tied):
        rows = behaviors.take(pa.array(tied))
        kept[tied] = is_first(
            rows.append_column("__user", pa.array(user[tied]))
        )
    return kept


def _group_requests(
    user: Array, request: Array, moment: Array
) -> tuple[Array, Array]:
    """Puts the rows of each request together, requests by user and time.

    Returns:
        The order of the rows, and in it the first row of each request.
    """
    order = stable_order(user, request)
    user, request = user[order], request[order]
    is_start = np.ones(len(order), bool)
    is_start[1:] = (user[1:] != user[:-1]) | (request[1:] != request[:-1])
    start = np.flatnonzero(is_start)
    earliest = np.minimum.reduceat(moment[order], start)
    owner = user[start]
    is_late = (owner[1:] == owner[:-1]) & (earliest[1:] < earliest[:-1])
    if is_late.any():
        # Request ids need not be in the order of time.
        by_time = stable_order(owner, earliest)
        size = np.diff(np.append(start, len(order)))[by_time]
        moved = np.cumsum(size) - size
        order = order[
            np.repeat(start[by_time] - moved, size) + np.arange(len(order))
        ]
        start = moved
    return order, start


def _look_up_profiles(
    profiles: pa.Table, user_id: pa.Array, users: pa.Table
) -> tuple[pa.Table, int]:
    """Adds the columns of `users`, null where a user has none.

    Returns:
        The profiles, and how many users have none.
    """
    users = users.drop_columns([ROW])
    known = pc.is_in(user_id, value_set=users["user_id"])
    profiles, _ = look_up(
        profiles.select(
            [
                name
                for name in profiles.column_names
                if name == "user_id" or name not in users.column_names
            ]
        ),
        "user_id",
        users,
    )
    return profiles, len(user_id) - int(pc.sum(known).as_py() or 0)


def _ranks(column: pa.ChunkedArray) -> Array:
    """Returns integers in the order of the values of `column`."""
    if pa.types.is_integer(column.type):
        return _numpy(column)
    distinct = pc.unique(column).sort()
    ranks: Array = pc.index_in(column, value_set=distinct).to_numpy()
    return ranks


def _kept(impressions: pa.Table, schema: DatasetSchema) -> list[str]:
    """Returns the columns that are needed to group and to store requests."""
    kept = {
        *("user_id", "time", EXACT_TIME, "request", "label"),
        *logged_names(schema, "user"),
        *logged_names(schema, "candidate"),
    }
    return [name for name in impressions.column_names if name in kept]


def _moments(rows: pa.Table) -> Array:
    """Returns integers in the order of the times, as finely as known."""
    name = EXACT_TIME if EXACT_TIME in rows.column_names else "time"
    return _numpy(rows[name])


def _numpy(column: pa.ChunkedArray) -> Array:
    values: Array = column.to_numpy()
    return values
