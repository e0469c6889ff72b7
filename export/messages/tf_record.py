"""TFRecord files, without TensorFlow.

A record is its length (8 bytes), a checksum of that (4), the content, and a
checksum of that (4), all little-endian. The checksum is a masked CRC-32C.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

import google_crc32c

from sparsectr.errors import InputError


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Writes a TFRecord file."""
    with path.open("wb") as file:
        for record in records:
            length = struct.pack("<Q", len(record))
            file.write(length + _checksum(length))
            file.write(record + _checksum(record))


def read_records(path: Path) -> list[bytes]:
    """Returns the records of a TFRecord file.

    Raises:
        InputError: If the file is damaged.
        OSError: If it cannot be read.
    """
    content = path.read_bytes()
    records, place = [], 0
    while place < len(content):
        header = content[place : place + 8]
        if _checksum(header) != content[place + 8 : place + 12]:
            raise InputError(f"{path} is damaged at byte {place}.")
        end = place + 12 + struct.unpack("<Q", header)[0]
        record = content[place + 12 : end]
        if _checksum(record) != content[end : end + 4]:
            raise InputError(f"{path} is damaged at byte {place + 12}.")
        records.append(record)
        place = end + 4
    return records


def _checksum(content: bytes) -> bytes:
    """Returns the masked CRC-32C as it is written."""
    crc = google_crc32c.value(content)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)
