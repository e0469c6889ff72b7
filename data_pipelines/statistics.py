r"""What a feature store would serve at a moment, from the counts of a store.

    python -m data_pipelines.statistics --store=data/alibaba \
        --as_of=2017-05-13T18:00 --output=served

A store that was prepared with statistics keeps impressions and clicks of each
value by time. This writes, for a request at --as_of, the numbers that the
preparation gives a candidate, by the same code:

    served/<statistic>.parquet   one row a value: its columns, as requests
                                 call them (candidate_brand; user_id), and its
                                 numbers (candidate_brand_rate_3d)
    served/statistics.json       from when to when they are good, what they
                                 count, and the numbers of any other value

A value that nobody was shown before is in no row. It has 0 impressions and
clicks, the rate of all candidates, and no age: `unseen` in the JSON file, null
for NaN. A missing value has NaN everywhere.
"""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_pipelines.candidate_statistics.served_numbers import ServedNumbers
from data_pipelines.parquet_writer import parquet_writer
from data_pipelines.stores.new_folder import new_folder
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from sparsectr.file_systems.local_copy import local_copy
from sparsectr.process import command
from sparsectr.process.progress import Progress
from sparsectr.time_zone import LATEST_TIME, TimeZone

INDEX = "statistics.json"
"""The file that says what the others hold."""


def write_served(store: Store, time: int, output: Path) -> dict[str, Any]:
    """Writes the numbers of all values at a moment.

    Args:
        store: A store with statistics.
        time: Unix seconds.
        output: A folder that does not exist, or is empty.

    Returns:
        What `INDEX` says.

    Raises:
        InputError: If the store has no statistics, or `output` is taken.
        OSError: If the disk is full or not writable.
    """
    statistics = store.schema.statistics
    if not statistics:
        raise InputError(
            f"{store.path} has no statistics: prepare it with --statistics, "
            "or with sections [statistics.NAME] in the file of --schema."
        )
    described: dict[str, Any] = {}
    with (
        new_folder(output) as folder,
        Progress("writing statistics", len(statistics), "table") as progress,
    ):
        for statistic in statistics:
            served = ServedNumbers(store.newest, statistic, time)
            name = f"{statistic.name}.parquet"
            num_values = 0
            with parquet_writer(folder / name, served.schema) as write:
                for part in served.parts():
                    num_values += len(part)
                    for batch in part.to_batches():
                        write(batch)
            described[statistic.name] = {
                "file": name,
                "values": num_values,
                "fields": list(statistic.fields),
                "good_from": served.begin,
                "good_until": served.begin + statistic.bucket,
                "counted_before": served.end,
                "unseen": served.unseen(),
            }
            progress.advance(1)
        index = {"as_of": time, "statistics": described}
        text = json.dumps(index, indent=2, allow_nan=False)
        (folder / INDEX).write_text(text + "\n", "utf-8")
    return index


def parse_time(text: str, time_zone: TimeZone) -> int:
    """Returns Unix seconds.

    Args:
        text: Such seconds, or a date with or without a time in ISO 8601.
        time_zone: That of a date that has none.

    Raises:
        InputError: If it is neither, or not from 1970 to 2100.
    """
    if text.isdecimal():
        time = int(text)
    else:
        try:
            moment = datetime.datetime.fromisoformat(text)
        except ValueError as error:
            raise InputError(
                "--as_of must be Unix seconds, or a date such as 2022-04-29 "
                f"or 2022-04-29T18:00. Received: {text}"
            ) from error
        if moment.tzinfo is None:
            moment = time_zone.attach(moment)
        time = int(moment.timestamp())
    if not 0 < time < LATEST_TIME:
        raise InputError(
            f"--as_of must be from 1970 to 2100, in seconds. Received: {text}"
        )
    return time


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("store", None, "Folder of the store.", required=True)
    flags.DEFINE_string(
        "as_of",
        None,
        "When a request would come: Unix seconds, or a date such as "
        "2022-04-29T18:00, in the data set's own time zone if it has none.",
        required=True,
    )
    flags.DEFINE_string(
        "output",
        None,
        "Folder to write. It must not exist, or be empty.",
        required=True,
    )


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    store = Store(local_copy(values.store))
    time = parse_time(values.as_of, store.schema.time_zone)
    index = write_served(store, time, Path(values.output))
    for name, said in index["statistics"].items():
        print(
            f"{values.output}/{said['file']}: {name} of {said['values']:,} "
            f"values, good for requests of Unix seconds {said['good_from']} "
            f"to {said['good_until'] - 1}"
        )


if __name__ == "__main__":
    define_flags()
    command.run(main)
