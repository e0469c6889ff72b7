"""How many requests a second does a server take, and for how long?

    python -m benchmarks.serving_load --soak_minutes=30 \
        --output=FILE.json --plot=FILE.png

Sends requests of one user by gRPC at rising rates, at random moments and
without waiting for answers, until some fail or too few are answered in their
time, and then at rates between, in the middle between the highest that was
followed and the lowest that was not. That highest one is the saturation point.
Then, with --soak_minutes, --soak_share of that rate for so long: errors,
percentiles and the resident memory of the server, minute by minute.

The server is `export.stand_in_server`, on loopback in a process of its own that
shares the processors with the sender. It tests the SavedModel that it
holds and says little of what TensorFlow Serving takes. --server sends to
another one, which has to serve a model with the fields of the made requests
(Alibaba's). A request's time counts from when it was due.

Prints a table. Needs Linux and grpcio, and --plot needs matplotlib.
"""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks.measuring import result_files
from benchmarks.measuring.text import aligned, say
from benchmarks.serving.model import raw_inputs, write_models
from benchmarks.serving.open_loop import OpenLoop, Step, import_grpc, step_of
from benchmarks.serving.paths import (
    ENCODE,
    FROM_STATE,
    WHOLE,
    by_grpc,
    inputs_of,
)
from benchmarks.serving.server_process import ServerProcess, server_process
from export.messages.predict_messages import predict_request
from sparsectr.errors import InputError
from sparsectr.process import command

_MODEL = "sparsectr"
_NUM_USERS = 8

# Less than this of the offered rate is answered: the queue grows.
_LEAST_SHARE = 0.95

# They leave an eighth of the way from one rate to the next open.
_NUM_HALVINGS = 3

# Of the soak's minutes, first and last, that tell whether memory grows.
_END_SHARE = 0.2
_MAX_GROWTH = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is sent.

    Args:
        path: "whole", "encode" or "score".
        num_behaviors: L.
        num_candidates: C.
        num_rows: Rows of every embedding table.
        start_rate: Requests a second of the first step.
        growth: Factor from step to step, until one is too much.
        step_seconds: Length of a step.
        max_steps: Steps until then, at most.
        timeout: Seconds that a request may take.
        soak_share: Rate of the soak, as a share of the saturation point.
        soak_minutes: Its length; 0 for none.
    """

    path: str
    num_behaviors: int
    num_candidates: int
    num_rows: int
    start_rate: float
    growth: float
    step_seconds: float
    max_steps: int
    timeout: float
    soak_share: float
    soak_minutes: float


def measure(workload: Workload, server: str | None) -> dict[str, Any]:
    """Loads a server.

    Args:
        workload: With what.
        server: Its address; `None` starts the stand-in.

    Raises:
        InputError: If the first rate is too much already.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        say("preparing")
        environment = write_models(
            folder,
            {} if server else {"evo": ()},
            workload.num_rows,
            workload.num_behaviors,
        )
        process = None
        if server is None:
            process = stack.enter_context(server_process(folder / "evo" / "1"))
            server = process.address
        requests = _requests(workload, server)
        loop = OpenLoop(server, requests, workload.timeout)
        stack.callback(loop.close)
        steps, saturation = find_saturation(workload, loop.run)
        soak = None
        if workload.soak_minutes:
            rate = workload.soak_share * (saturation or steps[-1].offered)
            soak = soak_at(rate, workload.soak_minutes, loop.run, process)
        return {
            "steps": [dataclasses.asdict(step) for step in steps],
            "saturation": saturation,
            "soak": soak,
            "environment": environment,
        }


def _requests(workload: Workload, server: str) -> list[bytes]:
    """Returns serialized requests."""
    made = raw_inputs(
        workload.num_rows,
        workload.num_behaviors,
        workload.num_candidates,
        _NUM_USERS,
    )
    with by_grpc(server, _MODEL) as model:
        signature, inputs = inputs_of(workload.path, model, made)
    return [
        predict_request(_MODEL, signature, given).SerializeToString()
        for given in inputs
    ]


def find_saturation(
    workload: Workload, run: Callable[[float, float], Any]
) -> tuple[list[Step], float | None]:
    """Raises the rate until the server does not follow, then halves the gap.

    Args:
        workload: Rates and steps.
        run: Sends requests at a rate for some seconds.

    Returns:
        All steps by rate, and the highest rate below all that saturated the
        server; `None` if none did.

    Raises:
        InputError: If the first one did.
    """
    steps: list[Step] = []

    def is_followed(rate: float) -> bool:
        step = step_of(rate, run(rate, workload.step_seconds))
        steps.append(step)
        say(f"{rate:.4g} requests/s: {step.achieved:.4g} answered")
        return not step.is_saturated(_LEAST_SHARE)

    rate = workload.start_rate
    if not is_followed(rate):
        raise InputError(
            f"--start_rate: {rate:.4g} requests a second are too many already "
            f"({steps[0].achieved:.4g} answered, errors: {steps[0].errors})."
        )
    while len(steps) < workload.max_steps:
        if not is_followed(rate * workload.growth):
            break
        rate *= workload.growth
    else:
        return steps, None
    too_high = rate * workload.growth
    for _ in range(_NUM_HALVINGS):
        middle = (rate + too_high) / 2.0
        if is_followed(middle):
            rate = middle
        else:
            too_high = middle
    return sorted(steps, key=lambda step: step.offered), rate


