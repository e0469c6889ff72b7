r"""Which variant of a model earns its cost, on one data set?

    python -m benchmarks.sweep --sweep=attention --data_dir=data/kuairand \
        --output=benchmarks/results/attention_kuairand.json

A sweep is a file of `configs/sweeps/`: a base, named variants, seeds. Others
have names and flags of their own, as which fields earn their place:

    python -m benchmarks.sweep --data_dir=data/ebnerd --seeds=0,1,2,3,4 \
        --variant="ids --data.leave_out=statistics,time_fields" \
        --variant="statistics --data.leave_out=time_fields" \
        --output=benchmarks/results/fields_ebnerd.json

Every run is `python -m sparsectr.train` with the recipe of the data set, the
same flags and nothing but the variant and the seed changed; the runs of one
seed stand together. A sweep chooses, so that it scores the validation and
never the test; `--novalidation` is for what has been chosen. A screen of large
data trains on a part: `--train_flags="--newest_share=0.3 --max_steps=2000"`.

The JSON is the whole state: it is rewritten after each run, and a run that is
in it already is not repeated, so that the command can be stopped and started
again; with `--folder` the run that was stopped goes on too. Runs of other
flags, data (by digest) or another part are refused. Beside it stand a table
in Markdown, which is printed as well, and a picture: AUC, its difference to
the first variant with a 95 % interval (over seeds; of a single seed over
users), and what a variant costs. `--sweep=scaling_law` also fits AUC as a power
law of operations, says whether the data know its constants and what to grow,
and draws it as .law.png. `--norun` shows what is there.

Needs SciPy and, unless --noplot, matplotlib: pip install
'sparsectr[leaderboard]'.
"""

import importlib.util
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.measuring.result_files import write_whole
from benchmarks.measuring.text import say
from benchmarks.sweeps import variant_run
from benchmarks.sweeps.sweep_file import SweepFile
from benchmarks.sweeps.sweep_plan import (
    PlannedVariant,
    plan_variants,
    read_sweep,
    sweep_names,
)
from benchmarks.sweeps.sweep_table import heading, markdown
from configs.sweep import COSTS, Sweep
from data_pipelines.stores.store import Store
from sparsectr.config_flags import DATASETS
from sparsectr.errors import InputError
from sparsectr.file_systems.local_copy import local_copy
from sparsectr.process import command


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_enum(
        "sweep", None, sweep_names(), "A file of configs/sweeps/."
    )
    flags.DEFINE_enum(
        "dataset", None, DATASETS, "Data set (default: the store's)."
    )
    flags.DEFINE_string("data_dir", None, "Store (default: data/<dataset>).")
    flags.DEFINE_list("variants", None, "Variants to train (default: all).")
    flags.DEFINE_multi_string(
        "variant", [], "A further variant: its name, a blank, its flags."
    )
    flags.DEFINE_list(
        "seeds", None, "Seeds of each variant (default: the sweep's, or 0,1,2)."
    )
    flags.DEFINE_string("train_flags", "", "More flags for every run, quoted.")
    flags.DEFINE_boolean(
        "validation", True, "Score the validation, and leave the test unread."
    )
    flags.DEFINE_string(
        "folder",
        None,
        "Folder in which runs are kept; without it, one that is stopped "
        "begins anew.",
    )
    flags.DEFINE_enum(
        "cost",
        None,
        COSTS,
        "What AUC is weighed against (default: the sweep's).",
    )
    flags.DEFINE_string(
        "output",
        None,
        "JSON file; table and picture are beside it, as .md and .png.",
        required=True,
    )
    flags.DEFINE_boolean("plot", True, "Draw the picture.")
    flags.DEFINE_boolean(
        "run", True, "Run what is missing; else only show what is there."
    )


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    output = Path(values.output)
    if output.suffix != ".json":
        raise InputError(f"--output must end in .json. Received: {output}")
    _check_packages()
    file = SweepFile(output)
    if not values.run:
        if not file.report["runs"]:
            raise InputError(f"{output} has no runs to show.")
        print(_write(file, values.cost or _cost_of(file)))
        return
    sweep = read_sweep(values.sweep) if values.sweep else None
    store, dataset = _store()
    variants = _variants(sweep, store, dataset)
    file.begin(_protocol(sweep, store, dataset), list(variants.values()))
    output.parent.mkdir(parents=True, exist_ok=True)
    seeds = values.seeds or (
        map(str, sweep.seeds) if sweep else ("0", "1", "2")
    )
    cost = values.cost or (sweep.cost if sweep else "flops")
    shared = _shared_flags(sweep, dataset)
    file.run_missing(
        [variants[name] for name in values.variants or variants],
        list(seeds),
        lambda variant, seed: _train(variant, seed, shared, store),
        lambda: _write(file, cost),
    )
    print(_write(file, cost))


