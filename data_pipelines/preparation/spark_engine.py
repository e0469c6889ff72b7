"""A cluster: Apache Spark runs the tasks and moves the rows.

Reading a raw file, building a shard and writing it are the same code as on
one machine (`scan.py`, `build_shard.py`, `encode_shard.py`). Spark decides
where it runs and repeats what was lost, and its shuffle brings rows to their
shards. Raw files and stores are in folders that the driver and all executors
share. `docs/spark.md` says how to run it.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import re
import shutil
import socket
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_type, to_arrow_type
from pyspark.sql.types import StructField, StructType

from data_pipelines.preparation.engine import Result, Task
from data_pipelines.preparation.scan import SHARD, Scan, ScanReport
from data_pipelines.preparation.working_folder import PLAN, folder_of
from data_pipelines.raw.raw_table import Split
from sparsectr.errors import InputError

_REPORT = "__report"
"""Column of the reports; rows of the raw files have none."""

_NO_SHARD = -1
"""Where the rows stand that have a report and nothing else."""


class SparkEngine:
    """The executors of a Spark session.

    Args:
        session: The session, of Spark itself and not of Spark Connect.
        data_dir: Folder of the store that is prepared.
    """

    def __init__(self, session: SparkSession, data_dir: Path) -> None:
        self.name = "spark"
        # With options of its own, which leave those of `session` alone.
        self._session = session.newSession()
        # To Spark `Brand` and `brand` are the same column otherwise.
        self._session.conf.set("spark.sql.caseSensitive", "true")
        self._shared = folder_of(data_dir.absolute()) / PLAN

    def map(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[Result]:
        """Yields the result of every task, in their order.

        Raises:
            InputError: If a task raises it.
            ChildProcessError: If Spark could not do a task.
        """
        if not tasks:
            return
        run = functools.partial(_run, function, self._shared)
        with _in_one_line():
            context = self._session.sparkContext
            outcomes = context.parallelize(tasks, len(tasks)).map(run).collect()
        for outcome in outcomes:
            if isinstance(outcome, InputError):
                raise outcome
            yield outcome

    def shuffle(
        self, scan: Scan, splits: Sequence[Split], folder: Path
    ) -> Iterator[ScanReport]:
        """Sends the rows of a table to their shards, one file each.

        Raises:
            InputError: If a row is not as documented; of several, it is about
                the first split.
            ChildProcessError: If Spark could not do a task.
        """
        done = folder / "spark"
        if done.exists():
            return iter(_read_reports(done, len(splits)))
        for left in folder.glob(".spark-*.partial"):
            shutil.rmtree(left)
        # What a driver that was killed has left running cannot write here.
        hidden = folder / f".spark-{uuid.uuid4().hex}.partial"
        schema = scan.schema.append(pa.field(_REPORT, pa.string()))
        rows_of = functools.partial(
            _rows, scan, tuple(splits), schema, self._shared
        )
        numbers = self._session.range(0, len(splits), 1, len(splits))
        with _in_one_line(), _without_pandas_warning():
            rows = numbers.mapInArrow(rows_of, _spark_schema(schema))
            rows = rows.repartition(scan.num_shards, SHARD)
            # Not a URI: Hadoop takes an escaped character for what it is.
            rows.write.partitionBy(SHARD).parquet(f"file://{hidden}")
        reports = _read_reports(hidden, len(splits))
        hidden.rename(done)
        return iter(reports)


@contextlib.contextmanager
def spark_session(master: str | None = None) -> Iterator[SparkSession]:
    """Starts Spark, and stops it in the end.

    Args:
        master: Where it runs, as Spark writes it; `None` for what
            spark-submit says, else the variable SPARK_MASTER, else all cores
            of this machine.

    Raises:
        InputError: If Spark does not start.
    """
    # Commands show what absl's verbosity lets through, and that is INFO.
    logging.getLogger("py4j").setLevel(logging.WARNING)
    builder = SparkSession.Builder().appName("data_pipelines.prepare")
    for name, value in _settings(master).items():
        builder = builder.config(name, value)
    try:
        with _without_pandas_warning():
            session = builder.getOrCreate()
    except (PySparkException, Py4JError) as error:
        raise InputError(
            f"Spark does not start: {_reason(str(error))} It needs Java 17 or "
            "later, found by JAVA_HOME or as `java`, and a master such as "
            "local[4], spark://host:7077 or yarn. The lines above say more."
        ) from error
    try:
        yield session
    finally:
        # A Spark that has died has raised what matters, and cannot be stopped.
        with contextlib.suppress(Py4JError, ConnectionError):
            session.stop()


def _settings(master: str | None) -> dict[str, str]:
    # Two attempts at one task would write to the same folder.
    settings = {"spark.speculation": "false"}
    is_submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if not is_submitted:
        master = master or os.environ.get("SPARK_MASTER") or "local[*]"
        is_terminal = sys.stderr.isatty()
        settings |= {
            "spark.log.level": "ERROR",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": str(is_terminal).lower(),
        }
        if master.startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
            os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if master is not None:
        settings["spark.master"] = master
    return settings


def _run(
    function: Callable[[Task], Result], shared: Path, task: Task
) -> Result | InputError:
    """Runs a task on an executor."""
    _check_shared(shared)
    try:
        return function(task)
    except InputError as error:
        # Not raised: Spark would try again, and print a stack trace.
        return error


def _rows(
    scan: Scan,
    splits: Sequence[Split],
    schema: pa.Schema,
    shared: Path,
    numbers: Iterator[pa.RecordBatch],
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of some splits, and after each a row with its report.

    An accumulator would count the rows of a task again if it is repeated.
    """
    _check_shared(shared)
    for batch in numbers:
        for number in batch.column(0).to_pylist():
            report = ScanReport()
            fault = None
            try:
                for rows in scan.rows(splits[number], report):
                    nothing = pa.nulls(len(rows), pa.string())
                    yield pa.RecordBatch.from_arrays(
                        [*rows.columns, nothing], schema=schema
                    )
            except InputError as error:
                fault = str(error)
            text = json.dumps(
                {
                    "split": number,
                    "fault": fault,
                    "report": dataclasses.asdict(report),
                }
            )
            values = {SHARD: _NO_SHARD, _REPORT: text}
            yield pa.RecordBatch.from_pylist([values], schema=schema)


