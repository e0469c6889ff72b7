"""The values that a growing store has seen, with their counts and ids.

    values/<table>.arrow   value, count, test_count; the code of the first row
                           is 2
    ids/<table>.npy        int32, the id of each code

A value gets an id when it has occurred `min_count` times in training, on
however many days, and keeps it. Until then its id is that of out of
vocabulary, but its occurrences go on counting. What occurs in the test counts
when there is a newer test.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.preparation.result_files import read_arrow, write_arrow
from data_pipelines.stores.vocabulary import (
    Vocabulary,
    arrow_type,
    missing_value,
)
from sparsectr.schema import (
    NUM_RESERVED_IDS,
    OUT_OF_VOCABULARY_ID,
    PADDING_ID,
    Table,
)

Array = npt.NDArray[Any]

_COUNTS = ("count", "test_count")


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownValues:
    """The values of one table.

    Args:
        table: The table.
        values: `value`, its occurrences in training, `count`, and in the
            newest test, `test_count`; in the order of codes.
        ids: int32 `[len(values) + 2]`, the id of each code.
    """

    table: Table
    values: pa.Table
    ids: Array

    @classmethod
    def none(cls, table: Table) -> "KnownValues":
        """Returns those of a store before its first day."""
        nothing = pa.array([], pa.int64())
        return cls(
            table=table,
            values=pa.table(
                {
                    "value": pa.array([], arrow_type(table)),
                    **dict.fromkeys(_COUNTS, nothing),
                }
            ),
            ids=np.array([PADDING_ID, OUT_OF_VOCABULARY_ID], np.int32),
        )

    @classmethod
    def read(cls, folder: Path, table: Table) -> "KnownValues":
        """Returns what `write` wrote."""
        return cls(
            table=table,
            values=read_arrow(folder / "values" / f"{table.name}.arrow"),
            ids=np.load(folder / "ids" / f"{table.name}.npy"),
        )

    def write(self, folder: Path) -> None:
        """Writes both files."""
        for name in ("values", "ids"):
            (folder / name).mkdir(exist_ok=True)
        write_arrow(folder / "values" / f"{self.table.name}.arrow", self.values)
        np.save(folder / "ids" / f"{self.table.name}.npy", self.ids)

    def with_counts(self, counts: pa.Table) -> "KnownValues":
        """Returns these values and those of a further period.

        Args:
            counts: `value`, each once, `count` and `test_count`. What was the
                newest test before is training by now.
        """
        missing = pa.scalar(missing_value(self.table), arrow_type(self.table))
        is_there = pc.fill_null(pc.not_equal(counts["value"], missing), False)
        counts = counts.filter(is_there)
        place = pc.index_in(counts["value"], value_set=self.values["value"])
        known = counts.filter(place.is_valid())
        at = place.drop_null().to_numpy()
        trained, tested = (self.values[n].to_numpy() for n in _COUNTS)
        trained = trained + tested
        trained[at] += known["count"].to_numpy()
        tested = np.zeros_like(trained)
        tested[at] = known["test_count"].to_numpy()
        # The order says nothing, but must not depend on that of the shards.
        new = counts.filter(place.is_null()).sort_by("value")
        values = pa.table(
            {
                "value": pa.concat_arrays(
                    [
                        *self.values["value"].chunks,
                        *new["value"].cast(arrow_type(self.table)).chunks,
                    ]
                    or [pa.array([], arrow_type(self.table))]
                ),
                "count": np.concatenate([trained, new["count"].to_numpy()]),
                "test_count": np.concatenate(
                    [tested, new["test_count"].to_numpy()]
                ),
            }
        )
        ids = np.full(
            len(values) + NUM_RESERVED_IDS, OUT_OF_VOCABULARY_ID, np.int32
        )
        ids[: len(self.ids)] = self.ids
        return KnownValues(
            table=self.table,
            values=values,
            ids=self._with_new_ids(values, ids),
        )

    def _with_new_ids(self, values: pa.Table, ids: Array) -> Array:
        """Gives ids to the values that are frequent enough by now."""
        waiting = ids[NUM_RESERVED_IDS:] == OUT_OF_VOCABULARY_ID
        waiting &= values["count"].to_numpy() >= self.table.min_count
        (rows,) = np.nonzero(waiting)
        # As of a vocabulary that is made at once.
        chosen = values.take(pa.array(rows))
        order = pc.sort_indices(
            chosen,
            sort_keys=[("count", "descending"), ("value", "ascending")],
        ).to_numpy()
        first = max(int(self.ids.max()) + 1, NUM_RESERVED_IDS)
        ids[rows[order] + NUM_RESERVED_IDS] = first + np.arange(len(rows))
        return ids

    @property
    def vocabulary(self) -> Vocabulary:
        """The values that have an id, in the order of ids."""
        own = self.ids[NUM_RESERVED_IDS:]
        (rows,) = np.nonzero(own >= NUM_RESERVED_IDS)
        rows = rows[np.argsort(own[rows])]
        values = self.values["value"].combine_chunks().take(pa.array(rows))
        return Vocabulary(self.table, values)
