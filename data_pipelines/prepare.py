r"""Raw files to a store that training reads.

    python -m data_pipelines.prepare --dataset=movielens \
        --raw_dir=ml-1m --data_dir=data/movielens
    python -m data_pipelines.prepare --verify --data_dir=data/movielens

`--raw_dir` holds the files as their publisher names them, each plain or as
.gz, .tar.gz or .zip:

    alibaba    raw_sample.csv, ad_feature.csv, user_profile.csv,
               behavior_log.csv
    eleme      D<day>_<part>.csv of the days to train and to test on
    movielens  ratings.dat, users.dat, movies.dat
    kuairand   log_standard_*_<v>.csv, user_features_<v>.csv,
               video_features_basic_<v>.csv, where <v> is pure, 1k or 27k
    ebnerd     train/ or validation/ or both, each with behaviors.parquet and
               history.parquet; articles.parquet beside them if it is there
    completejourney  what data_pipelines.completejourney_from_wheel writes
    parquet    one's own tables, which --schema describes; docs/own_tables.md

`--data_dir` must not exist yet. The work is done in a folder beside it,
`<data_dir>.partial`, and the store has its name when it is whole. A
preparation that was stopped goes on with --resume, which leaves a store alone
that is whole and of the same files and flags; one that meets a bad row
names its file and line and leaves nothing. Memory does not grow with the
number of rows. Both folders may be remote, as s3://bucket/folder: raw files
are copied to SPARSECTR_CACHE (default: ~/.cache/sparsectr), and the store is
made there and sent when it is whole. Files that
`data_pipelines.synthetic_alibaba` made give a store that says so.

The store also keeps --sample_requests test requests as they were logged, in
sampled_requests.parquet, which an export is warmed up and verified with. They
are people's data; --sample_requests=0 leaves them out.

Of the requests before the test, the newest tenth are the validation, which
`sparsectr.train --validation` chooses on; --validation_fraction and
--validation_time move its begin.

A store of alibaba or parquet that is prepared with --can_grow keeps what it
needs for days to be added (docs/daily_updates.md):

    python -m data_pipelines.prepare --update --dataset=alibaba \\
        --raw_dir=NEW_DAYS --data_dir=data/alibaba

All rows must be later than those of the store. What was its test is training
then, and the last of the new days is the test, or what --test_start says.

With --statistics a candidate also has impressions, clicks and smoothed rates
of its values before its request's hour, counted over all users: those that
the data set's module names, or the sections [statistics.NAME] of --schema,
which --nostatistics leaves out.
"""

import contextlib
import dataclasses
import json
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from absl import flags

from data_pipelines.datasets.eleme import ElemeOptions
from data_pipelines.datasets.eleme_flags import (
    date_of,
    define_eleme_flags,
    eleme_options,
)
from data_pipelines.datasets.open_dataset import (
    DATASETS,
    Options,
    open_dataset,
)
from data_pipelines.preparation import prepare_store, update
from data_pipelines.preparation.engine import EmbeddedEngine, Engine
from data_pipelines.preparation.plan import Plan
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.raw.validation_rule import FRACTION, validation_rule
from data_pipelines.stores.store import Store
from data_pipelines.synthetic_alibaba import MARKER
from data_pipelines.verify_store import verify_store
from sparsectr.errors import InputError
from sparsectr.file_systems.local_copy import cache_folder, local_copy
from sparsectr.file_systems.mirror import check_free, publish
from sparsectr.file_systems.paths import file_system, is_remote, join
from sparsectr.process import command
from sparsectr.time_fields import TIME_FIELDS

ENGINES = ("embedded", "spark")
RANGE_BYTES = 128 << 20
"""Bytes of raw files that a process reads as one part."""

SAMPLE_REQUESTS = 256
"""Requests that a store keeps as they were logged."""

SHARD_BYTES = 256 << 20
"""Bytes of raw rows of a shard: about 8 million rows of Alibaba's log."""

MAX_SHARDS = 900
"""A process that reads has a file of each open, and often no more than 1024."""

_PACKING_RATIO = 4
"""How much smaller than its rows a packed file is, about."""

