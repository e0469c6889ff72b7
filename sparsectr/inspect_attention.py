r"""What the attention of a trained model reads: a table, JSON and a picture.

    python -m sparsectr.inspect_attention --workdir=runs/kuairand \
        --output=attention.json --picture=attention.png

Prints a line for each block, kind of queries (behaviors, candidates) and
branch, each number a mean over queries and heads: shares of the attention by
what is read, its entropy, queries that may read nothing, weights of the gates.
The JSON has every head. docs/attention.md says what each number means.

The weights are those that the scores are made with: the model records them on
its way. They are summed up batch by batch, in memory that does not grow with
the split.

Read is the validation, unless --split names another part. As for evaluate,
the weights are those of the best evaluation where the run was one of
`--validation`, and the last ones otherwise.

The picture needs matplotlib: pip install 'sparsectr[plots]'.
"""

import sys
from pathlib import Path

from absl import flags

from data_pipelines.parquet_writer import check_output
from sparsectr.process import command
from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_string(
        "data_dir", None, "The store (default: the one it was trained on)."
    )
    flags.DEFINE_enum(
        "split",
        "validation",
        ["train", "train_older", "validation", "test"],
        "What to read. Runs without --validation have trained on the "
        "validation.",
    )
    flags.DEFINE_integer(
        "max_requests",
        None,
        "Read the first so many requests of a random order, in whole "
        "batches of like lengths (default: all).",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "batch_size",
        8,
        "Requests at a time. Memory grows with it; with full attention also "
        "with the square of a history's length.",
        lower_bound=1,
    )
    flags.DEFINE_string("output", None, "JSON file to write.")
    flags.DEFINE_string(
        "picture", None, "PNG file to draw to, replaced if it exists."
    )


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    output = None if values.output is None else check_output(values.output)
    picture = command.picture_to_write("picture")
    if picture is not None:
        with command.needs_matplotlib():
            from sparsectr.inspection.attention_picture import draw
    import_tensorflow_quietly()

    from sparsectr.inspection.attention_report import table
    from sparsectr.inspection.inspect_run import inspect_run
    from sparsectr.training.run_directory import RunDirectory

    run = RunDirectory.of(values.workdir)
    found = inspect_run(
        run,
        values.data_dir,
        values.split,
        batch_size=values.batch_size,
        max_requests=values.max_requests,
    )
    print(found.heading())
    print()
    print(table(found.branches), flush=True)
    if output is not None:
        RunDirectory(Path(output).parent).write_json(
            output.name, found.to_dict()
        )
        print(f"{output}: the same, every head", file=sys.stderr)
    if picture is not None:
        draw(found.branches, found.heading(), picture)
        print(f"{picture}: the same as a picture", file=sys.stderr)


if __name__ == "__main__":
    define_flags()
    command.run(main)
