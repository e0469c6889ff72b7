"""Remote files by tensorflow-io's file systems."""

import contextlib
import errno
import functools
import importlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from typing import IO

from sparsectr.errors import InputError
from sparsectr.file_systems.file_system import Mode, Status
from sparsectr.process.quiet_tensorflow import (
    import_tensorflow_quietly,
    reason_of,
)


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
            with _errors(url):
                found = tf.io.gfile.stat(_slashed_bucket(url))
        except FileNotFoundError:
            return None
        if found.is_directory:
            return Status(is_folder=True)
        return Status(
            is_folder=False,
            size=found.length,
            modified=found.mtime_nsec // 10**9,
        )

    def walk(self, url: str) -> dict[str, Status]:
        """Returns all files below a folder; none if there is no folder."""
        import tensorflow as tf

        found: dict[str, Status] = {}
        try:
            with _errors(url):
                names = tf.io.gfile.listdir(_slashed_bucket(url))
        except FileNotFoundError:
            return found
        for name in filter(None, (name.strip("/") for name in names)):
            status = self.status(f"{url}/{name}")
            if status is None:  # removed since
                continue
            if status.is_folder:
                below = self.walk(f"{url}/{name}")
                found.update({f"{name}/{k}": v for k, v in below.items()})
            else:
                found[name] = status
        return found

    @contextlib.contextmanager
    def open(self, url: str, mode: Mode) -> Iterator[IO[bytes]]:
        """Opens a file to be read or written from its start to its end."""
        import tensorflow as tf

        with _errors(url), tf.io.gfile.GFile(url, mode) as file:
            if mode == "wb":
                file.write(b"")  # without it an empty file would not be made
            yield file

    def remove(self, url: str) -> None:
        """Removes a file, if it is there."""
        import tensorflow as tf

        with contextlib.suppress(FileNotFoundError), _errors(url):
            tf.io.gfile.remove(url)


@contextlib.contextmanager
def _errors(url: str) -> Iterator[None]:
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


def _slashed_bucket(url: str) -> str:
    """Returns the URL of a bucket with the slash that TensorFlow asks for."""
    return f"{url}/" if url.count("/") == 2 else url