_SMALL_BYTES = 64 << 20
"""Less than this is done before other processes have started."""


def prepare(
    dataset: str,
    raw_dir: Path,
    data_dir: Path,
    *,
    options: Options | None = None,
    engine: Engine | None = None,
    num_shards: int = 0,
    num_workers: int = 0,
    range_bytes: int = RANGE_BYTES,
    sample_requests: int = SAMPLE_REQUESTS,
    resume: bool = False,
    can_grow: bool = False,
    is_update: bool = False,
) -> Store:
    """Reads raw files and writes a store, or adds them to one.

    Args:
        dataset: One of `DATASETS`.
        raw_dir: Folder of the raw files.
        data_dir: Folder of the store. It must not exist, or be empty.
        options: What the data set can be told.
        engine: Where the work is done; `None` for this machine.
        num_shards: Into how many shards users are spread; 0 for as many as
            the size of the files asks for.
        num_workers: Processes of this machine; 0 for one a core.
        range_bytes: Bytes of raw files that a process reads as one part.
        sample_requests: Test requests that the store keeps as they were
            logged, at most.
        resume: Whether to go on with a preparation that was interrupted. One
            that is done already is left as it is.
        can_grow: Whether the store keeps what it needs for days to be added.
        is_update: Whether they are days that are added to the store that is
            there.

    Returns:
        The store.

    Raises:
        InputError: If a file is not as documented, or `data_dir` is taken.
        OSError: If a file cannot be read or written.
    """
    options = options or Options()
    if (can_grow or is_update) and dataset not in update.CAN_GROW:
        raise InputError(
            f"--{'update' if is_update else 'can_grow'} does not apply to "
            f"{dataset}: only rows of {' and '.join(update.CAN_GROW)} can be "
            "told apart by day."
        )
    base = None
    if is_update:
        base = update.open_base(data_dir, resume=resume)
        options = _options_of(base, dataset, options)
    raw = open_dataset(dataset, raw_dir, options)
    size = sum(
        source.size * (_PACKING_RATIO if _is_packed(source, dataset) else 1)
        for source in raw.sources
    )
    details: dict[str, Any] = {}
    if options.schema_file is not None:
        details["schema_file"] = SourceFile(path=options.schema_file).describe()
    if dataset == "eleme":
        details["options"] = (options.eleme or ElemeOptions()).to_dict()
    is_synthetic = (raw_dir / MARKER).exists()
    plan = Plan(
        dataset=raw,
        data_dir=data_dir.absolute(),
        num_shards=num_shards or min(-(-size // SHARD_BYTES), MAX_SHARDS),
        range_bytes=range_bytes,
        sample_requests=sample_requests,
        validation=validation_rule(
            options.validation_time,
            options.validation_fraction,
            raw.schema.time_zone,
        ),
        can_grow=can_grow,
        details={
            **details,
            "dataset": dataset,
            "data_source": (
                "synthetic sample" if is_synthetic else raw.data_source
            ),
            "versions": {
                "python": platform.python_version(),
                **{
                    name: metadata.version(name)
                    for name in ("sparsectr", "pyarrow", "numpy", "pandas")
                },
            },
        },
    )
    run = prepare_store.run
    if base is not None:
        run = update.update
        plan = update.as_update(
            plan, base, has_test_start=options.test_start is not None
        )
    if engine is not None:
        return run(plan, engine, resume=resume)
    if not num_workers:
        is_small = size < _SMALL_BYTES
        num_workers = 1 if is_small else len(os.sched_getaffinity(0))
    with EmbeddedEngine(num_workers) as embedded:
        return run(plan, embedded, resume=resume)


def _options_of(store: Store, dataset: str, options: Options) -> Options:
    """Returns options with what a store says, where nothing else is asked."""
    schema = store.schema
    statistics, time_fields = options.statistics, options.time_fields
    if statistics is None and dataset != "parquet":
        statistics = bool(schema.statistics) or None
    if time_fields is None and dataset != "parquet":
        time_fields = schema.time_fields or None
    return dataclasses.replace(
        options, statistics=statistics, time_fields=time_fields
    )


def _is_packed(source: SourceFile, dataset: str) -> bool:
    is_parquet = source.path.suffix == ".parquet" or dataset == "parquet"
    return source.is_packed or is_parquet


def _summary(manifest: Any) -> str:
    lines = []
    for what in ("rows", "counts", "split", "dropped", "incomplete"):
        lines.append(f"{what}:")
        lines += [
            f"  {name}: {json.dumps(value)}"
            for name, value in manifest[what].items()
        ]
    lines.append("out of vocabulary:")
    lines += [
        f"  {name}: {ids['out_of_vocabulary'] / max(ids['rows'], 1):.2%}"
        f" of {ids['rows']:,}"
        for name, ids in manifest["out_of_vocabulary"].items()
        if ids["out_of_vocabulary"]
    ]
    return "\n".join(lines)


def define_flags() -> None:
    """Defines the flags of this command.

    Not on import: `sparsectr.train` uses `prepare` and has a `--dataset` too.
    """
    flags.DEFINE_enum("dataset", None, DATASETS, "Which data set.")
    flags.DEFINE_string("raw_dir", None, "Folder of the raw files.")
    flags.DEFINE_string("data_dir", None, "Folder of the store.", required=True)
    flags.DEFINE_boolean(
        "resume", False, "Go on with a preparation that was stopped."
    )
    flags.DEFINE_boolean(
        "verify",
        False,
        "Check the store in --data_dir, every byte of it, and stop.",
    )
    flags.DEFINE_boolean(
        "can_grow",
        False,
        "Keep what is needed for days to be added: about the size of the raw "
        "files, packed. alibaba and parquet alone.",
    )
    flags.DEFINE_boolean(
        "update",
        False,
        "Add the days of --raw_dir, which must be later than all that is "
        "there, to the store in --data_dir.",
    )
    flags.DEFINE_boolean(
        "statistics",
        None,
        "Count impressions, clicks and rates of candidates' values, and give "
        "them to the model; the default is what --schema asks for, and none "
        "for the other data sets.",
    )
    flags.DEFINE_integer(
        "num_shards",
        0,
        "Shards of users; 0 for as many as the size of the files asks for. "
        "More shards need less memory.",
        lower_bound=0,
        upper_bound=MAX_SHARDS,
    )
    flags.DEFINE_integer(
        "num_workers", 0, "Processes; 0 for one a core.", lower_bound=0
    )
    flags.DEFINE_enum(
        "engine",
        "embedded",
        ENGINES,
        "Where the work is done: on this machine, or by Spark (docs/spark.md).",
    )
    flags.DEFINE_string(
        "spark_master",
        None,
        "Where Spark runs, as spark://host:7077 or local[4]; the default is "
        "what spark-submit says, else the variable SPARK_MASTER, else all "
        "cores of this machine.",
    )
    flags.DEFINE_integer(
        "range_mib",
        RANGE_BYTES >> 20,
        "MiB of raw files that a process reads at once.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "sample_requests",
        SAMPLE_REQUESTS,
        "Test requests that the store keeps as they were logged, to warm up "
        "and to verify exports with. People's data: 0 leaves them out.",
        lower_bound=0,
    )
    flags.DEFINE_string(
        "test_start",
        None,
        "First day of the test split, as 2022-04-30, in the data set's own "
        "time zone; the default is the last day, and of parquet what --schema "
        "says. alibaba, kuairand, ebnerd and parquet alone; a day of ebnerd "
        "begins at 07:00 UTC.",
    )
    flags.DEFINE_float(
        "validation_fraction",
        None,
        "Share of the requests before the test that are the validation, the "
        f"newest of them; the default is {FRACTION}.",
    )
    flags.DEFINE_string(
        "validation_time",
        None,
        "First moment of the validation instead, as 2022-04-29 or "
        "2022-04-29T18:00, in the data set's own time zone.",
    )
    flags.DEFINE_list(
        "time_fields",
        None,
        "Fields that the model computes from times, instead of those that a "
        f"schema file names: {', '.join(TIME_FIELDS)}.",
    )
    flags.DEFINE_string(
        "schema",
        None,
        "Schema file (TOML) of one's own tables, for --dataset=parquet.",
    )
    define_eleme_flags()


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    if values.verify:
        print(verify_store(local_copy(values.data_dir)))
        return
    for name in ("dataset", "raw_dir"):
        if values[name].value is None:
            raise InputError(f"--{name} is missing.")
    if values.update or values.can_grow:
        _check_update(values)
    # Executors of Spark work in other folders: no relative paths.
    raw_dir = local_copy(values.raw_dir).absolute()
    with (
        _folder_of(values.data_dir, values.resume) as data_dir,
        _engine(values, data_dir) as engine,
    ):
        was_finished = (
            values.resume
            and not values.update
            and prepare_store.is_finished(data_dir)
        )
        store = prepare(
            values.dataset,
            raw_dir,
            data_dir,
            options=Options(
                test_start=date_of("test_start", values.test_start),
                schema_file=Path(values.schema) if values.schema else None,
                validation_time=values.validation_time,
                validation_fraction=values.validation_fraction,
                eleme=eleme_options(values),
                time_fields=values.time_fields,
                statistics=values.statistics,
            ),
            engine=engine,
            num_shards=values.num_shards,
            num_workers=values.num_workers,
            range_bytes=values.range_mib << 20,
            sample_requests=values.sample_requests,
            resume=values.resume,
            can_grow=values.can_grow,
            is_update=values.update,
        )
    if was_finished:
        print(
            f"{values.data_dir}: nothing to do, it is a whole store of "
            f"{values.dataset}, of these files and flags"
        )
        return
    print(f"{values.data_dir}: a store of {values.dataset}")
    if store.updates:
        newest = store.updates[-1]
        first, last = map(
            store.schema.time_zone.moment,
            (newest.begin_time, newest.end_time - 1),
        )
        print(f"{len(store.updates)} parts, the newest {first} to {last}")
    print(_summary(store.manifest))


def _check_update(values: Any) -> None:
    """Raises InputError if flags are given that an update cannot follow."""
    if values.engine != "embedded":
        raise InputError("--can_grow and --update need --engine=embedded.")
    if not values.update:
        return
    if is_remote(values.data_dir):
        raise InputError(
            f"--update works on a store of this machine, and not on "
            f"{values.data_dir}: copy it, and copy it back."
        )
    for name in ("can_grow", "num_shards"):
        if values[name].present:
            raise InputError(f"--update takes --{name} from the store.")


@contextlib.contextmanager
def _folder_of(data_dir: str, resume: bool) -> Iterator[Path]:
    """Yields the local folder of a store, and sends it where it belongs."""
    if not is_remote(data_dir):
        yield Path(data_dir)
        return
    manifest = join(data_dir, "manifest.json")
    if resume and file_system(data_dir).status(manifest) is not None:
        yield local_copy(data_dir)
        return
    check_free(data_dir)
    folder = cache_folder("stores", data_dir) / "store"
    if not resume:
        # Of an earlier preparation that was whole and could not be sent.
        shutil.rmtree(folder, ignore_errors=True)
    yield folder
    publish(folder, data_dir)
    shutil.rmtree(folder)


@contextlib.contextmanager
def _engine(values: Any, data_dir: Path) -> Iterator[Engine | None]:
    """Yields the engine that the flags ask for; `None` is the embedded one."""
    if values.engine == "embedded":
        if values.spark_master is not None:
            raise InputError("--spark_master needs --engine=spark.")
        yield None
        return
    if values.num_workers:
        raise InputError(
            "--num_workers does not apply to --engine=spark: --spark_master "
            "says how many there are, as local[4] does."
        )
    try:
        from data_pipelines.preparation.spark_engine import (
            SparkEngine,
            spark_session,
        )
    except ModuleNotFoundError as error:
        raise InputError(
            f"--engine=spark needs {error.name}: pip install 'sparsectr[spark]'"
        ) from error
    with spark_session(values.spark_master) as session:
        yield SparkEngine(session, data_dir)


if __name__ == "__main__":
    define_flags()
    command.run(main)
