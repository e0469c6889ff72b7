"""How much memory and time does a training step on full histories take?

    python -m benchmarks.training_memory --output=FILE.json

Trains SparseCTR with the default configuration in a process of its own, on
the fields of the Alibaba data with tables as large as that data needs. The
requests are made: random ids and times, and no history shorter than
`--num_behaviors`. They say what a step costs and nothing about clicks.

Prints JSON: the peak resident memory of the process, from its start to the
last step, compilation included, and the seconds of a step. Needs Linux.
"""

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from benchmarks.made_data.requests import made_requests, published_schema
from benchmarks.measuring import result_files
from benchmarks.measuring.interleaved import spread
from benchmarks.measuring.new_process import in_new_process
from configs.models.sparse_ctr import SparseCTRRecipe
from sparsectr.config import TrainConfig
from sparsectr.process import command
from sparsectr.process.peak_memory import peak_resident_bytes
from sparsectr.training.run_directory import environment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is trained on.

    Args:
        attention: "evo" or "full".
        batch_size: B.
        num_behaviors: L; every history is that long.
        num_candidates: C; every request has that many.
        num_steps: Steps that are timed, after the first.
        max_rows: Most rows of a table, 0 for no limit.
        num_blocks: Blocks of the model.
    """

    attention: str
    batch_size: int
    num_behaviors: int
    num_candidates: int
    num_steps: int
    max_rows: int
    num_blocks: int


def measure(workload: Workload) -> dict[str, Any]:
    """Trains in this process and returns what it took."""
    import tensorflow as tf

    from sparsectr.training.devices import make_strategy, prepare_process
    from sparsectr.training.train_step import make_train_step

    train = TrainConfig()
    model_config = SparseCTRRecipe(
        attention=workload.attention, num_blocks=workload.num_blocks
    )
    schema = published_schema(workload.max_rows)
    prepare_process(train.seed, num_devices=1)
    strategy = make_strategy(num_devices=1)
    model = model_config.build(schema)
    step = make_train_step(model, train, strategy)
    seconds = []
    for seed in range(1 + workload.num_steps):
        made = made_requests(
            schema,
            workload.batch_size,
            workload.num_behaviors,
            workload.num_candidates,
            seed,
        )
        batch = tf.nest.map_structure(tf.constant, made)
        start = time.perf_counter()
        float(step(batch))  # waits until the step is done
        seconds.append(time.perf_counter() - start)
    return {
        "peak_resident_gib": peak_resident_bytes() / 2**30,
        "first_step_seconds": seconds[0],
        "step_seconds": spread(seconds[1:]),
        "num_parameters": sum(
            int(np.prod(variable.shape))
            for variable in model.trainable_variables
        ),
        "jit_compile": train.jit_compile,
        "model": dataclasses.asdict(model_config),
        "environment": environment(),
    }


def define_flags() -> None:
    """Defines the flags of this command."""
    result_files.define_flags()
    flags.DEFINE_enum(
        "attention", "evo", ("evo", "full"), "Attention of the blocks."
    )
    for name, default, lowest, text in (
        ("batch_size", 32, 1, "Requests of a step."),
        ("num_behaviors", 1024, 1, "Length of every history."),
        ("num_candidates", 20, 1, "Candidates of every request."),
        ("num_steps", 10, 1, "Steps that are timed, after the first."),
        ("max_rows", 0, 0, "Most rows of a table; 0 for no limit."),
        ("num_blocks", 2, 1, "Blocks of the model."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=lowest)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    result_files.check_flags()
    workload = Workload(
        **{
            field.name: getattr(values, field.name)
            for field in dataclasses.fields(Workload)
        }
    )
    result = {
        "question": "memory and time of a training step on full histories",
        "data": "made: random ids and times, in the fields of Alibaba",
        "workload": dataclasses.asdict(workload),
        **in_new_process(measure, workload),
    }
    print(json.dumps(result, indent=2))
    result_files.write(result)


if __name__ == "__main__":
    define_flags()
    command.run(main)
