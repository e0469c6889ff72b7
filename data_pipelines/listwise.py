"""Raw rows to listwise requests over histories that are stored once.

    users, behaviors, impressions -> vocabularies, schema with sizes, shard

The history of a request is every behavior of its user strictly before the
request's second. Vocabularies and the statistics of dense features come from
the training period alone: behaviors before the test time, and requests of
the training split with their candidates and their users.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.raw_dataset import LATEST_TIME, RawDataset
from data_pipelines.request_columns import RequestColumns
from data_pipelines.shard import Shard
from data_pipelines.vocabulary import Vocabulary
from sparsectr.errors import InputError
from sparsectr.schema import CategoricalField, DatasetSchema, DenseField

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listwise:
    """A data set ready to be stored.

    Args:
        schema: Schema with the size of every table, and with the mean and
            scale of every dense field.
        vocabularies: One for each table.
        shard: All users.
        dropped: Rows that were left out, by reason.
        incomplete: Rows kept though something is missing, by reason.
    """

    schema: DatasetSchema
    vocabularies: tuple[Vocabulary, ...]
    shard: Shard
    dropped: Mapping[str, int]
    incomplete: Mapping[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sorted:
    """Raw rows in the order in which they are stored."""

    user_id: Array
    profiles: pa.Table
    behaviors: pa.Table
    behavior_user: Array
    behavior_time: Array
    impressions: pa.Table
    request_start: Array
    request_user: Array
    request_time: Array


def build_listwise(raw: RawDataset) -> Listwise:
    """Groups, sorts and encodes a raw data set.

    Raises:
        InputError: If the training or the test split has no request.
    """
    is_training = _numpy(raw.impressions["time"]) < raw.test_time
    for split, chosen in (("training", is_training), ("test", ~is_training)):
        if not chosen.any():
            raise InputError(
                f"There is no {split} request: the split is {raw.split}, at "
                f"Unix second {raw.test_time}."
            )
    rows, dropped, incomplete = _sort(raw)
    in_training = rows.request_time < raw.test_time
    vocabularies = _vocabularies(raw, rows, in_training)
    schema = _fit(raw.schema, vocabularies, rows, in_training)
    return Listwise(
        schema=schema,
        vocabularies=tuple(vocabularies.values()),
        shard=_shard(schema, vocabularies, rows, in_training),
        dropped={**raw.dropped, **dropped},
        incomplete={**raw.incomplete, **incomplete},
    )


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


def _sort(raw: RawDataset) -> tuple[_Sorted, dict[str, int], dict[str, int]]:
    for name in ("behaviors", "impressions"):
        time = _numpy(getattr(raw, name)["time"])
        if len(time) and not 0 < time.min() <= time.max() < LATEST_TIME:
            raise ValueError(f"`{name}` has a time that is not Unix seconds.")
    user_id = np.unique(_numpy(raw.impressions["user_id"]))
    place = pc.index_in(pa.array(user_id), value_set=raw.users["user_id"])
    profiles = raw.users.take(place)
    # A user without a profile has its own id all the same.
    profiles = profiles.set_column(
        profiles.column_names.index("user_id"),
        "user_id",
        pa.chunked_array([user_id]),
    )
    behaviors, behavior_user = _sort_behaviors(raw.behaviors, user_id)
    impressions, user, start = _sort_impressions(raw.impressions, user_id)
    rows = _Sorted(
        user_id=user_id,
        profiles=profiles,
        behaviors=behaviors,
        behavior_user=behavior_user,
        behavior_time=_numpy(behaviors["time"]),
        impressions=impressions,
        request_start=start,
        request_user=user[start],
        request_time=_numpy(impressions["time"])[start],
    )
    num_profiles = int(pc.sum(pc.is_valid(place)).as_py() or 0)
    num_active = len(np.unique(behavior_user))
    dropped = {
        "behaviors of users without a request": (
            len(raw.behaviors) - len(behaviors)
        ),
        "profiles of users without a request": len(raw.users) - num_profiles,
    }
    incomplete = {
        "users without a profile": len(user_id) - num_profiles,
        "users without a behavior": len(user_id) - num_active,
    }
    return rows, dropped, incomplete


def _sort_behaviors(
    behaviors: pa.Table, user_id: Array
) -> tuple[pa.Table, Array]:
    """Sorts by user and time, without the users that have no request.

    Returns:
        The behaviors and the user row of each.
    """
    raw_id = _numpy(behaviors["user_id"])
    user = np.searchsorted(user_id, raw_id)
    known = user_id[np.minimum(user, len(user_id) - 1)] == raw_id
    # Unknown users come last, with a row beyond the last user.
    user = np.where(known, user, len(user_id))
    order = np.lexsort((_numpy(behaviors["time"]), user))[: known.sum()]
    return behaviors.take(pa.array(order)), user[order]


def _sort_impressions(
    impressions: pa.Table, user_id: Array
) -> tuple[pa.Table, Array, Array]:
    """Sorts by user and request.

    Returns:
        The impressions, the user row of each, and the first row of each
        request.
    """
    user = np.searchsorted(user_id, _numpy(impressions["user_id"]))
    order = np.lexsort((_numpy(impressions["request"]), user))
    impressions = impressions.take(pa.array(order))
    user, request = user[order], _numpy(impressions["request"])
    is_start = np.ones(len(user), bool)
    is_start[1:] = (user[1:] != user[:-1]) | (request[1:] != request[:-1])
    return impressions, user, np.flatnonzero(is_start)


def _vocabularies(
    raw: RawDataset, rows: _Sorted, in_training: Array
) -> dict[str, Vocabulary]:
    # A profile counts once for each training request that shows it.
    profiles = rows.profiles.take(pa.array(rows.request_user[in_training]))
    behaviors = rows.behaviors.filter(
        pa.array(rows.behavior_time < raw.test_time)
    )
    candidates = rows.impressions.filter(
        pa.array(_of_candidates(in_training, rows))
    )
    found: list[tuple[pa.Table, Sequence[CategoricalField]]] = [
        (profiles, raw.schema.user_fields),
        (behaviors, raw.schema.behavior_fields),
        (candidates, raw.schema.candidate_fields),
    ]
    return {
        table.name: Vocabulary.build(
            table,
            [
                columns[field.name]
                for columns, fields in found
                for field in fields
                if field.table == table.name
            ],
        )
        for table in raw.schema.tables
    }


def _fit(
    schema: DatasetSchema,
    vocabularies: Mapping[str, Vocabulary],
    rows: _Sorted,
    in_training: Array,
) -> DatasetSchema:
    chosen = _of_candidates(in_training, rows)
    dense_fields = []
    for field in schema.candidate_dense_fields:
        values = _dense(rows.impressions, field)[chosen].astype(np.float64)
        values = values[~np.isnan(values)]
        if field.transform == "log1p":
            values = np.log1p(np.maximum(values, 0.0))
        mean = float(values.mean()) if len(values) else 0.0
        # A constant feature says nothing; a scale of 1 leaves it at 0.
        scale = (float(values.std()) if len(values) else 0.0) or 1.0
        dense_fields.append(dataclasses.replace(field, mean=mean, scale=scale))
    return dataclasses.replace(
        schema,
        tables=tuple(vocabularies[t.name].table for t in schema.tables),
        candidate_dense_fields=tuple(dense_fields),
    )


def _shard(
    schema: DatasetSchema,
    vocabularies: Mapping[str, Vocabulary],
    rows: _Sorted,
    in_training: Array,
) -> Shard:
    def encode(
        table: pa.Table, fields: Sequence[CategoricalField]
    ) -> dict[str, Array]:
        return {
            field.name: vocabularies[field.table].encode(table[field.name])
            for field in fields
        }

    history_end = history_ends(
        rows.behavior_user,
        rows.behavior_time,
        rows.request_user,
        rows.request_time,
    )
    candidates = encode(rows.impressions, schema.candidate_fields)
    for dense in schema.candidate_dense_fields:
        candidates[dense.name] = _dense(rows.impressions, dense)
    label = _numpy(rows.impressions["label"]).astype(np.uint8)
    num_candidates = np.diff(rows.request_start, append=len(label))

    def split(chosen: Array) -> RequestColumns:
        kept = np.repeat(chosen, num_candidates)
        return RequestColumns(
            user=rows.request_user[chosen].astype(np.int32),
            time=rows.request_time[chosen],
            history_end=history_end[chosen],
            candidate_offset=np.cumsum(
                np.concatenate([[0], num_candidates[chosen]]), dtype=np.int64
            ),
            candidates={k: column[kept] for k, column in candidates.items()},
            label=label[kept],
        )

    return Shard(
        user_id=rows.user_id,
        users=encode(rows.profiles, schema.user_fields),
        behavior_offset=np.searchsorted(
            rows.behavior_user, np.arange(len(rows.user_id) + 1)
        ).astype(np.int64),
        behavior_time=rows.behavior_time,
        behaviors=encode(rows.behaviors, schema.behavior_fields),
        splits={"train": split(in_training), "test": split(~in_training)},
    )


def _of_candidates(of_requests: Array, rows: _Sorted) -> Array:
    """Repeats a value of each request for all its candidates."""
    total = len(rows.impressions)
    return np.repeat(of_requests, np.diff(rows.request_start, append=total))


def _dense(impressions: pa.Table, field: DenseField) -> Array:
    # To arrow a null is no number; to the store it is NaN.
    values = impressions[field.name].fill_null(float("nan"))
    return _numpy(values).astype(np.float32)


def _numpy(column: pa.ChunkedArray) -> Array:
    values: Array = column.to_numpy()
    return values
