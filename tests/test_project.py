"""README, CI and packaging agree with each other."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import sparsectr

FIRST = (
    "python -m venv .venv && . .venv/bin/activate && pip install -e . && "
    "python -m sparsectr.train --dataset=alibaba"
)
SECOND = (
    ". .venv/bin/activate && pip install -e '.[test]' && python -m pytest -n 2"
)


def quick_start(readme: str) -> list[str]:
    section = re.search(
        r"^## Quick start\n.*?^```\w*\n(.*?)^```$", readme, re.M | re.S
    )
    assert section, "README.md has no section `## Quick start` with a block"
    assert "\n## " not in section[0], "the block is in a later section"
    return section[1].splitlines()


def test_quick_start_is_two_command_lines(repository):
    readme = (repository / "README.md").read_text("utf-8")
    assert quick_start(readme) == [FIRST, SECOND]


def run_ci(
    repository: pathlib.Path, folder: pathlib.Path, readme: str
) -> subprocess.CompletedProcess[str]:
    """Runs `.ci/run` on a README, with a stub for each tool it calls.

    The stubs write down their arguments in `calls`.
    """
    (folder / ".ci").mkdir()
    shutil.copy(repository / ".ci" / "run", folder / ".ci" / "run")
    (folder / "README.md").write_text(readme)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    stubs = folder / "stubs"
    stubs.mkdir()
    for tool in ("python", "pip", "ruff", "mypy"):
        stub = stubs / tool
        stub.write_text(
            f"#!/bin/sh\necho {tool} \"$@\" >> '{folder}/calls'\n"
            'test "$*" != "-m broken"\n'
        )
        stub.chmod(0o755)
    return subprocess.run(
        [folder / ".ci" / "run"],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder.parent,
        env={**os.environ, "PATH": f"{stubs}:{os.environ['PATH']}"},
    )


README = """\
# Name

```
an earlier block
```

## Quick start

Two lines.

```bash
the first
{second}
```

```
another block
```

## Next

```
more
```
"""


def test_ci_runs_the_second_line_and_the_linters(repository, tmp_path):
    result = run_ci(repository, tmp_path, README.format(second=SECOND))
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "calls").read_text().splitlines() == [
        "python -m venv --clear .venv",
        "pip install -e .[test]",
        "python -m pytest -n 2",
        "ruff check",
        "ruff format --check",
        "mypy",
    ]


def test_ci_stops_where_the_second_line_fails(repository, tmp_path):
    second = "python -m broken && python -m pytest"
    result = run_ci(repository, tmp_path, README.format(second=second))
    assert result.returncode == 1
    assert (tmp_path / "calls").read_text().splitlines() == [
        "python -m venv --clear .venv",
        "python -m broken",
    ]


@pytest.mark.parametrize("second", ["", "second\nthird"])
def test_ci_refuses_another_number_of_lines(repository, tmp_path, second):
    result = run_ci(repository, tmp_path, README.format(second=second))
    assert result.returncode == 2
    assert 'block of "## Quick start" must hold two command' in result.stderr
    assert not (tmp_path / "calls").exists()


def test_version_is_that_of_the_package(repository, tmp_path):
    result = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        check=True,
        capture_output=True,
        text=True,
        cwd=repository,
    )
    assert result.stdout.splitlines()[-1] == sparsectr.__version__


def test_gitignore(repository):
    ignored = [
        "data/alibaba/manifest.json",
        "runs/first/result.json",
        "models/sparsectr/1/saved_model.pb",
        "sparsectr.egg-info/PKG-INFO",
        "sparsectr/__pycache__/config.cpython-311.pyc",
    ]
    if not (repository / ".venv").is_symlink():  # git looks behind none
        ignored.append(".venv/bin/python")
    kept = [
        "sparsectr/models/sparse_ctr.py",
        "data_pipelines/reading/reader.py",
        "benchmarks/results/speed.json",
    ]
    result = subprocess.run(
        ["git", "check-ignore", "--no-index", *ignored, *kept],
        check=True,
        capture_output=True,
        text=True,
        cwd=repository,
    )
    assert result.stdout.splitlines() == ignored
