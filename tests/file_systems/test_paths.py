"""What is at a path, local or remote, and the errors where nothing is."""

import datetime
import gzip
import http.server
import importlib.util
import io
import os
import pathlib
import subprocess
import sys
import threading

import pytest
import tensorflow as tf

from sparsectr.errors import InputError
from sparsectr.file_systems import arrow_files, paths, tensorflow_files
from sparsectr.file_systems.local_copy import local_copy
from sparsectr.file_systems.publish import publish
from tests.commands import ROOT

pytestmark = pytest.mark.io

CONTENT = os.urandom(3_000_000)


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("s3://bucket/x", True),
        ("viewfs://x", True),
        ("data/alibaba", False),
        ("/data/s3://x", False),
        ("C:\\data", False),
        (pathlib.Path("data"), False),
    ],
)
def test_is_remote(path, remote):
    assert paths.is_remote(path) == remote


def test_join(tmp_path):
    assert paths.join("s3://bucket/x/", "a", "b") == "s3://bucket/x/a/b"
    assert paths.join("s3://bucket", "a") == "s3://bucket/a"
    assert paths.join(tmp_path, "a", "b") == str(tmp_path / "a" / "b")


def test_local_paths(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "a").write_bytes(b"abc")
    for path in (tmp_path, str(tmp_path)):
        assert paths.list_folder(path) == ["a", "b"]
        assert paths.is_folder(path)
        assert not paths.is_file(path)
        assert local_copy(path) == tmp_path
    file = paths.join(tmp_path, "a")
    assert paths.is_file(file)
    assert not paths.is_folder(file)
    assert paths.size(file) == 3
    with paths.open_stream(file) as stream:
        assert stream.read() == b"abc"


def test_local_paths_need_neither_arrow_nor_tensorflow(tmp_path):
    program = (
        "import sys\n"
        "from sparsectr.file_systems import paths\n"
        "from sparsectr.file_systems.local_copy import local_copy\n"
        f"paths.list_folder({str(tmp_path)!r})\n"
        f"local_copy({str(tmp_path)!r})\n"
        "print({'pyarrow', 'tensorflow'} & sys.modules.keys())\n"
    )
    done = _python(program)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_tensorflow_is_not_imported_without_tensorflow_io(object_store):
    if importlib.util.find_spec("tensorflow_io"):
        pytest.skip("tensorflow-io is installed")
    url = object_store.put("free/of/tensorflow", b"")
    done = _python(
        "import sys\n"
        "from sparsectr.file_systems import paths\n"
        f"print(paths.size({url!r}), 'tensorflow' in sys.modules)\n"
    )
    assert (done.stdout, done.stderr) == ("0 False\n", "")


def test_which_one_serves(object_store):
    served = paths.file_system("s3://bucket/x")
    works = importlib.util.find_spec("tensorflow_io") and (
        tf.__version__.startswith(("2.16.", "2.17."))
    )
    expected = tensorflow_files.TensorFlowFiles if works else None
    assert isinstance(served, expected or arrow_files.ArrowFiles)


def test_remote_paths(folder, object_store):
    object_store.put(f"{folder}/a.csv", CONTENT)
    object_store.put(f"{folder}/empty", b"")
    object_store.put(f"{folder}/below/deep/b", b"abc")
    url = object_store.url(folder)
    for path in (url, f"{url}/", f"{url}/below", "s3://bucket"):
        assert paths.is_folder(path)
        assert not paths.is_file(path)
    for path in (f"{url}/a.csv", f"{url}/below/deep/b", f"{url}/empty"):
        assert paths.is_file(path)
        assert not paths.is_folder(path)
    for path in (f"{url}/a", f"{url}-not", "s3://nobucket/x"):
        assert not paths.is_file(path)
        assert not paths.is_folder(path)
    assert paths.list_folder(url) == ["a.csv", "below", "empty"]
    assert paths.list_folder(f"{url}/below/") == ["deep"]
    assert folder in paths.list_folder("s3://bucket")
    assert paths.size(f"{url}/a.csv") == len(CONTENT)
    assert paths.size(f"{url}/empty") == 0


