"""How much faster than full attention is SparseCTR, in how much memory?

    python -m benchmarks.speed_memory --output=FILE.json

Compares the four presets with the same model with full attention, like for
like: every other optimization is on in both. It skips keys that come later
than a query, which half of all are; beside it stands the same without that,
as TensorFlow's own attention layers compute it, and full attention as the
paper builds it, where all rows pass every block. Everything runs as a
TensorFlow graph and compiled with XLA, and each side of a ratio gets its
faster one of the two.

All that is compared takes turns, in random order, because other work on the
machine slows now the one and now the other. A ratio is the median of the
ratios of the rounds, and is left out where its 95 % interval spans 1. The
peak memory is measured afterwards, each in a process of its own, at the
shape of training; `benchmarks.measuring.peak_memory` says how.

The requests are made: random ids and times, histories that all reach
`--num_behaviors`, tables of `--num_rows` rows. `--precision=mixed_bfloat16`
computes in bfloat16. A kernel outside TensorFlow that fuses attention
(FlashAttention) would be a stronger baseline than any that TensorFlow offers.

Prints JSON; `benchmarks.speed_report` makes tables and plots of it.
Needs Linux.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import psutil
from absl import flags

from benchmarks.measuring import result_files
from benchmarks.measuring.interleaved import (
    MachineLoad,
    Turns,
    speedup,
    spread,
    take_turns,
)
from benchmarks.measuring.peak_memory import measure_in_new_process
from benchmarks.measuring.text import say
from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.errors import InputError
from sparsectr.process import command
from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly

# Times as fast as the baseline, and shares of its memory, at Sparsity-1 to 4.
_TARGET_SPEEDUPS = {
    ("inference", "full"): (18.0, 10.0, 8.0, 4.0),
    ("inference", "paper"): (30.0, 20.0, 15.0, 9.0),
    ("training", "full"): (8.9, 5.2, 4.0, 2.0),
}
_TARGET_MEMORY = (0.05, 0.11, 0.12, 0.22)

# Copies of [B, H, N, N] that full attention was seen to hold at a time, as the
# paper builds it: logits, weights, what lies between, and their gradients.
_NUM_QUADRATIC = {"inference": 7, "training": 9}

_MODES = ("inference", "training")

_SPARSITIES = tuple(n for n in SparseCTRRecipe.presets if "sparsity" in n)

# Of every flag that is a list: what it is by default, and what it may name.
_LISTS = {
    "scopes": (("model",), ("model", "block", "attention")),
    "modes": (_MODES, _MODES),
    "memory_modes": (("training",), _MODES),
    "presets": (_SPARSITIES, _SPARSITIES),
}
_HELP = {
    "scopes": "What is run: model, block, attention",
    "modes": "Modes whose time is measured: inference, training",
    "memory_modes": "Modes whose peak memory is measured, none if empty",
    "presets": "Presets that are compared",
}

_Samples = dict[tuple[str, str], list[float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is measured.

    Args:
        scopes: Of `contenders.SCOPES`.
        modes: Of `contenders.MODES`.
        presets: Of `SparseCTRRecipe.presets`.
        shapes: `contenders.Shape` of each mode.
        memory_modes: Modes whose peak memory is measured.
        turns: How often.
    """

    scopes: tuple[str, ...]
    modes: tuple[str, ...]
    presets: tuple[str, ...]
    shapes: dict[str, Any]
    memory_modes: tuple[str, ...]
    turns: Turns


def measure(workload: Workload) -> dict[str, Any]:
    """Runs everything and returns what goes into the JSON file."""
    from benchmarks.attention import contenders
    from sparsectr.training.devices import prepare_process
    from sparsectr.training.run_directory import environment

    prepare_process(seed=0, num_devices=1)
    names = (*contenders.BASELINES, *workload.presets)
    times: list[dict[str, Any]] = []
    speedups: list[dict[str, Any]] = []
    load = MachineLoad()
    for mode in workload.modes:
        for scope in workload.scopes:
            samples = _take_turns(workload, names, scope, mode)
            place = {"scope": scope, "mode": mode}
            for (name, execution), seconds in samples.items():
                times.append(
                    {
                        **place,
                        "name": name,
                        "execution": execution,
                        "seconds": spread(seconds),
                    }
                )
            speedups += [
                {**place, **found}
                for found in _compare(samples, scope, mode, workload.presets)
            ]
    machine = load.read()
    return {
        "times": times,
        "speedups": speedups,
        "machine": machine,
        "floor": _floor(workload, times),
        "memory": _memory(workload, names),
        "environment": environment(),
    }


def _take_turns(
    workload: Workload, names: Sequence[str], scope: str, mode: str
) -> _Samples:
    """Returns seconds of a call, by round, of names and executions."""
    from benchmarks.attention import contenders

    shape = workload.shapes[mode]
    batches = contenders.batches_of(shape)
    calls = {}
    for name in names:
        say(f"{mode}, {scope}: compiling {name}")
        model = contenders.model_of(name, shape)
        for execution in contenders.EXECUTIONS:
            call = contenders.make_call(
                model, name, scope, mode, execution, batches
            )
            call()
            calls[name, execution] = call
    say(f"{mode}, {scope}: {workload.turns.num_rounds} rounds")
    return take_turns(calls, workload.turns)


