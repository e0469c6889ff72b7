"""Operations on arrow tables that several data sets need."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc


def drop_duplicates(
    table: pa.Table, columns: Sequence[str]
) -> tuple[pa.Table, int]:
    """Returns the first of all rows equal in `columns`, and how many went."""
    keys = table.select(list(columns)).to_pandas()
    kept = ~keys.duplicated().to_numpy()
    return table.filter(pa.array(kept)), int((~kept).sum())


def look_up(
    table: pa.Table, key: str, features: pa.Table
) -> tuple[pa.Table, int]:
    """Adds the other columns of `features` by `key`, null where it is absent.

    Returns:
        The table with them, and how many of its rows found nothing.
    """
    place = pc.index_in(table[key], value_set=features[key])
    for name in features.column_names:
        if name != key:
            table = table.append_column(name, features[name].take(place))
    return table, place.null_count
