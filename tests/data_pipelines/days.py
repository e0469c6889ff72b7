"""Raw files of several days, and those of each by itself."""

import csv
import datetime
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipelines.synthetic_alibaba import write_sample

ALIBABA_DAYS = ("2017-05-12", "2017-05-13")
"""Days that are added; what is before them is what a store begins with."""

_TIMED = ("raw_sample.csv", "behavior_log.csv")

SHOP = """
utc_offset_hours = 0
behaviors = "impressions"
[impressions]
files = "shown*.parquet"
user = "who"
item = "sku"
time = "at"
label = "clicked"
drop_duplicates = true
[items]
files = "things.parquet"
item = "sku"
[user_fields]
device = "impressions.device"
[behavior_fields]
thing = "impressions.sku"
brand = "items.brand"
[candidate_fields]
thing = "impressions.sku"
brand = "items.brand"
[candidate_dense_fields]
price = { column = "items.price", transform = "log1p" }
[tables.thing]
min_count = 3
[statistics.things]
of = "thing"
windows = ["1d", "all"]
[split]
last_day = true
"""
"""Histories are the impressions before."""

SHOP_TIME = 1_600_041_600
"""Midnight of 2020-09-14."""

_DAY = 86_400


def write_alibaba_days(folder: Path, num_users: int = 30) -> list[Path]:
    """Writes a synthetic sample and its days, and returns their folders.

    Returns:
        That of everything, of the days before those of `ALIBABA_DAYS`, and of
        each of these.
    """
    write_sample(folder / "all", num_users=num_users, seed=5)
    starts = [
        int(datetime.datetime.fromisoformat(f"{day}T00:00+08:00").timestamp())
        for day in ALIBABA_DAYS
    ]
    names = ["before", *ALIBABA_DAYS]
    for name in names:
        (folder / name).mkdir()
    for path in (folder / "all").iterdir():
        if path.name not in _TIMED:
            for name in names:
                (folder / name / path.name).write_bytes(path.read_bytes())
            continue
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
        at = header.index("time_stamp")
        # Impossible times belong to no day; the first has them.
        times = np.array([int(row[at]) for row in rows])
        times[times > starts[-1] + _DAY] = 0
        day = np.searchsorted(starts, times, side="right")
        for number, name in enumerate(names):
            chosen = [r for r, d in zip(rows, day, strict=True) if d == number]
            with (folder / name / path.name).open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(
                    [header, *chosen]
                )
    return [folder / "all", *(folder / name for name in names)]


def write_shop_days(folder: Path, num_days: int = 3) -> list[Path]:
    """Writes one's own tables of some days; returns as `write_alibaba_days`.

    Some rows of a user are of one second. New things come day by day.
    """
    generator = np.random.default_rng(11)
    size = 130 * num_days
    day = np.sort(generator.integers(0, num_days, size))
    shown: Mapping[str, object] = {
        "who": generator.integers(0, 25, size),
        "at": SHOP_TIME + day * _DAY + generator.integers(0, 90, size),
        "device": generator.choice(["tv", "pc"], size),
        # The later a thing, the later it is seen first.
        "sku": generator.integers(0, 40 + 20 * day),
        "clicked": generator.integers(0, 2, size),
    }
    table = pa.table(shown)
    things = pa.table(
        {
            "sku": np.arange(90),
            "brand": [f"brand {n % 7}" for n in range(90)],
            "price": np.linspace(1.0, 9.0, 90),
        }
    )
    folders = [folder / "all", *(folder / f"day{n}" for n in range(num_days))]
    for number, path in enumerate(folders):
        path.mkdir(parents=True)
        chosen = np.full(size, True) if not number else day == number - 1
        own = table.filter(pa.array(chosen))
        pq.write_table(own, path / "shown.parquet")
        of_day = pc.is_in(things["sku"], value_set=pc.unique(own["sku"]))
        pq.write_table(things.filter(of_day), path / "things.parquet")
    return folders
