"""Which raw value means missing, where there are no nulls: in a tensor."""

import itertools
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.vocabulary import Vocabulary
from export.contract.signature import MISSING_INTEGER, MISSING_TEXT


def missing_values(
    vocabularies: Mapping[str, Vocabulary],
) -> dict[str, int | str]:
    r"""Returns the value of each table that stands for a null.

    It is the int64 minimum or the empty text. A vocabulary may hold that one
    as a value like any other: then it is the next integer, or the first of
    "\0missing", "\0\0missing" and so on, that it does not hold.

    Args:
        vocabularies: The vocabulary of each table.
    """
    return {name: _missing_value(v) for name, v in vocabularies.items()}


def _missing_value(vocabulary: Vocabulary) -> int | str:
    values: Iterable[int | str] = itertools.count(MISSING_INTEGER)
    if vocabulary.table.value_type == "string":
        others = ("\0" * n + "missing" for n in itertools.count(1))
        values = itertools.chain([MISSING_TEXT], others)
    return next(value for value in values if not _holds(vocabulary, value))


def _holds(vocabulary: Vocabulary, value: int | str) -> bool:
    known = vocabulary.values
    if known is None:
        return False
    return bool(pc.index(known, pa.scalar(value, known.type)).as_py() >= 0)
