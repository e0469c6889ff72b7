r"""Which model is ahead, on one data set, with the same care for each?

    python -m benchmarks.leaderboard --dataset=kuairand \
        --data_dir=data/kuairand --folder=boards/kuairand \
        --output=benchmarks/results/leaderboard_kuairand.json \
        --table=kuairand.md --page=kuairand.html

For every model, cheapest first: a search of --trials runs on the validation
(`python -m sparsectr.search`, the same for each, on the newest part of the
training requests), then a final run for each seed on everything before the
test, which it scores once. `--published` adds a row for each model that has a
preset of its published head, with the recipe's own learning rates.

--output is rewritten after each search and run, and what is in it is not done
again: the command can be stopped and gone on with, also on another machine.
A run that was stopped goes on from --folder. A file of another protocol (data,
flags, trials) is refused. `--costs` names a file of `benchmarks.model_cost`.

Prints the table in Markdown. Needs Optuna, SciPy and, for the page,
matplotlib: pip install 'sparsectr[leaderboard]'.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.leaderboards.board import Board, Protocol, Row
from benchmarks.leaderboards.board_table import markdown
from benchmarks.leaderboards.row_runs import RowRuns
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from sparsectr.file_systems.local_copy import local_copy
from sparsectr.model_recipe import RequestShape
from sparsectr.model_registry import model_names, recipe_class
from sparsectr.process import command
from sparsectr.searching.dimension import DEFAULT_SPACE

PUBLISHED = "published"
"""The preset of a recipe with the head that its authors published."""


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("dataset", None, "Data set.", required=True)
    flags.DEFINE_string("data_dir", None, "Store (default: data/<dataset>).")
    flags.DEFINE_list("models", None, "Models (default: all, cheapest first).")
    flags.DEFINE_boolean(
        "published", False, "Also a row for each published head."
    )
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the final runs.")
    flags.DEFINE_integer("trials", 6, "Trials of each search.", lower_bound=0)
    flags.DEFINE_float(
        "newest_share", 0.3, "Share of the requests that trials train on."
    )
    flags.DEFINE_multi_string(
        "tune", list(DEFAULT_SPACE), "As sparsectr.search has it."
    )
    flags.DEFINE_string("run_flags", "", "Flags of every run, quoted.")
    flags.DEFINE_multi_string(
        "row_flags", [], "A model, a blank, and flags for it alone."
    )
    flags.DEFINE_boolean(
        "frozen_history", True, "Measure GAUC with frozen histories too."
    )
    flags.DEFINE_string("folder", None, "Folder of the runs.", required=True)
    flags.DEFINE_string(
        "output", None, "JSON file of the table.", required=True
    )
    flags.DEFINE_string("costs", None, "JSON file of benchmarks.model_cost.")
    flags.DEFINE_string("table", None, "Markdown file to write.")
    flags.DEFINE_string("page", None, "HTML file to write.")
    flags.DEFINE_boolean(
        "run", True, "Run what is missing; else only show what is there."
    )


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    data_dir = values.data_dir or f"data/{values.dataset}"
    store = Store(local_copy(data_dir))
    protocol = _protocol(store)
    board = Board(Path(values.output), protocol)
    costs = json.loads(Path(values.costs).read_text()) if values.costs else None
    rows = _rows(store)
    runs = RowRuns(
        Path(values.folder),
        data_dir,
        protocol,
        frozen_history=values.frozen_history,
    )
    # Each model once, before any has its second seed.
    for seed in values.seeds if values.run else ():
        for row in rows:
            known = board.row(row)
            if row.is_searched and "search" not in known:
                _say(row, "search")
                known["search"] = runs.search(row)
                board.save()
            if seed in known["runs"]:
                continue
            _say(row, f"seed {seed}")
            chosen = known.get("search", {}).get("flags", ())
            known["runs"][seed] = runs.final(row, seed, chosen)
            board.save()
            _write(board, costs)
    _write(board, costs)
    print(markdown(board.rows, board.protocol, values.seeds, costs))


def _say(row: Row, what: str) -> None:
    print(f"leaderboard: {row.name}, {what}", file=sys.stderr, flush=True)


def _protocol(store: Store) -> Protocol:
    values, manifest = flags.FLAGS, store.manifest
    if manifest["dataset"] != values.dataset:
        raise InputError(
            f"{store.path} is a store of {manifest['dataset']}, not of "
            f"{values.dataset}."
        )
    return Protocol(
        dataset=values.dataset,
        data_source=manifest["data_source"],
        content=manifest["content"],
        split_rule=manifest["split"],
        flags=tuple(shlex.split(values.run_flags)),
        num_trials=values.trials,
        newest_share=values.newest_share,
        tune=tuple(values.tune),
    )


def _rows(store: Store) -> list[Row]:
    """Returns what is to be in the table, cheapest first."""
    values = flags.FLAGS
    names = values.models or list(model_names())
    unknown = [name for name in names if name not in model_names()]
    if unknown:
        raise InputError(
            f"--models must be among {', '.join(model_names())}. "
            f"Received: {unknown[0]}"
        )
    own: dict[str, tuple[str, ...]] = {}
    for text in values.row_flags:
        name, _, given = text.partition(" ")
        own[name] = (*own.get(name, ()), *shlex.split(given))
    shape = RequestShape(batch_size=1, length=128, num_candidates=4)

    def cost(name: str) -> int:
        return recipe_class(name)().flops(store.schema, shape)

    rows = []
    for name in sorted(names, key=cost) if values.models is None else names:
        is_searched = values.trials > 0
        given = own.get(name, ())
        rows.append(
            Row(name=name, model=name, flags=given, is_searched=is_searched)
        )
        if values.published and PUBLISHED in recipe_class(name).presets:
            given = (*given, f"--model.preset={PUBLISHED}")
            rows.append(
                Row(
                    name=f"{name}, published head",
                    model=name,
                    flags=given,
                    is_searched=False,
                )
            )
    return rows


def _write(board: Board, costs: dict[str, Any] | None) -> None:
    """Writes the table and the page that are asked for."""
    values = flags.FLAGS
    if values.table:
        text = markdown(board.rows, board.protocol, values.seeds, costs)
        Path(values.table).write_text(text + "\n", "utf-8")
    if values.page:
        with command.needs_matplotlib():
            from benchmarks.leaderboards.board_page import page
        Path(values.page).write_text(
            page(board.rows, board.protocol, values.seeds, costs), "utf-8"
        )


if __name__ == "__main__":
    define_flags()
    command.run(main)
