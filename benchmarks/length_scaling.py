"""Does a history cost in proportion to its length, and a score nothing?

    python -m benchmarks.length_scaling --output=FILE.json --plot=FILE.png

Times whole passes to the logits and training steps of SparseCTR (Sparsity-2)
and of the same model with full attention, compiled with XLA, over histories
of several lengths; and the score of the same candidates from a user state
that is there already. All of them take turns in random order. The requests
are made: random ids and times, no padding.

The cost per behavior is what a length adds: the seconds of two neighboring
lengths, the difference divided by the behaviors between them. Beside it stands
a line fitted through the lengths up to 16,384, seconds = fixed part + cost *
behaviors, by least relative error, and the cost of each length, longer ones
too, without that fixed part.

Full attention is left out where its estimated memory is not there, and a line
says so. Prints a table. Needs Linux, and --plot needs matplotlib.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from absl import flags

from benchmarks.made_data.requests import made_requests, made_schema
from benchmarks.measuring import number_flags, result_files
from benchmarks.measuring.interleaved import (
    MachineLoad,
    Turns,
    speedup,
    spread,
    take_turns,
)
from benchmarks.measuring.text import (
    aligned,
    disturbance,
    with_interval,
    with_quartiles,
)
from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.config import TrainConfig
from sparsectr.errors import InputError
from sparsectr.process import command
from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly
from sparsectr.training.run_directory import environment

_LENGTHS = (256, 1024, 4096, 16384, 100_000)
_MODES = ("inference", "training")

# Up to here the cost of a behavior is wanted to be flat. The longest history
# is shown beside it.
_LONGEST_ON_LINE = 16384
_MAX_PER_BEHAVIOR_CHANGE = 0.1
_MIN_SCORE_SPEEDUP = 20.0

# How many tensors as large as all attention logits are alive at once, about:
# logits, weights and bias; in training their gradients too.
_NUM_LARGE_TENSORS = {"inference": 6, "training": 12}

_NAMES = {"evo": "SparseCTR", "full": "Full attention"}

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is timed.

    Args:
        lengths: Values of L, ascending.
        batch_size: B.
        num_candidates: C.
        num_rows: Rows of every embedding table.
        modes: "inference", "training" or both.
        full_attention: Whether full attention is timed beside.
        turns: How often.
    """

    lengths: tuple[int, ...]
    batch_size: int
    num_candidates: int
    num_rows: int
    modes: tuple[str, ...]
    full_attention: bool
    turns: Turns


def required_bytes(
    workload: Workload, attention: str, mode: str, length: int
) -> int:
    """Estimates the memory that a pass or a step takes, generously.

    As if full attention skipped no keys.

    Args:
        workload: What is timed.
        attention: "evo" or "full".
        mode: "inference" or "training".
        length: L.
    """
    config = SparseCTRRecipe()
    num_keys = length
    if attention == "evo":
        num_keys = (
            config.num_chunks * (1 + config.num_transition)
            + config.num_local
            + 1
        )
    logits = workload.batch_size * config.num_heads * length * num_keys
    return 4 * logits * _NUM_LARGE_TENSORS[mode]


def choose(
    workload: Workload, available: int
) -> tuple[list[tuple[str, str, int]], list[str]]:
    """Returns what fits, as (attention, mode, length), and why others do not.

    Raises:
        InputError: If a length does not fit even with sparse attention.
    """
    chosen, left_out = [], []
    for attention in ("evo", "full") if workload.full_attention else ("evo",):
        for mode in workload.modes:
            for length in workload.lengths:
                needed = required_bytes(workload, attention, mode, length)
                if needed <= available:
                    chosen.append((attention, mode, length))
                    continue
                reason = (
                    f"{_NAMES[attention]}, {mode}, {length} behaviors: needs "
                    f"about {needed / 2**30:.1f} GiB, and "
                    f"{available / 2**30:.1f} GiB are available."
                )
                if attention == "evo":
                    raise InputError(f"--lengths: {reason}")
                left_out.append(reason)
    return chosen, left_out


def measure(workload: Workload) -> dict[str, Any]:
    """Times everything in this process."""
    chosen, left_out = choose(workload, psutil.virtual_memory().available)
    import_tensorflow_quietly()
    calls = _make_calls(workload, chosen)
    for call in calls.values():
        call()  # compiles
    load = MachineLoad()
    seconds = take_turns(calls, workload.turns)
    return {
        "left_out": left_out,
        # The least is what a machine that others use disturbs least.
        "seconds": {
            name: {**spread(found), "least": min(found)}
            for name, found in seconds.items()
        },
        **summarize(workload, seconds),
        "load": load.read(),
        "model": SparseCTRRecipe().to_dict(),
        "precision": "float32",
        "execution": "XLA",
        "environment": environment(),
    }