def soak_at(
    rate: float,
    minutes: float,
    run: Callable[[float, float], Any],
    process: ServerProcess | None,
) -> dict[str, Any]:
    """Sends requests for a long time, in parts of about a minute.

    Args:
        rate: Requests a second.
        minutes: For how long.
        run: Sends requests at a rate for some seconds.
        process: The server, to see its memory; `None` if it is elsewhere.

    Returns:
        `minutes`, each with its step and the server's memory behind it,
        `num_requests`, `num_errors`, and `memory_growth`: by how much the
        median of the last fifth exceeds that of the first, `None` if unknown.
    """
    found: list[dict[str, Any]] = []
    # Two parts at least, so that memory can be seen to grow.
    count = max(2, round(minutes))
    for index in range(count):
        seconds = minutes * 60.0 / count
        step = step_of(rate, run(rate, seconds))
        found.append(
            {
                "minute": (index + 1) * minutes / count,
                **dataclasses.asdict(step),
                "server_bytes": process.resident_bytes() if process else None,
            }
        )
        say(f"part {index + 1} of {count}: errors {step.errors}")
    return {
        "offered": rate,
        "minutes": found,
        "num_requests": sum(minute["num_requests"] for minute in found),
        "num_errors": sum(sum(m["errors"].values()) for m in found),
        "memory_growth": growth_of([m["server_bytes"] for m in found]),
    }


def growth_of(sizes: Sequence[int | None]) -> float | None:
    """Returns by how much the last fifth exceeds the first, as a share.

    Args:
        sizes: Bytes in order of time; `None` where unknown.
    """
    known = [size for size in sizes if size is not None]
    if len(known) < 2:
        return None
    count = max(1, round(_END_SHARE * len(known)))
    return float(np.median(known[-count:]) / np.median(known[:count]) - 1.0)


def table(result: dict[str, Any]) -> str:
    """Returns what was found as text."""
    rows: list[tuple[str, ...]] = [
        ("requests/s", "answered/s", "p50 ms", "p90", "p99", "errors")
    ]
    soak = result["soak"]
    rows += [_row(step) for step in result["steps"]]
    lines = aligned(rows)
    saturation = result["saturation"]
    lines.append(
        "Not saturated at the last rate."
        if saturation is None
        else f"Saturation: {saturation:.4g} requests a second."
    )
    if soak is not None:
        growth = soak["memory_growth"]
        lines += [
            f"Soak: {soak['num_requests']:,} requests at "
            f"{soak['offered']:.4g} a second, {soak['num_errors']} errors "
            "(wanted: 0).",
            "Memory of the server: "
            + (
                "not known."
                if growth is None
                else f"{growth:+.1%} from the first fifth of the time to the "
                f"last (wanted: at most {_MAX_GROWTH:.0%})."
            ),
        ]
    return "\n".join(lines)


def _row(step: dict[str, Any]) -> tuple[str, ...]:
    times = (step[name] for name in ("p50", "p90", "p99"))
    errors = ", ".join(f"{n} {name}" for name, n in step["errors"].items())
    return (
        f"{step['offered']:.4g}",
        f"{step['achieved']:.4g}",
        *("-" if t is None else f"{t:.4g}" for t in times),
        errors or "0",
    )


def define_flags() -> None:
    """Defines the flags of this command."""
    result_files.define_flags(plot=True)
    flags.DEFINE_string(
        "server", None, "host:port of a server to use instead of the stand-in."
    )
    flags.DEFINE_enum(
        "path", WHOLE, (WHOLE, ENCODE, FROM_STATE), "What a request asks for."
    )
    for name, count, text in (
        ("num_behaviors", 1024, "Length of every history."),
        ("num_candidates", 100, "Candidates of every request."),
        ("max_steps", 40, "Rates until one is too much, at most."),
    ):
        flags.DEFINE_integer(name, count, text, lower_bound=1)
    flags.DEFINE_integer(
        "num_rows", 100_000, "Rows of every embedding table.", lower_bound=10
    )
    for name, value, lowest, text in (
        ("start_rate", 10.0, 1e-3, "Requests a second of the first step."),
        ("growth", 1.25, 1.01, "Factor from step to step."),
        ("step_seconds", 15.0, 1e-3, "Length of a step."),
        ("timeout", 1.0, 1e-3, "Seconds that a request may take."),
        ("soak_share", 0.8, 0.01, "Share of the saturation point to soak at."),
        ("soak_minutes", 0.0, 0.0, "Length of the soak; 0 for none."),
    ):
        flags.DEFINE_float(name, value, text, lower_bound=lowest)


def main(argv: Sequence[str]) -> int:
    """Runs the command; the status is 1 if the soak had errors or grew."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    result_files.check_flags()
    import_grpc()
    if values.plot:
        with command.needs_matplotlib():
            from benchmarks.serving.plot import draw_load
    fields = [field.name for field in dataclasses.fields(Workload)]
    workload = Workload(**{name: getattr(values, name) for name in fields})
    # Of the C library, which this process loads without Python's part.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    result = {
        "question": "how many requests a second a server takes",
        "data": "made: random ids and times, in the fields of Alibaba",
        "workload": dataclasses.asdict(workload),
        **measure(workload, values.server),
    }
    print(table(result))
    result_files.write(result)
    if values.plot:
        draw_load(result, Path(values.plot))
    return int(has_failed(result["soak"]))


def has_failed(soak: dict[str, Any] | None) -> bool:
    """Whether a soak had errors, or its server's memory grew."""
    if soak is None:
        return False
    growth = soak["memory_growth"]
    return bool(soak["num_errors"]) or (
        growth is not None and growth > _MAX_GROWTH
    )


if __name__ == "__main__":
    define_flags()
    command.run(main)
