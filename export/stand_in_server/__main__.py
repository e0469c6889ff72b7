"""Serves a version until its input ends, on free ports of loopback.

    python -m export.stand_in_server --version=models/sparsectr/1

A stand-in for TensorFlow Serving, to try a client or a load on. It computes
with the same library but answers in Python, so its times are not those of a
real server. Prints the address of its gRPC interface and that of its REST one.
Needs grpcio and tensorflow-serving-api, which the extra `test` installs.
"""

import collections
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from sparsectr.errors import InputError
from sparsectr.process import command
from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string(
        "version", None, "Folder of the version.", required=True
    )


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    path = Path(flags.FLAGS.version).resolve()
    if not (path / "saved_model.pb").is_file() or not path.name.isdigit():
        raise InputError(
            f"--version: {path} is not a version of a SavedModel, a folder "
            "whose name is a number."
        )
    import_tensorflow_quietly()
    try:
        from export.stand_in_server.serving import serving
    except ModuleNotFoundError as error:
        raise InputError(
            f"This needs {error.name}: pip install 'sparsectr[test]'"
        ) from error
    with serving(path) as server:
        # Hours of calls would not fit.
        server.calls = collections.deque(maxlen=0)
        print(server.grpc_server, server.rest_server, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    define_flags()
    command.run(main)
