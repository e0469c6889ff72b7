"""Where the validation of a store begins."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipelines.preparation.scan import read_shard
from data_pipelines.preparation.value_counts import (
    merge_counts,
    sorted_counts,
)
from data_pipelines.raw.raw_table import RawTable
from data_pipelines.raw.split_rule import SplitRule
from data_pipelines.raw.validation_rule import newest
from sparsectr.errors import InputError


def find_validation(
    shards: Iterable[Path],
    rule: SplitRule | None,
    test_time: int,
    earlier: Sequence[Path] = (),
) -> dict[str, Any]:
    """Returns what the manifest says of the validation.

    Args:
        shards: The coded shards.
        rule: The rule; `None` for the newest tenth, though it may leave a
            part without a request in a store that is tiny: the reader refuses
            the part then.
        test_time: Unix seconds at which the validation ends.
        earlier: Folders of splits of the days before an update, which are all
            before the test.

    Raises:
        InputError: If a rule that was asked for leaves a part empty.

    Memory:
        As much as the distinct seconds of the requests before the test.
    """
    folders = [*earlier, *(shard / "train" for shard in shards)]
    distinct, counts = sorted_counts(merge_counts(map(_times, folders)))
    time, words = (rule or newest()).resolve((distinct, counts))
    time = min(time, test_time)
    older = int(counts[distinct < time].sum())
    newer = int(counts.sum()) - older
    if rule is not None and not (older and newer):
        raise InputError(
            f"The validation, {words}, has {newer:,} requests before the test "
            f"and leaves {older:,} to train on. Move it by --validation_time "
            "or --validation_fraction."
        )
    return {"validation_rule": words, "validation_time": time}


def _times(split: Path) -> pa.Table:
    """Returns the distinct times of the requests of a shard's split."""
    time = np.load(split / "time.npy", mmap_mode="r")
    values, counts = np.unique(time, return_counts=True)
    return pa.table({"value": values.astype(np.int64), "count": counts})


def count_times(parts: Path, impressions: RawTable, shard: int) -> pa.Table:
    """Returns the distinct times of a shard's impressions with their counts."""
    rows = read_shard(
        parts / impressions.name, shard, impressions.empty, columns=["time"]
    )
    counts = rows["time"].value_counts()
    return pa.table(
        {"value": counts.field("values"), "count": counts.field("counts")}
    )
