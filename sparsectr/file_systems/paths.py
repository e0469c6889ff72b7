"""What is at a path, whether it is local or remote.

Each function takes a local path as `Path` or text, and a remote one as text:
a `Path` would fold the two slashes of its scheme.
"""

import re
from pathlib import Path
from typing import BinaryIO

from sparsectr.errors import InputError
from sparsectr.file_systems.file_system import FileSystem

Location = str | Path

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")


def is_remote(location: Location) -> bool:
    """Returns whether `location` has a scheme."""
    return isinstance(location, str) and bool(_SCHEME.match(location))


def file_system(url: str) -> FileSystem:
    """Returns what serves a remote path.

    Raises:
        InputError: If nothing installed here does.
    """
    scheme = url.partition("://")[0]
    # Imported here: a command on local files needs neither.
    from sparsectr.file_systems import arrow_files, tensorflow_files

    if scheme in tensorflow_files.registered_schemes():
        return tensorflow_files.TensorFlowFiles()
    if scheme in arrow_files.SCHEMES:
        return arrow_files.ArrowFiles()
    raise InputError(
        f"{url}: nothing installed here serves {scheme}://. s3://, gs:// and "
        "hdfs:// need no extra; more come with tensorflow-io: "
        "pip install 'sparsectr[io]', in an environment of its own."
    )


def join(location: Location, *names: str) -> str:
    """Returns the path of something in a folder."""
    if not is_remote(location):
        return str(Path(location, *names))
    return "/".join([str(location).rstrip("/"), *names])


def is_file(location: Location) -> bool:
    """Returns whether there is a file."""
    if not is_remote(location):
        return Path(location).is_file()
    url = _clean(location)
    status = file_system(url).status(url)
    return status is not None and not status.is_folder


def is_folder(location: Location) -> bool:
    """Returns whether there is a folder."""
    if not is_remote(location):
        return Path(location).is_dir()
    url = _clean(location)
    status = file_system(url).status(url)
    return status is not None and status.is_folder


def size(location: Location) -> int:
    """Returns the bytes of a file.

    Raises:
        InputError: If there is no remote file.
        OSError: If there is no local file.
    """
    if not is_remote(location):
        return Path(location).stat().st_size
    url = _clean(location)
    status = file_system(url).status(url)
    if status is None or status.is_folder:
        raise InputError(f"{location} is not a file.")
    return status.size


def list_folder(location: Location) -> list[str]:
    """Returns the names of the files and folders in a folder, in order.

    Raises:
        InputError: If there is no remote folder.
        OSError: If there is no local folder.
    """
    if not is_remote(location):
        return sorted(path.name for path in Path(location).iterdir())
    url = _clean(location)
    try:
        return file_system(url).list_folder(url)
    except FileNotFoundError as error:
        raise InputError(f"{location} is not a folder.") from error


def open_stream(location: Location) -> BinaryIO:
    """Opens a file for reading from its start, without a copy on disk.

    Returns:
        A buffered binary file. `seek` drops the buffer of 8 MiB, so a remote
        file is one to read in order.

    Raises:
        InputError: If there is no remote file.
        OSError: If there is no local file.
    """
    if not is_remote(location):
        return Path(location).open("rb")
    url = _clean(location)
    try:
        return file_system(url).open(url)
    except FileNotFoundError as error:
        raise InputError(f"{location} is not a file.") from error


def _clean(location: Location) -> str:
    return str(location).rstrip("/")
