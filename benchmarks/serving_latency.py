"""How long does a ranker wait for its scores?

    python -m benchmarks.serving_latency --output=FILE.json --plot=FILE.png

Times requests of one user on a SavedModel of SparseCTR (Sparsity-2), one
request at a time, over several lengths of history and numbers of candidates:

- whole: history and candidates go in, probabilities come out;
- encode: the history goes in, the user state comes out;
- score: the state and the candidates go in, probabilities come out;
- compiled: the whole pass by XLA, for this one shape, in process alone;
- pointwise, the old way: every candidate is a row with the whole history, and
  rows go in batches of --pointwise_rows, in process alone. A request takes
  seconds, so a turn ends after --pointwise_seconds, and its rows rest on fewer
  requests than the others.

Each but the last in this process, through TensorFlow's C API as the server
loads it, and by gRPC on loopback from `export.stand_in_server`, in a
process of its own that shares the processors (or from --server, which has to
serve a model with the fields of the made requests). Full attention at
--full_length stands beside. All take turns in random order; percentiles are
over all requests. The requests are made: random ids and times, no padding.

Before, the same requests go all ways and to the Keras model that was exported
(weights are random, so that scores spread): the largest difference, and the AUC
of each against random labels. --server is left out, whose model is another.

Prints a table that says which target was reached. Needs Linux and grpcio, and
--plot needs matplotlib.
"""

import contextlib
import dataclasses
import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.measuring import result_files
from benchmarks.measuring.interleaved import MachineLoad, speedup
from benchmarks.measuring.number_flags import ascending
from benchmarks.measuring.request_times import (
    Timed,
    medians,
    summary,
    time_requests,
)
from benchmarks.measuring.text import say
from benchmarks.serving.agreement import agreement
from benchmarks.serving.model import Inputs, Shape, raw_inputs, write_models
from benchmarks.serving.open_loop import import_grpc
from benchmarks.serving.paths import (
    COMPILED,
    ENCODE,
    FROM_STATE,
    GRPC,
    POINTWISE,
    PROCESS,
    WHOLE,
    Case,
    Model,
    bucket_of,
    by_grpc,
    in_process,
    make_call,
    memory_of_versions,
    state_bytes,
)
from benchmarks.serving.server_process import (
    ServerLoad,
    ServerProcess,
    server_process,
)
from benchmarks.serving.table import table
from sparsectr.errors import InputError
from sparsectr.process import command

_LENGTHS = (128, 512, 1024, 8192)
_CANDIDATES = (1, 100, 500, 1000)
_LENGTHS_OF_SOME = {
    "compiled_lengths": "under XLA",
    "pointwise_lengths": "pointwise",
}
_LENGTH_OF_SOME = 1024

# Different users, so that a processor does not learn one of them by heart.
_NUM_USERS = 8

_MODEL = "sparsectr"

