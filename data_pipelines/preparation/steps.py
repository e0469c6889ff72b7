"""The steps from raw files to a store, any of which can be interrupted.

    DATA_DIR.partial/
      plan.json, lock  see `working_folder.py`
      parts/           rows of the raw tables by table, part and shard
      coded/           shards with codes of their own, values with counts
      answers/         statistics of candidates, by statistic and part
      vocabularies/    vocabularies as Arrow files
      summaries/       what was found in each shard of the store
      store/           the store, renamed to DATA_DIR when it is whole

Every file and folder there gets its name when it is whole, so that what has
its name need not be made again.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipelines.candidate_statistics.statistics_step import StatisticsStep
from data_pipelines.candidate_statistics.stored_counts import describe_counts
from data_pipelines.preparation.added_days import (
    add_counts,
    check_test,
    count_with,
    earlier_rows,
    earlier_splits,
    manifest_with,
    span_of,
)
from data_pipelines.preparation.build_shard import (
    ShardSummary,
    build_shard,
    kept_tables,
    read_counts,
    with_scales,
)
from data_pipelines.preparation.encode_shard import (
    EncodedSummary,
    EncodeTask,
    describe_files,
    encode_shard,
)
from data_pipelines.preparation.engine import Engine
from data_pipelines.preparation.known_values import KnownValues
from data_pipelines.preparation.plan import Plan
from data_pipelines.preparation.read_shard_rows import ShardTask, check_unique
from data_pipelines.preparation.result_files import (
    read_arrow,
    write_arrow,
    write_json,
)
from data_pipelines.preparation.sampled_requests import merge_samples
from data_pipelines.preparation.scan import ROW, Scan, ScanReport, read_shard
from data_pipelines.preparation.validation_time import (
    count_times,
    find_validation,
)
from data_pipelines.preparation.value_counts import (
    merge_counts,
    sorted_counts,
)
from data_pipelines.raw.raw_table import RawTable
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.raw.split_rule import Times
from data_pipelines.stores.content_digest import digest
from data_pipelines.stores.growing_store import (
    Update,
    content_of,
    update_folder,
)
from data_pipelines.stores.shard import add_nested, longest_of
from data_pipelines.stores.store import (
    SAMPLED_REQUESTS,
    manifest_of,
    shard_name,
)
from data_pipelines.stores.vocabulary import Vocabulary, arrow_type
from sparsectr.errors import InputError
from sparsectr.process.progress import Progress
from sparsectr.schema import PREFIXES, DatasetSchema, Table

_NUMBERS = tuple(f"{prefix}_dense_fields" for prefix in PREFIXES)


class Steps:
    """The steps, which share the plan and what the steps before have found.

    Args:
        plan: What is to be prepared.
        engine: Where the work is done.
        folder: Folder of the work.
    """

    def __init__(self, plan: Plan, engine: Engine, folder: Path) -> None:
        self.plan = plan
        self.dataset = plan.dataset
        self.engine = engine
        self.folder = folder
        self.coded = folder / "coded"
        self.store = folder / "store"
        # Of a store that can grow, the rows stay.
        self.parts = self.store / "rows" if plan.can_grow else folder / "parts"
        self.base = plan.base
        self.begin_time = self.end_time = 0

    def run(self) -> None:
        """Does all that is not done yet."""
        if (self.store / "manifest.json").exists():
            return  # killed between the last file and the last rename
        for name in ("coded", "summaries", "vocabularies", "store"):
            (self.folder / name).mkdir(exist_ok=True)
        sources = self._sources()
        reports = {
            table.name: self._shuffle(table) for table in self.dataset.tables
        }
        if self.dataset.items is not None:
            self._check_items(self.dataset.items)
        if self.plan.can_grow:
            self._check_span()
        test_time, rule = self.dataset.split.resolve(self._times())
        if self.base is not None:
            check_test(self.base, test_time, rule)
        summaries = self._build(test_time, rule)
        split = {
            "rule": rule,
            "test_time": test_time,
            **self._find_validation(test_time),
        }
        summaries = StatisticsStep(
            schema=self.dataset.schema,
            folder=self.folder,
            store=self.store,
            coded=[self._coded(n) for n in range(self.plan.num_shards)],
            run_tasks=self._map,
            earlier=None if self.base is None else self.base.newest,
        ).run(summaries)
        schema = self._vocabularies(summaries)
        self._sample(summaries)
        encoded = self._encode(schema, split["validation_time"])
        self._write_manifest(
            schema,
            encoded,
            {
                **self.plan.details,
                "asked": self.plan.asked,
                "engine": self.engine.name,
                "sources": sources,
                "split": split,
                "rows": {
                    name: {
                        "read": report.num_read,
                        "valid": report.num_read - sum(report.dropped.values()),
                    }
                    for name, report in reports.items()
                },
                "dropped": add_counts(
                    [
                        *(report.dropped for report in reports.values()),
                        *(summary.dropped for summary in summaries),
                    ]
                ),
                "incomplete": add_counts([s.incomplete for s in summaries]),
            },
        )

    def _sources(self) -> list[dict[str, Any]]:
        file = self.folder / "sources.json"
        if not file.exists():
            sources = self.dataset.sources
            found = self._map(
                SourceFile.describe,
                sources,
                "hashing the raw files",
                "B",
                [source.size for source in sources],
            )
            write_json(file, found)
        described: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
        return described

    def _shuffle(self, table: RawTable) -> ScanReport:
        file = self.parts / table.name / "report.json"
        if file.exists():
            return ScanReport(**json.loads(file.read_text("utf-8")))
        is_shared = table is self.dataset.items
        scan = Scan(
            table=table,
            key=None if is_shared else "user_id",
            num_shards=1 if is_shared else self.plan.num_shards,
        )
        splits = table.splits(self.plan.range_bytes)
        file.parent.mkdir(parents=True, exist_ok=True)
        total = ScanReport()
        with Progress(f"reading {table.name}", len(splits), "part") as progress:
            for report in self.engine.shuffle(scan, splits, file.parent):
                total.add(report.num_read, report.dropped)
                progress.advance(1, f"{total.num_read:,} rows")
        write_json(file, dataclasses.asdict(total))
        return total

    def _check_items(self, items: RawTable) -> None:
        key = self.dataset.item_key
        rows = read_shard(
            self.parts / items.name, 0, items.empty, columns=[key, ROW]
        )
        check_unique(items, rows, key, self.plan.range_bytes)

    def _times(self) -> Times:
        nothing = np.zeros(0, np.int64)
        if not self.dataset.split.needs_times:
            return nothing, nothing
        file = self.folder / "times.arrow"
        if not file.exists():
            counts = merge_counts(
                count_times(self.parts, self.dataset.impressions, shard)
                for shard in range(self.plan.num_shards)
            )
            write_arrow(file, counts)
        return sorted_counts(read_arrow(file))

    def _check_span(self) -> None:
        """Finds the first and the last second of the rows.

        Raises:
            InputError: If they are not all after those that a store has.
        """
        file = self.folder / "span.json"
        if not file.exists():
            found = span_of(self.parts, self.dataset, self.plan.num_shards)
            if self.base is not None:
                found.check_after(self.base)
            write_json(file, [found.begin_time, found.end_time])
        self.begin_time, self.end_time = json.loads(file.read_text("utf-8"))

    def _build(self, test_time: int, rule: str) -> list[ShardSummary]:
        tasks = [
            ShardTask(
                dataset=self.dataset,
                parts=self.parts,
                shard=shard,
                test_time=test_time,
                folder=self._coded(shard),
                range_bytes=self.plan.range_bytes,
                sample_requests=self.plan.sample_requests,
                keeps_rows=self.plan.can_grow,
                earlier=(
                    None
                    if self.base is None
                    else earlier_rows(self.base, shard)
                ),
            )
            for shard in range(self.plan.num_shards)
        ]
        file = self.folder / "built.json"
        if not file.exists():
            found = self._map(build_shard, tasks, "sorting shards")
            for split, number in (
                ("training", sum(s.num_train for s in found)),
                ("test", sum(s.num_test for s in found)),
            ):
                # All that a store has already is training.
                is_needed = split == "test" or self.base is None
                if is_needed and not number:
                    raise InputError(
                        f"There is no {split} request: the split is {rule}, "
                        f"at Unix second {test_time}."
                    )
            write_json(file, [dataclasses.asdict(s) for s in found])
        return [
            ShardSummary(**values)
            for values in json.loads(file.read_text("utf-8"))
        ]

    def _find_validation(self, test_time: int) -> dict[str, Any]:
        file = self.folder / "validation.json"
        if not file.exists():
            shards = map(self._coded, range(self.plan.num_shards))
            found = find_validation(
                shards,
                self.plan.validation,
                test_time,
                earlier_splits(self.base),
            )
            write_json(file, found)
        described: dict[str, Any] = json.loads(file.read_text("utf-8"))
        return described

    def _vocabularies(self, summaries: Sequence[ShardSummary]) -> DatasetSchema:
        file = self.folder / "schema.json"
        if file.exists():
            return DatasetSchema.from_dict(json.loads(file.read_text("utf-8")))
        schema = self.dataset.schema
        (self.store / "vocabularies").mkdir(exist_ok=True)
        sizes = {}
        with Progress(
            "counting values", len(schema.tables), "table"
        ) as progress:
            for table in schema.tables:
                counts = pa.table({"value": pa.array([], arrow_type(table))})
                if table.kind != "hashed":
                    counts = merge_counts(
                        read_counts(self._coded(shard), table.name)
                        for shard in range(self.plan.num_shards)
                    )
                vocabulary, codes = self._vocabulary(table, counts)
                sizes[table.name] = vocabulary.table.size or 0
                if vocabulary.values is not None:
                    write_arrow(
                        self.folder / "vocabularies" / f"{table.name}.arrow",
                        pa.table({"value": codes}),
                    )
                    # In one line: indented, it takes Python ten times as long.
                    write_json(
                        self.store / "vocabularies" / f"{table.name}.json",
                        vocabulary.values.to_pylist(),
                        indent=None,
                    )
                progress.advance(1)
        schema = schema.with_table_sizes(sizes)
        schema = (
            with_scales(schema, summaries)
            if self.base is None
            # A model that goes on has learned what a number means.
            else dataclasses.replace(
                schema,
                **{n: getattr(self.base.schema, n) for n in _NUMBERS},
            )
        )
        write_json(file, json.loads(schema.to_json()))
        return schema

    def _vocabulary(
        self, table: Table, counts: pa.Table
    ) -> tuple[Vocabulary, pa.Array]:
        """Returns the vocabulary of a table, and the values to encode by."""
        if table.kind == "hashed" or not self.plan.can_grow:
            vocabulary = Vocabulary.from_counts(table, counts)
            return vocabulary, vocabulary.values
        known = KnownValues.none(table)
        if self.base is not None:
            known = KnownValues.read(self.base.newest, table)
        known = known.with_counts(counts)
        known.write(self.store)
        return known.vocabulary, known.values["value"].combine_chunks()

    def _sample(self, summaries: Sequence[ShardSummary]) -> None:
        file = self.store / SAMPLED_REQUESTS
        if file.exists() or not self.plan.sample_requests:
            return
        first = np.cumsum([0, *(summary.num_test for summary in summaries)])
        samples = [
            (self._coded(shard) / SAMPLED_REQUESTS, number)
            for shard, number in enumerate(first[:-1].tolist())
        ]
        hidden = file.with_name(f".{file.name}.partial")
        merge_samples(samples, hidden, self.plan.sample_requests)
        hidden.replace(file)

    def _encode(
        self, schema: DatasetSchema, validation_time: int
    ) -> list[EncodedSummary]:
        num_shards = self.plan.num_shards
        tasks = [
            EncodeTask(
                schema=schema,
                vocabularies=self.folder / "vocabularies",
                coded=self._coded(shard),
                folder=self.store / shard_name(shard, num_shards),
                summaries=self.folder / "summaries",
                validation_time=validation_time,
                ids=self.store if self.plan.can_grow else None,
            )
            for shard in range(num_shards)
        ]
        return self._map(encode_shard, tasks, "writing shards")

    def _write_manifest(
        self,
        schema: DatasetSchema,
        encoded: Sequence[EncodedSummary],
        details: Mapping[str, Any],
    ) -> None:
        names = [
            shard_name(shard, len(encoded)) for shard in range(len(encoded))
        ]
        files = describe_files(
            self.store,
            [
                *sorted((self.store / "vocabularies").iterdir()),
                *self.store.glob(SAMPLED_REQUESTS),
                *sorted(self.store.glob("statistics/**/*.arrow")),
                *self._kept_files(),
            ],
        )
        for name, summary in zip(names, encoded, strict=True):
            files |= {f"{name}/{k}": v for k, v in summary.files.items()}
        described, counted = describe_counts(self.store, schema)
        if described:
            details = {**details, "statistics": described}
        validation_time = details["split"]["validation_time"]
        contents = [summary.content for summary in encoded]
        counts = add_nested([summary.counts for summary in encoded])
        content = digest([*contents, *counted], validation_time)
        if self.plan.can_grow:
            updates = self._updates(details, digest(contents))
            counts = count_with(
                self.base, self.store, schema, len(encoded), validation_time
            )
            content = content_of(updates, counted, details["split"])
            details = {**details, "updates": [u.to_dict() for u in updates]}
        manifest = manifest_of(
            schema=schema,
            num_shards=len(encoded),
            counts=counts,
            longest_sets=longest_of(s.longest_sets for s in encoded),
            details={
                **details,
                "out_of_vocabulary": add_nested([s.ids for s in encoded]),
                "content": content,
                "files": files,
            },
        )
        if self.base is not None:
            manifest = manifest_with(self.base, manifest)
        write_json(self.store / "manifest.json", manifest)

    def _kept_files(self) -> list[Path]:
        """Returns the files of what a store needs to grow."""
        if not self.plan.can_grow:
            return []
        kept = {table.name for table in kept_tables(self.dataset)}
        for folder in self.parts.iterdir():
            if folder.name not in kept:
                shutil.rmtree(folder)
        return [
            file
            for name in ("rows", "values", "ids")
            for file in sorted((self.store / name).rglob("*"))
            if file.is_file()
        ]

    def _updates(
        self, details: Mapping[str, Any], content: str
    ) -> list[Update]:
        earlier = self.base.updates if self.base is not None else ()
        return [
            *earlier,
            Update(
                folder=update_folder(len(earlier)),
                begin_time=self.begin_time,
                end_time=self.end_time,
                test_time=details["split"]["test_time"],
                content=content,
                num_sources=len(details["sources"]),
            ),
        ]

    def _coded(self, shard: int) -> Path:
        return self.coded / f"shard-{shard:05d}"

    def _map(
        self,
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        step: str,
        unit: str = "shard",
        weights: Sequence[int] | None = None,
    ) -> list[Any]:
        weights = weights or [1] * len(tasks)
        results = []
        with Progress(step, sum(weights), unit) as progress:
            for result, weight in zip(
                self.engine.map(function, tasks), weights, strict=True
            ):
                results.append(result)
                progress.advance(weight)
        return results
