"""Remote files by `pyarrow.fs`."""

import contextlib
import datetime
import errno
import functools
import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from sparsectr.errors import InputError
from sparsectr.file_systems.file_system import BUFFER_BYTES, Status

SCHEMES = ("s3", "gs", "hdfs")

# By what an error message holds.
_HINTS = {
    "ACCESS_DENIED": "are the credentials set, and do they allow it?",
    "Unable to load lib": "hdfs:// needs a Hadoop client: JAVA_HOME, "
    "HADOOP_HOME, CLASSPATH",
}

# Without a limit a store that does not answer is asked for 15 minutes.
_GCS_RETRY_TIME = datetime.timedelta(minutes=1)


class ArrowFiles:
    """Files of `s3://`, `gs://` or `hdfs://`.

    Folders are never made: an object store has none, and Hadoop makes those
    above a new file. On `hdfs://` a file that is being written can be seen
    before it is whole; on the other two it cannot.
    """

    def status(self, url: str) -> Status | None:
        """Returns what is at `url`, or `None` if there is nothing."""
        with self.errors(url):
            system, path = _connect(url)
            return _status(system.get_file_info(path))

    def list_folder(self, url: str) -> list[str]:
        """Returns the names of the files and folders in a folder."""
        with self.errors(url):
            system, path = _connect(url)
            infos = system.get_file_info(fs.FileSelector(path))
        return sorted(info.base_name for info in infos)

    def walk(self, url: str) -> dict[str, Status]:
        """Returns all files below a folder; none if there is no folder."""
        with self.errors(url):
            system, path = _connect(url)
            infos = system.get_file_info(
                fs.FileSelector(path, allow_not_found=True, recursive=True)
            )
        found = {}
        for info in infos:
            status = _status(info)
            if status is not None and not status.is_folder:
                found[info.path.removeprefix(path).lstrip("/")] = status
        return found

    def open(self, url: str) -> BinaryIO:
        """Opens a file for reading, buffered, with `seek`."""
        with self.errors(url):
            system, path = _connect(url)
            raw = system.open_input_file(path)
        # A read of Arrow's file is a request, however small it is. It has
        # all that BufferedReader asks of a raw file.
        return cast("BinaryIO", io.BufferedReader(raw, BUFFER_BYTES))

    def create(self, url: str) -> Any:
        """Opens a file for writing; an object is there once it is closed."""
        with self.errors(url):
            system, path = _connect(url)
            return system.open_output_stream(path)

    def remove(self, url: str) -> None:
        """Removes a file, if it is there."""
        with contextlib.suppress(FileNotFoundError), self.errors(url):
            system, path = _connect(url)
            system.delete_file(path)

    @contextlib.contextmanager
    def errors(self, url: str) -> Iterator[None]:
        """Turns errors into one line that names `url`."""
        try:
            yield
        except FileNotFoundError as error:
            if error.filename is not None:  # a local file
                raise
            raise FileNotFoundError(
                errno.ENOENT, "there is nothing", url
            ) from error
        except OSError as error:
            # Those of the local file system, such as a full disk, have one.
            if error.errno is not None:
                raise
            raise InputError(f"{url}: {_reason(error)}") from error
        except pa.ArrowException as error:
            raise InputError(f"{url}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    hints = [hint for part, hint in _HINTS.items() if part in line]
    return " - ".join([line, *hints])


def _status(info: Any) -> Status | None:
    if info.type == fs.FileType.NotFound:
        return None
    if info.type == fs.FileType.Directory:
        return Status(is_folder=True)
    # Whole seconds: a listing has a fraction that a single answer lacks.
    modified = info.mtime_ns // 10**9 if info.mtime_ns else 0
    return Status(is_folder=False, size=info.size, modified=modified)


def _connect(url: str) -> tuple[Any, str]:
    """Returns a connection and the path of `url` on it."""
    parts = urlsplit(url)
    if parts.scheme == "hdfs":
        return _hdfs(parts.netloc), parts.path or "/"
    path = url.partition("://")[2].rstrip("/")
    if parts.scheme == "gs":
        return _gcs(), path
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get(
        "AWS_ENDPOINT_URL", ""
    )
    return _s3(endpoint), path


@functools.cache
def _s3(endpoint: str) -> Any:
    # Arrow reads the region and the credentials from the environment, and
    # the endpoint not always. Opening at once would begin an upload in parts
    # even for an empty file, which not every server can end.
    scheme, _, address = endpoint.rpartition("://")
    return fs.S3FileSystem(
        endpoint_override=address or None,
        scheme=scheme or "https",
        allow_delayed_open=True,
    )


@functools.cache
def _gcs() -> Any:
    return fs.GcsFileSystem(retry_time_limit=_GCS_RETRY_TIME)


@functools.cache
def _hdfs(authority: str) -> Any:
    host, _, port = authority.partition(":")
    return fs.HadoopFileSystem(host or "default", int(port or 0))
