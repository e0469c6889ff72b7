r"""Does a training step take as long as the same model's in PyTorch?

    pip install torch
    python -m benchmarks.pytorch_speed --output=FILE.json

Times a training step (forward, backward, update of the tables' rows that were
read) of DIN, TWIN and HSTU, ours and one from PyTorch's own layers
(benchmarks/pytorch/models.py: the usual way to build them, not the best that
can be done), with SparseCTR beside them. Same fields, sizes and requests,
which are made: random ids and times, histories that are all full; same cores,
in random turns, each of PyTorch's in a process of its own, which waits
meanwhile. Ours are compiled with XLA.

A ratio above 1 says that ours is faster; its median over the rounds is left
out where its 95 % interval spans 1. Prints a table. PyTorch is no requirement
of this package: without it the command says so.
"""

from collections.abc import Callable
from importlib import metadata
from typing import Any

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
    say,
    with_interval,
)
from benchmarks.pytorch.worker import Worker
from sparsectr.config import TrainConfig
from sparsectr.errors import InputError
from sparsectr.model_registry import recipe_class
from sparsectr.process import command
from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly
from sparsectr.training.run_directory import environment

_PAIRS = ("din", "twin", "hstu")
_RATE = 1e-3

Call = Callable[[], object]


def measure(
    lengths: tuple[int, ...],
    batch_size: int,
    num_candidates: int,
    num_rows: int,
    turns: Turns,
) -> dict[str, Any]:
    """Times everything in this process."""
    version = _torch_version()
    import_tensorflow_quietly()
    calls: dict[tuple[str, str, int], Call] = {}
    for length in lengths:
        schema = made_schema(num_rows)
        batch = made_requests(schema, batch_size, length, num_candidates)
        for name in (*_PAIRS, "sparse_ctr"):
            say(f"compiling {name}, {length} behaviors")
            calls["ours", name, length] = _ours(name, schema, batch)
            if name in _PAIRS:
                calls["PyTorch", name, length] = Worker(
                    name, schema, batch, _RATE
                )
    for call in calls.values():
        call()
    load = MachineLoad()
    seconds = take_turns(calls, turns)
    return {
        "seconds": {
            f"{whose} {name} {length}": spread(found)
            for (whose, name, length), found in seconds.items()
        },
        "pytorch_over_ours": {
            f"{name} {length}": speedup(
                seconds["PyTorch", name, length],
                seconds["ours", name, length],
            )
            for name in _PAIRS
            for length in lengths
        },
        "workload": {
            "lengths": lengths,
            "batch_size": batch_size,
            "num_candidates": num_candidates,
            "num_rows": num_rows,
        },
        "load": load.read(),
        "environment": {**environment(), "torch": version},
    }


def _ours(name: str, schema: Any, batch: Any) -> Call:
    import tensorflow as tf

    from sparsectr.training.devices import make_strategy
    from sparsectr.training.train_step import make_train_step

    step = make_train_step(
        recipe_class(name)().build(schema),
        TrainConfig(jit_compile=True, learning_rate=_RATE),
        make_strategy(num_devices=1),
    )
    tensors = {key: tf.constant(value) for key, value in batch.items()}
    return lambda: float(step(tensors))


def _torch_version() -> str:
    """Returns the version of PyTorch.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError as error:
        raise InputError(
            "There is no PyTorch to compare with: pip install torch"
        ) from error


def table(result: dict[str, Any]) -> list[str]:
    """Returns the figures as lines."""
    size = result["workload"]["batch_size"]
    rows = [["model", "L", "ours, req/s", "PyTorch, req/s", "times as fast"]]
    for length in result["workload"]["lengths"]:
        for name in (*_PAIRS, "sparse_ctr"):
            rates = []
            for whose in ("ours", "PyTorch"):
                found = result["seconds"].get(f"{whose} {name} {length}")
                rates.append(f"{size / found['median']:,.0f}" if found else "-")
            ratio = result["pytorch_over_ours"].get(f"{name} {length}")
            rows.append([name, str(length), *rates, with_interval(ratio)])
    return [*aligned(rows), *disturbance(result["load"])]


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_list("lengths", ["128", "1024"], "History lengths L.")
    flags.DEFINE_integer("batch_size", 64, "B.", lower_bound=1)
    flags.DEFINE_integer("num_candidates", 4, "C.", lower_bound=1)
    flags.DEFINE_integer("num_rows", 100_000, "Rows of tables.", lower_bound=9)
    flags.DEFINE_integer("num_rounds", 11, "Rounds.", lower_bound=1)
    flags.DEFINE_float("turn_seconds", 0.5, "Seconds of a turn, at least.")
    result_files.define_flags()


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    result_files.check_flags()
    result = measure(
        number_flags.ascending("lengths"),
        values.batch_size,
        values.num_candidates,
        values.num_rows,
        Turns(num_rounds=values.num_rounds, seconds=values.turn_seconds),
    )
    result_files.write(result)
    print("\n".join(table(result)))


if __name__ == "__main__":
    define_flags()
    command.run(main)
