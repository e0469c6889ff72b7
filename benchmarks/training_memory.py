"""How much memory and time does a training step on full histories take?

    python -m benchmarks.training_memory --output=FILE.json

Trains SparseCTR with the default configuration in a process of its own, on
the fields of the Alibaba data with tables as large as that data needs. The
requests are made: random ids and times, and no history shorter than
`--num_behaviors`. They say what a step costs and nothing about clicks.

Prints JSON: the peak resident memory of the process, from its start to the
last step, compilation included, and the seconds of a step.
"""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from data_pipelines.datasets.alibaba import (
    FIRST_BEHAVIOR_TIME,
    SCHEMA,
    TEST_TIME,
)
from sparsectr import command
from sparsectr.config import ModelConfig, TrainConfig
from sparsectr.errors import InputError
from sparsectr.schema import NUM_RESERVED_IDS, DatasetSchema
from sparsectr.training.run_directory import RunDirectory, environment

# Distinct values of the real files, as published. Categories and brands are
# those of the behavior log, which has more of them than the advertisements.
_NUM_VALUES = {
    "user_id": 1_141_729,
    "cms_segid": 97,
    "cms_group_id": 13,
    "final_gender_code": 2,
    "age_level": 7,
    "pvalue_level": 3,
    "shopping_level": 3,
    "occupation": 2,
    "new_user_class_level": 4,
    "btag": 4,
    "cate": 12_977,
    "brand": 461_497,
    "adgroup_id": 846_811,
    "campaign_id": 423_436,
    "customer": 255_875,
    "pid": 2,
}


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
    """

    attention: str
    batch_size: int
    num_behaviors: int
    num_candidates: int
    num_steps: int
    max_rows: int


def measure(workload: Workload) -> dict[str, Any]:
    """Trains in this process and returns what it took."""
    import tensorflow as tf

    from sparsectr.models.model_from_config import model_from_config
    from sparsectr.training.devices import make_strategy, prepare_process
    from sparsectr.training.train_step import make_train_step

    train = TrainConfig()
    model_config = ModelConfig(attention=workload.attention)
    schema = _schema(workload.max_rows)
    prepare_process(train.seed, num_devices=1)
    strategy = make_strategy(num_devices=1)
    model = model_from_config(model_config, schema)
    step = make_train_step(model, train, strategy)
    seconds = []
    for made in _made_batches(workload, schema):
        batch = {name: tf.constant(value) for name, value in made.items()}
        start = time.perf_counter()
        float(step(batch))  # waits until the step is done
        seconds.append(time.perf_counter() - start)
    low, median, high = np.quantile(seconds[1:], (0.25, 0.5, 0.75)).tolist()
    return {
        "peak_resident_gib": _peak_resident_bytes() / 2**30,
        "first_step_seconds": seconds[0],
        "step_seconds": {
            "median": median,
            "lower_quartile": low,
            "upper_quartile": high,
        },
        "num_parameters": sum(
            int(np.prod(variable.shape))
            for variable in model.trainable_variables
        ),
        "jit_compile": train.jit_compile,
        "model": dataclasses.asdict(model_config),
        "environment": environment(),
    }


def _schema(max_rows: int) -> DatasetSchema:
    sizes = {k: v + NUM_RESERVED_IDS for k, v in _NUM_VALUES.items()}
    if max_rows:
        sizes = {name: min(size, max_rows) for name, size in sizes.items()}
    return SCHEMA.with_table_sizes(sizes)


def _made_batches(
    workload: Workload, schema: DatasetSchema
) -> Iterator[dict[str, Any]]:
    """Yields random batches: one to begin with, then those to be timed."""
    generator = np.random.default_rng(0)
    requests = (workload.batch_size,)
    behaviors = (workload.batch_size, workload.num_behaviors)
    candidates = (workload.batch_size, workload.num_candidates)
    fields = [
        (prefix, field, shape)
        for prefix, shape, of_prefix in (
            ("user", requests, schema.user_fields),
            ("behavior", behaviors, schema.behavior_fields),
            ("candidate", candidates, schema.candidate_fields),
        )
        for field in of_prefix
    ]
    for _ in range(1 + workload.num_steps):
        batch: dict[str, Any] = {
            f"{prefix}_{field.name}": generator.integers(
                NUM_RESERVED_IDS, schema.table(field.table).size, shape
            ).astype(np.int32)
            for prefix, field, shape in fields
        }
        for dense in schema.candidate_dense_fields:
            values = generator.random(candidates, np.float32)
            batch[f"candidate_{dense.name}"] = values
        batch["behavior_time"] = np.sort(
            generator.integers(FIRST_BEHAVIOR_TIME, TEST_TIME, behaviors)
        )
        batch["request_time"] = np.full(requests, TEST_TIME)
        batch["candidate_mask"] = np.ones(candidates, np.bool_)
        batch["label"] = (generator.random(candidates) < 0.05).astype(
            np.float32
        )
        yield batch


def _peak_resident_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def measure_in_new_process(workload: Workload) -> dict[str, Any]:
    """Returns what `measure` returns in a process of its own.

    Raises:
        InputError: If the process was killed, as for want of memory.
    """
    # Spawned, and not forked: the memory is that of the training alone.
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn")
    ) as pool:
        try:
            return pool.submit(measure, workload).result()
        except BrokenProcessPool as error:
            raise InputError(
                "The training process was killed; the machine may lack the "
                f"memory for {workload}."
            ) from error


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("output", None, "JSON file to write as well.")
    flags.DEFINE_enum(
        "attention", "evo", ("evo", "full"), "Attention of the blocks."
    )
    for name, default, lowest, text in (
        ("batch_size", 32, 1, "Requests of a step."),
        ("num_behaviors", 1024, 1, "Length of every history."),
        ("num_candidates", 20, 1, "Candidates of every request."),
        ("num_steps", 10, 1, "Steps that are timed, after the first."),
        ("max_rows", 0, 0, "Most rows of a table; 0 for no limit."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=lowest)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    output = Path(values.output) if values.output else None
    if output is not None and not output.parent.is_dir():
        # Before the work, and not after it.
        raise InputError(f"--output: {output.parent} is not a folder.")
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
        **measure_in_new_process(workload),
    }
    print(json.dumps(result, indent=2))
    if output is not None:
        RunDirectory(output.parent).write_json(output.name, result)


if __name__ == "__main__":
    define_flags()
    command.run(main)
