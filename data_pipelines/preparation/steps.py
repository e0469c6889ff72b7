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
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipelines.candidate_statistics.statistics_step import StatisticsStep
from data_pipelines.candidate_statistics.stored_counts import describe_counts
from data_pipelines.preparation.build_shard import (
    ShardSummary,
    ShardTask,
    build_shard,
    check_unique,
    mean_and_scale,
    read_counts,
)
from data_pipelines.preparation.encode_shard import (
    EncodedSummary,
    EncodeTask,
    describe_files,
    encode_shard,
)
from data_pipelines.preparation.engine import Engine
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
from data_pipelines.preparation.working_folder import folder_of, working_folder
from data_pipelines.raw.raw_dataset import RawDataset
from data_pipelines.raw.raw_table import RawTable
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.raw.split_rule import SplitRule, Times
from data_pipelines.stores.content_digest import digest
from data_pipelines.stores.new_folder import check_free
from data_pipelines.stores.shard import add_nested, longest_of
from data_pipelines.stores.store import (
    SAMPLED_REQUESTS,
    Store,
    manifest_of,
    shard_name,
)
from data_pipelines.stores.vocabulary import Vocabulary, arrow_type
from sparsectr.errors import InputError
from sparsectr.process.progress import Progress
from sparsectr.schema import PREFIXES, DatasetSchema


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be prepared.

    Args:
        dataset: The raw tables.
        data_dir: Folder of the store. It must not exist, or be empty.
        num_shards: Into how many shards users are spread.
        range_bytes: Bytes of raw files that are read at once by a process.
        sample_requests: Requests that the store keeps as they were logged,
            at most.
        validation: Which requests before the test are the validation; `None`
            for the newest tenth.
        details: More entries of the manifest.
    """

    dataset: RawDataset
    data_dir: Path
    num_shards: int
    range_bytes: int
    sample_requests: int
    validation: SplitRule | None = None
    details: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where the work is done."""
        return folder_of(self.data_dir)

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked for, as far as the store depends on it.

        The manifest keeps it, with the digests of the raw files beside it.
        """
        details = {k: v for k, v in self.details.items() if k != "versions"}
        return {
            "num_shards": self.num_shards,
            "sample_requests": self.sample_requests,
            "details": details,
            "schema": json.loads(self.dataset.schema.to_json()),
            "split": repr(self.dataset.split),
            "validation": repr(self.validation),
        }

    def to_dict(self, engine: Engine) -> dict[str, Any]:
        """Returns what a resumed preparation must have in common with this."""
        return {
            "engine": engine.name,
            "range_bytes": self.range_bytes,
            **self.asked,
            "details": dict(self.details),
            "files": [
                [str(source.path), *source.state()]
                for source in self.dataset.sources
            ],
        }


def run(plan: Plan, engine: Engine, *, resume: bool) -> Store:
    """Prepares a store.

    Args:
        plan: What is to be prepared.
        engine: Where the work is done.
        resume: Whether to go on with a preparation that was interrupted. One
            that is done already is left as it is.

    Returns:
        The new store.

    Raises:
        InputError: If a raw file is not as documented; nothing is left then.
            Or if there is a store or an interrupted preparation already.
        OSError: If the disk is full or not writable. `resume` goes on.
    """
    plan.dataset.check()
    folder = plan.folder
    if resume and is_finished(plan.data_dir):
        _check_finished(plan)
        return Store(plan.data_dir)
    # Stopped after the rename below, it has only the folder left to remove.
    is_done = (
        resume
        and folder.exists()
        and not (folder / "store").exists()
        and (plan.data_dir / "manifest.json").exists()
    )
    if not is_done:
        check_free(plan.data_dir)
    with working_folder(folder, plan.to_dict(engine), resume=resume):
        if not is_done:
            _Steps(plan, engine, folder).run()
            # POSIX lets a folder replace an empty one and no other.
            (folder / "store").rename(plan.data_dir)
    return Store(plan.data_dir)


def is_finished(data_dir: Path) -> bool:
    """Whether there is a whole store, and no work left to do for it."""
    return (data_dir / "manifest.json").exists() and not folder_of(
        data_dir.absolute()
    ).exists()


def _check_finished(plan: Plan) -> None:
    """Raises InputError if a whole store is not the one that is asked for."""
    manifest = Store(plan.data_dir).manifest
    if "asked" not in manifest:
        raise InputError(
            f"{plan.data_dir} is a whole store, but of an earlier version, "
            "which does not say what was asked for. Keep it as it is, or "
            "remove it to prepare anew."
        )
    found = {**manifest["asked"], "files": manifest.get("sources")}
    asked = {
        **json.loads(json.dumps(plan.asked)),
        # Last, since it reads them.
        "files": [SourceFile.describe(s) for s in plan.dataset.sources],
    }
    for key, value in asked.items():
        if found.get(key) != value:
            raise InputError(
                f"{plan.data_dir} is a whole store, but its {key} differ from "
                "what is asked for now. Name another --data_dir, or remove "
                "that folder."
            )


class _Steps:
    """The steps, which share the plan and what the steps before have found."""

    def __init__(self, plan: Plan, engine: Engine, folder: Path) -> None:
        self.plan = plan
        self.dataset = plan.dataset
        self.engine = engine
        self.folder = folder
        self.parts = folder / "parts"
        self.coded = folder / "coded"
        self.store = folder / "store"

    def run(self) -> None:
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
        test_time, rule = self.dataset.split.resolve(self._times())
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
                "dropped": _add(
                    [
                        *(report.dropped for report in reports.values()),
                        *(summary.dropped for summary in summaries),
                    ]
                ),
                "incomplete": _add([s.incomplete for s in summaries]),
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
                if not number:
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
            found = find_validation(shards, self.plan.validation, test_time)
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
                vocabulary = Vocabulary.from_counts(table, counts)
                sizes[table.name] = vocabulary.table.size or 0
                if vocabulary.values is not None:
                    write_arrow(
                        self.folder / "vocabularies" / f"{table.name}.arrow",
                        pa.table({"value": vocabulary.values}),
                    )
                    # In one line: indented, it takes Python ten times as long.
                    write_json(
                        self.store / "vocabularies" / f"{table.name}.json",
                        vocabulary.values.to_pylist(),
                        indent=None,
                    )
                progress.advance(1)
        schema = _with_scales(schema.with_table_sizes(sizes), summaries)
        write_json(file, json.loads(schema.to_json()))
        return schema

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
            ],
        )
        for name, summary in zip(names, encoded, strict=True):
            files |= {f"{name}/{k}": v for k, v in summary.files.items()}
        described, counted = describe_counts(self.store, schema)
        if described:
            details = {**details, "statistics": described}
        manifest = manifest_of(
            schema=schema,
            num_shards=len(encoded),
            counts=add_nested([summary.counts for summary in encoded]),
            longest_sets=longest_of(s.longest_sets for s in encoded),
            details={
                **details,
                "out_of_vocabulary": add_nested([s.ids for s in encoded]),
                "content": digest(
                    [*(summary.content for summary in encoded), *counted],
                    details["split"]["validation_time"],
                ),
                "files": files,
            },
        )
        write_json(self.store / "manifest.json", manifest)

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


def _with_scales(
    schema: DatasetSchema, summaries: Sequence[ShardSummary]
) -> DatasetSchema:
    """Returns a copy in which every number has its mean and scale."""
    fields: dict[str, Any] = {}
    for prefix in PREFIXES:
        scaled = []
        for field in schema.numbers(prefix):
            mean, scale = mean_and_scale(
                [s.dense[f"{prefix}_{field.name}"] for s in summaries]
            )
            scaled.append(dataclasses.replace(field, mean=mean, scale=scale))
        fields[f"{prefix}_dense_fields"] = tuple(scaled)
    return dataclasses.replace(schema, **fields)


def _add(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)
