"""The command on a tiny run, from start to picture."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from sparsectr.inspection.attention_picture import picture
from sparsectr.inspection.attention_report import report_of
from tests.commands import ForkedCommands, assert_refused
from tests.tiny_run import FinishedRun

COMMAND = "sparsectr.inspect_attention"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def test_the_command(
    finished_run: FinishedRun, command: ForkedCommands, tmp_path: pathlib.Path
) -> None:
    done = command(
        COMMAND,
        f"--workdir={finished_run.path}",
        "--max_requests=3",
        "--batch_size=2",
        f"--output={tmp_path / 'found.json'}",
        f"--picture={tmp_path / 'found.png'}",
    )
    assert done.returncode == 0, done.stderr
    assert "has trained on the validation" in done.stderr
    text = (tmp_path / "found.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text, parse_constant=_refuse)
    assert found["split"] == "validation"
    assert found["num_requests"] in (3, 4)
    assert (found["attention"], found["sink"]) == ("evo", "none")
    # The last block, which is the only one, computes no behaviors.
    assert [(b["queries"], b["branch"]) for b in found["branches"]] == [
        ("candidates", "global"),
        ("candidates", "transition"),
        ("candidates", "local"),
    ]
    for branch in found["branches"]:
        assert branch["num_queries"] >= found["num_requests"]
        mass = np.sum(list(branch["mass"].values()), axis=0)
        np.testing.assert_allclose(mass, [1.0, 1.0], rtol=1e-5)
        assert f"| candidates | {branch['branch']} |" in done.stdout
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


def test_refusals(
    finished_run: FinishedRun, command: ForkedCommands, tmp_path: pathlib.Path
) -> None:
    run = f"--workdir={finished_run.path}"
    folder = tmp_path / "none"
    done = command(COMMAND, run, f"--output={folder / 'a.json'}")
    assert_refused(done, str(folder))
    done = command(COMMAND, run, f"--picture={tmp_path / 'a.pdf'}")
    assert_refused(done, "--picture", ".png")
    assert_refused(command(COMMAND, f"--workdir={folder}"), str(folder))


@pytest.mark.parametrize("reading", [0, 2])
def test_the_picture(reading: int) -> None:
    heads = np.ones(3)
    sums = {
        "queries": 2,
        "queries_with_key": reading,
        "queries_with_choice": reading,
        "mass/user": heads * 0.5,
        "mass/other": heads * 1.5,
        "entropy": heads,
        "relative_entropy": heads,
        "largest_logit": heads,
        "gate": heads,
    }
    figure = picture([report_of(0, "candidates", "local", sums)], "a run")
    left, right = figure.axes
    heights = [bar.get_height() for bar in left.patches]
    assert heights == ([0.25] * 3 + [0.75] * 3 if reading else [])
    assert len(right.patches) == (3 if reading else 0)
    label = left.get_xticklabels()[0].get_text()
    assert label == "local\ngate 0.50" + ("" if reading else "\n100.0 % empty")
