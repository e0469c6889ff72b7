"""Rows of a shard that a growing store keeps of the days before an update."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset

from data_pipelines.preparation.scan import ROW, shard_files
from data_pipelines.raw.raw_table import RawTable

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlierRows:
    """What is there of a shard before an update.

    Args:
        rows: Folders of the kept rows, by table, part and shard; one of each
            update, oldest first.
        shards: Folders of the shard's columns, likewise.
        begin_time: Unix seconds; all rows that are there are before it, and
            all of the update are not.
    """

    rows: tuple[Path, ...]
    shards: tuple[Path, ...]
    begin_time: int

    def known_users(self, id_type: pa.DataType) -> pa.Array:
        """Returns the raw ids of the users that had a request before.

        Args:
            id_type: Their type.
        """
        found = []
        for folder in self.shards:
            ids = np.load(folder / "users" / "id.npy", mmap_mode="r")
            is_text = ids.dtype.kind == "S"
            texts = [text.decode() for text in ids.tolist()] if is_text else ids
            found.append(pa.array(texts, id_type))
        return pa.chunked_array(found, id_type).unique()

    def read(
        self, table: RawTable, shard: int, key: str, keys: pa.Array
    ) -> pa.Table:
        """Returns the rows with certain keys, oldest first.

        Args:
            table: A table whose rows are kept.
            shard: Which shard; 0 of items.
            key: A column of it.
            keys: Values of that column.

        Memory:
            Of the rows of others, a block at a time.
        """
        empty = table.empty
        names = [*empty.column_names, ROW]
        nothing = empty.append_column(ROW, pa.array([], pa.int64()))
        found = [nothing.select(names)]
        for folder in self.rows:
            files = [str(f) for f in shard_files(folder / table.name, shard)]
            if not files:
                continue
            rows = pyarrow.dataset.dataset(files, format="ipc").to_table(
                columns=names, filter=pc.field(key).isin(keys)
            )
            found.append(rows.sort_by(ROW))
        return pa.concat_tables(found)


def newest_of_each(tables: Sequence[pa.Table], key: str) -> pa.Table:
    """Returns the last row of each key.

    Args:
        tables: Rows, oldest first.
        key: Name of the column.
    """
    table = pa.concat_tables(tables)
    keys = table[key].combine_chunks().dictionary_encode()
    if isinstance(keys, pa.ChunkedArray):  # without a chunk
        return table
    last = np.zeros(len(keys.dictionary), np.int64)
    # Of those that repeat, NumPy leaves the last.
    last[keys.indices.to_numpy()] = np.arange(len(table))
    return table.take(pa.array(last))
