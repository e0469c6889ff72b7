"""Raw Alibaba files of any size, for measuring and for nothing else.

Random rows in the published schema, with the published numbers of users, ids
and repeated rows to so many behaviors. Nothing in them can be learned:
`data_pipelines.synthetic_alibaba` makes files for that.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from data_pipelines.datasets.alibaba import (
    END_TIME,
    FIRST_BEHAVIOR_TIME,
    FIRST_SAMPLE_TIME,
)
from data_pipelines.synthetic_alibaba import MARKER
from sparsectr.process.progress import Progress

Array = npt.NDArray[Any]

PUBLISHED_BEHAVIORS = 723_268_134
_PUBLISHED_IMPRESSIONS = 26_557_961
_PUBLISHED_USERS = 1_141_729
_NUM_ADS = 846_811
_NUM_CATEGORIES = 12_977
_NUM_BRANDS = 461_497
_REPEATED_SHARE = 0.07
_IMPOSSIBLE_SHARE = 26_278 / PUBLISHED_BEHAVIORS
_KIND_SHARES = {"pv": 0.950, "cart": 0.024, "fav": 0.014, "buy": 0.012}

_CHUNK = 2_000_000


def write_made_files(folder: Path, num_behaviors: int) -> None:
    """Writes the four files with as many behaviors, the same at each call.

    Args:
        folder: Where they go; made if it is not there.
        num_behaviors: Rows of the behavior log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("Random rows for benchmarks.\n", "utf-8")
    generator = np.random.default_rng(0)
    share = num_behaviors / PUBLISHED_BEHAVIORS
    num_users = max(int(_PUBLISHED_USERS * share), 10)
    _write_log(folder / "behavior_log.csv", generator, num_behaviors, num_users)
    _write_samples(
        folder / "raw_sample.csv",
        generator,
        max(int(_PUBLISHED_IMPRESSIONS * share), 100),
        num_users,
    )
    _write_ads(folder / "ad_feature.csv", generator)
    _write_users(folder / "user_profile.csv", generator, num_users)


def _write_log(
    path: Path, generator: np.random.Generator, num_rows: int, num_users: int
) -> None:
    kinds = np.array(list(_KIND_SHARES))
    shares = np.array(list(_KIND_SHARES.values()))
    with (
        path.open("wb") as file,
        Progress(f"writing {path.name}", num_rows, "row") as progress,
    ):
        file.write(b"user,time_stamp,btag,cate,brand\n")
        for start in range(0, num_rows, _CHUNK):
            count = min(_CHUNK, num_rows - start)
            time = generator.integers(FIRST_BEHAVIOR_TIME, END_TIME, count)
            time[generator.random(count) < _IMPOSSIBLE_SHARE] = -1
            columns = {
                "user": generator.integers(1, num_users + 1, count),
                "time_stamp": time,
                "btag": kinds[generator.choice(4, count, p=shares)],
                "cate": _skewed(generator, count, _NUM_CATEGORIES),
                "brand": _skewed(generator, count, _NUM_BRANDS),
            }
            # Repeated rows stand anywhere in the chunk, as in the real file.
            copied = generator.random(count) < _REPEATED_SHARE
            source = generator.integers(0, count, int(copied.sum()))
            for column in columns.values():
                column[copied] = column[source]
            _append(file, columns)
            progress.advance(count)


def _write_samples(
    path: Path, generator: np.random.Generator, num_rows: int, num_users: int
) -> None:
    with path.open("wb") as file:
        file.write(b"user,time_stamp,adgroup_id,pid,nonclk,clk\n")
        for start in range(0, num_rows, _CHUNK):
            count = min(_CHUNK, num_rows - start)
            click = (generator.random(count) < 0.0514).astype(np.int64)
            _append(
                file,
                {
                    "user": generator.integers(1, num_users + 1, count),
                    "time_stamp": generator.integers(
                        FIRST_SAMPLE_TIME, END_TIME, count
                    ),
                    "adgroup_id": _skewed(generator, count, _NUM_ADS),
                    "pid": np.array(["430548_1007", "430539_1007"])[
                        generator.integers(0, 2, count)
                    ],
                    "nonclk": 1 - click,
                    "clk": click,
                },
            )


def _write_ads(path: Path, generator: np.random.Generator) -> None:
    brand = _skewed(generator, _NUM_ADS, _NUM_BRANDS).astype(str)
    brand[generator.random(_NUM_ADS) < 0.29] = "NULL"
    with path.open("wb") as file:
        file.write(b"adgroup_id,cate_id,campaign_id,customer,brand,price\n")
        _append(
            file,
            {
                "adgroup_id": np.arange(1, _NUM_ADS + 1),
                "cate_id": _skewed(generator, _NUM_ADS, _NUM_CATEGORIES),
                "campaign_id": generator.integers(1, 423_437, _NUM_ADS),
                "customer": generator.integers(1, 255_876, _NUM_ADS),
                "brand": brand,
                "price": np.round(generator.lognormal(5, 1.5, _NUM_ADS), 2),
            },
        )


def _write_users(
    path: Path, generator: np.random.Generator, num_users: int
) -> None:
    user = np.flatnonzero(generator.random(num_users) < 0.93) + 1
    count = len(user)
    columns = {
        "userid": user,
        "cms_segid": generator.integers(0, 97, count),
        "cms_group_id": generator.integers(0, 13, count),
        "final_gender_code": generator.integers(1, 3, count),
        "age_level": generator.integers(0, 7, count),
        "pvalue_level": generator.integers(1, 4, count),
        "shopping_level": generator.integers(1, 4, count),
        "occupation": generator.integers(0, 2, count),
        "new_user_class_level ": generator.integers(1, 5, count),
    }
    with path.open("wb") as file:
        file.write((",".join(columns) + "\n").encode())
        _append(file, columns)


def _skewed(generator: np.random.Generator, count: int, size: int) -> Array:
    """Returns ids from 1 to `size`, few of them frequent."""
    spread = generator.random(count) ** 3
    return (spread * size).astype(np.int64) + 1


def _append(file: Any, columns: dict[str, Array]) -> None:
    options = pyarrow.csv.WriteOptions(
        include_header=False, quoting_style="none"
    )
    pyarrow.csv.write_csv(pa.table(columns), file, options)
