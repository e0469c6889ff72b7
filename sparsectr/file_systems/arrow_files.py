"""Remote files by `pyarrow.fs`."""

import contextlib
import datetime
import errno
import functools
import os
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from sparsectr.errors import InputError
from sparsectr.file_systems.file_system import Mode, Status

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
        with _errors(url):
            system, path = _connect(url)
            info = system.get_file_info(path)
        return None if info.type == fs.FileType.NotFound else _status(info)

    def walk(self, url: str) -> dict[str, Status]:
        """Returns all files below a folder; none if there is no folder."""
        with _errors(url):
            system, path = _connect(url)
            infos = system.get_file_info(
                fs.FileSelector(path, allow_not_found=True, recursive=True)
            )
        return {
            info.path.removeprefix(path).lstrip("/"): _status(info)
            for info in infos
            if info.type != fs.FileType.Directory
        }

    @contextlib.contextmanager
    def open(self, url: str, mode: Mode) -> Iterator[IO[bytes]]:
        """Opens a file to be read or written from its start to its end."""
        with _errors(url):
            system, path = _connect(url)
            with (
                system.open_input_stream(path)
                if mode == "rb"
                else system.open_output_stream(path)
            ) as file:
                yield file

    def remove(self, url: str) -> None:
        """Removes a file, if it is there."""
        with contextlib.suppress(FileNotFoundError), _errors(url):
            system, path = _connect(url)
            system.delete_file(path)


@contextlib.contextmanager
def _errors(url: str) -> Iterator[None]:
    """Turns errors into one line that names `url`."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        # Those of this machine, such as a full disk, are left as they are:
        # they have a number, and where no file is, its name.
        if isinstance(error, FileNotFoundError):
            if error.filename is not None:
                raise
            raise FileNotFoundError(
                errno.ENOENT, "there is nothing", url
            ) from error
        if getattr(error, "errno", None) is not None:
            raise
        line = (str(error).splitlines() or [type(error).__name__])[0]
        hints = [hint for part, hint in _HINTS.items() if part in line]
        raise InputError(f"{url}: {' - '.join([line, *hints])}") from error


def _status(info: Any) -> Status:
    if info.type == fs.FileType.Directory:
        return Status(is_folder=True)
    # Whole seconds: a listing has a fraction that a single answer lacks.
    modified = info.mtime_ns // 10**9 if info.mtime_ns else 0
    return Status(is_folder=False, size=info.size, modified=modified)


def _connect(url: str) -> tuple[Any, str]:
    """Returns a connection and the path of `url` on it."""
    scheme, _, path = url.partition("://")
    if scheme == "hdfs":
        authority, _, path = path.partition("/")
        return _system(scheme, authority), f"/{path}"
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get(
        "AWS_ENDPOINT_URL"
    )
    return _system(scheme, endpoint if scheme == "s3" else None), path


@functools.cache
def _system(scheme: str, address: str | None) -> Any:
    if scheme == "hdfs":
        host, _, port = (address or "").partition(":")
        return fs.HadoopFileSystem(host or "default", int(port or 0))
    if scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=_GCS_RETRY_TIME)
    # Arrow reads the region and the credentials from the environment, and
    # the endpoint not always. Opening at once would begin an upload in parts
    # even for an empty file, which not every server can end.
    return fs.S3FileSystem(
        endpoint_override=address or None, allow_delayed_open=True
    )
