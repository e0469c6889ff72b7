"""Runs commands in processes that start with TensorFlow imported.

Importing it takes seconds, and a command line that is refused takes none, so
one process imports it and forks for each command. The import initializes
nothing: devices and threads come with the first operation, in the child.

Reads one JSON object a line: `module`, `arguments`, `stdout`, `stderr` and
`max_file_bytes` (`null` for no limit). Answers each with the exit status.
"""

import json
import os
import resource
import runpy
import sys
import traceback
from typing import Any, NoReturn


def main() -> None:
    from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly

    import_tensorflow_quietly()
    import sparsectr.training.run  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(request)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(request: dict[str, Any]) -> NoReturn:
    """Becomes the command; does what the interpreter does around a module."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    limit = request["max_file_bytes"]
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = [request["module"], *request["arguments"]]
    status: Any = 0
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as exit_:
        status = exit_.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
