r"""Scores of a file or folder of requests in raw values, without a server.

    python -m sparsectr.predict --workdir=runs/movielens \
        --input=requests.parquet --output=scores.parquet

writes the rows of the input with one more column, `probability`: lists with
one entry a candidate. docs/requests.md says what the input holds. A folder is
read file by file, in the order of the names, and becomes one file.

The model is that of a run (`--workdir`), whose ids the vocabularies of its
store give, or a version of a SavedModel (`--model=models/sparsectr/1`), which
needs neither. Both give what a server would answer.

Memory does not grow with the input, which is read in parts. The output has
its name when all is written; nothing is left of one that was stopped.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from data_pipelines.parquet_writer import check_output
from data_pipelines.requests.padding import check_request
from data_pipelines.requests.request_table import RequestTable, request_tables
from data_pipelines.requests.score_writer import score_writer
from sparsectr.errors import InputError
from sparsectr.file_systems.local_copy import local_copy
from sparsectr.process import command
from sparsectr.process.progress import Progress
from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly

if TYPE_CHECKING:
    from sparsectr.prediction.scorer import Scorer

BATCH_SIZE = 64
"""Requests that are computed together, if no flag says otherwise."""

_READ_VALUES = 1 << 21
"""Of a file that are read, and sorted by shape, at a time; whole rows."""

_READ_REQUESTS = 4096
"""Of a file that are read at a time, at most."""


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("workdir", None, "Folder of the run.")
    flags.DEFINE_string(
        "model", None, "Or folder of a version of a SavedModel."
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "Store with the vocabularies of the run (default: the one it was "
        "trained on).",
    )
    flags.DEFINE_string(
        "input", None, "Parquet file or folder of requests.", required=True
    )
    flags.DEFINE_string("output", None, "Parquet file to write.", required=True)
    flags.DEFINE_integer(
        "batch_size",
        BATCH_SIZE,
        "Requests that are computed together, at most.",
        lower_bound=1,
    )


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    _check_flags()
    path = local_copy(values.input)
    if not path.exists():
        raise InputError(f"--input: {path} does not exist.")
    import_tensorflow_quietly()
    scorer = _scorer()
    tables = request_tables(path, scorer.inputs)
    output = Path(values.output)
    requests, candidates = score_tables(
        scorer, tables, output, values.batch_size
    )
    print(f"{output}: {candidates} scores of {requests} requests")


def _check_flags() -> None:
    """Refuses what cannot be, before the work."""
    values = flags.FLAGS
    if (values.workdir is None) == (values.model is None):
        both = ", not both" if values.model is not None else ""
        raise InputError(
            f"Name a run by --workdir or a version by --model{both}."
        )
    if values.model is not None and values.data_dir is not None:
        raise InputError("--data_dir is for --workdir: a version needs none.")
    check_output(values.output)


def _scorer() -> "Scorer":
    values = flags.FLAGS
    if values.model is not None:
        from sparsectr.prediction.saved_model_scorer import SavedModelScorer

        return SavedModelScorer(local_copy(values.model))
    from sparsectr.prediction.calibrated import read_calibration
    from sparsectr.prediction.run_scorer import RunScorer
    from sparsectr.training.load_model import load_model, open_store
    from sparsectr.training.run_directory import RunDirectory

    run = RunDirectory.of(values.workdir)
    store = open_store(run, values.data_dir)
    trained = load_model(run)
    return RunScorer(trained, store, read_calibration(run, trained))


def score_tables(
    scorer: "Scorer",
    tables: list[RequestTable],
    output: Path,
    batch_size: int,
) -> tuple[int, int]:
    """Writes the rows of tables with their scores.

    Args:
        scorer: What computes them.
        tables: Tables of the same columns, at least one.
        output: The file, replaced if it exists.
        batch_size: Requests that are computed together, at most.

    Returns:
        Numbers of requests and of candidates.

    Raises:
        InputError: If a request is not one; it names file, row and column.
        OSError: If the file cannot be written.
    """
    from sparsectr.prediction.scorer import score_requests

    total = sum(table.num_requests for table in tables)
    num_candidates = 0
    with (
        score_writer(output, tables[0].schema) as write,
        Progress("scoring", total, "request") as progress,
    ):
        for table in tables:
            row = 0
            for rows, requests in table.batches(_rows_at_a_time(table)):
                checked = [
                    check_request(
                        request, scorer.inputs, f"{table.path}, row {row + i}"
                    )
                    for i, request in enumerate(requests)
                ]
                scores = score_requests(scorer, checked, batch_size)
                write(rows, scores)
                row += len(requests)
                num_candidates += sum(map(len, scores))
                progress.advance(len(requests))
    return total, num_candidates


def _rows_at_a_time(table: RequestTable) -> int:
    values_of_row = -(-table.num_values // max(table.num_requests, 1))
    rows = _READ_VALUES // max(values_of_row, 1)
    return max(1, min(_READ_REQUESTS, rows))


if __name__ == "__main__":
    define_flags()
    command.run(main)
