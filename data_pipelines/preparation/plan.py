"""What a preparation is asked for."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.preparation.engine import Engine
from data_pipelines.preparation.working_folder import folder_of
from data_pipelines.raw.raw_dataset import RawDataset
from data_pipelines.raw.split_rule import SplitRule
from data_pipelines.stores.store import Store


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be prepared.

    Args:
        dataset: The raw tables.
        data_dir: Folder of the store. It must not exist, or be empty.
        num_shards: Into how many shards users are spread.
        range_bytes: Bytes of raw files that are read at once by a process.
        sample_requests: Requests that the store keeps as they were logged,
            at most.
        validation: Which requests before the test are the validation; `None`
            for the newest tenth.
        can_grow: Whether days can be added to the store later.
        base: The store that these days are added to, `data_dir`; `None` to
            make a store.
        details: More entries of the manifest.
    """

    dataset: RawDataset
    data_dir: Path
    num_shards: int
    range_bytes: int
    sample_requests: int
    validation: SplitRule | None = None
    can_grow: bool = False
    base: Store | None = None
    details: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where the work is done."""
        return folder_of(self.data_dir)

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked for, as far as the store depends on it.

        The manifest keeps it, with the digests of the raw files beside it.
        """
        details = {k: v for k, v in self.details.items() if k != "versions"}
        asked = {
            "num_shards": self.num_shards,
            "sample_requests": self.sample_requests,
            "details": details,
            "schema": json.loads(self.dataset.schema.to_json()),
            "split": repr(self.dataset.split),
            "validation": repr(self.validation),
        }
        return asked | ({"can_grow": True} if self.can_grow else {})

    def to_dict(self, engine: Engine) -> dict[str, Any]:
        """Returns what a resumed preparation must have in common with this."""
        return {
            "engine": engine.name,
            "range_bytes": self.range_bytes,
            **self.asked,
            "base": self.base and self.base.manifest["content"],
            "details": dict(self.details),
            "files": [
                [str(source.path), *source.state()]
                for source in self.dataset.sources
            ],
        }
