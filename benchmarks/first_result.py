r"""How long does a recipe train until its first result, and why?

    python -m benchmarks.first_result --dataset=movielens \
        --data_dir=data/movielens --output=FILE.json

Trains as `python -m sparsectr.train --dataset=... --noexport` does, in a
process of its own: with the defaults, with every shape of batches compiled,
and with none. Another version of this project takes its turns between them:

    ... --other=CHECKOUT --other_data_dir=STORE

with a store of the same data that it has prepared itself. `--train_flag`, as
often as needed, gives one more flag to every training.

Prints JSON: for each, seconds of training without evaluation, those of them
that the first step of each shape took (which is its compilation, where it is
compiled; versions before counted it not apart, `null`), the peak resident
memory of the process, the metrics, and the commit.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.measuring import result_files
from benchmarks.measuring.interleaved import MachineLoad
from sparsectr.errors import InputError
from sparsectr.process import command
from sparsectr.process.progress import Progress
from sparsectr.training.run_directory import environment

VARIANTS = {
    "defaults": (),
    "all shapes compiled": ("--compile_least_rows=0",),
    "none compiled": ("--nojit_compile",),
}
OTHER = "other version"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Version:
    """What trains, and on what.

    Args:
        checkout: Folder of the project.
        data_dir: A store that it reads.
        flags: More flags of the training.
    """

    checkout: Path
    data_dir: Path
    flags: tuple[str, ...] = ()


def train(version: Version, dataset: str) -> dict[str, Any]:
    """Trains once and returns what it took.

    Raises:
        InputError: If the training fails. What it said is part of the text.
    """
    load = MachineLoad()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "sparsectr.train",
                f"--dataset={dataset}",
                f"--data_dir={version.data_dir.absolute()}",
                f"--workdir={folder}/run",
                "--noexport",
                *version.flags,
            ],
            cwd=version.checkout,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise InputError(
                f"The training in {version.checkout} ended with "
                f"{done.returncode}: {done.stderr[-2000:]}"
            )
        run = Path(folder, "run")
        result = json.loads((run / "result.json").read_text())
        commit = json.loads((run / "environment.json").read_text())["commit"]
    compile_seconds = result.get("compile_seconds")
    return {
        "commit": commit,
        "seconds": result["train_seconds"] + (compile_seconds or 0.0),
        "compile_seconds": compile_seconds,
        "peak_memory_gib": result["peak_memory_bytes"] / 2**30,
        "metrics": {
            name: result["metrics"][name] for name in ("auc", "logloss")
        },
        "machine": load.read(),
    }


def define_flags() -> None:
    """Defines the flags of this command."""
    result_files.define_flags()
    flags.DEFINE_string(
        "dataset", None, "Recipe that is trained.", required=True
    )
    flags.DEFINE_string("data_dir", None, "Its store.", required=True)
    flags.DEFINE_string("other", None, "Checkout of another version.")
    flags.DEFINE_string("other_data_dir", None, "Store of the other version.")
    flags.DEFINE_integer("num_rounds", 1, "Runs of each.", lower_bound=1)
    flags.DEFINE_multi_enum(
        "variants", list(VARIANTS), list(VARIANTS), "What is trained with."
    )
    flags.DEFINE_multi_string(
        "train_flag", [], "One more flag of the training: --max_steps=300."
    )


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    result_files.check_flags()
    more = tuple(values.train_flag)
    own = Version(
        checkout=Path(__file__).parents[1],
        data_dir=Path(values.data_dir),
        flags=more,
    )
    versions = {
        name: dataclasses.replace(own, flags=(*more, *VARIANTS[name]))
        for name in values.variants
    }
    if values.other:
        versions[OTHER] = Version(
            checkout=Path(values.other),
            data_dir=Path(values.other_data_dir or values.data_dir),
            flags=more,
        )
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in versions}
    with Progress("train", values.num_rounds * len(runs), "run") as bar:
        for _ in range(values.num_rounds):
            for name, version in versions.items():
                runs[name].append(train(version, values.dataset))
                bar.advance(1)
    result = {
        "question": "seconds of training until the first result",
        "dataset": values.dataset,
        "flags": more,
        "runs": runs,
        "environment": environment(),
    }
    print(json.dumps(result, indent=2))
    result_files.write(result)


if __name__ == "__main__":
    define_flags()
    command.run(main)
