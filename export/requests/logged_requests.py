"""Requests as they were logged, and what the store has for the very same."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_pipelines.preparation.sampled_requests import MOST_BEHAVIORS
from data_pipelines.reading.batches import Batches
from data_pipelines.requests.padding import (
    BEHAVIOR_TIME,
    check_request,
    keep_known,
    keep_newest,
    num_behaviors,
    pad,
)
from data_pipelines.requests.raw_tensors import request_types
from data_pipelines.requests.request_table import RequestTable
from data_pipelines.stores.store import Store
from sparsectr.config import DataConfig
from sparsectr.errors import InputError
from sparsectr.schema import DatasetSchema

Batch = dict[str, npt.NDArray[Any]]

_ROWS = 64
"""Requests that are read at a time."""


class LoggedBatch(NamedTuple):
    """Requests of one shape.

    Attributes:
        raw: The inputs of `serving_default`, as a client pads them.
        ids: What the training reader makes of the rows of the store.
    """

    raw: Batch
    ids: Batch


def logged_batches(
    store: Store,
    config: DataConfig,
    batch_size: int,
) -> Iterator[LoggedBatch]:
    """Yields the sampled requests of a store, the longest histories first.

    Args:
        store: Where they come from.
        config: Lengths, buckets and delay of the run. Longer histories than
            a sample has are read no further.
        batch_size: Requests of a batch, at most.

    Raises:
        InputError: If the store keeps no request as it was logged.
    """
    if store.sampled_requests is None:
        raise InputError(
            f"{store.path} keeps no logged requests to warm up and to verify "
            "with. Prepare it again with --sample_requests; its ids and its "
            "runs stay good."
        )
    config = dataclasses.replace(
        config, max_history=min(config.max_history, MOST_BEHAVIORS)
    )
    requests = _read(store.sampled_requests, store.schema)
    if config.history_delay:
        requests = _known(requests, config)
    requests.sort(key=lambda pair: -num_behaviors(pair[1]))
    reader = Batches(store, "test", config, batch_size, None)
    for start in range(0, len(requests), batch_size):
        numbers, logged = zip(
            *requests[start : start + batch_size], strict=True
        )
        ids = reader.batch_of(np.array(numbers))
        length, width = ids[BEHAVIOR_TIME].shape[1], ids["label"].shape[1]
        newest = [keep_newest(request, length) for request in logged]
        yield LoggedBatch(pad(newest, length, width), ids)


def _known(
    requests: list[tuple[int, Batch]], config: DataConfig
) -> list[tuple[int, Batch]]:
    """Returns the requests with what was known of their histories.

    Not those of which the sample has too little then.
    """
    known = [
        (number, keep_known(request, config.history_delay))
        for number, request in requests
    ]
    enough = [
        pair
        for pair, (_, logged) in zip(known, requests, strict=True)
        if num_behaviors(logged) < MOST_BEHAVIORS
        or num_behaviors(pair[1]) >= config.max_history
    ]
    if requests and not enough:
        raise InputError(
            f"Of each logged request the store keeps {MOST_BEHAVIORS} "
            f"behaviors, and fewer than {config.max_history} of them are "
            f"older than history_delay={config.history_delay}."
        )
    return enough


def _read(path: Path, schema: DatasetSchema) -> list[tuple[int, Batch]]:
    """Returns each request's number in the store, and its raw values."""
    types = request_types(schema)
    table = RequestTable(path, types)
    return [
        (number, check_request(request, types, f"{path}, request {number}"))
        for rows, requests in table.batches(_ROWS)
        for number, request in zip(
            rows["request"].to_pylist(), requests, strict=True
        )
    ]
