r"""Checks that a SavedModel will serve, and serve the trained model's answers.

    python -m export.verify models/sparsectr/1

- looks for what a server would refuse: signatures, operations, weights,
  warm-up records (`export.checks.lint`);
- loads the version as a server does, through TensorFlow's C API in a process
  without Python's TensorFlow, and replays the warm-up records;
- compares it with the Keras model, in another process, on logged requests of
  the test. The model reads their ids from the store as training does, the
  SavedModel the raw values as they were logged.

The largest difference and the AUC of both sides are printed as a table. The
exit status is 0 if all is well; otherwise a line says what is not.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import flags

from data_pipelines.requests.raw_tensors import PROBABILITY
from export.checks.c_api import SavedModelSession
from export.checks.comparison import (
    Answers,
    Case,
    check_cases,
    check_states,
    compare,
    read_answers,
)
from export.checks.lint import lint, read_extra, read_variables
from export.checks.weight_digest import weight_digest
from export.requests.warm_up import FILE_NAME, read_warm_up
from sparsectr.errors import InputError
from sparsectr.process import command


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("model", None, "Folder of a version.", required=True)
    flags.DEFINE_string(
        "workdir", None, "Folder of the run (default: the one it is from)."
    )
    flags.DEFINE_string(
        "data_dir", None, "Store with requests (default: the run's)."
    )


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    # Answers are compared to the last bits, which a GPU has others of; and
    # whoever trains may still hold its memory.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    verify(Path(values.model), values.workdir, values.data_dir)


def verify(path: Path, workdir: str | None, data_dir: str | None) -> None:
    """Checks a version.

    Args:
        path: Folder of the version.
        workdir: Folder of its run; `None` for what its origin.json says.
        data_dir: Store; likewise.

    Raises:
        InputError: If anything is wrong with it.
    """
    if workdir is None or data_dir is None:
        origin = read_extra(path, "origin.json")
        try:
            workdir = workdir or str(origin["workdir"])
            data_dir = data_dir or str(origin["data_dir"])
        except KeyError as error:
            raise InputError(
                f"{path}: assets.extra/origin.json has no {error}."
            ) from error
    with tempfile.TemporaryDirectory() as folder:
        # Meanwhile: it takes as long to start as all that comes before.
        keras = subprocess.Popen(
            [
                *(sys.executable, "-m", "export.checks.keras_answers"),
                *(f"--workdir={workdir}", f"--data_dir={data_dir}"),
                f"--output={folder}",
            ]
        )
        try:
            _lint(path)
            with SavedModelSession(path) as session:
                replay(path, session)
                if keras.wait() != 0:
                    raise InputError(
                        f"The Keras model of {workdir} gave no answers to "
                        f"compare {path} with; its message is above."
                    )
                answers = read_answers(Path(folder))
                _check_weights(path, answers)
                _check_vocabularies(path, answers)
                cases = compare(session, answers)
                problem = check_states(session, answers.batches[0].requests)
                if problem:
                    raise InputError(f"{path}: {problem}.")
        finally:
            keras.kill()
            keras.wait()
    _print_table(cases)
    check_cases(str(path), cases, answers.limit)
    largest = max(case.difference for case in cases)
    print(
        f"\n{path}: largest difference {largest:.2g}, at most "
        f"{answers.limit:.2g}"
    )


def _lint(path: Path) -> None:
    problems = lint(path)
    for problem in problems:
        print(f"lint: {problem}")
    if problems:
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        raise InputError(f"{path}: {problems[0]}{more}.")
    print("lint: nothing found")


def replay(path: Path, session: SavedModelSession) -> None:
    """Runs every warm-up record, as the server does before it serves.

    Args:
        path: Folder of the version.
        session: The version, loaded.

    Raises:
        InputError: If one fails, or gives a probability that is no number.
    """
    records = read_warm_up(path / "assets.extra" / FILE_NAME)
    start = time.perf_counter()
    for number, (name, inputs) in enumerate(records):
        try:
            answer = session.run(name, inputs)
        except InputError as error:
            raise InputError(
                f"{path}: warm-up record {number} ({name}) fails: {error}"
            ) from error
        if not np.isfinite(answer.get(PROBABILITY, 0.0)).all():
            raise InputError(
                f"{path}: warm-up record {number} ({name}) has a probability "
                "that is no number."
            )
    seconds = time.perf_counter() - start
    print(f"warm-up: {len(records)} records replayed in {seconds:.1f} s")


def _check_weights(path: Path, answers: Answers) -> None:
    """Compares the variables on disk with the weights of the model."""
    files = (path / "variables").glob("variables.data*")
    size = sum(file.stat().st_size for file in files)
    print(f"weights: {answers.weight_bytes} bytes in Keras, {size} on disk")
    # Beside the weights there are names and seeds, some hundred each.
    if size > 1.1 * answers.weight_bytes + 20_000:
        raise InputError(
            f"{path}: weights are stored more than once: {size} bytes on disk, "
            f"{answers.weight_bytes} in the Keras model."
        )
    for name, value in read_variables(path):
        if value.dtype.kind == "f" and (
            weight_digest(value) not in answers.weights
        ):
            raise InputError(
                f"{path}: the weight {name}, {value.dtype} {value.shape}, is "
                "none of the Keras model: altered, or of another checkpoint."
            )


def _check_vocabularies(path: Path, answers: Answers) -> None:
    """Compares what the ids of the version mean with what the run learned."""
    found = read_extra(path, "signature.json")["vocabularies"]
    for table, digest in answers.vocabularies.items():
        if found.get(table) != digest:
            raise InputError(
                f"{path}: the vocabulary of {table} is not that of the run, "
                "so its ids mean other things. Export the run anew."
            )


def _print_table(cases: list[Case]) -> None:
    """Prints a line for each case.

    Pairs of candidates that are closer than the limit have no order that
    could be checked; they are as much of AUC as may differ.
    """
    print(
        f"\n{'compared with Keras':<42} {'requests':>8} {'candidates':>10} "
        f"{'difference':>10} {'AUC':>8} {'of Keras':>8} {'ties':>7}"
    )
    for case in cases:
        print(
            f"{case.name:<42} {case.num_requests:>8} "
            f"{case.num_candidates:>10} {case.difference:>10.2g} "
            f"{case.auc:>8.6f} {case.keras_auc:>8.6f} {case.undecided:>7.1g}"
        )


def _name_the_folder() -> None:
    """Lets the folder stand without its flag, as first argument."""
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        sys.argv[1] = f"--model={sys.argv[1]}"


if __name__ == "__main__":
    define_flags()
    _name_the_folder()
    command.run(main)
