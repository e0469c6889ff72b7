"""What serves a path, what it says is there, and its errors."""

import datetime
import http.server
import importlib.util
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest
import tensorflow as tf

from sparsectr.errors import InputError
from sparsectr.file_systems import arrow_files, paths, tensorflow_files
from sparsectr.file_systems.local_copy import local_copy
from sparsectr.file_systems.mirror import publish
from tests.commands import ROOT

pytestmark = pytest.mark.io


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


def test_local_path_is_its_own_copy(tmp_path):
    for path in (tmp_path, str(tmp_path)):
        assert local_copy(path) == tmp_path


def test_local_paths_need_neither_arrow_nor_tensorflow(tmp_path):
    program = (
        "import sys\n"
        "from sparsectr.file_systems import paths\n"
        "from sparsectr.file_systems.local_copy import local_copy\n"
        f"paths.join({str(tmp_path)!r}, 'a')\n"
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
        f"files = paths.file_system({url!r})\n"
        f"print(files.status({url!r}).size, 'tensorflow' in sys.modules)\n"
    )
    assert (done.stdout, done.stderr) == ("0 False\n", "")


def test_which_one_serves(object_store):
    served = paths.file_system("s3://bucket/x")
    works = importlib.util.find_spec("tensorflow_io") and (
        tf.__version__.startswith(("2.16.", "2.17."))
    )
    expected = tensorflow_files.TensorFlowFiles if works else None
    assert isinstance(served, expected or arrow_files.ArrowFiles)


def test_what_is_there(folder, object_store):
    object_store.put(f"{folder}/a.csv", b"abc")
    object_store.put(f"{folder}/empty", b"")
    object_store.put(f"{folder}/below/deep/b", b"abcd")
    url = object_store.url(folder)
    files = paths.file_system(url)
    for path in (url, f"{url}/below", "s3://bucket"):
        assert files.status(path).is_folder
    sizes = {"a.csv": 3, "empty": 0, "below/deep/b": 4}
    for name, size in sizes.items():
        status = files.status(f"{url}/{name}")
        assert (status.is_folder, status.size) == (False, size)
        assert status.modified == pytest.approx(time.time(), abs=600)
        assert files.walk(url)[name] == status
    assert files.walk(url).keys() == sizes.keys()
    assert files.walk(f"{url}/below").keys() == {"deep/b"}
    assert f"{folder}/empty" in files.walk("s3://bucket")
    for path in (f"{url}/a", f"{url}-not", "s3://nobucket/x"):
        assert files.status(path) is None
        assert files.walk(path) == {}


def test_what_is_not_there_cannot_be_read(folder, object_store):
    url = object_store.url(f"{folder}/a")
    files = paths.file_system(url)
    with pytest.raises(FileNotFoundError) as error, files.open(url, "rb") as f:
        f.read(1)
    assert error.value.filename == url
    files.remove(url)


@pytest.mark.parametrize("bucket", ["bucket", "nobucket"])
def test_nothing_there(bucket, backend, object_store):
    with pytest.raises(InputError, match=f"^s3://{bucket}/nothing.here") as e:
        local_copy(f"s3://{bucket}/nothing/here")
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
