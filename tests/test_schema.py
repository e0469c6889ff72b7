import dataclasses
import json
import re

import pytest

from sparsectr.schema import (
    NUM_RESERVED_IDS,
    OUT_OF_VOCABULARY_ID,
    PADDING_ID,
    CategoricalField,
    DatasetSchema,
    DenseField,
    Table,
)
from sparsectr.statistic import Statistic
from sparsectr.time_zone import TimeZone

SCHEMA = DatasetSchema(
    name="shop",
    tables=(
        Table(name="user", kind="hashed", size=101),
        Table(name="brand", min_count=3),
        Table(name="action", value_type="string"),
    ),
    user_fields=(CategoricalField(name="id", table="user"),),
    behavior_fields=(
        CategoricalField(name="brand", table="brand"),
        CategoricalField(name="action", table="action"),
    ),
    candidate_fields=(CategoricalField(name="brand", table="brand"),),
    candidate_dense_fields=(
        DenseField(name="price", transform="log1p", mean=0.5, scale=2.0),
    ),
    time_zone=TimeZone.named("Europe/Copenhagen"),
    time_fields=("gap_to_request", "behavior_hour"),
)


def test_reserved_ids():
    assert (PADDING_ID, OUT_OF_VOCABULARY_ID, NUM_RESERVED_IDS) == (0, 1, 2)


def test_json_round_trip():
    assert DatasetSchema.from_dict(json.loads(SCHEMA.to_json())) == SCHEMA


def test_table_by_name():
    assert SCHEMA.table("brand").min_count == 3
    with pytest.raises(ValueError, match="No table 'color' in schema 'shop'"):
        SCHEMA.table("color")


def test_with_table_sizes():
    assert not SCHEMA.is_resolved
    partly = SCHEMA.with_table_sizes({"brand": 13})
    assert not partly.is_resolved
    resolved = partly.with_table_sizes({"action": 5})
    assert resolved.is_resolved
    assert [table.size for table in resolved.tables] == [101, 13, 5]
    assert resolved.table("brand").min_count == 3
    assert SCHEMA.table("brand").size is None


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SCHEMA.name = "else"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "Brand"}, "`name` must be lower-case"),
        ({"name": ""}, "`name` must be lower-case"),
        ({"kind": "learned"}, '`kind` must be "vocabulary" or "hashed".'),
        ({"value_type": "float"}, '`value_type` must be "int" or "string".'),
        ({"kind": "hashed"}, "A hashed table needs a `size` (table 'brand')."),
        ({"size": 1}, "`size` must be a whole number of at least 2."),
        ({"size": 7.5}, "`size` must be a whole number of at least 2."),
        ({"min_count": 0}, "`min_count` must be a whole number of at least 1."),
        ({"min_count": 1.5}, "`min_count` must be a whole number of at least"),
    ],
)
def test_bad_table(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Table(**{"name": "brand", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "the price"}, "`name` must be lower-case"),
        ({"transform": "log"}, '`transform` must be "identity" or "log1p".'),
        ({"scale": 0.0}, "`scale` must be positive."),
        ({"scale": float("nan")}, "`scale` must be positive."),
    ],
)
def test_bad_dense_field(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        DenseField(**{"name": "price", **arguments})


def test_bad_categorical_field():
    with pytest.raises(ValueError, match="`name` must be lower-case"):
        CategoricalField(name="user-id", table="user")


BRAND = CategoricalField(name="brand", table="brand")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "9shop"}, "`name` must be lower-case"),
        (
            {"tables": (*SCHEMA.tables, Table(name="brand"))},
            "Names in `tables` repeat: brand",
        ),
        (
            {"user_fields": (CategoricalField(name="id", table="person"),)},
            "Field 'id' of `user_fields` names the table 'person', which is "
            "not among ['user', 'brand', 'action'].",
        ),
        (
            {"behavior_fields": (BRAND, BRAND)},
            "Names in `behavior_fields` repeat: brand",
        ),
        (
            {"candidate_dense_fields": (DenseField(name="brand"),)},
            "Names in `candidate_fields` repeat: brand",
        ),
        ({"behavior_fields": ()}, "at least one field. Received: 0 and 1"),
        ({"candidate_fields": ()}, "at least one field. Received: 2 and 0"),
        (
            {"time_fields": ("behavior_our",)},
            "there is no time field 'behavior_our'; known are behavior_hour, "
            "behavior_weekday, behavior_gap, request_hour, request_weekday, "
            "gap_to_request. Did you mean 'behavior_hour'?",
        ),
        (
            {"time_fields": ("request_hour", "request_hour")},
            "the time field 'request_hour' is there twice",
        ),
        (
            {
                "tables": (*SCHEMA.tables, Table(name="time_hour")),
                "time_fields": ("request_hour",),
            },
            "Names in `tables` repeat: time_hour",
        ),
    ],
)
def test_bad_schema(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(SCHEMA, **change)


@pytest.mark.parametrize(
    "change", [{"color": 1}, {"tables": [{"title": "brand"}]}]
)
def test_from_dict_with_an_unknown_key(change):
    values = {**json.loads(SCHEMA.to_json()), **change}
    with pytest.raises(ValueError, match=r"^Not a data-set schema: .* unexp"):
        DatasetSchema.from_dict(values)


def test_from_dict_with_a_missing_key():
    values = json.loads(SCHEMA.to_json())
    del values["tables"]
    with pytest.raises(ValueError, match=r"^Not a data-set schema: .*'tables'"):
        DatasetSchema.from_dict(values)


FULL = dataclasses.replace(
    SCHEMA,
    tables=(
        *SCHEMA.tables,
        Table(name="tag"),
        Table(name="position"),
    ),
    user_dense_fields=(DenseField(name="spend"),),
    behavior_fields=(
        *SCHEMA.behavior_fields,
        CategoricalField(name="tags", table="tag", max_values=3),
    ),
    training_fields=(CategoricalField(name="position", table="position"),),
).with_statistics(
    [
        Statistic(name="brand", fields=("candidate.brand",)),
        Statistic(name="pair", fields=("user_id", "candidate.brand")),
    ]
)


def test_every_kind_in_json():
    assert DatasetSchema.from_dict(json.loads(FULL.to_json())) == FULL


def test_without_fields():
    left = FULL.without(
        ["behavior_tags", "user_spend", "behavior_hour", "statistics.pair"]
    )
    assert [f.name for f in left.behavior_fields] == ["brand", "action"]
    assert left.user_dense_fields == ()
    assert left.time_fields == ("gap_to_request",)
    assert [s.name for s in left.statistics] == ["brand"]
    assert {f.name for f in left.candidate_dense_fields} == {
        "price",
        "brand_impressions_all",
        "brand_clicks_all",
        "brand_rate_all",
    }
    # A table that nobody reads goes with the last of its fields.
    assert "tag" not in [table.name for table in left.tables]
    assert left.table("brand") == FULL.table("brand")


def test_without_a_kind():
    left = FULL.without(["statistics", "time_fields", "candidate_position"])
    assert (left.statistics, left.time_fields) == ((), ())
    assert left.training_fields == ()
    assert [f.name for f in left.candidate_dense_fields] == ["price"]
    assert FULL.without([]) is FULL


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["behavior_tag"],
            "no field 'behavior_tag' to leave out. Did you mean ",
        ),
        # One number of a statistic comes with the others.
        (["candidate_brand_rate_all"], "no field 'candidate_brand_rate_all'"),
        (["candidate_brand"], "at least one field. Received: 3 and 0"),
    ],
)
def test_what_cannot_be_left_out(names, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        FULL.without(names)