def _check_shared(file: Path) -> None:
    """Checks that an executor sees what the driver has written."""
    if not file.exists():
        raise FileNotFoundError(
            f"{socket.gethostname()} does not see {file}: raw files and "
            "--data_dir have to be in folders that the driver and all "
            "executors share"
        )


def _read_reports(folder: Path, num_splits: int) -> list[ScanReport]:
    """Returns the report of every split.

    Raises:
        InputError: If one tells of a bad row.
        ChildProcessError: If the driver does not see all of them.
    """
    texts = []
    for file in sorted(folder.glob(f"{SHARD}={_NO_SHARD}/*.parquet")):
        texts += pq.ParquetFile(file).read([_REPORT])[_REPORT].to_pylist()
    found = sorted(map(json.loads, texts), key=lambda entry: entry["split"])
    if [entry["split"] for entry in found] != list(range(num_splits)):
        raise ChildProcessError(
            f"The executors have written {num_splits} parts to {folder}, of "
            f"which {len(found)} are there: --data_dir has to be in a folder "
            "that the driver and all executors share"
        )
    for entry in found:
        if entry["fault"] is not None:
            raise InputError(entry["fault"])
    return [ScanReport(**entry["report"]) for entry in found]


def _spark_schema(schema: pa.Schema) -> StructType:
    """Returns the columns of `schema` as Spark has them.

    Raises:
        InputError: If one would not come back as it was.
    """
    fields = []
    for field in schema:
        try:
            spark_type = from_arrow_type(field.type, prefer_timestamp_ntz=True)
            is_kept = to_arrow_type(spark_type) == field.type
        except PySparkException:
            is_kept = False
        if not is_kept:
            raise InputError(
                f"Spark has no type for column {field.name!r}, which is "
                f"{field.type}. Give it another, or use --engine=embedded."
            )
        fields.append(StructField(field.name, spark_type))
    return StructType(fields)


@contextlib.contextmanager
def _in_one_line() -> Iterator[None]:
    """Turns what Spark raises into an error of one line."""
    try:
        yield
    except (Py4JNetworkError, ConnectionError) as error:
        raise ChildProcessError(
            "The Java process of Spark's driver has died, most often for want "
            "of memory"
        ) from error
    except (PySparkException, Py4JError) as error:
        raise ChildProcessError(
            f"Spark could not do a task: {_reason(str(error))}"
        ) from error


def _reason(text: str) -> str:
    """Returns what matters of the text of an exception of Spark."""
    raised = re.findall(
        r"^Traceback \(most recent call last\):\n(?:[ \t].*\n)*(\S.*)",
        text,
        re.MULTILINE,
    )
    if raised:
        return str(raised[-1])
    # Of an exception of Java, what stands before its stack.
    text = re.split(r"\n\s+at ", text)[0]
    return " ".join(text.split())


@contextlib.contextmanager
def _without_pandas_warning() -> Iterator[None]:
    """Silences that PySpark 4 knows pandas 2 alone: none is used here."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "PySpark does not yet fully support", FutureWarning
        )
        yield
