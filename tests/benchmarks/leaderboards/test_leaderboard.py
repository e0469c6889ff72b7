"""A table of models: what runs, that stops lose nothing, what it says."""

import json
import pathlib
import re
import xml.etree.ElementTree
from typing import Any

import pytest

from benchmarks.leaderboards.board import Board, Protocol, Row
from benchmarks.leaderboards.board_table import markdown, table_rows
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from tests.commands import ForkedCommands

PROTOCOL = Protocol(
    dataset="made",
    data_source="synthetic sample",
    content="abc",
    split_rule={"rule": "the last day is the test", "test_time": 7},
    flags=("--data.max_history=8",),
    num_trials=2,
    newest_share=0.3,
    tune=("learning_rate=0.001:0.01",),
)


def _run(auc: float, seed: int) -> dict[str, Any]:
    return {
        "metrics": {
            "auc": auc + 0.001 * seed,
            "gauc": 0.55,
            "gauc_by_request": None,
            "normalized_entropy": 0.9,
            "calibration": 1.0,
        },
        "gauc_frozen_history": 0.6,
        "num_parameters": {"dense": 1234, "embedding": 5},
        "train_seconds": 10.0,
        "compile_seconds": 2.0,
        "floors": {"item_mean": 0.61, "user_mean": None},
        "resampled_aucs": [auc + 0.002 * n for n in range(-5, 6)],
    }


def _row(auc: float, seeds: int, **more: Any) -> dict[str, Any]:
    runs = {str(seed): _run(auc, seed) for seed in range(seeds)}
    return {
        "model": "din",
        "flags": [],
        "is_searched": True,
        "runs": runs,
    } | more


ROWS = {
    "mean_pooling": _row(0.70, 3),
    "din": _row(0.72, 2, search={"best": {"values": {"learning_rate": 0.002}}}),
    "sparse_ctr": _row(0.75, 3),
    "hstu": _row(0.7, 0),
}
COSTS = {"models": {"din": {"128": {"score_milliseconds": 1.25}}}}


def test_the_best_stands_first_and_is_tested_against_each() -> None:
    rows = table_rows(ROWS, COSTS)
    assert [row.name for row in rows] == ["sparse_ctr", "din", "mean_pooling"]
    best, din, mean = rows
    assert best.best_minus is None
    assert din.best_minus is not None
    assert din.best_minus.num_pairs == 2
    assert din.best_minus.difference == pytest.approx(0.03)
    assert din.best_minus_interval == pytest.approx((0.03, 0.03))
    assert mean.auc == pytest.approx(0.701)
    assert mean.deviation == pytest.approx(0.001)
    assert mean.relative_improvement == pytest.approx(0.201 / 0.2205 - 1)
    assert din.relative_improvement == pytest.approx(0.0)
    assert mean.auc_interval == pytest.approx((0.6905, 0.7095))
    assert mean.train_seconds == 12.0


def test_markdown_says_what_it_is_of_and_what_it_lacks() -> None:
    text = markdown(ROWS, PROTOCOL.to_dict(), ["0", "1", "2"], COSTS)
    assert text.startswith("**SYNTHETIC data.** made (synthetic sample)")
    assert "item_mean 0.6100, user_mean -" in text
    assert "2 trials on the newest 30%" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1
    assert "| 1.25 |" in lines[3]
    assert "din: learning_rate 0.002" in text
    assert text.endswith(
        "**Not finished**: din lacks seeds 2; hstu lacks seeds 0, 1, 2."
    )
    done = {"din": ROWS["din"]}
    assert "Not finished" not in markdown(done, PROTOCOL.to_dict(), ["0", "1"])
    nothing = {"din": _row(0.7, 0)}
    text = markdown(nothing, PROTOCOL.to_dict(), ["0"])
    assert text.endswith("No run is done yet.")


def test_page_holds_table_and_pictures() -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.leaderboards.board_page import page

    text = page(ROWS, PROTOCOL.to_dict(), ["0"], COSTS)
    assert text.count("<svg") == 2
    assert text.count("<tr") == 4
    assert '<tr class="ours"><td>sparse_ctr</td>' in text
    assert "<strong>SYNTHETIC data.</strong>" in text
    assert not re.search(r'(src|href)="http', text)
    for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        xml.etree.ElementTree.fromstring(picture)
    bare = page({"din": _row(0.7, 0)}, PROTOCOL.to_dict(), ["0"])
    assert "<table" not in bare


def test_a_board_is_of_one_protocol(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "board.json"
    board = Board(file, PROTOCOL)
    row = Row(name="din", model="din")
    board.row(row)["runs"]["0"] = _run(0.7, 0)
    board.save()
    again = Board(file, PROTOCOL)
    assert again.row(row)["runs"].keys() == {"0"}
    with pytest.raises(InputError, match=r"row din has flags \[\], not"):
        again.row(Row(name="din", model="din", flags=("--model.width=8",)))
    other = Protocol(**{**vars(PROTOCOL), "num_trials": 3})
    with pytest.raises(InputError, match=r"num_trials \(2, now 3\)"):
        Board(file, other)
    file.write_text("{}")
    with pytest.raises(InputError, match="is no table"):
        Board(file, PROTOCOL)


FLAGS = (
    "--dataset=alibaba",
    "--models=mean_pooling",
    "--trials=2",
    "--seeds=0,1",
    "--run_flags=--model.width=8 --model.embedding_dim=4 "
    "--data.max_history=8 --batch_size=16 --max_steps=3 --nojit_compile",
    "--tune=learning_rate=0.001:0.01",
)


@pytest.mark.slow
def test_from_a_store_to_the_page(
    tiny_store: Store, command: ForkedCommands, tmp_path: pathlib.Path
) -> None:
    files = {name: tmp_path / f"b.{name}" for name in ("json", "md", "html")}
    flags = (
        *FLAGS,
        f"--data_dir={tiny_store.path}",
        f"--folder={tmp_path / 'runs'}",
        f"--output={files['json']}",
        f"--table={files['md']}",
        f"--page={files['html']}",
    )
    done = command("benchmarks.leaderboard", *flags)
    assert done.returncode == 0, done.stderr
    board = json.loads(files["json"].read_text())
    row = board["rows"]["mean_pooling"]
    assert len(row["search"]["trials"]) == 2
    assert row["runs"].keys() == {"0", "1"}
    for run in row["runs"].values():
        assert len(run["resampled_aucs"]) == 100
        assert run["gauc_frozen_history"] is not None
        assert run["metrics"]["num_candidates"] > 0
    assert str(tmp_path) not in files["json"].read_text()
    assert done.stdout == files["md"].read_text()
    assert "SYNTHETIC" in done.stdout
    assert files["html"].read_text().count("<svg") == 2
    # What is in the file is not done again.
    before = files["json"].read_text()
    again = command("benchmarks.leaderboard", *flags)
    assert again.returncode == 0, again.stderr
    assert "leaderboard:" not in again.stderr
    assert files["json"].read_text() == before
    other = command("benchmarks.leaderboard", *flags, "--trials=3")
    assert other.returncode == 2
    assert "is of another protocol" in other.stderr
