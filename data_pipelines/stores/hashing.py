"""Hashes of columns: the same for the same values, whatever the machine."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from farmhash import Fingerprint64

Array = npt.NDArray[Any]

FINGERPRINTS = 2**63 - 1
"""As many fingerprints of texts as TensorFlow can tell apart."""


def split_mix(
    numbers: Any,
    right_shift: Callable[[Any, Any], Any] = np.right_shift,
    uint64: Callable[[int], Any] = np.uint64,
) -> Any:
    """The finalizer of SplitMix64, in any library of arrays.

    Args:
        numbers: uint64 numbers of the library.
        right_shift: Its shift of unsigned numbers.
        uint64: Makes one of its numbers.
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = numbers ^ right_shift(numbers, uint64(shift))
        numbers = numbers * uint64(factor)
    return numbers ^ right_shift(numbers, uint64(31))


def mix(numbers: Array) -> Array:
    """Returns uint64 numbers spread evenly over all of them.

    Raw ids are often consecutive or share a factor, which a plain remainder
    would map to few rows.

    Args:
        numbers: Integers of any dtype, taken as 64 bits.
    """
    mixed: Array = split_mix(numbers.astype(np.int64).view(np.uint64))
    return mixed


def fingerprints(texts: pa.ChunkedArray | pa.Array) -> Array:
    """Returns a uint64 for each text, the same as in a served graph.

    Google's Fingerprint64 modulo `FINGERPRINTS`, as
    `tf.strings.to_hash_bucket_fast` has it.

    Args:
        texts: Texts without a null.
    """
    encoded = texts.cast(pa.binary()).to_pylist()
    found = np.fromiter(map(Fingerprint64, encoded), np.uint64, len(encoded))
    return found % np.uint64(FINGERPRINTS)


def hash_ids(ids: pa.ChunkedArray | pa.Array) -> Array:
    """Returns a uint64 for each id, an int64 or a text."""
    if pa.types.is_integer(ids.type):
        return mix(ids.to_numpy(zero_copy_only=False))
    encoded = ids.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    values = np.array(encoded.dictionary.to_pylist(), object)
    hashed = pd.util.hash_array(values) if len(values) else np.zeros(0, "u8")
    return np.asarray(hashed[encoded.indices.to_numpy()], np.uint64)


def hash_rows(columns: Sequence[Array]) -> Array:
    """Returns a uint64 for each row, of all its values in their order.

    Args:
        columns: Integers, or floats, which count by their bits.
    """
    hashed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        if column.dtype == np.float32:
            column = column.view(np.int32)
        hashed = mix((hashed + np.uint64(0x9E3779B97F4A7C15)) ^ mix(column))
    return hashed
