import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from sparsectr.errors import InputError
from sparsectr.file_systems.process_lock import ProcessLock

_HOLD = """
import sys
from pathlib import Path
from sparsectr.file_systems.process_lock import ProcessLock
lock = ProcessLock(Path(sys.argv[1]), "it")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_holds_nothing(
    repository: Path, tmp_path: Path
) -> None:
    path = tmp_path / "lock"
    path.write_text("Process 123456789 on a machine with a long name, gone\n")
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, path],
        cwd=repository,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        said = f"^Process {process.pid} on {platform.node()} is at work on it"
        with pytest.raises(InputError, match=said):
            ProcessLock(path, "it")
        process.kill()
    lock = ProcessLock(path, "it")
    assert path.read_text() == f"Process {os.getpid()} on {platform.node()}\n"
    with pytest.raises(InputError, match=f"^Process {os.getpid()} "):
        ProcessLock(path, "it")
    lock.close()
    lock = ProcessLock(path, "it")
    del lock  # It goes with its owner.
    ProcessLock(path, "it").close()
