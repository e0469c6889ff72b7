r"""Chooses learning rates and the like for one model, on the validation.

    python -m sparsectr.search --dataset=kuairand --model.name=din \
        --folder=searches/din --trials=12
    python -m sparsectr.search --dataset=parquet --data_dir=data/shop \
        --folder=searches/shop --newest_share=0.3 \
        --tune=learning_rate=0.0005:0.005 --tune=model.num_chunks=8,16,32

Each trial is a run of `python -m sparsectr.train --validation` with the flags
that are given here and values that Optuna draws; the test is not read. The
first trial has the recipe's own values. Without --tune the two learning rates
and the dropout are tuned. `--newest_share` trains on the newest part alone,
which is what a search of large data can afford.

The folder holds the study (study.log), a run for each trial, and search.json:
all trials, the best one, and the flags of the final run, which is printed at
the end. The same command goes on with a search that was stopped, in the middle
of a trial too, or adds trials to it. Needs Optuna: pip install
'sparsectr[search]'.
"""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from absl import flags

from sparsectr import config_flags
from sparsectr.errors import InputError
from sparsectr.file_systems.paths import is_remote
from sparsectr.process import command
from sparsectr.searching.dimension import DEFAULT_SPACE, parse_space
from sparsectr.searching.study import Study


def define_flags() -> None:
    """Defines the flags of this command."""
    config_flags.define_config_flags()
    flags.DEFINE_string(
        "data_dir",
        None,
        "Store that data_pipelines.prepare wrote (default: data/<dataset>).",
    )
    flags.DEFINE_string("folder", None, "Folder of the search.", required=True)
    flags.DEFINE_integer(
        "trials",
        12,
        "Trials that there are to be, those that are done among them.",
        lower_bound=1,
    )
    flags.DEFINE_multi_string(
        "tune",
        list(DEFAULT_SPACE),
        "A flag and its values: a range to search on a logarithmic scale, as "
        "learning_rate=0.001:0.01, or some, as model.num_chunks=8,16.",
    )
    flags.DEFINE_integer("sampler_seed", 0, "Seed of Optuna's sampler.")


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    config = config_flags.config_from_flags()
    train = dataclasses.replace(config.train, validation=True)
    config = dataclasses.replace(config, train=train)
    if is_remote(values.folder):
        raise InputError(
            f"--folder must be on this machine. Received: {values.folder}"
        )
    study = Study(
        Path(values.folder),
        config,
        values.data_dir or f"data/{config.dataset}",
        parse_space(values.tune, config),
        values.sampler_seed,
    )
    print(_text(study.run(values.trials)))


def _text(found: dict[str, Any]) -> str:
    """Returns the trials, best first, and the final run."""
    names = list(found["best"]["values"])
    lines = [
        "| trial | AUC | " + " | ".join(names) + " | seconds |",
        "|" + "---|" * (len(names) + 3),
    ]
    trials = sorted(found["trials"], key=lambda trial: -(trial["auc"] or 0.0))
    for trial in trials:
        auc = "failed" if trial["auc"] is None else f"{trial['auc']:.5f}"
        row = [f"{_number(trial['values'].get(name))}" for name in names]
        seconds = f"{trial.get('train_seconds', 0.0):.0f}"
        lines.append(
            "| " + " | ".join([str(trial["number"]), auc, *row, seconds]) + " |"
        )
    final = shlex.join(found["final_run"]["flags"])
    lines += [
        "",
        "The final run, on everything before the test:",
        f"  python -m sparsectr.train {final}",
    ]
    return "\n".join(lines)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    define_flags()
    command.run(main, config_flags.whose_flag)