def _check_packages() -> None:
    """Says what is not installed before the work, and not after it."""
    if importlib.util.find_spec("scipy") is None:
        raise InputError(
            "A sweep needs SciPy, which the extra `leaderboard` installs: "
            "pip install 'sparsectr[leaderboard]'"
        )
    if flags.FLAGS.plot:
        with command.needs_matplotlib():
            importlib.import_module("matplotlib")


def _store() -> tuple[Store, str]:
    """Returns the store and the data set that it is of."""
    values = flags.FLAGS
    if values.data_dir is None and values.dataset is None:
        raise InputError("--data_dir or --dataset is missing.")
    store = Store(local_copy(values.data_dir or f"data/{values.dataset}"))
    dataset = str(store.manifest["dataset"])
    if values.dataset not in (None, dataset):
        raise InputError(
            f"{store.path} is a store of {dataset}, not of {values.dataset}."
        )
    return store, dataset


def _shared_flags(sweep: Sweep | None, dataset: str) -> list[str]:
    """Returns the flags of all runs."""
    values = flags.FLAGS
    return [
        f"--dataset={dataset}",
        *(sweep.flags if sweep else ()),
        *(["--validation"] if values.validation else []),
        *_train_flags(),
    ]


def _train_flags() -> list[str]:
    """Returns the flags of all runs that are given on the command line."""
    values = flags.FLAGS
    given = shlex.split(values.train_flags)
    if values.validation:  # which says it already
        given = [flag for flag in given if flag != "--validation"]
    return given


def _variants(
    sweep: Sweep | None, store: Store, dataset: str
) -> dict[str, PlannedVariant]:
    """Returns all variants that may be trained, the base first."""
    values = flags.FLAGS
    known = dict(sweep.variants) if sweep else {}
    for text in values.variant:
        name, _, given = text.partition(" ")
        if not name or "/" in name or name in known:
            raise InputError(
                "--variant must begin with a new name without a slash. "
                f"Received: {text!r}"
            )
        known[name] = tuple(shlex.split(given))
    if not known:
        raise InputError("--sweep or --variant is missing.")
    for name in values.variants or ():
        if name not in known:
            raise InputError(
                f"--variants must be among {', '.join(known)}. Received: {name}"
            )
    if sweep and dataset not in sweep.datasets:
        meant = ", ".join(sweep.datasets)
        say(f"note: {values.sweep} is meant for {meant}, not for {dataset}")
    shared = _shared_flags(sweep, dataset)
    planned = plan_variants(known, shared, store)
    for variant in planned:
        train = variant.config.train
        if train.validation != values.validation:
            raise InputError(
                f"variant {variant.name}: what is scored is said by "
                "--validation or --novalidation of this command alone."
            )
    return {variant.name: variant for variant in planned}


def _protocol(
    sweep: Sweep | None, store: Store, dataset: str
) -> dict[str, Any]:
    """Returns what all runs of the file have in common."""
    values = flags.FLAGS
    return {
        "dataset": dataset,
        "sweep": values.sweep,
        "part": "validation" if values.validation else "test",
        "base_flags": list(sweep.flags) if sweep else [],
        "train_flags": shlex.join(_train_flags()),
        "content": store.manifest["content"],
        "data_source": store.manifest["data_source"],
        "split": store.manifest["split"],
    }


def _train(
    variant: PlannedVariant, seed: str, shared: Sequence[str], store: Store
) -> dict[str, Any]:
    """Runs a variant once, in a folder that is kept if there is one."""
    arguments = [
        *shared,
        *variant.flags,
        f"--seed={seed}",
        f"--data_dir={store.path}",
    ]
    kept = flags.FLAGS.folder
    if kept:
        workdir = Path(kept) / variant.name / f"seed-{seed}"
        return variant_run.train(arguments, workdir)
    with tempfile.TemporaryDirectory() as folder:
        return variant_run.train(arguments, Path(folder) / "run")


def _cost_of(file: SweepFile) -> str:
    """Returns the cost that belongs to the sweep of a file."""
    name = file.report["sweep"]
    return read_sweep(name).cost if name in sweep_names() else "flops"


def _write(file: SweepFile, cost: str) -> str:
    """Writes table and picture beside the file; returns the table."""
    law = file.scaling_law()
    report = {**file.report, "summary": file.summary(), "scaling_law": law}
    text = markdown(report, cost)
    table = file.path.with_suffix(".md")
    write_whole(table, lambda path: path.write_text(f"{text}\n", "utf-8"))
    if flags.FLAGS.plot:
        from benchmarks.sweeps.sweep_picture import draw, picture

        draw(picture(report, cost), file.path.with_suffix(".png"))
        if law:
            from benchmarks.sweeps.scaling_picture import scaling_picture

            figure = scaling_picture(law, heading(report).replace("**", ""))
            draw(figure, file.path.with_suffix(".law.png"))
    return text


if __name__ == "__main__":
    define_flags()
    command.run(main)
