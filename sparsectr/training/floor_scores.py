"""What a model has to be better than: means of the training part alone."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from data_pipelines.stores.shard import Shard
from data_pipelines.stores.split_parts import in_part, is_cut, split_of
from data_pipelines.stores.store import Store
from sparsectr.metrics import auc
from sparsectr.schema import NUM_RESERVED_IDS, DatasetSchema

Array = npt.NDArray[Any]

SMOOTHING = 20
"""Candidates with the mean of all that are added to each mean."""

NUM_RECENT = 20
"""A user's newest candidates that `user_recent_mean` reads."""


class _Candidates(NamedTuple):
    """The candidates of a shard that are in a split, in order.

    Attributes:
        user: int32, row of the user in the shard, ascending.
        item: Id of the item.
        label: uint8.
    """

    user: Array
    item: Array
    label: Array

    @classmethod
    def of(
        cls, store: Store, shard: Shard, part: str, field: str
    ) -> "_Candidates":
        columns = shard.splits[split_of(part)]
        counts = np.diff(columns.candidate_offset)
        found = cls(
            np.repeat(columns.user, counts),
            np.asarray(columns.candidates[field]),
            np.asarray(columns.label),
        )
        if not is_cut(part):
            return found
        keep = in_part(columns, part, store.validation_time)
        keep = np.repeat(keep, counts)
        return cls(*(column[keep] for column in found))

    def newest_of_each_user(self, count: int) -> "_Candidates":
        end = np.searchsorted(self.user, self.user, "right")
        keep = end - np.arange(len(self.user)) <= count
        return _Candidates(*(column[keep] for column in self))


class _Sums(NamedTuple):
    """Labels of each item or user.

    Attributes:
        shown: float64, candidates of each.
        clicks: float64, clicks of each.
    """

    shown: Array
    clicks: Array

    @classmethod
    def of(cls, owner: Array, label: Array, size: int) -> "_Sums":
        return cls(
            np.bincount(owner, minlength=size).astype(np.float64),
            np.bincount(owner, weights=label, minlength=size),
        )

    def means(self, prior: float) -> Array:
        return (self.clicks + SMOOTHING * prior) / (self.shown + SMOOTHING)


def floors(
    store: Store, split: str, fit_split: str | None = None
) -> dict[str, float | None]:
    """Returns the AUC of simple scores on a split or part, by their names.

    `item_mean` is the click rate of the item, the candidate field with the
    largest table; items without a row of their own have the rate of all.
    `user_mean` is that of the user, `user_recent_mean` that of the user's
    last `NUM_RECENT` candidates, and `item_and_user_means` the sum of the
    logits of the first two. Each mean is smoothed towards that of all. No
    label of `split` is read but to measure.

    Args:
        store: The data.
        split: What is scored.
        fit_split: What the means are of; by default all before it.

    Returns:
        None where the labels are of one class, or there are no means: of
        users in a store that days were added to, whose rows are in several
        shards.

    Cost:
        Reads the labels and one column of both splits; no Python by rows.

    Memory:
        24 bytes for each row of the item's table, 33 for each candidate of
        `split`, and some 40 for each candidate of one shard.
    """
    if fit_split is None:
        fit_split = "train_older" if split == "validation" else "train"
    field = item_field(store.schema)
    prior, items = _item_sums(store, fit_split, field)
    item_mean = items.means(prior)
    names = ("item_mean", "user_mean", "user_recent_mean", "label")
    columns: dict[str, list[Array]] = {name: [] for name in names}
    for shard in store.shards:
        fit = _Candidates.of(store, shard, fit_split, field)
        newest = fit.newest_of_each_user(NUM_RECENT)
        scored = _Candidates.of(store, shard, split, field)
        columns["item_mean"].append(item_mean[scored.item])
        for name, part in (("user_mean", fit), ("user_recent_mean", newest)):
            users = _Sums.of(part.user, part.label, shard.num_users)
            columns[name].append(users.means(prior)[scored.user])
        columns["label"].append(scored.label)
    scores = {name: np.concatenate(parts) for name, parts in columns.items()}
    label = scores.pop("label")
    if label.all() or not label.any() or not 0.0 < prior < 1.0:
        return dict.fromkeys((*scores, "item_and_user_means"))
    scores["item_and_user_means"] = _logit(scores["item_mean"]) + _logit(
        scores["user_mean"]
    )
    has_users = len(store.updates) < 2
    return {
        name: auc(label, score) if has_users or name == "item_mean" else None
        for name, score in scores.items()
    }


def item_field(schema: DatasetSchema) -> str:
    """Returns the candidate field that tells items apart: the most rows."""
    sizes = {
        field.name: schema.table(field.table).size or 0
        for field in schema.candidate_fields
        if not field.is_set
    }
    return max(sizes, key=sizes.__getitem__)


def _item_sums(store: Store, split: str, field: str) -> tuple[float, _Sums]:
    """Returns the mean of all labels, and the labels of each item."""
    tables = {each.name: each.table for each in store.schema.candidate_fields}
    size = store.schema.table(tables[field]).size or 0
    total = _Sums(np.zeros(size), np.zeros(size))
    for shard in store.shards:
        found = _Candidates.of(store, shard, split, field)
        part = _Sums.of(found.item, found.label, size)
        for sums, more in zip(total, part, strict=True):
            sums += more
    prior = total.clicks.sum() / max(total.shown.sum(), 1.0)
    for sums in total:
        sums[:NUM_RESERVED_IDS] = 0.0
    return float(prior), total


def _logit(mean: Array) -> Array:
    return np.log(mean) - np.log1p(-mean)
