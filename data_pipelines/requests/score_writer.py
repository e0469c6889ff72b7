"""Rows of requests with their scores, to a new Parquet file."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from data_pipelines.parquet_writer import parquet_writer
from data_pipelines.requests.raw_tensors import PROBABILITY
from data_pipelines.requests.tensor_type import Array
from sparsectr.errors import InputError
from sparsectr.file_systems.paths import Location


@contextlib.contextmanager
def score_writer(
    location: Location, schema: pa.Schema
) -> Iterator[Callable[[pa.RecordBatch, Sequence[Array]], None]]:
    """Yields what writes rows with their scores to a new file.

    Args:
        location: The file, replaced if it exists; whole or not at all.
        schema: Columns of the rows.

    Raises:
        InputError: If there cannot be such a file, or the rows have a column
            of that name already.
        OSError: If the disk is full or not writable.
    """
    if PROBABILITY in schema.names:
        raise InputError(f"The requests have a column `{PROBABILITY}` already.")
    schema = schema.append(pa.field(PROBABILITY, pa.list_(pa.float32())))
    with parquet_writer(location, schema) as write_rows:

        def write(rows: pa.RecordBatch, scores: Sequence[Array]) -> None:
            offsets = np.cumsum([0, *map(len, scores)], dtype=np.int32)
            values = np.concatenate([*scores, np.zeros(0, np.float32)])
            column = pa.ListArray.from_arrays(offsets, values)
            write_rows(
                pa.RecordBatch.from_arrays(
                    [*rows.columns, column], schema=schema
                )
            )

        yield write
