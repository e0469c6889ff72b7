"""Local and remote paths, and what serves the latter.

A local path is a `Path` or text, and a remote one is text: a `Path` would
fold the two slashes of its scheme.
"""

import re
from pathlib import Path

from sparsectr.errors import InputError
from sparsectr.file_systems.file_system import FileSystem

Location = str | Path

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")


def is_remote(location: Location) -> bool:
    """Returns whether `location` has a scheme."""
    return isinstance(location, str) and bool(_SCHEME.match(location))


def join(location: Location, *names: str) -> str:
    """Returns the path of something in a folder."""
    if not is_remote(location):
        return str(Path(location, *names))
    return "/".join([str(location).rstrip("/"), *names])


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
