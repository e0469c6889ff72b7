"""What tells one store from another, whatever their paths and sizes."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from sparsectr.schema import DatasetSchema


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreIdentity:
    """What a run keeps of the store that it was trained on.

    Args:
        schema: Schema of the store, with sizes, means and scales.
        vocabularies: SHA-256 of the file of each vocabulary, by its table.
        content: Digest of all rows (`data_pipelines/stores/content_digest.py`).
        num_shards: Shards, which the order of the batches depends on.
        updates: Digest of each update, of a store that days can be added to.
        test_time: Unix seconds at which the test begins; `None` where the
            store does not say.
    """

    schema: DatasetSchema
    vocabularies: Mapping[str, str]
    content: str
    num_shards: int
    updates: Sequence[str] = ()
    test_time: int | None = None

    @classmethod
    def of(cls, store: Store) -> "StoreIdentity":
        """Returns the identity of a store.

        Raises:
            InputError: If a vocabulary cannot be read, or the manifest has no
                digest of the content.
        """
        vocabularies = {}
        for table in store.schema.tables:
            if table.kind == "hashed":
                continue
            path = store.vocabulary_file(table.name)
            try:
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256")
            except OSError as error:
                raise InputError(f"{path} is damaged: {error}") from error
            vocabularies[table.name] = found.hexdigest()
        if "content" not in store.manifest:
            raise InputError(
                f"{store.path}: the manifest has no `content`. Prepare the "
                "data again."
            )
        return cls(
            schema=store.schema,
            vocabularies=vocabularies,
            content=str(store.manifest["content"]),
            num_shards=len(store.shards),
            updates=[update.content for update in store.updates],
            test_time=store.manifest.get("split", {}).get("test_time"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns all but the schema as values for JSON."""
        return {
            "content": self.content,
            "num_shards": self.num_shards,
            "vocabularies": dict(self.vocabularies),
            "updates": list(self.updates),
            "test_time": self.test_time,
        }

    def other_ids(self, other: "StoreIdentity") -> str | None:
        """Says why the ids of another store mean other things, if they do."""
        schemas = self.schema, other.schema
        parts = [
            field.name
            for field in dataclasses.fields(DatasetSchema)
            if len({getattr(schema, field.name) for schema in schemas}) > 1
        ]
        if parts:
            return f"the schemas differ in {', '.join(parts)}"
        tables = [
            table
            for table, expected in self.vocabularies.items()
            if other.vocabularies[table] != expected
        ]
        if tables:
            return f"the vocabularies of {', '.join(tables)} differ"
        return None

    def other_rows(self, other: "StoreIdentity") -> str | None:
        """Says what would make batches of another store others, if it does."""
        if self.content != other.content:
            return "the rows differ (`content` of the manifest)"
        if self.num_shards != other.num_shards:
            return f"it has {other.num_shards} shards and not {self.num_shards}"
        return None
