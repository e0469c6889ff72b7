"""Exact metrics of a trained model.

    python -m sparsectr.evaluate --workdir=runs/movielens --base_auc=0.7564
    python -m sparsectr.evaluate --workdir=runs/kuairand --frozen_history

`--base_auc` is that of the model to compare with, on the same requests. Prints
two lines of metrics and all of them as JSON, with the floors: the AUC of simple
means of the training part (sparsectr/training/floor_scores.py).

Scored are the weights of the best evaluation where the run was one of
`--validation`, and the last ones otherwise; `checkpoint` in what is printed
says which.

`--frozen_history` gives every request the history that its user had at the
first one of the split. Within a user, a click that is in the history leaves
fewer to come, so that over a period in which histories grow the AUC of a user
is too low for scores that rise with clicks. These are numbers of another kind:
they say so, and stand in result.json beside the others, as
`metrics_frozen_history`.
"""

import json
import math
import sys
from typing import Any

from absl import flags

from data_pipelines.parquet_writer import check_output
from sparsectr.errors import InputError
from sparsectr.process import command
from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_string(
        "data_dir", None, "The store (default: the one it was trained on)."
    )
    flags.DEFINE_enum(
        "split",
        None,
        ["train", "train_older", "validation", "test"],
        "What to score (default: test, and validation for a run of "
        "--validation). Other runs have trained on the validation.",
    )
    flags.DEFINE_enum(
        "gauc_weighting",
        "samples",
        ["samples", "positives", "none"],
        "Weight of a user in GAUC: candidates, clicks, or all alike.",
    )
    flags.DEFINE_string(
        "predictions",
        None,
        "Parquet file to write the score of every candidate to; "
        "docs/requests.md has its columns.",
    )
    flags.DEFINE_float(
        "base_auc",
        None,
        "AUC of a base model, for RelaImpr; the paper's is DIN.",
    )
    flags.DEFINE_boolean(
        "frozen_history",
        False,
        "Score with the histories that users had at their first request.",
    )


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    if values.base_auc is not None and not 0.5 < values.base_auc <= 1.0:
        raise InputError(
            "--base_auc must be above 0.5 and at most 1. "
            f"Received: {values.base_auc}"
        )
    if values.predictions is not None:
        check_output(values.predictions)
    import_tensorflow_quietly()

    from data_pipelines.reading.batches import Batches
    from data_pipelines.reading.reader import element_spec, read
    from sparsectr.prediction.recorded_scores import recorded_scores
    from sparsectr.training.devices import make_strategy
    from sparsectr.training.floor_scores import floors
    from sparsectr.training.load_model import load_model, open_store
    from sparsectr.training.run_directory import RunDirectory
    from sparsectr.training.scoring import score_requests
    from sparsectr.training.train_step import PredictStep

    run = RunDirectory.of(values.workdir)
    store = open_store(run, values.data_dir)
    trained = load_model(run)
    train = trained.config.train
    split = values.split or ("validation" if train.validation else "test")
    if split == "validation" and not train.validation:
        print(
            "note: this run has trained on the validation, and is too good "
            "there",
            file=sys.stderr,
        )
    batches = Batches(
        store,
        split,
        trained.config.data,
        train.eval_batch_size,
        None,
        frozen_history=values.frozen_history,
    )
    spec = element_spec(batches, batches.batch_size)
    predict = PredictStep(trained.model, make_strategy(1), spec)
    with recorded_scores(predict, values.predictions, batches, store) as record:
        scores = score_requests(
            record, batches, read(batches, 0, batches.num_batches)
        )
    metrics = scores.metrics()
    result: dict[str, Any] = {
        "split": split,
        "history": "frozen" if values.frozen_history else "as it was",
        "checkpoint": trained.checkpoint,
        "step": trained.step,
        "weights": train.evaluated_weights,
        **_with_options(scores),
    }
    if split in ("validation", "test"):  # whose labels the means do not know
        result["floors"] = floors(store, split)
    if train.ema_decay:
        print(f"Weights: {train.evaluated_weights}")
    if trained.schema.negative_rate < 1.0:
        print(
            f"note: the log has {trained.schema.negative_rate:g} of its "
            "negatives; these are metrics of the log as it is, and what is "
            "served undoes the sampling",
            file=sys.stderr,
        )
    print(metrics.log_lines("frozen history" if values.frozen_history else ""))
    print(json.dumps(result, allow_nan=False))
    if values.frozen_history and _is_of(
        run.read_result(), trained.step, split, store
    ):
        run.add_to_result("metrics_frozen_history", metrics.to_dict())


def _is_of(result: Any, step: int, split: str, store: Any) -> bool:
    """Whether `result.json` is of the same weights and requests."""
    return (
        result.get("step") == step
        and result.get("split") == split
        and result["data_source"].get("content") == store.manifest["content"]
    )


def _with_options(scores: Any) -> dict[str, Any]:
    """Returns the metrics of `Scores`, and what the flags ask for beside."""
    from sparsectr.metrics import gauc, relative_improvement

    values = flags.FLAGS
    found = scores.metrics().to_dict()
    more = {}  # By name: the value, and the metric it is undefined with.
    weighting = values.gauc_weighting
    if weighting != "samples":
        labels, logits = scores.labels, scores.logits
        for name, groups, min_size in (
            ("gauc", scores.users, 1),
            ("gauc_by_request", scores.requests, 2),
        ):
            grouped = gauc(labels, logits, groups, weighting, min_size)
            more[f"{name}_{weighting}"] = grouped.value, name
    if values.base_auc is not None:
        auc = math.nan if found["auc"] is None else found["auc"]
        improvement = relative_improvement(auc, values.base_auc)
        more["rela_impr"] = improvement, "auc"
    for name, (value, like) in more.items():
        if math.isnan(value):
            found[name] = None
            found["undefined"][name] = found["undefined"][like]
        else:
            found[name] = value
    return found


if __name__ == "__main__":
    define_flags()
    command.run(main)
