"""Which statistics the candidates of a data set get."""

import dataclasses
from collections.abc import Mapping, Sequence

from data_pipelines.datasets import alibaba, ebnerd, kuairand, movielens
from data_pipelines.raw.raw_dataset import RawDataset
from sparsectr.errors import InputError
from sparsectr.statistic import Statistic

_STATISTICS: Mapping[str, Sequence[Statistic]] = {
    "alibaba": alibaba.STATISTICS,
    "ebnerd": ebnerd.STATISTICS,
    "movielens": movielens.STATISTICS,
    "kuairand": kuairand.STATISTICS,
}


def with_asked_statistics(
    name: str, dataset: RawDataset, asked: bool | None
) -> RawDataset:
    """Returns a data set with the statistics that are asked for.

    Args:
        name: What `data_pipelines.prepare` calls the data set.
        dataset: The data set, with what a schema file asks for.
        asked: Whether they are wanted; `None` for what a schema file says.

    Raises:
        InputError: If there are none to add.
    """
    schema = dataset.schema
    if asked is None:
        return dataset
    if not asked:
        schema = schema.without_statistics()
    elif name == "parquet":
        if not schema.statistics:
            raise InputError(
                "--statistics: the file of --schema has no section "
                "[statistics.NAME] that says which (docs/own_tables.md)."
            )
    elif name in _STATISTICS:
        schema = schema.with_statistics(_STATISTICS[name])
    else:
        raise InputError(
            f"--statistics: {name} has none; {', '.join(_STATISTICS)} and "
            "schema files have."
        )
    return dataclasses.replace(dataset, schema=schema)
