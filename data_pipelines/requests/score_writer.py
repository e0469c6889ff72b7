"""Rows of requests with their scores, to a new Parquet file."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.requests.raw_tensors import PROBABILITY
from data_pipelines.requests.tensor_type import Array
from sparsectr.errors import InputError

_ROW_GROUP_BYTES = 32 << 20
"""Of what is written, before it is encoded."""


def check_output(path: Path) -> None:
    """Raises InputError if there cannot be a file at `path`.

    Worth asking before the work that fills it.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}.")


@contextlib.contextmanager
def score_writer(
    path: Path, schema: pa.Schema
) -> Iterator[Callable[[pa.RecordBatch, Sequence[Array]], None]]:
    """Yields what writes rows with their scores to a new file.

    The file has its name only when all is written.

    Args:
        path: The file, replaced if it exists.
        schema: Columns of the rows.

    Raises:
        InputError: If there cannot be such a file, or the rows have a column
            of that name already.
        OSError: If the disk is full or not writable.
    """
    check_output(path)
    if PROBABILITY in schema.names:
        raise InputError(f"The requests have a column `{PROBABILITY}` already.")
    schema = schema.append(pa.field(PROBABILITY, pa.list_(pa.float32())))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    waiting: list[pa.RecordBatch] = []
    try:
        with pq.ParquetWriter(partial, schema) as writer:

            def flush() -> None:
                table = pa.Table.from_batches(waiting, schema)
                # One row group: the file keeps something of each in memory.
                writer.write_table(table, max(1, table.num_rows))
                waiting.clear()

            def write(rows: pa.RecordBatch, scores: Sequence[Array]) -> None:
                offsets = np.cumsum([0, *map(len, scores)], dtype=np.int32)
                values = np.concatenate([*scores, np.zeros(0, np.float32)])
                column = pa.ListArray.from_arrays(offsets, values)
                waiting.append(
                    pa.RecordBatch.from_arrays(
                        [*rows.columns, column], schema=schema
                    )
                )
                if sum(batch.nbytes for batch in waiting) > _ROW_GROUP_BYTES:
                    flush()

            yield write
            if waiting:
                flush()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
