"""Does a training step take longer the larger the embedding tables are?

    python -m benchmarks.table_size --output=FILE.json

Trains SparseCTR with the default configuration on full histories, once for
each size of the table of brands, which behaviors and candidates share; the
other tables are small. The models take turns in random order. A step reads
equally many distinct rows of each table, spread over all of it: what differs
is the size alone, and with it where in memory the rows lie. The requests are
made: random ids and times.

Prints a table. Needs Linux.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
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
from sparsectr.schema import NUM_RESERVED_IDS, DatasetSchema
from sparsectr.training.run_directory import environment

_TABLE = "brand"
_NUM_ROWS = (100_000, 1_000_000, 8_000_000)
_ROWS_OF_OTHERS = 1000
_COPIES = 3  # weights and two moments
_NUM_BATCHES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained.

    Args:
        num_rows: Sizes of the table, ascending.
        batch_size: B.
        num_behaviors: L; every history is that long.
        num_candidates: C; every request has that many.
        turns: How often.
    """

    num_rows: tuple[int, ...]
    batch_size: int
    num_behaviors: int
    num_candidates: int
    turns: Turns


def check_memory(workload: Workload, available: int) -> None:
    """Refuses tables that do not fit.

    Raises:
        InputError: If all of them together need more than there is.
    """
    row = 4 * SparseCTRRecipe().embedding_dim
    # Initial values are drawn beside the largest table.
    needed = row * (_COPIES * sum(workload.num_rows) + max(workload.num_rows))
    if needed > available:
        raise InputError(
            f"--num_rows: tables of {', '.join(map(str, workload.num_rows))} "
            f"rows need {needed / 2**30:.1f} GiB, and "
            f"{available / 2**30:.1f} GiB are available."
        )


def spread_out(
    batch: Mapping[str, Any], schema: DatasetSchema, num_rows: int, seed: int
) -> dict[str, Any]:
    """Returns a batch whose ids of the table lie in a larger one.

    Equal ids stay equal and different ones different.

    Args:
        batch: Ids of the table as `schema` has it.
        schema: Its fields.
        num_rows: Rows of the larger table.
        seed: Of the places between two that would be equally far apart.
    """
    small = schema.table(_TABLE).size or 0
    step = (num_rows - NUM_RESERVED_IDS) // (small - NUM_RESERVED_IDS)
    generator = np.random.default_rng(seed)
    place = np.arange(small - NUM_RESERVED_IDS) * step
    # Not at equal distances, which would share a few sets of the caches.
    place += generator.integers(step, size=len(place))
    fields = [
        *(("behavior", field) for field in schema.behavior_fields),
        *(("candidate", field) for field in schema.candidate_fields),
    ]
    changed = dict(batch)
    for prefix, field in fields:
        if field.table == _TABLE:
            name = f"{prefix}_{field.name}"
            ids = place[batch[name] - NUM_RESERVED_IDS] + NUM_RESERVED_IDS
            changed[name] = ids.astype(np.int32)
    return changed


def measure(workload: Workload) -> dict[str, Any]:
    """Trains in this process."""
    check_memory(workload, psutil.virtual_memory().available)
    import_tensorflow_quietly()
    calls = {
        str(rows): _make_call(workload, rows) for rows in workload.num_rows
    }
    for call in calls.values():
        call()  # compiles
    load = MachineLoad()
    seconds = take_turns(calls, workload.turns)
    smallest = seconds[str(workload.num_rows[0])]
    return {
        "seconds": {name: spread(found) for name, found in seconds.items()},
        "times_the_smallest": {
            name: {
                **spread(np.divide(found, smallest).tolist()),
                "interval": speedup(found, smallest)["interval"],
            }
            for name, found in seconds.items()
        },
        "load": load.read(),
        "model": SparseCTRRecipe().to_dict(),
        "jit_compile": TrainConfig().jit_compile,
        "precision": "float32",
        "environment": environment(),
    }


def _make_call(workload: Workload, num_rows: int) -> Callable[[], object]:
    import tensorflow as tf

    from sparsectr.training.devices import make_strategy
    from sparsectr.training.train_step import make_train_step

    others = made_schema(_ROWS_OF_OTHERS)
    smallest = others.with_table_sizes(_sizes(others, workload.num_rows[0]))
    schema = others.with_table_sizes(_sizes(others, num_rows))
    model = SparseCTRRecipe().build(schema)
    step = make_train_step(model, TrainConfig(), make_strategy(num_devices=1))
    batches = []
    for seed in range(_NUM_BATCHES):
        made = made_requests(
            smallest,
            workload.batch_size,
            workload.num_behaviors,
            workload.num_candidates,
            seed,
        )
        batch = spread_out(made, smallest, num_rows, seed=0)
        batches.append(tf.nest.map_structure(tf.constant, batch))
    turns = itertools.cycle(batches)
    # Copied to the host, which waits for the device.
    return lambda: step(next(turns)).numpy()


def _sizes(schema: DatasetSchema, num_rows: int) -> dict[str, int]:
    sizes = {table.name: _ROWS_OF_OTHERS for table in schema.tables}
    return {**sizes, _TABLE: num_rows}


def table(result: Mapping[str, Any]) -> str:
    """Returns what was found as text."""
    rows = [("rows", "step, ms (quartiles)", "times the smallest (95 %)")]
    for size, seconds in result["seconds"].items():
        ratio = result["times_the_smallest"][size]
        is_itself = ratio["interval"] == [1.0, 1.0]
        rows.append(
            (
                f"{int(size):,}",
                with_quartiles(seconds, 1e3),
                "" if is_itself else with_interval(ratio),
            )
        )
    return "\n".join([*aligned(rows), *disturbance(result["load"])])


def define_flags() -> None:
    """Defines the flags of this command."""
    result_files.define_flags()
    flags.DEFINE_list(
        "num_rows", [str(n) for n in _NUM_ROWS], "Sizes of the table."
    )
    for name, default, lowest, text in (
        ("batch_size", 8, 1, "Requests of a step."),
        ("num_behaviors", 1024, 1, "Length of every history."),
        ("num_candidates", 20, 1, "Candidates of every request."),
        ("num_rounds", 15, 2, "Rounds; each times every size once."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=lowest)
    flags.DEFINE_float(
        "seconds", 0.5, "Length of a turn, at least.", lower_bound=1e-3
    )


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    result_files.check_flags()
    workload = Workload(
        num_rows=number_flags.ascending(
            "num_rows", at_least=NUM_RESERVED_IDS + 1, count=2
        ),
        batch_size=values.batch_size,
        num_behaviors=values.num_behaviors,
        num_candidates=values.num_candidates,
        turns=Turns(num_rounds=values.num_rounds, seconds=values.seconds),
    )
    result = {
        "question": "time of a training step by the size of the tables",
        "data": "made: random ids and times, in the fields of Alibaba",
        "table": _TABLE,
        "rows_of_other_tables": _ROWS_OF_OTHERS,
        "workload": dataclasses.asdict(workload),
        **measure(workload),
    }
    print(table(result))
    result_files.write(result)


if __name__ == "__main__":
    define_flags()
    command.run(main)
