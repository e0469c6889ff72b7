r"""What a logistic regression makes of a candidate's numbers alone.

    python -m benchmarks.statistics_regression --data_dir=data/ebnerd \
        --output=benchmarks/results/statistics_regression_ebnerd.json

Beside a model that reads ids and histories too, on the same rows: what it is
better than, if the candidates' numbers (those counted in the log above all)
do all the work. Numbers are what models see, transformed and standardized;
for each of them another says whether it is missing. scikit-learn's
regression with its own defaults: nothing is chosen, so nothing is chosen on
the test.
"""

import dataclasses
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from absl import flags

from benchmarks.measuring import result_files
from data_pipelines.stores.split_parts import in_part, is_cut, split_of
from data_pipelines.stores.store import Store
from sparsectr.errors import InputError
from sparsectr.file_systems.local_copy import local_copy
from sparsectr.metrics import compute_metrics
from sparsectr.process import command
from sparsectr.training.floor_scores import floors

Array = npt.NDArray[Any]


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("data_dir", None, "Folder of the store.", required=True)
    flags.DEFINE_enum(
        "split", "test", ("validation", "test"), "What is scored."
    )
    result_files.define_flags()


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    result_files.check_flags()
    store = Store(local_copy(values.data_dir))
    report = regression(store, values.split)
    result_files.write(report)
    print(json.dumps(report, indent=2))


def regression(store: Store, split: str) -> dict[str, Any]:
    """Fits on what comes before a part, and scores the part.

    Args:
        store: The data.
        split: "validation" or "test".

    Raises:
        InputError: If candidates have no number.
    """
    from sklearn.linear_model import LogisticRegression

    names = [field.name for field in store.schema.candidate_dense_fields]
    if not names:
        raise InputError(f"{store.path}: candidates have no number.")
    fit = _rows(store, "train_older" if split == "validation" else "train")
    scored = _rows(store, split)
    model = LogisticRegression(max_iter=1000)
    model.fit(fit.numbers, fit.label)
    logits = model.decision_function(scored.numbers)
    metrics = compute_metrics(scored.label, logits, scored.user, scored.request)
    columns = [*names, *(f"{name} is missing" for name in names)]
    return {
        "data_source": store.manifest["data_source"],
        "content": store.manifest["content"],
        "split": split,
        "metrics": metrics.to_dict(),
        "floors": floors(store, split),
        "weights": dict(zip(columns, model.coef_[0].tolist(), strict=True)),
    }


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Candidates, one a row."""

    numbers: Array
    label: Array
    user: Array
    request: Array


def _rows(store: Store, part: str) -> _Rows:
    parts: list[list[Array]] = []
    for index, shard in enumerate(store.shards):
        requests = shard.splits[split_of(part)]
        kept = np.ones(requests.num_requests, bool)
        if is_cut(part):
            kept = in_part(requests, part, store.validation_time)
        counts = np.diff(requests.candidate_offset)
        of_candidate = np.repeat(kept, counts)
        values, missing = [], []
        for field in store.schema.candidate_dense_fields:
            column = np.asarray(requests.candidates[field.name])[of_candidate]
            is_missing = ~np.isfinite(column)
            value = np.where(is_missing, 0.0, column).astype(np.float64)
            if field.transform == "log1p":
                value = np.log1p(np.maximum(value, 0.0))
            value = (value - field.mean) / field.scale
            values.append(np.where(is_missing, 0.0, value))
            missing.append(is_missing.astype(np.float64))
        number = (index << 32) + np.arange(requests.num_requests)
        user = (index << 32) + np.asarray(requests.user, np.int64)
        parts.append(
            [
                np.stack([*values, *missing], axis=1),
                np.asarray(requests.label)[of_candidate],
                np.repeat(user[kept], counts[kept]),
                np.repeat(number[kept], counts[kept]),
            ]
        )
    return _Rows(
        *(np.concatenate(column) for column in zip(*parts, strict=True))
    )


if __name__ == "__main__":
    define_flags()
    command.run(main)
