"""Remote files by tensorflow-io's file systems."""

import contextlib
import errno
import functools
import importlib
import importlib.util
import io
import os
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from sparsectr.errors import InputError
from sparsectr.file_systems.file_system import BUFFER_BYTES, Status
from sparsectr.quiet_tensorflow import import_tensorflow_quietly, reason_of

_NANOSECONDS = 10**9


@functools.cache
def registered_schemes() -> frozenset[str]:
    """Returns the schemes that TensorFlow serves with tensorflow-io.

    Empty, and TensorFlow not imported, where tensorflow-io is not installed.
    """
    if importlib.util.find_spec("tensorflow_io") is None:
        return frozenset()
    _name_the_endpoint()
    import_tensorflow_quietly()
    import tensorflow as tf

    # On a TensorFlow that it was not built for, it warns and registers
    # nothing. That is an answer here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("tensorflow_io")
    return frozenset(tf.io.gfile.get_registered_schemes())


def _name_the_endpoint() -> None:
    """Passes on what the variables of other S3 clients say."""
    for name, others in (
        ("S3_ENDPOINT", ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")),
        ("AWS_REGION", ("AWS_DEFAULT_REGION",)),
    ):
        for other in others:
            if os.environ.get(other):
                os.environ.setdefault(name, os.environ[other])


class TensorFlowFiles:
    """Files of the schemes that `registered_schemes` returns."""

    def status(self, url: str) -> Status | None:
        """Returns what is at `url`, or `None` if there is nothing."""
        import tensorflow as tf

        try:
            with self.errors(url):
                found = tf.io.gfile.stat(_slashed_bucket(url))
        except FileNotFoundError:
            return None
        if found.is_directory:
            return Status(is_folder=True)
        return Status(
            is_folder=False,
            size=found.length,
            modified=found.mtime_nsec // _NANOSECONDS,
        )

    def list_folder(self, url: str) -> list[str]:
        """Returns the names of the files and folders in a folder."""
        import tensorflow as tf

        with self.errors(url):
            names = tf.io.gfile.listdir(_slashed_bucket(url))
        return sorted(filter(None, (name.strip("/") for name in names)))

    def walk(self, url: str) -> dict[str, Status]:
        """Returns all files below a folder; none if there is no folder."""
        found: dict[str, Status] = {}
        try:
            names = self.list_folder(url)
        except FileNotFoundError:
            return found
        for name in names:
            status = self.status(f"{url}/{name}")
            if status is None:  # removed since
                continue
            if status.is_folder:
                below = self.walk(f"{url}/{name}")
                found.update({f"{name}/{k}": v for k, v in below.items()})
            else:
                found[name] = status
        return found

    def open(self, url: str) -> BinaryIO:
        """Opens a file for reading, buffered, with `seek`."""
        with self.errors(url):
            raw = _Reader(self, url)
        return cast("BinaryIO", io.BufferedReader(raw, BUFFER_BYTES))

    def create(self, url: str) -> Any:
        """Opens a file for writing; an object is there once it is closed."""
        import tensorflow as tf

        file = tf.io.gfile.GFile(url, "wb")
        with self.errors(url):
            file.write(b"")  # without it an empty file would not be made
        return file

    def remove(self, url: str) -> None:
        """Removes a file, if it is there."""
        import tensorflow as tf

        with contextlib.suppress(FileNotFoundError), self.errors(url):
            tf.io.gfile.remove(url)

    @contextlib.contextmanager
    def errors(self, url: str) -> Iterator[None]:
        """Turns errors into one line that names `url`."""
        import tensorflow as tf

        try:
            yield
        except tf.errors.NotFoundError as error:
            raise FileNotFoundError(
                errno.ENOENT, "there is nothing", url
            ) from error
        except tf.errors.OpError as error:
            raise InputError(f"{url}: {reason_of(error)}") from error


class _Reader(io.RawIOBase):
    """What `io.BufferedReader` needs, from TensorFlow's file."""

    def __init__(self, files: TensorFlowFiles, url: str) -> None:
        import tensorflow as tf

        self._files = files
        self._url = url
        self._file = tf.io.gfile.GFile(url, "rb")
        # It would open, and find nothing, on the first read alone.
        self._size = self._file.size()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self.tell(),
            io.SEEK_END: self._size,
        }[whence]
        with self._files.errors(self._url):
            self._file.seek(start + offset)
        return start + offset

    def readinto(self, buffer: Any) -> int:
        with self._files.errors(self._url):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _slashed_bucket(url: str) -> str:
    """Returns the URL of a bucket with the slash that TensorFlow asks for."""
    return f"{url}/" if url.count("/") == 2 else url
