import functools
import subprocess
import sys
import textwrap

import pytest

PROGRAM = '''\
"""Does one thing.

Example:
    python program.py --what=input
"""

import errno

from absl import flags

from sparsectr.process import command
from sparsectr.errors import InputError

WHAT = flags.DEFINE_enum("what", None, ["{names}"], "What happens.")


def main(argv):
    print(*argv[1:], end="")
{body}


if __name__ == "__main__":
    command.run(main{more})
'''

CASES = {
    "nothing": "pass",
    "status": "return 3",
    "input": "raise InputError('file.csv, line 3: no header')",
    "lines": "raise InputError('a\\nb')",
    "missing": "open('/missing/file')",
    "disk": "raise OSError(errno.ENOSPC, 'No space left on device')",
    "words": "raise OSError('the remote store is away')",
    "interrupt": "raise KeyboardInterrupt",
    "defect": "raise ValueError('a defect')",
}


def _write(path, more):
    body = "".join(
        f"if WHAT.value == {name!r}:\n    {statement}\n"
        for name, statement in CASES.items()
    )
    path.write_text(
        PROGRAM.format(
            names='", "'.join(CASES),
            body=textwrap.indent(body, "    "),
            more=more,
        )
    )
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return _write(tmp_path_factory.mktemp("program") / "program.py", "")


def _call(path, repository, *arguments):
    return subprocess.run(
        [sys.executable, path, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(repository)},
    )


@pytest.fixture
def run(program, repository):
    return functools.partial(_call, program, repository)


@pytest.mark.parametrize(
    ("what", "status", "stderr"),
    [
        ("nothing", 0, ""),
        ("status", 3, ""),
        ("input", 2, "error: file.csv, line 3: no header\n"),
        ("lines", 2, "error: a b\n"),
        ("missing", 2, "error: /missing/file: No such file or directory\n"),
        ("disk", 2, "error: No space left on device\n"),
        ("words", 2, "error: the remote store is away\n"),
        ("interrupt", 130, "interrupted\n"),
    ],
)
def test_status_and_stderr(run, what, status, stderr):
    result = run(f"--what={what}")
    assert (result.returncode, result.stderr) == (status, stderr)
    assert result.stdout == ""


def test_a_defect_keeps_its_traceback(run):
    result = run("--what=defect")
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("ValueError: a defect\n")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--whatt=input", "'whatt'. Did you mean: what ?"),
        ("--what=else", "flag --what=else: value should be one of"),
        ("else", "Unexpected argument 'else'"),
    ],
)
def test_a_bad_flag_is_one_line(run, argument, message):
    result = run(argument)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_help_is_the_docstring_and_the_flags(run):
    result = run("--help")
    assert result.returncode == 0
    assert result.stdout.startswith("Does one thing.\n\nExample:\n")
    assert "--what: <nothing|status|" in result.stdout
    assert "--logtostderr" not in result.stdout
    assert result.stderr == ""


def test_arguments_beside_the_flags(tmp_path, repository):
    path = _write(tmp_path / "program.py", ", arguments='FILE'")

    call = functools.partial(_call, path, repository)
    done = call("one", "--what=nothing", "two")
    assert (done.returncode, done.stdout, done.stderr) == (0, "one two", "")
    done = call("--what=nothing")
    assert done.returncode == 2
    assert done.stderr == "error: FILE is missing (--help says more)\n"
