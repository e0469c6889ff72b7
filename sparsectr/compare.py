r"""Puts finished runs into one table, and into a picture.

    python -m sparsectr.compare runs/kuairand-0 runs/kuairand-1 runs/din-0 \
        runs/din-1 --output=compared.png

Runs that differ by their seed alone are one row: mean and standard deviation.
Rows with the same seeds are subtracted seed by seed, with the standard error
of the mean difference: models are measured on the same requests, so that this
is much smaller than the error of either.

Runs of different data (by the digest of what a store holds), splits or parts
that were scored are refused: a table holds one protocol.

Prints Markdown, or JSON with --json. The picture shows the AUC against the
seconds of training. It is drawn if --output names it, and needs matplotlib:
pip install 'sparsectr[plots]'.
"""

import json
import sys

from absl import flags

from sparsectr.comparison.comparison_table import table
from sparsectr.comparison.finished_run import FinishedRun, check_comparable
from sparsectr.comparison.seed_groups import (
    find_base,
    group_by_seed,
    paired_differences,
)
from sparsectr.process import command


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string(
        "output", None, "PNG file to draw to, replaced if it exists."
    )
    flags.DEFINE_string(
        "base",
        None,
        "Model that RelaImpr is relative to (default: din, if it is there).",
    )
    flags.DEFINE_boolean("json", False, "Print JSON, every run in it.")


def main(argv: list[str]) -> None:
    """Runs the command."""
    output = command.picture_to_write("output")
    if output is not None:
        with command.needs_matplotlib():
            from sparsectr.comparison.comparison_picture import draw
    runs = [FinishedRun.read(workdir) for workdir in argv[1:]]
    check_comparable(runs)
    groups = group_by_seed(runs)
    base = find_base(groups, flags.FLAGS.base)
    if flags.FLAGS.json:
        report = {
            "protocol": runs[0].protocol,
            "floors": runs[0].floors,
            "groups": [group.to_dict(base) for group in groups],
            "pairs": [pair.to_dict() for pair in paired_differences(groups)],
        }
        print(json.dumps(report, indent=2, allow_nan=False))
    else:
        print(table(groups, base))
    if output is not None:
        draw(groups, output)
        print(f"{output}: the same as a picture", file=sys.stderr)


if __name__ == "__main__":
    define_flags()
    command.run(main, arguments="RUN, the folder of a finished run,")
