"""A new Parquet file that is written in parts, whole or not at all."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sparsectr.errors import InputError
from sparsectr.file_systems.paths import Location, is_remote

_ROW_GROUP_BYTES = 32 << 20
"""Of what is written, before it is encoded."""


def check_output(location: Location) -> Path:
    """Returns the path of a file to write.

    Worth asking before the work that fills it.

    Raises:
        InputError: If there cannot be such a file.
    """
    path = Path(location)
    if is_remote(location):
        raise InputError(f"{location} must be a file on this machine.")
    if path.is_dir():
        raise InputError(f"{path} is a folder.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}.")
    return path


@contextlib.contextmanager
def parquet_writer(
    location: Location, schema: pa.Schema
) -> Iterator[Callable[[pa.RecordBatch], None]]:
    """Yields what writes rows to a new file.

    The file has its name only when all is written.

    Args:
        location: The file, replaced if it exists.
        schema: Its columns.

    Raises:
        InputError: If there cannot be such a file.
        OSError: If the disk is full or not writable.
    """
    path = check_output(location)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    waiting: list[pa.RecordBatch] = []
    try:
        with pq.ParquetWriter(partial, schema) as writer:

            def flush() -> None:
                table = pa.Table.from_batches(waiting, schema)
                # One row group: each leaves something in memory to the end.
                writer.write_table(table, max(1, table.num_rows))
                waiting.clear()

            def write(rows: pa.RecordBatch) -> None:
                waiting.append(rows)
                if sum(batch.nbytes for batch in waiting) > _ROW_GROUP_BYTES:
                    flush()

            yield write
            if waiting:
                flush()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
