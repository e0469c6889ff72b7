"""How fast are files of requests scored, and in how much memory?

    python -m benchmarks.prediction --output=FILE.json

Scores files of made requests with `sparsectr.predict` from a SavedModel of
SparseCTR's default configuration, random weights: one of a million candidates
and one of a quarter of them, each in a process of its own. Requests have full
histories of `--num_behaviors` and `--num_candidates` each; ids and times are
random, and the file is one row group.

Prints JSON: candidates a second after the model is loaded, and the peak
resident memory of each process, from its start; that of the larger file should
be no higher. Needs Linux.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from absl import flags

from benchmarks.made_data.requests import made_requests, made_schema
from benchmarks.measuring import result_files
from benchmarks.measuring.interleaved import MachineLoad
from benchmarks.measuring.new_process import in_new_process
from benchmarks.serving.model import made_vocabularies, raw_values, write_models
from data_pipelines.requests.buckets import Buckets
from data_pipelines.requests.raw_tensors import request_types
from sparsectr.process import command
from sparsectr.process.peak_memory import peak_resident_bytes

_DISTINCT_REQUESTS = 512
"""That are made; the file repeats them."""


def write_file(
    path: Path,
    num_rows: int,
    num_behaviors: int,
    num_candidates: int,
    num_requests: int,
) -> None:
    """Writes a file of made requests.

    Args:
        path: The file.
        num_rows: Rows of every table.
        num_behaviors: Length of every history.
        num_candidates: Candidates of every request.
        num_requests: Requests.
    """
    schema = made_schema(num_rows)
    count = min(_DISTINCT_REQUESTS, num_requests)
    batch = made_requests(schema, count, num_behaviors, num_candidates)
    raw = raw_values(schema, made_vocabularies(schema), batch)
    table = pa.table({n: raw[n].tolist() for n in request_types(schema)})
    repeated = pa.concat_tables([table] * -(-num_requests // count))
    pq.write_table(repeated.slice(0, num_requests), path, num_requests)


def measure(model: Path, source: Path, output: Path) -> dict[str, Any]:
    """Scores a file in this process and returns what it took."""
    from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly

    import_tensorflow_quietly()
    from data_pipelines.requests.request_table import request_tables
    from sparsectr.predict import BATCH_SIZE, score_tables
    from sparsectr.prediction.saved_model_scorer import SavedModelScorer

    scorer = SavedModelScorer(model)
    tables = request_tables(source, scorer.inputs)
    load, start = MachineLoad(), time.perf_counter()
    requests, candidates = score_tables(scorer, tables, output, BATCH_SIZE)
    seconds = time.perf_counter() - start
    return {
        "requests": requests,
        "candidates": candidates,
        "file_mib": source.stat().st_size / 2**20,
        "seconds": seconds,
        "candidates_per_second": candidates / seconds,
        "peak_resident_mib": peak_resident_bytes() / 2**20,
        "machine_load": load.read(),
    }


def define_flags() -> None:
    """Defines the flags of this command."""
    result_files.define_flags()
    for name, default, text in (
        ("num_scores", 1_000_000, "Candidates of the larger file, about."),
        ("num_behaviors", 128, "Length of every history."),
        ("num_candidates", 20, "Candidates of every request."),
        ("num_rows", 100_000, "Rows of every table."),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=4)
    flags.DEFINE_integer("num_blocks", 2, "Blocks of the model.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    result_files.check_flags()
    shape = values.num_behaviors, values.num_candidates
    most = -(-values.num_scores // values.num_candidates)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = write_models(
            folder,
            {"evo": ()},
            values.num_rows,
            shape[0],
            num_blocks=values.num_blocks,
        )
        model = folder / "evo" / "1"
        buckets = Buckets(history_lengths=(shape[0],))
        (model / "assets.extra").mkdir(exist_ok=True)
        (model / "assets.extra" / "signature.json").write_text(
            json.dumps({"buckets": buckets.to_dict()}), "utf-8"
        )
        files = {}
        for part, count in (("quarter", most // 4), ("whole", most)):
            source = folder / f"{part}.parquet"
            write_file(source, values.num_rows, *shape, count)
            files[part] = in_new_process(
                measure, model, source, folder / "out.parquet"
            )
    result = {
        "question": "speed and memory of scoring a file of requests",
        "data": "made: random ids and times, in the fields of Alibaba",
        "num_behaviors": values.num_behaviors,
        "num_candidates": values.num_candidates,
        "num_rows": values.num_rows,
        "num_blocks": values.num_blocks,
        "files": files,
        "memory_of_whole_to_quarter": files["whole"]["peak_resident_mib"]
        / files["quarter"]["peak_resident_mib"],
        "environment": environment,
    }
    print(json.dumps(result, indent=2))
    result_files.write(result)


if __name__ == "__main__":
    define_flags()
    command.run(main)
