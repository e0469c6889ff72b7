"""Reads a part of a store with a run's model, and sums up its attention."""

import sys
from typing import Any, NamedTuple

from data_pipelines.reading.batches import Batches
from data_pipelines.reading.reader import element_spec, read
from sparsectr.errors import InputError
from sparsectr.inspection.attention_report import BranchReport, report_of
from sparsectr.inspection.attention_sums import (
    AttentionSums,
    Branch,
    Sums,
    added,
    check_traced,
)
from sparsectr.process.progress import Progress
from sparsectr.training.load_model import load_model, open_store
from sparsectr.training.run_directory import RunDirectory

_SEED = 0
"""Of the order of the requests, of which a sample is the first."""


class Inspection(NamedTuple):
    """What was read, and how.

    Attributes:
        workdir: Folder of the run.
        dataset: Name of the data set.
        content: Digest of the store's rows.
        split: Part of the store.
        num_requests: Requests that were read.
        checkpoint: "best" or "last".
        step: Of the checkpoint.
        weights: Which weights, as in `result.json`.
        attention: `--model.attention`.
        sink: `--model.sink`.
        branches: Of all blocks, branches and kinds of queries.
    """

    workdir: str
    dataset: str
    content: str
    split: str
    num_requests: int
    checkpoint: str
    step: int
    weights: str
    attention: str
    sink: str
    branches: list[BranchReport]

    def heading(self) -> str:
        """Returns in one line what was read."""
        return (
            f"{self.workdir}, {self.checkpoint} checkpoint (step {self.step}): "
            f"attention={self.attention}, sink={self.sink}; "
            f"{self.num_requests:,} requests of {self.dataset}'s {self.split}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns all of it as JSON has it."""
        branches = [branch.to_dict() for branch in self.branches]
        return {**self._asdict(), "branches": branches}


def inspect_run(
    run: RunDirectory,
    data_dir: str | None,
    split: str,
    *,
    batch_size: int,
    max_requests: int | None,
) -> Inspection:
    """Sums up what a run's attention reads.

    Args:
        run: The run.
        data_dir: The store; `None` for where it was in training.
        split: Part of the store.
        batch_size: Requests at a time.
        max_requests: Requests to read, rounded up to whole batches; `None`
            for all.

    Raises:
        InputError: If the run's model has no attention to inspect, or there
            is nothing to read.
    """
    store = open_store(run, data_dir)
    trained = load_model(run)
    model = check_traced(trained.model)
    train = trained.config.train
    if split == "validation" and not train.validation:
        print("note: this run has trained on the validation", file=sys.stderr)
    batches = Batches(store, split, trained.config.data, batch_size, _SEED)
    num_batches, num_requests = batches.num_batches, batches.num_requests
    if not num_requests:
        raise InputError(f"{store.path} has no requests of {split}.")
    if max_requests is not None:
        num_batches, num_requests = _first_batches(batches, max_requests)
    sums_of = AttentionSums(model, element_spec(batches, batch_size))
    total: dict[Branch, Sums] = {}
    with Progress("inspect", num_batches, "batch", delay=0) as bar:
        for batch in read(batches, 0, num_batches):
            for branch, sums in sums_of(batch).items():
                known = total.get(branch)
                total[branch] = sums if known is None else added(known, sums)
            bar.advance(1)
    return Inspection(
        workdir=str(run.location),
        dataset=store.manifest["dataset"],
        content=store.manifest["content"],
        split=split,
        num_requests=num_requests,
        checkpoint=trained.checkpoint,
        step=trained.step,
        weights=train.evaluated_weights,
        attention=model.recipe.attention,
        sink=model.recipe.sink,
        branches=[report_of(*branch, sums) for branch, sums in total.items()],
    )


def _first_batches(batches: Batches, max_requests: int) -> tuple[int, int]:
    """Returns how many batches hold so many requests, and how many they do."""
    num_requests = 0
    for step in range(batches.num_batches):
        num_requests += len(batches.requests(step)[0])
        if num_requests >= max_requests:
            return step + 1, num_requests
    return batches.num_batches, num_requests
