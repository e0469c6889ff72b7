"""TFRecord files, without TensorFlow.

A record is its length (8 bytes), a checksum of that (4), the content, and a
checksum of that (4), all little-endian. The checksum is a masked CRC-32C.
"""

import functools
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsectr.errors import InputError

Array = npt.NDArray[Any]

_POLYNOMIAL = 0x82F63B78
"""Of CRC-32C (Castagnoli), bits reversed."""

# Bytes of a block. The blocks of a content are read side by side, byte by
# byte, so that a megabyte takes milliseconds instead of half a second.
_BLOCK = 1024


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
    crc = crc32c(content)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)


def crc32c(content: bytes) -> int:
    """Returns the CRC-32C of `content`."""
    table = _table()
    whole = len(content) // _BLOCK * _BLOCK
    crc = np.uint32(0xFFFFFFFF)
    if whole:
        blocks = np.frombuffer(content[:whole], np.uint8)
        blocks = blocks.reshape(-1, _BLOCK).T
        # Of every block by itself, from the state 0.
        states = np.zeros(blocks.shape[1], np.uint32)
        for row in blocks:
            states = table[(states ^ row) & 0xFF] ^ states >> 8
        # The CRC is linear: the state before a block passes through as many
        # zeros and is added to the block's own.
        skip = _through_zeros()
        for state in states.tolist():
            value = int(crc)
            crc = np.uint32(
                skip[0][value & 0xFF]
                ^ skip[1][value >> 8 & 0xFF]
                ^ skip[2][value >> 16 & 0xFF]
                ^ skip[3][value >> 24]
                ^ state
            )
    value = int(crc)
    entries = table.tolist() if len(content) > whole else []
    for byte in content[whole:]:
        value = entries[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


@functools.cache
def _table() -> Array:
    """Returns what each byte does to the state, uint32 `[256]`."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        odd = (table & 1).astype(bool)
        table = np.where(odd, table >> 1 ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


@functools.cache
def _through_zeros() -> list[list[int]]:
    """Returns what a block of zeros makes of each byte of a state."""
    table = _table()
    states = np.arange(256, dtype=np.uint32) << np.array(
        [[0], [8], [16], [24]], np.uint32
    )
    for _ in range(_BLOCK):
        states = table[states & 0xFF] ^ states >> 8
    return states.tolist()
