"""Rows of raw files as texts, packed or not, read whole and plainly."""

import csv
import gzip
import io
import tarfile
from pathlib import Path

import numpy as np


def read_rows(
    raw_dir: Path, name: str, *, quoted: bool = False
) -> list[dict[str, str]]:
    """Returns the rows of a file with a header as texts by column."""
    lines = read_text(raw_dir, name).replace("\r\n", "\n").split("\n")[:-1]
    header, *rows = (
        csv.reader(lines) if quoted else (line.split(",") for line in lines)
    )
    columns = [column.strip() for column in header]
    return [dict(zip(columns, row, strict=True)) for row in rows]


def read_text(raw_dir: Path, name: str, encoding: str = "utf-8-sig") -> str:
    """Returns the text of the file called `name`, however it is packed."""
    for path in raw_dir.glob(f"{name}*"):
        data = path.read_bytes()
        if path.name.endswith(".tar.gz"):
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                member = archive.extractfile(name)
                assert member is not None
                data = member.read()
        elif path.name.endswith(".gz"):
            data = gzip.decompress(data)
        return data.decode(encoding)
    raise FileNotFoundError(f"{raw_dir} has no {name}")


def whole(text: str) -> int | None:
    """Returns a whole number, `None` where it is missing."""
    return None if text in ("", "NULL") else int(text)


def number(text: str) -> float | None:
    """Returns the float32 nearest to a number, `None` where it is missing."""
    # Through a double: with less than 17 digits it is not rounded twice.
    return None if text in ("", "NULL") else float(np.float32(float(text)))
