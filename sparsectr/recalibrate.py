"""Makes the probabilities of a run mean what they say.

    python -m sparsectr.recalibrate --workdir=runs/kuairand --method=isotonic

fits a function of the logits to the clicks of the validation part and keeps it
in the folder of the run, as calibration.json: two numbers (platt) or some
knots (isotonic). `sparsectr.predict` and `export.saved_model` apply it from
then on, without scikit-learn; `sparsectr.evaluate` measures the model as it
was trained. A SavedModel that was written before stays as it is. Removing the
file undoes it.

Prints calibration (mean prediction / mean label) and log loss before and
after, on the candidates that it was fitted to. What a run has trained on is
refused, since it is too sure of itself there: the validation is for a run of
`--validation`, whose best checkpoint can be served as it is. All other runs
have nothing left but `--split=test`, which reads the test: measure them on
later data then.
"""

from absl import flags

from sparsectr.config import Config
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
        "method",
        "isotonic",
        ["isotonic", "platt"],
        "A function of knots, or slope and intercept.",
    )
    flags.DEFINE_enum(
        "split", "validation", ["validation", "test"], "What to fit."
    )


def check_is_new(config: Config, split: str, location: str) -> None:
    """Raises InputError if a run has trained on what it is to be fitted to."""
    if split == "validation" and not config.train.validation:
        raise InputError(
            f"{location} has trained on the validation, where it is too sure "
            "of itself: probabilities fitted to it would be worse. "
            "Recalibrate a run of --validation, or fit to --split=test."
        )


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    import_tensorflow_quietly()

    from data_pipelines.reading.batches import Batches
    from data_pipelines.reading.reader import element_spec, read
    from sparsectr.calibration import FILE, fit
    from sparsectr.metrics import calibration, log_loss
    from sparsectr.training.devices import make_strategy
    from sparsectr.training.load_model import load_model, open_store
    from sparsectr.training.run_directory import RunDirectory
    from sparsectr.training.scoring import score_requests
    from sparsectr.training.train_step import PredictStep

    run = RunDirectory.of(values.workdir)
    trained = load_model(run)
    check_is_new(trained.config, values.split, run.location)
    store = open_store(run, values.data_dir)
    config = trained.config
    batches = Batches(
        store, values.split, config.data, config.train.eval_batch_size, None
    )
    spec = element_spec(batches, batches.batch_size)
    predict = PredictStep(trained.model, make_strategy(1), spec)
    scores = score_requests(
        predict, batches, read(batches, 0, batches.num_batches)
    )
    fitted = fit(values.method, scores.labels, scores.logits, trained.step)
    run.write_json(FILE, fitted.to_dict())
    run.publish()
    print(f"{run.location}: {values.method}, {scores.labels.size} candidates")
    after = fitted(scores.logits)
    for name, metric in (("calibration", calibration), ("log loss", log_loss)):
        print(
            f"{name} on {values.split}: "
            f"{metric(scores.labels, scores.logits):.6f} before, "
            f"{metric(scores.labels, after):.6f} after, on what it was "
            "fitted to"
        )


if __name__ == "__main__":
    define_flags()
    command.run(main)