def test_open_stream(folder, object_store):
    url = object_store.put(f"{folder}/a", CONTENT)
    with paths.open_stream(url) as stream:
        assert stream.read(10) == CONTENT[:10]
        assert stream.read(1_000_000) == CONTENT[10:1_000_010]
        assert stream.tell() == 1_000_010
        assert stream.seek(-7, io.SEEK_END) == len(CONTENT) - 7
        assert stream.read() == CONTENT[-7:]
        assert stream.read() == b""
        assert stream.seek(5) == 5
        assert stream.read() == CONTENT[5:]
    with paths.open_stream(object_store.put(f"{folder}/b", b"")) as stream:
        assert stream.read() == b""


def test_compressed_lines_from_a_stream(folder, object_store):
    text = "".join(f"{number}\n" for number in range(100_000))
    url = object_store.put(f"{folder}/a.csv.gz", gzip.compress(text.encode()))
    with paths.open_stream(url) as stream, gzip.open(stream, "rt") as lines:
        assert lines.read() == text


def test_small_reads_share_a_request(backend, folder, object_store):
    if backend != "arrow":
        pytest.skip("TensorFlow buffers below us")
    url = object_store.put(f"{folder}/a", CONTENT)
    with paths.open_stream(url) as stream:
        stream.read(1)
        object_store.delete(f"{folder}/a")
        assert stream.read(1_000) == CONTENT[1:1_001]


@pytest.mark.parametrize(
    "action",
    [paths.open_stream, paths.size, paths.list_folder, local_copy],
    ids=lambda action: action.__name__,
)
@pytest.mark.parametrize("bucket", ["bucket", "nobucket"])
def test_nothing_there(action, bucket, backend, object_store):
    with pytest.raises(InputError, match=f"^s3://{bucket}/nothing.here") as e:
        action(f"s3://{bucket}/nothing/here")
    assert "\n" not in str(e.value)


def test_publish_without_a_bucket(backend, tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"^s3://nobucket/x") as error:
        publish(tmp_path, "s3://nobucket/x")
    assert "bucket" in str(error.value).replace("s3://nobucket", "")


def test_scheme_that_nothing_serves(backend):
    with pytest.raises(InputError, match=r"sparsectr\[io\]") as error:
        local_copy("tape://vault/x")
    assert str(error.value).startswith("tape://vault/x: ")


@pytest.mark.usefixtures("arrow")
def test_no_hadoop_client(monkeypatch):
    monkeypatch.delenv("ARROW_LIBHDFS_DIR", raising=False)
    monkeypatch.delenv("HADOOP_HOME", raising=False)
    with pytest.raises(InputError, match="Hadoop client") as error:
        local_copy("hdfs://127.0.0.1:1/x")
    assert str(error.value).startswith("hdfs://127.0.0.1:1/x: Unable to load")
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("arrow")
def test_google_does_not_answer(monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    monkeypatch.setattr(
        arrow_files, "_GCS_RETRY_TIME", datetime.timedelta(milliseconds=100)
    )
    with pytest.raises(InputError, match=r"^gs://bucket/x: ") as error:
        local_copy("gs://bucket/x")
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("arrow")
def test_amazon_does_not_answer(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(InputError, match=r"^s3://bucket/x: .*connect"):
        local_copy("s3://bucket/x")


@pytest.mark.parametrize("access", ["", "unknown"])
def test_refused_credentials(access, object_store, refusing_server):
    # In a process of its own: TensorFlow reads the variables once.
    done = _python(
        "from sparsectr.file_systems.local_copy import local_copy\n"
        "from sparsectr.errors import InputError\n"
        "import os\n"
        "try:\n"
        "    local_copy('s3://bucket/x')\n"
        "except InputError as error:\n"
        "    print(error, flush=True)\n"
        "os._exit(0)\n",
        AWS_ENDPOINT_URL=refusing_server,
        S3_ENDPOINT=refusing_server,
        AWS_ACCESS_KEY_ID=access,
        AWS_SECRET_ACCESS_KEY=access,
        AWS_EC2_METADATA_DISABLED="true",
    )
    assert done.stdout.startswith("s3://bucket/x"), done.stderr
    assert done.stdout.count("\n") == 1
    assert "credentials" in done.stdout


@pytest.fixture
def arrow(monkeypatch):
    """What is served by Arrow, whatever else there is."""
    monkeypatch.setattr(
        tensorflow_files, "registered_schemes", lambda: frozenset()
    )


@pytest.fixture
def refusing_server():
    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(403)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _python(program, **variables):
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
    )