def _compare(
    samples: _Samples, scope: str, mode: str, presets: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns how many times as fast as each baseline each preset is."""
    from benchmarks.attention import contenders

    found = []
    for against in contenders.BASELINES:
        slow = _faster_execution(samples, against)
        for preset in presets:
            fast = _faster_execution(samples, preset)
            targets = _TARGET_SPEEDUPS.get((mode, against))
            has_target = scope == "model" and targets is not None
            found.append(
                {
                    "preset": preset,
                    "against": against,
                    "executions": [fast, slow],
                    **speedup(samples[against, slow], samples[preset, fast]),
                    "target": targets[_index(preset)]
                    if targets and has_target
                    else None,
                }
            )
    return found


def _faster_execution(samples: _Samples, name: str) -> str:
    medians = {
        execution: spread(seconds)["median"]
        for (of, execution), seconds in samples.items()
        if of == name
    }
    return min(medians, key=medians.__getitem__)


def _floor(workload: Workload, times: list[dict[str, Any]]) -> Any:
    """Returns how far inference is from the least time, if it was run."""
    from benchmarks.attention.operation_counts import floors

    seconds: dict[str, float] = {}
    for row in times:
        if (row["scope"], row["mode"]) == ("model", "inference"):
            median = row["seconds"]["median"]
            seconds[row["name"]] = min(median, seconds.get(row["name"], median))
    if not seconds:
        return None
    say("inference, model: counting operations")
    peaks, rows = floors(workload.shapes["inference"], seconds)
    return {"peaks": peaks, "rows": rows}


def _memory(workload: Workload, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns peaks, and the share of full attention's, by execution."""
    from benchmarks.attention import contenders

    found = []
    for mode in workload.memory_modes:
        shape = workload.shapes[mode]
        peaks: dict[str, dict[str, dict[str, int]]] = {}
        for name in names:
            say(f"{mode}: memory of {name}")
            peaks[name] = {
                execution: measure_in_new_process(name, shape, mode, execution)
                for execution in contenders.EXECUTIONS
            }
        for name in names:
            for execution, figures in peaks[name].items():
                full = peaks["full"][execution]
                found.append(
                    {
                        "mode": mode,
                        "name": name,
                        "execution": execution,
                        "bytes": figures,
                        "share_of_full": {
                            kind: count / full[kind] if full[kind] else None
                            for kind, count in figures.items()
                        },
                        "target_share": _TARGET_MEMORY[_index(name)]
                        if mode == "training"
                        and name in SparseCTRRecipe.presets
                        else None,
                    }
                )
    return found


def _index(preset: str) -> int:
    return list(SparseCTRRecipe.presets).index(preset)


def check_memory(
    mode: str, batch_size: int, num_rows: int, num_heads: int
) -> None:
    """Refuses a shape that will not fit, before any work.

    Args:
        mode: "inference" or "training".
        batch_size: B.
        num_rows: N, behaviors and candidates.
        num_heads: H.

    Raises:
        InputError: If full attention needs more memory than is available.
    """
    one = 4 * batch_size * num_heads * num_rows**2
    needed = _NUM_QUADRATIC[mode] * one
    available = psutil.virtual_memory().available
    if needed > available:
        raise InputError(
            f"Full attention takes about {needed / 2**30:.1f} GiB for "
            f"{mode} with {batch_size} requests of {num_rows} rows, and "
            f"{available / 2**30:.1f} GiB are available: lower the batch "
            "size or --num_behaviors."
        )


def define_flags() -> None:
    """Defines the flags of this command."""
    result_files.define_flags()
    for name, (chosen, _) in _LISTS.items():
        flags.DEFINE_list(name, list(chosen), f"{_HELP[name]}, with commas.")
    flags.DEFINE_enum(
        "precision",
        "float32",
        ("float32", "mixed_bfloat16"),
        "Keras dtype policy.",
    )
    for name, default, text in (
        ("batch_size", 1, "Requests of a call in inference."),
        ("training_batch_size", 4, "Requests of a training step."),
        ("num_behaviors", 1024, "Length of every history."),
        ("num_candidates", 20, "Candidates of every request."),
        ("num_rounds", 9, "Turns of each thing that is compared."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=1)
    flags.DEFINE_integer(
        "num_rows", 100_000, "Rows of every table.", lower_bound=3
    )
    flags.DEFINE_float(
        "turn_seconds", 0.1, "Least length of a turn.", lower_bound=0.0
    )


def _check_flags() -> None:
    """Refuses bad flags, before TensorFlow is imported."""
    values = flags.FLAGS
    result_files.check_flags()
    for name, (_, allowed) in _LISTS.items():
        for value in getattr(values, name):
            if value not in allowed:
                raise InputError(
                    f"--{name}: {value!r} is not one of {', '.join(allowed)}."
                )
    for mode in {*values.modes, *values.memory_modes}:
        check_memory(
            mode,
            _batch_sizes()[mode],
            values.num_behaviors + values.num_candidates,
            SparseCTRRecipe().num_heads,
        )


def _batch_sizes() -> dict[str, int]:
    return {
        "inference": flags.FLAGS.batch_size,
        "training": flags.FLAGS.training_batch_size,
    }


def _workload() -> Workload:
    from benchmarks.attention import contenders

    values = flags.FLAGS
    return Workload(
        scopes=tuple(values.scopes),
        modes=tuple(values.modes),
        presets=tuple(values.presets),
        shapes={
            mode: contenders.Shape(
                batch_size=size,
                num_behaviors=values.num_behaviors,
                num_candidates=values.num_candidates,
                num_rows=values.num_rows,
                precision=values.precision,
            )
            for mode, size in _batch_sizes().items()
        },
        memory_modes=tuple(values.memory_modes),
        turns=Turns(num_rounds=values.num_rounds, seconds=values.turn_seconds),
    )


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    _check_flags()
    import_tensorflow_quietly()
    workload = _workload()
    result = {
        "question": "speed and memory of SparseCTR against full attention",
        "data": "made: random ids and times, in the fields of Alibaba",
        "workload": dataclasses.asdict(workload),
        **measure(workload),
    }
    print(json.dumps(result, indent=2))
    result_files.write(result)


if __name__ == "__main__":
    define_flags()
    command.run(main)
