"""Commands end with their own status where tensorflow-io aborts."""

import pytest

from tests.commands import run

PROGRAM = """
import atexit, os, sys, types

# What tensorflow-io does to a process that ends as usual.
sys.modules["tensorflow_io"] = types.ModuleType("tensorflow_io")
atexit.register(os._exit, 134)

from sparsectr.process import command
from sparsectr.errors import InputError

def main(argv):
    print("work is done")
    {last}

command.run(main)
"""


@pytest.mark.parametrize(
    ("last", "status", "said"),
    [
        ("return", 0, ""),
        ("return 3", 3, ""),
        ("raise InputError('bad input')", 2, "error: bad input\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("raise ValueError('a defect')", 1, "ValueError: a defect\n"),
    ],
)
def test_status(last, status, said, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM.format(last=last))
    done = run("program", cwd=tmp_path)
    assert done.returncode == status
    assert done.stdout == "work is done\n"
    assert done.stderr.endswith(said)
    assert ("Traceback" in done.stderr) == ("defect" in last)
