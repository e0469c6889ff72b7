"""The step of a preparation that counts: a second shuffle, by value.

pairs of each shard (written when it was built)
  -> `merge_pairs`, one task a part of the values
  -> `fill_numbers`, one task a shard
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_pipelines.candidate_statistics.fill_numbers import (
    FillTask,
    fill_numbers,
)
from data_pipelines.candidate_statistics.merge_pairs import (
    HashRange,
    MergeTask,
    merge_pairs,
)
from data_pipelines.candidate_statistics.shard_pairs import (
    base_file,
    pairs_file,
)
from data_pipelines.preparation.build_shard import ShardSummary
from data_pipelines.preparation.result_files import (
    read_arrow,
    write_arrow,
    write_json,
)
from sparsectr.schema import DatasetSchema

PAIRS_OF_PART = 1 << 21
"""Pairs that are merged at once, about: some 200 bytes of memory each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatisticsStep:
    """Counts what the statistics of a data set need, on any engine.

    Args:
        schema: Schema of the data set.
        folder: Where the preparation works.
        store: Where the store is made.
        coded: Folders of the coded shards.
        run_tasks: Runs a function on tasks; it gets them, the name of the
            step and what a task is called, and returns the results in order.
        earlier: Folder that has the counts before an update; `None` where
            nothing was counted before.
    """

    schema: DatasetSchema
    folder: Path
    store: Path
    coded: Sequence[Path]
    run_tasks: Callable[[Callable[[Any], Any], Sequence[Any], str, str], Any]
    earlier: Path | None = None

    def run(self, summaries: Sequence[ShardSummary]) -> list[ShardSummary]:
        """Adds the numbers to all shards, unless it was done before.

        Returns:
            The summaries with what the numbers are in training.
        """
        if not self.schema.statistics:
            return list(summaries)
        file = self.folder / "statistics.json"
        answers = self.folder / "answers"
        if not file.exists():
            write_json(file, self._count(summaries, answers))
        shutil.rmtree(answers, ignore_errors=True)
        found = json.loads(file.read_text("utf-8"))
        return [
            dataclasses.replace(summary, dense={**summary.dense, **sums})
            for summary, sums in zip(summaries, found, strict=True)
        ]

    def _count(self, summaries: Sequence[ShardSummary], answers: Path) -> Any:
        self._add_bases()
        num_parts = {}
        tasks = []
        for statistic in self.schema.statistics:
            name = statistic.name
            total = sum(summary.pairs[name] for summary in summaries)
            before = self._files_before(name)
            total += sum(map(_num_rows, before))
            # A multiple, so that all of a part was in one part before.
            multiple = max(len(before), 1)
            num_parts[name] = multiple * max(
                1, -(-total // (PAIRS_OF_PART * multiple))
            )
            counts = self.store / "statistics" / name
            for folder in (counts, answers / name):
                folder.mkdir(parents=True, exist_ok=True)
            for index in range(num_parts[name]):
                part = HashRange(index=index, count=num_parts[name])
                tasks.append(
                    MergeTask(
                        statistic=statistic,
                        part=part,
                        shards=tuple(pairs_file(s, name) for s in self.coded),
                        base=base_file(self.store, statistic.bucket),
                        counts=counts / part.file_name,
                        answers=answers / name / part.file_name,
                        earlier=(
                            before[index * len(before) // num_parts[name]]
                            if before
                            else None
                        ),
                    )
                )
        self.run_tasks(merge_pairs, tasks, "counting statistics", "part")
        fills = [
            FillTask(
                schema=self.schema,
                coded=folder,
                shard=shard,
                answers=answers,
                num_parts=num_parts,
            )
            for shard, folder in enumerate(self.coded)
        ]
        return self.run_tasks(fill_numbers, fills, "adding statistics", "shard")

    def _add_bases(self) -> None:
        """Adds up the counts of all candidates."""
        (self.store / "statistics").mkdir(exist_ok=True)
        for bucket in {s.bucket for s in self.schema.statistics}:
            file = base_file(self.store, bucket)
            if file.exists():
                continue
            total = read_arrow(base_file(self.coded[0], bucket))
            for shard in self.coded[1:]:
                total = _add_up([total, read_arrow(base_file(shard, bucket))])
            if self.earlier is not None:
                total = pa.concat_tables(
                    [total, read_arrow(base_file(self.earlier, bucket))]
                )
            write_arrow(file, _add_up([total]))

    def _files_before(self, statistic: str) -> list[Path]:
        """Returns the files of the counts before an update, in order."""
        if self.earlier is None:
            return []
        folder = self.earlier / "statistics" / statistic
        return sorted(folder.glob("part-*.arrow"))


def _num_rows(path: Path) -> int:
    with pa.memory_map(str(path)) as file:
        return len(pa.ipc.open_file(file).read_all())


def _add_up(tables: Sequence[pa.Table]) -> pa.Table:
    """Adds up what is of one bucket."""
    names = ["impressions", "clicks"]
    total = pa.concat_tables(tables).group_by("bucket")
    total = total.aggregate([(name, "sum") for name in names])
    total = total.select(["bucket", *(f"{name}_sum" for name in names)])
    return total.rename_columns(["bucket", *names]).sort_by("bucket")
