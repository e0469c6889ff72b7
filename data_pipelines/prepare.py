r"""Raw files to a store that training reads.

    python -m data_pipelines.prepare --dataset=movielens \
        --raw_dir=ml-1m --data_dir=data/movielens

`--raw_dir` holds the files as their publisher names them:

    alibaba    raw_sample.csv, ad_feature.csv, user_profile.csv,
               behavior_log.csv, each also as .csv.gz or .csv.tar.gz
    movielens  ratings.dat, users.dat, movies.dat
    kuairand   log_standard_*_<v>.csv, user_features_<v>.csv,
               video_features_basic_<v>.csv, where <v> is pure, 1k or 27k

`--data_dir` must not exist yet. It is written whole or not at all. Files that
`data_pipelines.synthetic_alibaba` made give a store that says so.
"""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_pipelines.alibaba import read_alibaba
from data_pipelines.kuairand import read_kuairand
from data_pipelines.listwise import build_listwise
from data_pipelines.movielens import read_movielens
from data_pipelines.new_folder import check_free
from data_pipelines.raw_dataset import RawDataset
from data_pipelines.store import Store, write_store
from data_pipelines.synthetic_alibaba import MARKER
from sparsectr import command
from sparsectr.errors import InputError

DATASETS = ("alibaba", "movielens", "kuairand")


def prepare(
    dataset: str,
    raw_dir: Path,
    data_dir: Path,
    *,
    test_start: datetime.date | None = None,
) -> Store:
    """Reads raw files and writes a store.

    Args:
        dataset: One of `DATASETS`.
        raw_dir: Folder of the raw files.
        data_dir: Folder of the store. It must not exist, or be empty.
        test_start: First day of the test split. KuaiRand alone.

    Returns:
        The new store.

    Raises:
        InputError: If a file is not as documented, or `data_dir` is taken.
        OSError: If a file cannot be read or written.
    """
    check_free(data_dir)
    raw = _read(dataset, raw_dir, test_start)
    is_synthetic = (raw_dir / MARKER).exists()
    listwise = build_listwise(raw)
    write_store(
        data_dir,
        schema=listwise.schema,
        vocabularies=listwise.vocabularies,
        shards=[listwise.shard],
        details={
            "dataset": dataset,
            "data_source": "synthetic sample" if is_synthetic else "raw files",
            "sources": [source.describe() for source in raw.sources],
            "split": {"rule": raw.split, "test_time": raw.test_time},
            "dropped": dict(listwise.dropped),
            "incomplete": dict(listwise.incomplete),
        },
    )
    return Store(data_dir)


def _read(
    dataset: str, raw_dir: Path, test_start: datetime.date | None
) -> RawDataset:
    if dataset == "kuairand":
        return read_kuairand(raw_dir, test_start=test_start)
    if test_start is not None:
        raise InputError(f"--test_start does not apply to {dataset}.")
    if dataset == "alibaba":
        return read_alibaba(raw_dir)
    if dataset == "movielens":
        return read_movielens(raw_dir)
    raise ValueError(
        f"`dataset` must be one of {DATASETS}. Received: dataset={dataset!r}"
    )


def _summary(manifest: Any) -> str:
    lines = []
    for what in ("counts", "split", "dropped", "incomplete"):
        lines.append(f"{what}:")
        lines += [
            f"  {name}: {json.dumps(value)}"
            for name, value in manifest[what].items()
        ]
    return "\n".join(lines)


def define_flags() -> None:
    """Defines the flags of this command.

    Not on import: `sparsectr.train` uses `prepare` and has a `--dataset` too.
    """
    flags.DEFINE_enum(
        "dataset", None, DATASETS, "Which data set.", required=True
    )
    flags.DEFINE_string(
        "raw_dir", None, "Folder of the raw files.", required=True
    )
    flags.DEFINE_string(
        "data_dir", None, "Folder of the new store.", required=True
    )
    flags.DEFINE_string(
        "test_start",
        None,
        "First day of the test split, as 2022-04-30, in the data set's own "
        "time zone; the default is the last day. KuaiRand alone.",
    )


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    test_start = None
    if values.test_start is not None:
        try:
            test_start = datetime.date.fromisoformat(values.test_start)
        except ValueError as error:
            raise InputError(
                f"--test_start must be a date such as 2022-04-30. "
                f"Received: {values.test_start}"
            ) from error
    store = prepare(
        values.dataset,
        Path(values.raw_dir),
        Path(values.data_dir),
        test_start=test_start,
    )
    print(f"{store.path}: a store of {values.dataset}")
    print(_summary(store.manifest))


if __name__ == "__main__":
    define_flags()
    command.run(main)