TARGETS = {
    "score_speedup": {"times": 20.0, "behaviors": 1024, "candidates": 100},
    # How far the longest history may be from the shortest, as a share.
    "score_of_longest_over_shortest": 0.1,
    "state_bytes": 64 * 1024,
    "largest_difference": 1e-6,
    "auc_digits": 6,
    # Full attention at the shorter length over SparseCTR at the longer.
    "full_over_evo": {"times": 1.0, "behaviors": 1024},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is timed.

    Args:
        lengths: Values of L, ascending.
        candidates: Values of C, ascending.
        compiled_lengths: Those of `lengths` whose whole pass is timed
            compiled too, and if there are any, that of full attention is.
        pointwise_lengths: Those of `lengths` that are timed pointwise too.
        pointwise_rows: B of a pointwise call.
        pointwise_seconds: Length of a pointwise turn, at most, but for one
            request.
        full_length: L of full attention; 0 for none.
        num_rows: Rows of every embedding table.
        num_blocks: Blocks of the models.
        num_requests: Requests of each thing.
        num_rounds: Rounds.
        grpc: Whether gRPC is timed.
    """

    lengths: tuple[int, ...]
    candidates: tuple[int, ...]
    compiled_lengths: tuple[int, ...]
    pointwise_lengths: tuple[int, ...]
    pointwise_rows: int
    pointwise_seconds: float
    full_length: int
    num_rows: int
    num_blocks: int
    num_requests: int
    num_rounds: int
    grpc: bool


def cases_of(workload: Workload) -> list[Case]:
    """Returns what is timed."""
    cases = []
    for transport in (PROCESS, GRPC) if workload.grpc else (PROCESS,):
        for length in workload.lengths:
            cases.append(Case(ENCODE, transport, "evo", length, 0))
            for path in (WHOLE, FROM_STATE):
                cases += [
                    Case(path, transport, "evo", length, candidates)
                    for candidates in workload.candidates
                ]
    cases += [
        Case(POINTWISE, PROCESS, "evo", length, candidates)
        for length in workload.pointwise_lengths
        for candidates in workload.candidates
        # With one candidate it is the whole pass.
        if candidates > 1
    ]
    if workload.full_length:
        cases += [
            Case(WHOLE, PROCESS, "full", workload.full_length, candidates)
            for candidates in workload.candidates
        ]
    if workload.compiled_lengths:
        cases += [
            case._replace(path=COMPILED)
            for case in cases
            if (case.path, case.transport) == (WHOLE, PROCESS)
            and (
                case.attention == "full"
                or case.num_behaviors in workload.compiled_lengths
            )
        ]
    return cases


def measure(workload: Workload, server: str | None) -> dict[str, Any]:
    """Times everything.

    Args:
        workload: What.
        server: Address of a server to use for gRPC instead of the stand-in.
    """
    cases = cases_of(workload)
    shapes = list(itertools.product(workload.lengths, workload.candidates))
    made = {
        shape: raw_inputs(workload.num_rows, *shape, _NUM_USERS)
        for shape in sorted({_shape_of(case) for case in cases})
    }
    largest = made[shapes[-1]][0]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        say("writing the SavedModels")
        environment = _write(workload, cases, folder, shapes)
        path = folder / "evo" / "1"
        memory = memory_of_versions(path, largest)
        models: dict[tuple[str, str], Model] = {
            (PROCESS, attention): stack.enter_context(
                in_process(folder / attention / "1")
            )
            for attention in dict.fromkeys(case.attention for case in cases)
        }
        compared = {PROCESS: models[PROCESS, "evo"]}
        process = None
        if workload.grpc:
            if server is None:
                process = stack.enter_context(server_process(path))
            address = process.address if process else str(server)
            remote = stack.enter_context(by_grpc(address, _MODEL))
            models[GRPC, "evo"] = remote
            if process:
                compared[GRPC] = remote
        say("comparing the ways")
        rows = workload.num_rows, workload.pointwise_rows
        found = agreement(compared, folder, shapes, *rows)
        seconds, load = _time(workload, cases, models, made, process)
        return {
            "milliseconds": [
                {**case._asdict(), **summary(rounds)}
                for case, rounds in seconds.items()
            ],
            **compare(workload, seconds),
            "state_bytes": state_bytes(models[PROCESS, "evo"], largest),
            "largest_difference": found["largest"],
            "agreement": found,
            "memory": memory,
            "targets": TARGETS,
            "load": load,
            "environment": environment,
        }


def _shape_of(case: Case) -> Shape:
    return case.num_behaviors, case.num_candidates or 1


def _write(
    workload: Workload,
    cases: Sequence[Case],
    folder: Path,
    shapes: Sequence[Shape],
) -> dict[str, Any]:
    compiled: dict[str, list[tuple[int, int, int]]] = {}
    for case in cases:
        buckets = compiled.setdefault(case.attention, [])
        if case.path == COMPILED:
            buckets.append(bucket_of(case))
    longest = max(*workload.lengths, workload.full_length)
    return write_models(
        folder,
        compiled,
        workload.num_rows,
        longest,
        shapes,
        workload.num_blocks,
    )


def _time(
    workload: Workload,
    cases: Sequence[Case],
    models: Mapping[tuple[str, str], Model],
    made: Mapping[Shape, list[Inputs]],
    process: ServerProcess | None,
) -> tuple[dict[Case, list[list[float]]], dict[str, float]]:
    """Returns seconds of every request by round, and what others took."""
    things = {
        case: Timed(
            call=make_call(
                models[case.transport, case.attention],
                case,
                made[_shape_of(case)],
                workload.pointwise_rows,
            ),
            seconds=workload.pointwise_seconds
            if case.path == POINTWISE
            else None,
        )
        for case in cases
    }
    say(f"{len(things)} things, {workload.num_rounds} rounds")
    load, server_load = MachineLoad(), ServerLoad(process)
    seconds = time_requests(things, workload.num_requests, workload.num_rounds)
    found = load.read()
    return seconds, {
        "load_average_before": found["load_average_before"],
        "others_share": max(0.0, found["others_share"] - server_load.share()),
    }


def compare(
    workload: Workload, seconds: Mapping[Case, Sequence[Sequence[float]]]
) -> dict[str, Any]:
    """Says how many times as fast, round by round.

    Args:
        workload: What was timed.
        seconds: Of every request, by round.

    Returns:
        `whole_over_score`, by transport, length and candidates;
        `pointwise_over_score`, in process; `score_of_longest_over_shortest`,
        by transport and candidates; `full_over_evo`, the whole pass of full
        attention over that of SparseCTR at every longer length, by path,
        length and candidates.
    """
    rounds = {case: medians(found) for case, found in seconds.items()}

    def ratio(slow: Case, fast: Case) -> dict[str, Any]:
        return speedup(rounds[slow], rounds[fast])

    score = [case for case in rounds if case.path == FROM_STATE]
    shortest, longest = workload.lengths[0], workload.lengths[-1]
    full = [case for case in rounds if case.attention == "full"]
    return {
        "whole_over_score": {
            f"{case.transport} {case.num_behaviors} {case.num_candidates}": (
                ratio(case._replace(path=WHOLE), case)
            )
            for case in score
        },
        "pointwise_over_score": {
            f"{case.num_behaviors} {case.num_candidates}": (
                ratio(case, case._replace(path=FROM_STATE))
            )
            for case in rounds
            if case.path == POINTWISE
        },
        "score_of_longest_over_shortest": {
            f"{case.transport} {case.num_candidates}": (
                ratio(case._replace(num_behaviors=longest), case)
            )
            for case in score
            if case.num_behaviors == shortest
        },
        "full_over_evo": {
            f"{evo.path} {evo.num_behaviors} {evo.num_candidates}": ratio(
                case, evo
            )
            for case in full
            for length in workload.lengths
            if length >= workload.full_length
            for evo in [case._replace(attention="evo", num_behaviors=length)]
            if evo in rounds
        },
    }


def define_flags() -> None:
    """Defines the flags of this command."""
    result_files.define_flags(plot=True)
    flags.DEFINE_list("lengths", list(map(str, _LENGTHS)), "Values of L.")
    flags.DEFINE_list("candidates", list(map(str, _CANDIDATES)), "Of C.")
    for name, text in _LENGTHS_OF_SOME.items():
        flags.DEFINE_list(
            name,
            [str(_LENGTH_OF_SOME)],
            f"Those of --lengths timed {text} too.",
        )
    for name, default, lowest, text in (
        ("pointwise_rows", 16, 1, "Rows of a pointwise call."),
        ("full_length", 128, 0, "L of full attention beside; 0 for none."),
        ("num_rows", 100_000, 10, "Rows of every embedding table."),
        ("num_blocks", 2, 1, "Blocks of the models."),
        ("num_requests", 1000, 1, "Requests of each thing that is timed."),
        ("num_rounds", 10, 1, "Rounds; each times everything."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=lowest)
    flags.DEFINE_float(
        "pointwise_seconds", 2.0, "Length of a pointwise turn.", lower_bound=0.0
    )
    flags.DEFINE_bool("grpc", True, "Time gRPC too.")
    flags.DEFINE_string(
        "server", None, "host:port of a server to use instead of the stand-in."
    )


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    result_files.check_flags()
    workload = _workload()
    if workload.grpc:
        import_grpc()
    if values.plot:
        with command.needs_matplotlib():
            from benchmarks.serving.plot import draw_latency
    # Of the C library, which this process loads without Python's part.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    result = {
        "question": "how long a request waits for its scores",
        "data": "made: random ids and times, in the fields of Alibaba",
        "workload": dataclasses.asdict(workload),
        **measure(workload, values.server),
    }
    print(table(result))
    result_files.write(result)
    if values.plot:
        draw_latency(result, Path(values.plot))


def _workload() -> Workload:
    values = flags.FLAGS
    lengths = ascending("lengths")
    some = {name: ascending(name, count=0) for name in _LENGTHS_OF_SOME}
    for name, found in some.items():
        if not set(found) <= set(lengths):
            raise InputError(
                f"--{name} must be among --lengths. Received: "
                f"{','.join(map(str, found))}"
            )
    return Workload(
        lengths=lengths,
        candidates=ascending("candidates"),
        **some,
        pointwise_rows=values.pointwise_rows,
        pointwise_seconds=values.pointwise_seconds,
        full_length=values.full_length,
        num_rows=values.num_rows,
        num_blocks=values.num_blocks,
        num_requests=values.num_requests,
        num_rounds=values.num_rounds,
        grpc=values.grpc,
    )


if __name__ == "__main__":
    define_flags()
    command.run(main)