def _make_calls(
    workload: Workload, chosen: Sequence[tuple[str, str, int]]
) -> dict[str, Call]:
    import tensorflow as tf

    schema = made_schema(workload.num_rows)
    batches = {
        length: tf.nest.map_structure(
            tf.constant,
            made_requests(
                schema, workload.batch_size, length, workload.num_candidates
            ),
        )
        for length in workload.lengths
    }
    calls: dict[str, Call] = {}
    for attention in dict.fromkeys(attention for attention, _, _ in chosen):
        model, functions = _functions(attention, schema)
        for mode, length in [c[1:] for c in chosen if c[0] == attention]:
            calls[f"{attention} {mode} {length}"] = _call(
                functions[mode], batches[length]
            )
        if attention == "evo":
            score = _compiled_logits(model.score)
            for length, batch in batches.items():
                state = model.encode_user(batch)
                request = {
                    name: value
                    for name, value in batch.items()
                    if name.startswith("candidate_") or name == "request_time"
                }
                calls[f"score {length}"] = _call(score, state, request)
    return calls


def _functions(attention: str, schema: Any) -> tuple[Any, dict[str, Any]]:
    """Returns a model, its pass to the logits and its training step."""
    from sparsectr.training.devices import make_strategy
    from sparsectr.training.train_step import make_train_step

    model = SparseCTRRecipe(attention=attention).build(schema)
    return model, {
        "inference": _compiled_logits(model),
        "training": make_train_step(
            model, TrainConfig(jit_compile=True), make_strategy(num_devices=1)
        ),
    }


def _compiled_logits(function: Any) -> Any:
    """Returns what gives the logits of `Scores`, compiled."""
    import tensorflow as tf

    return tf.function(
        lambda *given: function(*given).logits,
        jit_compile=True,
        autograph=False,
    )


def _call(function: Any, *given: Any) -> Call:
    # Copied to the host, which waits for the device.
    return lambda: function(*given).numpy()


