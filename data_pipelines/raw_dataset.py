"""What a data set's own module reads from its raw files."""

import dataclasses
from collections.abc import Mapping

import pyarrow as pa

from data_pipelines.source_file import SourceFile
from data_pipelines.vocabulary import arrow_type
from sparsectr.schema import DatasetSchema

LATEST_TIME = 4_102_444_800
"""Unix seconds of the year 2100: beyond it a time is not in seconds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawDataset:
    """Users, behaviors and impressions as columns of raw values.

    A missing value is null. Rows may be in any order.

    Args:
        schema: Fields of the data set; the tables have no size yet.
        users: `user_id` (int64, unique) and one column a user field. A field
            called `user_id` is that same column.
        behaviors: `user_id`, `time` (int64, Unix seconds) and one column a
            behavior field.
        impressions: One row a candidate: `user_id`, `time`, `request` (int64;
            rows of one user that are equal in it form one request, and it
            never orders requests otherwise than `time` does), `label` (0 or
            1) and one column a candidate field.
        test_time: Unix seconds; requests from then on are the test split.
        split: The rule that chose `test_time`, in words.
        dropped: Rows that were left out, by reason.
        incomplete: Rows that were kept though something is missing, by
            reason.
        sources: The files that were read.

    Raises:
        ValueError: If a table lacks a column or has one of another type.
    """

    schema: DatasetSchema
    users: pa.Table
    behaviors: pa.Table
    impressions: pa.Table
    test_time: int
    split: str
    dropped: Mapping[str, int]
    incomplete: Mapping[str, int]
    sources: tuple[SourceFile, ...]

    def __post_init__(self) -> None:
        whole = pa.int64()

        def ids(fields: tuple[str, ...]) -> dict[str, pa.DataType]:
            return dict.fromkeys(fields, whole)

        schema = self.schema
        expected = {
            "users": ids(("user_id",)),
            "behaviors": ids(("user_id", "time")),
            "impressions": ids(("user_id", "time", "request", "label")),
        }
        for name, fields in (
            ("users", schema.user_fields),
            ("behaviors", schema.behavior_fields),
            ("impressions", schema.candidate_fields),
        ):
            for field in fields:
                table = schema.table(field.table)
                expected[name][field.name] = arrow_type(table)
        for dense in schema.candidate_dense_fields:
            expected["impressions"][dense.name] = pa.float32()
        for name, columns in expected.items():
            table = getattr(self, name)
            for column, column_type in columns.items():
                if column not in table.column_names:
                    raise ValueError(f"`{name}` has no column {column!r}.")
                if table[column].type != column_type:
                    raise ValueError(
                        f"Column {column!r} of `{name}` must be of type "
                        f"{column_type}. Received: {table[column].type}"
                    )
