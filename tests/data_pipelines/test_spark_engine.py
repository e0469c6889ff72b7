"""Spark gives the same stores as the embedded engine, and the same errors."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipelines.candidate_statistics import statistics_step
from data_pipelines.preparation.engine import EmbeddedEngine, Engine
from data_pipelines.preparation.scan import Scan, read_shard
from data_pipelines.preparation.working_folder import PLAN, folder_of
from data_pipelines.prepare import Options, prepare
from data_pipelines.raw.parquet_reader import ParquetReader
from data_pipelines.raw.raw_table import RawTable, keep
from data_pipelines.raw.source_file import SourceFile
from data_pipelines.stores.store import Store
from data_pipelines.synthetic_alibaba import write_sample
from data_pipelines.verify_store import verify_store
from sparsectr.errors import InputError
from tests import commands
from tests.data_pipelines import leaks, raw_files

pytest.importorskip("pyspark", reason="PySpark is not installed")
if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
    pytest.skip("Spark needs Java", allow_module_level=True)

import pyspark
from pyspark.sql import SparkSession

from data_pipelines.preparation.spark_engine import SparkEngine, spark_session

EARLIER_LOG = {
    "log_standard_4_08_to_4_21_pure.csv": (
        raw_files.KUAIRAND["log_standard_4_22_to_5_08_pure.csv"]
        .replace("16512", "16502")
        .replace("2,12,", "3,13,")
    )
}


@pytest.fixture(scope="module")
def session() -> Iterator[SparkSession]:
    with pytest.MonkeyPatch.context() as patch:
        # So that they are gone when this module is done.
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", str(commands.ROOT))
        # So little is done that what compiles it thoroughly takes longer.
        patch.setenv("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1")
        with spark_session("local[2]") as session:
            yield session


@pytest.fixture(scope="module")
def raw_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("raw")
    write_sample(folder / "alibaba", num_users=30)
    raw_files.write(folder / "movielens", raw_files.MOVIELENS)
    raw_files.write(folder / "kuairand", raw_files.KUAIRAND | EARLIER_LOG)
    return {path.name: path for path in folder.iterdir()}


def _same_but_for_the_engine(store: Store, expected: Store) -> None:
    """The manifest has the SHA-256 of every file, so this is all there is."""
    assert store.manifest["engine"] == "spark"
    assert store.manifest == {**expected.manifest, "engine": "spark"}


@pytest.mark.parametrize(
    ("dataset", "num_shards", "range_bytes", "statistics"),
    [
        ("alibaba", 1, 1 << 30, False),
        ("alibaba", 5, 1 << 17, True),
        ("movielens", 2, 40, False),
        ("kuairand", 3, 150, True),
    ],
)
def test_stores_are_equal(
    session: SparkSession,
    raw_dirs: dict[str, Path],
    tmp_path: Path,
    dataset: str,
    num_shards: int,
    range_bytes: int,
    statistics: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics_step, "PAIRS_OF_PART", 100)

    def run(name: str, engine: Engine) -> Store:
        return prepare(
            dataset,
            raw_dirs[dataset],
            tmp_path / name,
            options=Options(statistics=statistics),
            engine=engine,
            num_shards=num_shards,
            range_bytes=range_bytes,
        )

    expected = run("embedded", EmbeddedEngine(1))
    store = run("spark", SparkEngine(session, tmp_path / "spark"))
    assert len(store.shards) == num_shards
    _same_but_for_the_engine(store, expected)
    verify_store(store.path)
    assert leaks.check_histories(store) > 0
    assert bool(store.manifest.get("statistics")) == statistics
    assert sorted(p.name for p in tmp_path.iterdir()) == ["embedded", "spark"]


ROWS = pa.table(
    {
        "user_id": pa.array([*range(8), 2**63 - 1, -(2**63)]),
        "Brand": ["", None, "NUL\0", "né", "a,b", " ", "\n", "x", "y", "z"],
        "brand": pa.array([None, 2**53 + 1, -(2**63), 0, *range(6)]),
        "price": pa.array(
            [float("nan"), -0.0, 1e-45, None, *range(6)], pa.float32()
        ),
        "day": pa.array([None, -1, 0, *range(7)], pa.date32()),
        "tags": pa.array([None, [], [1, None], *[[2**62]] * 7]),
        "x y.z": pa.array([None, *range(9)], pa.float64()),
    }
)


def _scan(folder: Path, rows: pa.Table) -> Scan:
    pq.write_table(rows, folder / "rows.parquet", row_group_size=4)
    columns = {name: rows.schema.field(name).type for name in rows.column_names}
    return Scan(
        table=RawTable(
            name="behaviors",
            sources=(SourceFile(path=folder / "rows.parquet"),),
            reader=ParquetReader(columns=columns),
            convert=keep,
        ),
        key="user_id",
        num_shards=3,
    )


def _engine(session: SparkSession, folder: Path) -> SparkEngine:
    """Returns an engine that is used by itself, without a preparation."""
    plan = folder_of(folder / "store") / PLAN
    plan.parent.mkdir()
    plan.write_text("{}")
    return SparkEngine(session, folder / "store")


def test_values_survive(session: SparkSession, tmp_path: Path) -> None:
    scan = _scan(tmp_path, ROWS)
    splits = scan.table.splits(1)
    assert len(splits) == 3
    tables = []
    for engine in (EmbeddedEngine(1), _engine(session, tmp_path)):
        folder = tmp_path / "a [b]%20{c},*" / engine.name
        reports = list(engine.shuffle(scan, splits, folder))
        assert [report.num_read for report in reports] == [4, 4, 2]
        shards = [read_shard(folder, n, scan.table.empty) for n in range(3)]
        assert sum(map(len, shards)) == len(ROWS)
        tables.append(shards)
    for expected, found in zip(*tables, strict=True):
        assert len(expected)
        assert found.schema.equals(expected.schema)
        # As text, in which NaN equals itself and 0 differs from -0.
        assert str(found.to_pylist()) == str(expected.to_pylist())


def test_what_spark_would_change_is_refused(
    session: SparkSession, tmp_path: Path
) -> None:
    rows = ROWS.append_column("at", pa.array([0] * 10, pa.timestamp("ns")))
    scan = _scan(tmp_path, rows)
    with pytest.raises(InputError, match=r"'at', which is timestamp\[ns\]"):
        _engine(session, tmp_path).shuffle(
            scan, scan.table.splits(1), tmp_path / "parts"
        )


def test_shuffle_is_made_once(session: SparkSession, tmp_path: Path) -> None:
    scan = _scan(tmp_path, ROWS)
    splits = scan.table.splits(1)
    engine = _engine(session, tmp_path)
    parts = tmp_path / "parts"
    (parts / ".spark-0.partial" / "__shard=0").mkdir(parents=True)
    reports = list(engine.shuffle(scan, splits, parts))
    assert [path.name for path in parts.iterdir()] == ["spark"]
    (tmp_path / "rows.parquet").unlink()
    assert list(engine.shuffle(scan, splits, parts)) == reports


@pytest.mark.parametrize(
    ("name", "line"),
    [
        # While raw files are read, and two of them have a fault.
        ("behavior_log.csv", "1,1494010000,pv,5\n2,1494010000,eat,5,7\n"),
        # While shards are built.
        ("user_profile.csv", "2,0,5,1,4,1,3,1,\n"),
    ],
)
def test_bad_rows_give_the_same_message(
    session: SparkSession, tmp_path: Path, name: str, line: str
) -> None:
    files = dict(raw_files.ALIBABA)
    files[name] += line
    raw_dir = raw_files.write(tmp_path / "raw", files)
    messages = []
    for engine in (EmbeddedEngine(1), SparkEngine(session, tmp_path / "store")):
        with pytest.raises(InputError) as caught:
            prepare(
                "alibaba",
                raw_dir,
                tmp_path / "store",
                engine=engine,
                num_shards=2,
                range_bytes=40,
            )
        messages.append(str(caught.value))
        assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert messages[0] == messages[1]
    assert f"{raw_dir / name}, line " in messages[0]


def test_killed_worker_is_one_line(
    session: SparkSession, tmp_path: Path
) -> None:
    engine = _engine(session, tmp_path)
    with pytest.raises(
        ChildProcessError, match="exited unexpectedly"
    ) as caught:
        list(engine.map(lambda task: os.kill(os.getpid(), task), [9]))
    assert "\n" not in str(caught.value)
    assert "at org.apache" not in str(caught.value)
    assert list(engine.map(lambda task: task + 1, [1, 2, 3])) == [2, 3, 4]


def test_failed_task_is_one_line(session: SparkSession, tmp_path: Path) -> None:
    def fail(task: Path) -> None:
        task.read_text()

    with pytest.raises(ChildProcessError) as caught:
        list(_engine(session, tmp_path).map(fail, [tmp_path / "absent"]))
    assert str(caught.value) == (
        "Spark could not do a task: FileNotFoundError: [Errno 2] No such file "
        f"or directory: '{tmp_path / 'absent'}'"
    )


def test_folders_must_be_shared(session: SparkSession, tmp_path: Path) -> None:
    scan = _scan(tmp_path, ROWS)
    splits = scan.table.splits(1)
    blind = SparkEngine(session, tmp_path / "elsewhere")
    message = r"does not see .*elsewhere.partial/plan.json: raw files"
    with pytest.raises(ChildProcessError, match=message):
        list(blind.map(abs, [-1]))
    with pytest.raises(ChildProcessError, match=message):
        blind.shuffle(scan, splits, tmp_path / "parts")
    # Executors have written to disks of their own.
    (tmp_path / "parts" / "spark").mkdir(parents=True)
    with pytest.raises(ChildProcessError, match=r"3 parts .* 0 are there"):
        _engine(session, tmp_path).shuffle(scan, splits, tmp_path / "parts")


def test_nothing_listens_beyond_this_machine(session: SparkSession) -> None:
    configuration = session.sparkContext.getConf()
    assert configuration.get("spark.driver.host") == "localhost"
    assert session.sparkContext.uiWebUrl is None


def test_resumes_after_a_kill(
    session: SparkSession,
    raw_dirs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPARK_MASTER", "local[2]")
    flags = ["--dataset=alibaba", f"--raw_dir={raw_dirs['alibaba']}"]
    process = commands.start(
        "data_pipelines.prepare",
        *flags,
        f"--data_dir={tmp_path / 'store'}",
        "--engine=spark",
        "--num_shards=2",
        cwd=tmp_path,
    )
    folder = folder_of(tmp_path / "store")
    found = folder / "parts" / "impressions" / "report.json"
    while not found.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    # Until Spark, too, has closed what it prints to.
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]
    age = found.stat().st_mtime_ns
    assert not (folder / "built.json").exists()

    def run(name: str, engine: Engine, resume: bool) -> Store:
        return prepare(
            "alibaba",
            raw_dirs["alibaba"],
            tmp_path / name,
            engine=engine,
            num_shards=2,
            resume=resume,
        )

    with pytest.raises(InputError, match="its engine differ"):
        run("store", EmbeddedEngine(1), True)
    assert found.stat().st_mtime_ns == age
    store = run("store", SparkEngine(session, tmp_path / "store"), True)
    expected = run("embedded", EmbeddedEngine(1), False)
    _same_but_for_the_engine(store, expected)
    assert not folder.exists()


def _prepare(raw_dir: Path, data_dir: Path, *flags: str) -> list[str]:
    return [
        "--dataset=movielens",
        f"--raw_dir={raw_dir}",
        f"--data_dir={data_dir}",
        "--engine=spark",
        *flags,
    ]


def test_unknown_master_is_one_line(
    raw_dirs: dict[str, Path], tmp_path: Path
) -> None:
    flags = _prepare(raw_dirs["movielens"], tmp_path / "store")
    result = commands.run(
        "data_pipelines.prepare", *flags, "--spark_master=moon", cwd=tmp_path
    )
    commands.assert_refused(result, "Spark does not start: ", "a master such")
    assert "Master must either be yarn or" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_spark_submit_decides(
    raw_dirs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its master has executors that work in folders of their own."""
    monkeypatch.setenv("SPARK_MASTER", "moon")
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", str(commands.ROOT))
    raw_dir = os.path.relpath(raw_dirs["movielens"], tmp_path)
    subprocess.run(
        [
            Path(pyspark.__file__).parent / "bin" / "spark-submit",
            "--master=local-cluster[2,1,1024]",
            "--conf=spark.ui.enabled=false",
            commands.ROOT / "data_pipelines" / "prepare.py",
            *_prepare(Path(raw_dir), Path("store")),
        ],
        cwd=tmp_path,
        check=True,
    )
    expected = prepare(
        "movielens", raw_dirs["movielens"], tmp_path / "embedded"
    )
    _same_but_for_the_engine(Store(tmp_path / "store"), expected)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--spark_master=local[2]"], "--spark_master needs --engine=spark"),
        (["--engine=spark", "--num_workers=2"], "--num_workers does not apply"),
        (["--engine=spark"], "Spark does not start: .* needs Java 17"),
    ],
)
def test_flags_that_do_not_fit(
    raw_dirs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "no Java"))
    result = commands.run(
        "data_pipelines.prepare",
        "--dataset=alibaba",
        f"--raw_dir={raw_dirs['alibaba']}",
        f"--data_dir={tmp_path / 'store'}",
        *flags,
        cwd=tmp_path,
    )
    commands.assert_refused(result)
    assert re.search(message, result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pyspark'] = None\n"
        "from data_pipelines import prepare\n"
        "prepare.define_flags(); prepare.command.run(prepare.main)\n"
    )
    flags = ["--dataset=alibaba", "--raw_dir=a", "--data_dir=b"]
    result = subprocess.run(
        [sys.executable, "-c", code, *flags, "--engine=spark"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(commands.ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    commands.assert_refused(result, "pip install 'sparsectr[spark]'")
