"""What a store holds, counted exactly and in bounded memory."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from configs.models.sparse_ctr import SparseCTRRecipe
from data_pipelines.description.chunk_lengths import cut_into_chunks
from data_pipelines.description.duration_counts import DurationCounts
from data_pipelines.description.integer_counts import IntegerCounts
from data_pipelines.description.user_blocks import user_blocks
from data_pipelines.stores.history_ends import history_ends
from data_pipelines.stores.id_sets import Column, IdSets
from data_pipelines.stores.request_columns import RequestColumns
from data_pipelines.stores.shard import (
    SPLITS,
    Shard,
    add_nested,
    stored_ids,
    stored_numbers,
)
from data_pipelines.stores.split_parts import PARTS, count_rows
from data_pipelines.stores.store import Store
from sparsectr.process.progress import Progress
from sparsectr.schema import (
    OUT_OF_VOCABULARY_ID,
    PADDING_ID,
    PREFIXES,
    DatasetSchema,
)
from sparsectr.time_zone import SECONDS_PER_DAY

Array = npt.NDArray[Any]

_BLOCK_ROWS = 2**21


@dataclasses.dataclass
class TimeSpan:
    """The first and the last of some times, Unix seconds; `None` for none."""

    first: int | None = None
    last: int | None = None

    def add(self, time: Array) -> None:
        """Widens the span to hold `time`."""
        if len(time):
            first, last = int(time.min()), int(time.max())
            self.first = min(first, first if self.first is None else self.first)
            self.last = max(last, last if self.last is None else self.last)


@dataclasses.dataclass
class FieldCounts:
    """What the model would read of one field in one split.

    Attributes:
        rows: Values, or sets of them.
        missing: Those that are id 0, NaN, or an empty set.
        out_of_vocabulary: Those that are id 1, or a set that has it.
    """

    rows: int = 0
    missing: int = 0
    out_of_vocabulary: int = 0

    def add(self, values: Column) -> None:
        """Adds ids, sets of ids, or numbers."""
        self.rows += len(values)
        if isinstance(values, IdSets):
            self.missing += int((values.counts == 0).sum())
            unknown = np.repeat(np.arange(len(values)), values.counts)[
                np.asarray(values.values) == OUT_OF_VOCABULARY_ID
            ]
            self.out_of_vocabulary += len(np.unique(unknown))
        elif values.dtype.kind == "f":
            self.missing += int(np.isnan(values).sum())
        else:
            ids = np.asarray(values)
            self.missing += int((ids == PADDING_ID).sum())
            self.out_of_vocabulary += int((ids == OUT_OF_VOCABULARY_ID).sum())


@dataclasses.dataclass
class SplitStatistics:
    """The requests of one split.

    A day is one more than the days since 1970-01-01 in the data set's own
    time zone: no time zone makes it negative.

    Attributes:
        span: Times of the requests.
        history_length: Behaviors of the history of each request, uncut.
        behaviors_read: Behaviors of all histories, cut at `max_history`.
        newest_age: Seconds from the newest behavior to the request.
        oldest_age: Seconds from the oldest behavior read to the request.
        num_same_second: Requests whose user has a behavior in their second,
            which is no part of the history.
        num_candidates: Candidates of each request.
        requests_by_day: Days of the requests.
        candidates_by_day: Days of the candidates.
        clicks_by_day: Days of the candidates that were clicked.
    """

    span: TimeSpan = dataclasses.field(default_factory=TimeSpan)
    history_length: IntegerCounts = dataclasses.field(
        default_factory=IntegerCounts
    )
    behaviors_read: int = 0
    newest_age: DurationCounts = dataclasses.field(
        default_factory=DurationCounts
    )
    oldest_age: DurationCounts = dataclasses.field(
        default_factory=DurationCounts
    )
    num_same_second: int = 0
    num_candidates: IntegerCounts = dataclasses.field(
        default_factory=IntegerCounts
    )
    requests_by_day: IntegerCounts = dataclasses.field(
        default_factory=IntegerCounts
    )
    candidates_by_day: IntegerCounts = dataclasses.field(
        default_factory=IntegerCounts
    )
    clicks_by_day: IntegerCounts = dataclasses.field(
        default_factory=IntegerCounts
    )


class StoreStatistics:
    """Statistics of a store.

    Args:
        store: The store. Its rows are read shard by shard, and of a shard
            some users at a time.
        max_history: Newest behaviors of a history that a model reads.
        history_delay: Seconds until a behavior is in a history.
        num_chunks: Chunks that TimeChunking makes of them.
        block_rows: About how many rows are in memory at once.

    Attributes:
        max_history: As given.
        history_delay: As given.
        num_chunks: As given.
        num_users: Users.
        behavior_span: Times of all behaviors.
        behaviors_by_day: Their days, as in `SplitStatistics`.
        gap: Seconds between neighboring behaviors of a user.
        num_histories: Users with a history, each at their last request: what
            the attributes below are about.
        num_short_histories: Those with fewer behaviors than chunks.
        shortest_cut: The shortest gap that is cut, of the others.
        chunk_length: Behaviors of each chunk.
        largest_chunk: Percent of a history that its largest chunk holds, cut
            off to an integer.
        splits: The requests of "train" and of "test".
        parts: Requests, candidates and positives of each of `PARTS`; empty
            for a store without a validation time.
        fields: Counts of each field in each split. Behaviors are of "test"
            from the test time on and of "train" before it.

    Raises:
        ValueError: If an argument is out of range.
        InputError: If a file of the store is damaged.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_history: int,
        history_delay: int = 0,
        num_chunks: int = SparseCTRRecipe().num_chunks,
        block_rows: int = _BLOCK_ROWS,
    ) -> None:
        for name, value in (
            ("max_history", max_history),
            ("num_chunks", num_chunks),
            ("block_rows", block_rows),
        ):
            if value < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {name}={value}"
                )
        self.max_history = max_history
        self.history_delay = history_delay
        self.num_chunks = num_chunks
        self.num_users = 0
        self.behavior_span = TimeSpan()
        self.behaviors_by_day = IntegerCounts()
        self.gap = DurationCounts()
        self.num_histories = 0
        self.num_short_histories = 0
        self.shortest_cut = DurationCounts()
        self.chunk_length = IntegerCounts()
        self.largest_chunk = IntegerCounts()
        self.splits = {split: SplitStatistics() for split in SPLITS}
        self.fields = {
            name: {split: FieldCounts() for split in SPLITS}
            for name in field_tables(store.schema)
        }
        self.parts: dict[str, dict[str, int]] = {}
        split = store.manifest.get("split", {})
        self._validation_time = split.get("validation_time")
        self._time_zone = store.schema.time_zone
        self._test_time = split.get("test_time")
        total = sum(shard.num_behaviors for shard in store.shards)
        num_shards = len(store.shards)
        with Progress("describe", total, "row") as progress:
            for index in range(num_shards):
                # Opened anew, and closed after: what was read of a mapped file
                # counts as memory of this process as long as it is open.
                shard = store.open_shard(index)
                for block in user_blocks(shard, block_rows):
                    self._add(block)
                    progress.advance(block.num_behaviors)

    def _add(self, block: Shard) -> None:
        self.num_users += block.num_users
        self._add_behaviors(block)
        self._add_chunks(block)
        self._add_parts(block)
        for split in SPLITS:
            self._add_requests(block, split)
            self._add_candidates(block.splits[split], split)

    def _add_behaviors(self, block: Shard) -> None:
        time = block.behavior_time
        self.behavior_span.add(time)
        self.behaviors_by_day.add(self._day(time))
        # Not from the last behavior of one user to the first of the next.
        is_first = np.zeros(len(time) + 1, bool)
        is_first[block.behavior_offset] = True
        self.gap.add(np.diff(time)[~is_first[1:-1]])
        parts = {"train": np.ones(len(time), bool)}
        if self._test_time is not None:
            parts = {
                "train": time < self._test_time,
                "test": time >= self._test_time,
            }
        for name, ids in block.behaviors.items():
            for split, mask in parts.items():
                self.fields[f"behavior_{name}"][split].add(ids[mask])

    def _add_chunks(self, block: Shard) -> None:
        start = block.behavior_offset[:-1]
        # Of each user's last request.
        end = start.copy()
        for requests in block.splits.values():
            np.maximum.at(
                end,
                requests.user,
                history_ends(block, requests, self.history_delay),
            )
        has_history = end > start
        start = np.maximum(start, end - self.max_history)[has_history]
        end = end[has_history]
        chunks = cut_into_chunks(
            block.behavior_time, start, end, self.num_chunks
        )
        self.num_histories += len(start)
        self.num_short_histories += int((end - start < self.num_chunks).sum())
        self.shortest_cut.add(chunks.shortest_cut)
        self.chunk_length.add(chunks.length)
        self.largest_chunk.add(100 * chunks.largest // (end - start))

    def _add_parts(self, block: Shard) -> None:
        if self._validation_time is None:
            return
        counts = count_rows(block, self._validation_time)
        found = {part: counts[part] for part in PARTS}
        self.parts = add_nested([self.parts, found] if self.parts else [found])

    def _add_requests(self, block: Shard, split: str) -> None:
        requests, statistics = block.splits[split], self.splits[split]
        time = requests.time
        end = history_ends(block, requests, self.history_delay)
        statistics.span.add(time)
        start = block.behavior_offset[requests.user]
        length = end - start
        statistics.history_length.add(length)
        num_read = np.minimum(length, self.max_history)
        statistics.behaviors_read += int(num_read.sum())
        has_history = length > 0
        for ages, row in (
            (statistics.newest_age, end - 1),
            (statistics.oldest_age, end - num_read),
        ):
            behavior_time = block.behavior_time[row[has_history]]
            ages.add(time[has_history] - behavior_time)
        # Times ascend: the first behavior behind the history tells it.
        end = requests.history_end
        has_later = end < block.behavior_offset[requests.user + 1]
        later = block.behavior_time[end[has_later]]
        statistics.num_same_second += int((later == time[has_later]).sum())
        for name, ids in requests.users.items():
            self.fields[f"user_{name}"][split].add(ids)

    def _add_candidates(self, requests: RequestColumns, split: str) -> None:
        statistics = self.splits[split]
        offset = requests.candidate_offset
        num_candidates = np.diff(offset)
        clicks_before = np.append(0, np.cumsum(requests.label, dtype=np.int64))
        num_clicks = np.diff(clicks_before[offset])
        statistics.num_candidates.add(num_candidates)
        day = self._day(requests.time)
        statistics.requests_by_day.add(day)
        statistics.candidates_by_day.add(day, num_candidates)
        statistics.clicks_by_day.add(day, num_clicks)
        for name, values in requests.candidates.items():
            self.fields[f"candidate_{name}"][split].add(values)

    def _day(self, time: Array) -> Array:
        return 1 + self._time_zone.local(time) // SECONDS_PER_DAY


def field_tables(schema: DatasetSchema) -> dict[str, int | None]:
    """Returns the rows of each field's table, `None` for a number."""
    tables: dict[str, int | None] = {}
    for prefix in PREFIXES:
        for field in stored_ids(schema, prefix):
            tables[f"{prefix}_{field.name}"] = schema.table(field.table).size
        for name in stored_numbers(schema, prefix):
            tables[f"{prefix}_{name}"] = None
    return tables
