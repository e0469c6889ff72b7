import dataclasses
import json
import re

import pytest

from data_pipelines.requests.raw_tensors import candidate_inputs
from sparsectr.schema import DatasetSchema, DenseField
from sparsectr.statistic import Statistic, parse_span, span_text
from tests.test_schema import SCHEMA

BRAND = Statistic(
    name="brand_so_far",
    fields=("candidate.brand",),
    counts=("rate", "age", "impressions"),
    windows=(7_200, 259_200, None),
    delay=10_800,
)
PAIR = Statistic(
    name="own",
    fields=("user.id", "candidate.brand"),
    counts=("clicks",),
    windows=(5_400,),
    bucket=60,
    prior=0.5,
)


def test_numbers():
    assert [(n.name, n.transform) for n in BRAND.numbers] == [
        ("brand_so_far_rate_2h", "identity"),
        ("brand_so_far_rate_3d", "identity"),
        ("brand_so_far_rate_all", "identity"),
        ("brand_so_far_age", "log1p"),
        ("brand_so_far_impressions_2h", "log1p"),
        ("brand_so_far_impressions_3d", "log1p"),
        ("brand_so_far_impressions_all", "log1p"),
    ]
    assert [n.name for n in PAIR.numbers] == ["own_clicks_90min"]
    assert PAIR.columns == ("user_id", "candidate_brand")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3d", 259_200), ("1h", 3_600), ("90min", 5_400), ("61s", 61), ("0h", 0)],
)
def test_spans(text, seconds):
    assert parse_span(text) == seconds
    assert span_text(seconds) == text


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1.5h", "1 h", "1w"])
def test_no_spans(text):
    with pytest.raises(ValueError, match="a span of time is a whole number"):
        parse_span(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Brand"}, "`name` must be lower-case"),
        ({"fields": ()}, "must be one or two of candidate.<field>"),
        ({"fields": ("brand",)}, "must be one or two of candidate.<field>"),
        ({"fields": ("candidate.a",) * 3}, "must be one or two of"),
        ({"fields": ("candidate.a",) * 2}, "`fields` must differ, and one"),
        ({"fields": ("user_id",)}, "one must be of the candidate"),
        ({"fields": ("user_id", "user.id")}, "one must be of the candidate"),
        ({"counts": ()}, "`counts` must be among impressions, clicks"),
        ({"counts": ("ctr",)}, "`counts` must be among impressions, clicks"),
        ({"counts": ("age", "age")}, "`counts` repeats a value"),
        ({"windows": ()}, "`windows` are missing; only an age needs none"),
        ({"windows": (1_800,)}, "at least as long as the bucket of 1h"),
        ({"windows": (5_400,)}, "must be a multiple of the bucket of 1h"),
        ({"windows": (3_600.0,)}, "at least as long as the bucket of 1h"),
        ({"windows": (None, None)}, "`windows` repeats a value"),
        ({"bucket": 0}, "`bucket` must be whole seconds, at least 1"),
        ({"delay": -3_600}, "`delay` must be whole seconds, at least 0"),
        ({"delay": 60}, "`delay` must be a multiple of the bucket of 1h"),
        ({"prior": 0.0}, "`prior` must be positive"),
        ({"prior": float("nan")}, "`prior` must be positive"),
    ],
)
def test_bad_statistic(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(BRAND, **change)


def test_schema_with_statistics():
    schema = SCHEMA.with_statistics([BRAND, PAIR])
    assert schema.statistics == (BRAND, PAIR)
    assert len(schema.candidate_dense_fields) == 1 + 7 + 1
    assert schema.logged_dense_fields == SCHEMA.candidate_dense_fields
    assert schema.without_statistics() == SCHEMA
    assert DatasetSchema.from_dict(json.loads(schema.to_json())) == schema


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ([BRAND, BRAND], "Names in `candidate_fields` repeat: brand_so_far"),
        (
            [dataclasses.replace(BRAND, fields=("candidate.price",))],
            "is of 'candidate.price', which is not among ['candidate.brand', "
            "'user.id', 'user_id']",
        ),
    ],
)
def test_bad_statistics_of_a_schema(statistics, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SCHEMA.with_statistics(statistics)


def test_numbers_are_dense_fields():
    wrong = DenseField(name="own_clicks_90min")
    for fields in ((), (wrong,)):
        with pytest.raises(ValueError, match="needs a dense field 'own_clicks"):
            dataclasses.replace(
                SCHEMA, candidate_dense_fields=fields, statistics=(PAIR,)
            )


def test_signature_says_window_bucket_and_delay():
    schema = SCHEMA.with_statistics([BRAND, PAIR])
    meaning = {t.name: t.meaning for t in candidate_inputs(schema)}
    assert meaning["candidate_price"].startswith("price of the candidates as")
    assert meaning["candidate_brand_so_far_rate_3d"] == (
        "clicks to impressions, smoothed by 20 of the rate of all candidates, "
        "of the candidate's brand, of all users, in a window of 3d that ends "
        "3h before the start of the request's bucket (1h); NaN if missing"
    )
    assert meaning["candidate_own_clicks_90min"] == (
        "clicks of the user's id with the candidate's brand, of all users, in "
        "a window of 90min that ends 0h before the start of the request's "
        "bucket (1min); NaN if missing"
    )
    assert meaning["candidate_brand_so_far_age"] == (
        "seconds to the start of the request's bucket (1h) from that of the "
        "first impression of the candidate's brand, NaN if there is none "
        "more than 3h before; NaN if missing"
    )
