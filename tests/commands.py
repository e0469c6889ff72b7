"""The command lines, run as processes."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent


def start(module: str, *arguments: Any, cwd: Any) -> subprocess.Popen[str]:
    """Starts `python -m module` in a fresh interpreter."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def run(
    module: str, *arguments: Any, cwd: Any
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m module` in a fresh interpreter."""
    process = start(module, *arguments, cwd=cwd)
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(
        process.args, process.returncode, stdout, stderr
    )


class ForkedCommands:
    """Runs commands in processes that need not import TensorFlow.

    Args:
        folder: Working directory of the commands.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.forked_commands"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def __call__(
        self, module: str, *arguments: Any, max_file_bytes: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command and returns what it printed.

        Args:
            module: What `python -m` would name.
            arguments: Its arguments.
            max_file_bytes: No file can grow beyond it: a disk that is full.
        """
        files = {n: self._folder / f"{n}.txt" for n in ("stdout", "stderr")}
        request = {
            "module": module,
            "arguments": [str(argument) for argument in arguments],
            "max_file_bytes": max_file_bytes,
            **{name: str(path) for name, path in files.items()},
        }
        stdin, stdout = self._server.stdin, self._server.stdout
        assert stdin is not None
        assert stdout is not None
        print(json.dumps(request), file=stdin, flush=True)
        answer = stdout.readline()
        assert answer, "the process that forks has died"
        return subprocess.CompletedProcess(
            [module, *request["arguments"]],
            int(answer),
            files["stdout"].read_text(),
            files["stderr"].read_text(),
        )

    def close(self) -> None:
        """Ends the process that forks."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Checks that bad input ended in status 2 and one line on stderr."""
    assert done.returncode == 2, done.stderr
    errors = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith(errors[0] + "\n"), "the error is not the last"
    for part in parts:
        assert part in errors[0]
