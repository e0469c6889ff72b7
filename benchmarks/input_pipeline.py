"""Is the reader fast enough for the training step, and how much does it hold?

    python -m benchmarks.input_pipeline --data_dir=STORE --output=FILE.json

Reads training batches of full length through tf.data, to tensors, and trains
the default model on some of the very same batches: once with the batches at
hand, the pure step, and once as the training loop does it, with the reader at
work. All take turns, since other work on the machine slows now the one and
now the other; the first round warms up and is left out. A round of the reader
and one of the loop count the start of their dataset. Every history is padded
to `--max_history`, however short it is.

Memory is that of the reader alone, in a process that holds no model and has
read `--num_batches` batches: all of it, as the system counts it, with pages
of the store that the system may take back at any time; and its own, sampled
after each batch. Both are compared with the same process once it has
imported the reader and run an empty dataset.

Without `--data_dir` the store is made for the occasion: random ids, of
histories that all reach `--max_history`. Prints JSON. Needs Linux.
"""

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from absl import flags

from benchmarks.made_data.store import write_made_store
from benchmarks.measuring import number_flags, result_files
from benchmarks.measuring.new_process import in_new_process
from configs.models.sparse_ctr import SparseCTRRecipe
from data_pipelines.stores.store import Store
from sparsectr.config import DataConfig, TrainConfig
from sparsectr.errors import InputError
from sparsectr.process import command
from sparsectr.process.peak_memory import peak_resident_bytes
from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly

_BATCH_SIZES = (64, 128, 256)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is read.

    Args:
        data_dir: The store.
        batch_sizes: Requests of a batch; each is measured.
        max_history: L; every history is padded to it.
        num_rounds: How often reader and training step take turns.
        num_batches: Batches that the reader reads in a round.
        num_steps: How many of them the model is trained on.
        num_blocks: Blocks of the model.
    """

    data_dir: str
    batch_sizes: tuple[int, ...]
    max_history: int
    num_rounds: int
    num_batches: int
    num_steps: int
    num_blocks: int


def measure_speed(workload: Workload) -> dict[str, Any]:
    """Reads and trains in this process; returns what each took."""
    import_tensorflow_quietly()
    import tensorflow as tf

    from sparsectr.training.devices import make_strategy, prepare_process
    from sparsectr.training.run_directory import environment
    from sparsectr.training.train_step import make_train_step

    train = TrainConfig()
    prepare_process(train.seed, num_devices=1)
    store = Store(workload.data_dir)
    strategy = make_strategy(num_devices=1)
    recipe = SparseCTRRecipe(num_blocks=workload.num_blocks)
    model = recipe.build(store.schema)
    step = make_train_step(model, train, strategy)
    found = {
        str(size): _take_turns(workload, store, size, step)
        for size in workload.batch_sizes
    }
    return {
        "batch_size": found,
        "model": recipe.to_dict(),
        "jit_compile": train.jit_compile,
        "tensorflow_devices": [
            d.name for d in tf.config.list_logical_devices()
        ],
        "environment": environment(),
    }


def _take_turns(
    workload: Workload, store: Store, batch_size: int, step: Any
) -> dict[str, Any]:
    """Returns seconds of a batch, of a step and of the loop, and ratios."""
    from data_pipelines.reading.reader import read

    batches = _batches(workload, store, batch_size)
    reader: list[float] = []
    model: list[float] = []
    loop: list[float] = []
    compiled = set()
    num_requests = num_behaviors = 0
    for index in range(1 + workload.num_rounds):
        first = index * workload.num_batches
        start = time.perf_counter()
        kept = _read(batches, first, workload.num_batches, workload.num_steps)
        seconds = time.perf_counter() - start
        reader.append(seconds / workload.num_batches)
        for batch in kept:
            if batch["label"].shape not in compiled:
                compiled.add(batch["label"].shape)
                float(step(batch))
        sources: list[tuple[list[float], Iterable[Any]]] = [
            (model, kept),
            (loop, read(batches, first, first + len(kept))),
        ]
        for times, source in sources if index % 2 else reversed(sources):
            times.append(_seconds_of_steps(step, source) / len(kept))
        for batch in kept:
            real = batch["candidate_mask"].numpy().any(axis=1)
            num_requests += int(real.sum())
            num_behaviors += int((batch["behavior_time"].numpy() > 0).sum())
    ratios = [b / a for a, b in zip(reader, model, strict=True)][1:]
    slowdowns = [a / b for a, b in zip(loop, model, strict=True)][1:]
    per_batch = _spread(reader[1:])
    per_step, per_loop_step = _spread(model[1:]), _spread(loop[1:])
    return {
        "reader_seconds_of_batch": per_batch,
        "reader_requests_per_second": batch_size / per_batch["median"],
        "step_seconds": per_step,
        "step_requests_per_second": batch_size / per_step["median"],
        "step_over_reader": _spread(ratios),
        "loop_seconds_of_step": per_loop_step,
        "loop_requests_per_second": batch_size / per_loop_step["median"],
        "loop_over_step": _spread(slowdowns),
        "behaviors_of_request": num_behaviors / num_requests,
    }


def _seconds_of_steps(step: Any, batches: Iterable[Any]) -> float:
    start = time.perf_counter()
    for batch in batches:
        float(step(batch))  # waits until the step is done
    return time.perf_counter() - start


def measure_memory(workload: Workload) -> dict[str, Any]:
    """Reads in this process and returns what it came to hold, in GiB."""
    import_tensorflow_quietly()
    import tensorflow as tf

    import data_pipelines.reading.reader  # noqa: F401 (what it takes to import)

    for _ in tf.data.Dataset.range(1).prefetch(1):
        pass
    before = psutil.Process().memory_info().rss
    own_before = _own_bytes()
    batches = _batches(
        workload, Store(workload.data_dir), max(workload.batch_sizes)
    )
    own: list[int] = []
    _read(
        batches,
        0,
        workload.num_batches,
        after_each=lambda: own.append(_own_bytes()),
    )
    peak = peak_resident_bytes()
    return {
        "imported": before / 2**30,
        "peak": peak / 2**30,
        "peak_above_imported": (peak - before) / 2**30,
        "own_above_imported": (max(own) - own_before) / 2**30,
        "num_training_requests": batches.num_requests,
    }


def _batches(workload: Workload, store: Store, batch_size: int) -> Any:
    from data_pipelines.reading.batches import Batches

    config = DataConfig(
        max_history=workload.max_history,
        length_buckets=(workload.max_history,),
    )
    return Batches(store, "train", config, batch_size, seed=0)


def _read(
    batches: Any,
    first: int,
    count: int,
    num_kept: int = 0,
    after_each: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Reads batches and returns the first of them."""
    from data_pipelines.reading.reader import read

    kept: list[dict[str, Any]] = []
    for batch in read(batches, first, first + count):
        if len(kept) < num_kept:
            kept.append(batch)
        after_each()
    return kept


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, median, high = np.quantile(values, (0.0, 0.5, 1.0)).tolist()
    return {"median": median, "least": low, "most": high}