def summarize(
    workload: Workload, seconds: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Says what the seconds, a figure for each round, mean.

    Args:
        workload: What was timed.
        seconds: By name, `evo inference 256` or `score 256`.
    """
    by_mode = {
        mode: {n: seconds[f"evo {mode} {n}"] for n in workload.lengths}
        for mode in workload.modes
    }
    return {
        "cost_per_behavior": {
            mode: cost_per_behavior(found, workload.batch_size)
            for mode, found in by_mode.items()
        },
        "full_over_evo": {
            mode: {
                str(length): speedup(seconds[name], found)
                for length, found in lengths.items()
                if (name := f"full {mode} {length}") in seconds
            }
            for mode, lengths in by_mode.items()
        },
        "whole_pass_over_score": {
            str(length): speedup(found, seconds[f"score {length}"])
            for length, found in by_mode.get("inference", {}).items()
        },
        "score_of_longest_over_shortest": spread(
            np.divide(
                seconds[f"score {workload.lengths[-1]}"],
                seconds[f"score {workload.lengths[0]}"],
            ).tolist()
        ),
        "targets": {
            "change_of_cost_per_behavior": _MAX_PER_BEHAVIOR_CHANGE,
            "whole_pass_over_score": _MIN_SCORE_SPEEDUP,
        },
    }


def cost_per_behavior(
    seconds: Mapping[int, Sequence[float]], batch_size: int
) -> dict[str, Any]:
    """Takes the fixed part off, in two ways.

    Args:
        seconds: By length, a figure for each round.
        batch_size: B.

    Returns:
        `between`: microseconds of a behavior between two neighboring lengths,
        median and quartiles over the rounds. `fixed_milliseconds` and
        `microseconds`: the line through the medians up to the length of
        16,384. `without_fixed`: for each length, microseconds of a behavior
        once that fixed part is off. `change`: by how much the largest of them
        exceeds the least up to that length; `change_of_all`: of all lengths;
        `None` where noise has left one of them without a cost.
    """
    lengths = np.asarray(list(seconds))
    rounds = np.asarray(list(seconds.values()))  # [length, round]
    behaviors = lengths * batch_size
    between = np.diff(rounds, axis=0) / np.diff(behaviors)[:, None] * 1e6
    medians = np.median(rounds, axis=1)
    # Divided by the seconds, every length counts by its relative error.
    on_line = lengths <= _LONGEST_ON_LINE
    if on_line.sum() < 2:
        on_line[:] = True
    columns = np.stack([np.ones(len(lengths)), behaviors], axis=1)
    relative = (columns / medians[:, None])[on_line]
    fixed, slope = np.linalg.lstsq(
        relative, np.ones(len(relative)), rcond=None
    )[0].tolist()
    without_fixed = (medians - fixed) / behaviors * 1e6
    return {
        "between": {
            f"{shorter} to {longer}": spread(found)
            for shorter, longer, found in zip(
                lengths[:-1], lengths[1:], between.tolist(), strict=True
            )
        },
        "fixed_milliseconds": fixed * 1e3,
        "microseconds": slope * 1e6,
        "without_fixed": dict(
            zip(map(str, lengths), without_fixed.tolist(), strict=True)
        ),
        "change": _change(without_fixed[on_line]),
        "change_of_all": _change(without_fixed),
    }


def _change(costs: Any) -> float | None:
    if costs.min() <= 0.0:
        return None
    return float(costs.max() / costs.min() - 1.0)


def table(workload: Workload, result: Mapping[str, Any]) -> str:
    """Returns what was found as text."""
    rows = [("milliseconds of a call", *map(str, workload.lengths))]
    kinds = [f"{a} {m}" for a in _NAMES for m in _MODES] + ["score"]
    for kind in kinds:
        found = [
            result["seconds"].get(f"{kind} {length}")
            for length in workload.lengths
        ]
        if any(found):
            rows.append((kind, *(with_quartiles(f, 1e3) for f in found)))
    costs = result["cost_per_behavior"]
    rows.append(("microseconds of a behavior", *[""] * len(workload.lengths)))
    for mode, cost in costs.items():
        between = [with_quartiles(f) for f in cost["between"].values()]
        rows.append((f"{mode}, added since the last", "", *between))
        without = [f"{c:.3g}" for c in cost["without_fixed"].values()]
        rows.append((f"{mode}, without fixed part", *without))
    rows.append(("times as fast", *[""] * len(workload.lengths)))
    for kind, ratios in (
        *(
            (f"evo than full, {m}", r)
            for m, r in result["full_over_evo"].items()
        ),
        ("score than whole pass", result["whole_pass_over_score"]),
    ):
        found = [ratios.get(str(length)) for length in workload.lengths]
        if any(found):
            rows.append((kind, *map(with_interval, found)))
    lines = aligned(rows)
    lines += [f"Left out: {reason}" for reason in result["left_out"]]
    for mode, cost in costs.items():
        change = cost["change"]
        lines.append(
            f"{mode}: up to {_LONGEST_ON_LINE:,} behaviors the cost of one "
            f"changes by {_share(change)} (wanted: "
            f"{_share(_MAX_PER_BEHAVIOR_CHANGE)}), over all lengths by "
            f"{_share(cost['change_of_all'])}; the fixed part is "
            f"{cost['fixed_milliseconds']:.2f} ms."
        )
    lines.append(
        "Score, longest history over shortest: "
        f"{with_quartiles(result['score_of_longest_over_shortest'])} times; "
        f"wanted against the whole pass: {_MIN_SCORE_SPEEDUP:.0f} times as "
        "fast."
    )
    return "\n".join([*lines, *disturbance(result["load"])])


def _share(change: float | None) -> str:
    return "more than can be said" if change is None else f"{change:.0%}"


def define_flags() -> None:
    """Defines the flags of this command."""
    result_files.define_flags(plot=True)
    flags.DEFINE_list("lengths", [str(n) for n in _LENGTHS], "Values of L.")
    flags.DEFINE_multi_enum(
        "modes", _MODES, _MODES, "What is timed; once for each."
    )
    flags.DEFINE_bool("full_attention", True, "Time full attention beside.")
    for name, default, lowest, text in (
        ("batch_size", 1, 1, "Requests of a batch."),
        ("num_candidates", 100, 1, "Candidates of every request."),
        ("num_rows", 100_000, 10, "Rows of every embedding table."),
        ("num_rounds", 9, 2, "Rounds; each times everything once."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=lowest)
    flags.DEFINE_float(
        "seconds", 0.1, "Length of a turn, at least.", lower_bound=1e-3
    )


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    result_files.check_flags()
    if values.plot:
        with command.needs_matplotlib():
            from benchmarks.attention.length_plot import draw
    workload = Workload(
        lengths=number_flags.ascending("lengths", at_least=2, count=2),
        batch_size=values.batch_size,
        num_candidates=values.num_candidates,
        num_rows=values.num_rows,
        modes=tuple(mode for mode in _MODES if mode in values.modes),
        full_attention=values.full_attention,
        turns=Turns(num_rounds=values.num_rounds, seconds=values.seconds),
    )
    result = {
        "question": "cost of a history by its length, and of a score",
        "data": "made: random ids and times, in the fields of Alibaba",
        "workload": dataclasses.asdict(workload),
        **measure(workload),
    }
    print(table(workload, result))
    result_files.write(result)
    if values.plot:
        draw(result, Path(values.plot))


if __name__ == "__main__":
    define_flags()
    command.run(main)
