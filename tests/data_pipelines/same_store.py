"""What two stores of the same rows have in common."""

from typing import Any

import pyarrow.parquet as pq

from data_pipelines.stores.store import Store


def said_of(store: Store) -> dict[str, Any]:
    """Returns all that a store says of its rows, and not how it was made."""
    said: dict[str, Any] = {
        name: store.manifest[name]
        for name in (
            "content",
            "counts",
            "rows",
            "dropped",
            "incomplete",
            "out_of_vocabulary",
            "split",
            "schema",
        )
    }
    if store.sampled_requests is not None:
        # The number of a request depends on the shards.
        table = pq.read_table(store.sampled_requests)
        said["sampled_requests"] = table.drop_columns(["request"])
    for path in sorted((store.path / "vocabularies").iterdir()):
        said[path.name] = path.read_text("utf-8")
    return said
