"""The raw files of any data set, by its name."""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.candidate_statistics.asked_statistics import (
    with_asked_statistics,
)
from data_pipelines.datasets.alibaba import open_alibaba
from data_pipelines.datasets.completejourney import open_completejourney
from data_pipelines.datasets.ebnerd import open_ebnerd
from data_pipelines.datasets.eleme import ElemeOptions, open_eleme
from data_pipelines.datasets.kuairand import open_kuairand
from data_pipelines.datasets.movielens import open_movielens
from data_pipelines.datasets.own_tables import open_own_tables
from data_pipelines.raw.raw_dataset import RawDataset
from data_pipelines.raw.split_rule import FromTime, describe_day
from sparsectr.errors import InputError

DATASETS = (
    "alibaba",
    "eleme",
    "movielens",
    "kuairand",
    "ebnerd",
    "completejourney",
    "parquet",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What some data sets can be told.

    Args:
        test_start: First day of the test split. Not of Ele.me, MovieLens and
            Complete Journey.
        schema_file: What the tables are. One's own tables alone.
        validation_time: First moment of the validation.
        validation_fraction: Share of the requests before the test that are
            the validation.
        eleme: Days and units. Ele.me alone.
        time_fields: Fields that the model computes from times, instead of
            those of the data set; `None` for these.
        statistics: Whether candidates get the statistics of the data set;
            `None` for those that a schema file asks for.
    """

    test_start: datetime.date | None = None
    schema_file: Path | None = None
    validation_time: str | None = None
    validation_fraction: float | None = None
    eleme: ElemeOptions | None = None
    time_fields: Sequence[str] | None = None
    statistics: bool | None = None


def open_dataset(dataset: str, raw_dir: Path, options: Options) -> RawDataset:
    """Finds the raw files of a data set.

    Raises:
        InputError: If one is absent, or an option does not apply.
    """
    raw = _open_dataset(dataset, raw_dir, options)
    if options.test_start is not None and dataset in ("alibaba", "parquet"):
        time_zone = raw.schema.time_zone
        time = time_zone.start_of_day(options.test_start)
        split = FromTime(time=time, rule=describe_day(time, time_zone))
        raw = dataclasses.replace(raw, split=split)
    raw = with_asked_statistics(dataset, raw, options.statistics)
    if options.time_fields is None:
        return raw
    return raw.with_time_fields(options.time_fields)


def _open_dataset(dataset: str, raw_dir: Path, options: Options) -> RawDataset:
    if options.schema_file is not None and dataset != "parquet":
        raise InputError(f"--schema does not apply to {dataset}.")
    if options.eleme is not None and dataset != "eleme":
        raise InputError(
            "--train_days, --test_days, --first_day, --timediff_unit and "
            f"--drop_corrupted_rows do not apply to {dataset}."
        )
    if dataset == "kuairand":
        return open_kuairand(raw_dir, test_start=options.test_start)
    if dataset == "ebnerd":
        return open_ebnerd(raw_dir, test_start=options.test_start)
    if dataset == "parquet":
        if options.schema_file is None:
            raise InputError(
                "--schema is missing: the file that says what the tables of "
                "--dataset=parquet are (docs/own_tables.md)."
            )
        return open_own_tables(options.schema_file, raw_dir)
    if dataset == "alibaba":
        return open_alibaba(raw_dir)
    if options.test_start is not None:
        raise InputError(f"--test_start does not apply to {dataset}.")
    if dataset == "eleme":
        return open_eleme(raw_dir, options.eleme)
    if dataset == "movielens":
        return open_movielens(raw_dir)
    if dataset == "completejourney":
        return open_completejourney(raw_dir)
    raise ValueError(
        f"`dataset` must be one of {DATASETS}. Received: dataset={dataset!r}"
    )
