"""Exact metrics of a trained model.

    python -m sparsectr.evaluate --workdir=runs/movielens --base_auc=0.7564

`--base_auc` is that of the model to compare with, on the same test requests.
"""

import json

from absl import flags

from data_pipelines.parquet_writer import check_output
from sparsectr import command
from sparsectr.quiet_tensorflow import import_tensorflow_quietly


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
    flags.DEFINE_string(
        "data_dir", None, "The store (default: the one it was trained on)."
    )
    flags.DEFINE_enum("split", "test", ["train", "test"], "What to score.")
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


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    if values.predictions is not None:
        check_output(values.predictions)
    import_tensorflow_quietly()

    from data_pipelines.batches import Batches
    from data_pipelines.reader import element_spec, read
    from sparsectr.metrics import gauc, relative_improvement
    from sparsectr.prediction.recorded import recorded
    from sparsectr.training.devices import make_strategy
    from sparsectr.training.load_model import load_model, open_store
    from sparsectr.training.run_directory import RunDirectory
    from sparsectr.training.scoring import score_requests
    from sparsectr.training.train_step import PredictStep

    run = RunDirectory.of(values.workdir)
    trained = load_model(run)
    store = open_store(run, values.data_dir)
    train = trained.config.train
    batches = Batches(
        store, values.split, trained.config.data, train.eval_batch_size, None
    )
    spec = element_spec(batches, batches.batch_size)
    predict = PredictStep(trained.model, make_strategy(1), spec)
    with recorded(predict, values.predictions, batches, store) as record:
        scores = score_requests(
            record, batches, read(batches, 0, batches.num_batches)
        )
    metrics = scores.metrics()
    result = {"split": values.split, "step": trained.step, **metrics.to_dict()}
    if values.gauc_weighting != "samples":
        grouped = gauc(
            scores.labels, scores.logits, scores.users, values.gauc_weighting
        )
        result[f"gauc_{values.gauc_weighting}"] = grouped.value
    if values.base_auc is not None:
        result["rela_impr"] = relative_improvement(metrics.auc, values.base_auc)
    print(metrics.log_line())
    print(json.dumps(result))


if __name__ == "__main__":
    define_flags()
    command.run(main)
