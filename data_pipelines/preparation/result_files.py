"""What a step leaves for the next one: files that are whole or not there."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa


def write_json(path: Path, values: Any, indent: int | None = 2) -> None:
    """Writes values that JSON has."""
    hidden = _hidden(path)
    text = json.dumps(values, indent=indent, allow_nan=False)
    hidden.write_text(text + "\n", "utf-8")
    hidden.replace(path)


def write_arrow(path: Path, table: pa.Table) -> None:
    """Writes a table as an Arrow file."""
    hidden = _hidden(path)
    with (
        pa.OSFile(str(hidden), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)
    hidden.replace(path)


def read_arrow(path: Path) -> pa.Table:
    """Returns what `write_arrow` wrote, in memory."""
    with pa.OSFile(str(path), "rb") as file:
        return pa.ipc.open_file(file).read_all()


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")