def _own_bytes() -> int:
    """Returns the memory of this process without pages of files."""
    memory = psutil.Process().memory_info()
    return memory.rss - memory.shared


def measure(workload: Workload) -> dict[str, Any]:
    """Returns speed and memory, each measured in a process of its own."""
    memory = in_new_process(measure_memory, workload)
    return {**in_new_process(measure_speed, workload), "memory_gib": memory}


def define_flags() -> None:
    """Defines the flags of this command."""
    result_files.define_flags()
    flags.DEFINE_string("data_dir", None, "Store (default: one is made).")
    flags.DEFINE_list(
        "batch_sizes", [str(size) for size in _BATCH_SIZES], "Batch sizes."
    )
    for name, default, text in (
        ("max_history", 1024, "Length that every history is padded to."),
        ("num_rounds", 5, "Turns of reader and training step."),
        ("num_batches", 50, "Batches of a turn of the reader."),
        ("num_steps", 2, "Batches of it that the model is trained on."),
        ("num_blocks", 2, "Blocks of the model."),
        ("num_shards", 64, "Shards of the made store."),
        ("users_of_shard", 64, "Users of each of them."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=1)
    for name, text in (
        ("max_rows", "Most rows of its tables; 0 for no limit."),
        ("num_sets", "Sets of up to 5 ids of a behavior of the made store."),
        ("num_numbers", "Numbers of a behavior of the made store."),
    ):
        flags.DEFINE_integer(name, 0, text, lower_bound=0)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    result_files.check_flags()
    batch_sizes = number_flags.ascending("batch_sizes")
    if values.num_steps > values.num_batches:
        raise InputError("--num_steps must not exceed --num_batches.")
    with tempfile.TemporaryDirectory() as folder:
        data_dir = values.data_dir
        if data_dir is None:
            data_dir = str(Path(folder) / "store")
            write_made_store(
                Path(data_dir),
                num_shards=values.num_shards,
                users_of_shard=values.users_of_shard,
                num_behaviors=values.max_history,
                max_rows=values.max_rows,
                num_sets=values.num_sets,
                num_numbers=values.num_numbers,
            )
        workload = Workload(
            data_dir=data_dir,
            batch_sizes=batch_sizes,
            max_history=values.max_history,
            num_rounds=values.num_rounds,
            num_batches=values.num_batches,
            num_steps=values.num_steps,
            num_blocks=values.num_blocks,
        )
        result = {
            "question": "reader against training step, and what it holds",
            "store": _describe(Store(data_dir)),
            "bytes_of_behavior": _bytes_of_behavior(Store(data_dir)),
            "workload": {
                name: value
                for name, value in dataclasses.asdict(workload).items()
                if name != "data_dir"
            },
            **measure(workload),
        }
    print(json.dumps(result, indent=2))
    result_files.write(result)


def _bytes_of_behavior(store: Store) -> dict[str, float]:
    """Returns what a behavior takes on disk, by its columns."""
    total: dict[str, int] = {}
    for shard in store.shards:
        for name, column in shard.files().items():
            if name.startswith("behaviors/"):
                total[name] = total.get(name, 0) + column.nbytes
    count = sum(shard.num_behaviors for shard in store.shards)
    return {name: size / count for name, size in total.items()}


def _describe(store: Store) -> dict[str, Any]:
    names = ("dataset", "data_source", "counts", "num_shards")
    return {name: store.manifest.get(name) for name in names}


if __name__ == "__main__":
    define_flags()
    command.run(main)
