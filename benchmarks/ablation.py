r"""Which parts of the model, or which fields, earn their place.

    python -m benchmarks.ablation --dataset=alibaba \
        --variants=sparse_ctr,full_attention,no_temporal_bias,mean_pooling \
        --seeds=0,1,2 --output=benchmarks/results/ablation_alibaba.json

Other variants have a name and flags of their own, as which fields do:

    python -m benchmarks.ablation --dataset=ebnerd --seeds=0,1,2,3,4 \
        --variant="ids --data.leave_out=statistics,time_fields" \
        --variant="statistics --data.leave_out=time_fields" \
        --output=benchmarks/results/fields_ebnerd.json

Every run is `python -m sparsectr.train` with the recipe of the data set, the
same flags and nothing but the variant and the seed changed; the runs of one
seed stand together. The JSON is rewritten after each run and a run that is
in it already is not repeated, so that the command can be stopped and
started again. Beside means and deviations stand the differences to the first
variant, seed by seed.
"""

import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from sparsectr.errors import InputError
from sparsectr.process import command
from sparsectr.training.run_directory import RunDirectory

VARIANTS: dict[str, tuple[str, ...]] = {
    "sparse_ctr": (),
    "full_attention": ("--model.attention=full",),  # A1
    "no_temporal_bias": ("--model.encoding=none",),  # B1
    "mean_pooling": ("--model.name=mean_pooling",),
    "din": ("--model.name=din",),
}
"""Flags of each variant; A1 and B1 are those of the paper's Table 3."""

_COPIED = (
    "metrics",
    "num_parameters",
    "train_seconds",
    "compile_seconds",
    "requests_per_second",
    "peak_memory_bytes",
)


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("dataset", None, "Data set.", required=True)
    flags.DEFINE_string("data_dir", None, "Store (default: data/<dataset>).")
    flags.DEFINE_list(
        "variants",
        None,
        "Variants to train (default: those of --variant, or else "
        f"{','.join(VARIANTS)}).",
    )
    flags.DEFINE_multi_string(
        "variant", [], "A further variant: its name, a blank, its flags."
    )
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of each variant.")
    flags.DEFINE_string("train_flags", "", "More flags for every run, quoted.")
    flags.DEFINE_string("output", None, "JSON file.", required=True)


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    more = [text.partition(" ") for text in values.variant]
    own = {name: tuple(shlex.split(given)) for name, _, given in more}
    known = {**VARIANTS, **own}
    names = values.variants or list(own) or list(VARIANTS)
    for variant in names:
        if variant not in known:
            raise InputError(
                f"--variants must be among {', '.join(known)}. "
                f"Received: {variant}"
            )
    output = Path(values.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    asked = {"dataset": values.dataset, "train_flags": values.train_flags}
    report = _read_report(output, asked)
    for seed in values.seeds:
        for variant in names:
            key = f"{variant}/{seed}"
            if key not in report["runs"]:
                _run(report, variant, known[variant], seed)
                report["summary"] = _summary(report["runs"])
                RunDirectory(output.parent).write_json(output.name, report)
    print(json.dumps(report["summary"], indent=2))


def _read_report(output: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Returns the report to go on with, or an empty one."""
    if not output.exists():
        return {**asked, "runs": {}}
    report: dict[str, Any] = json.loads(output.read_text("utf-8"))
    for name, value in asked.items():
        if report.get(name) != value:
            raise InputError(
                f"{output} has {name}={report.get(name)!r}, not {value!r}; "
                "name another --output."
            )
    return report


def _run(
    report: dict[str, Any], variant: str, given: Sequence[str], seed: str
) -> None:
    """Trains once and adds the result to the report."""
    values = flags.FLAGS
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        arguments = [
            f"--dataset={values.dataset}",
            f"--workdir={workdir}",
            f"--seed={seed}",
            "--noexport",
            *shlex.split(values.train_flags),
            *given,
        ]
        if values.data_dir is not None:
            arguments.append(f"--data_dir={values.data_dir}")
        print(f"ablation: {variant}, seed {seed}", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "sparsectr.train", *arguments], check=False
        )
        if done.returncode != 0:
            raise InputError(
                f"The run {variant} with seed {seed} failed; see above."
            )
        result = json.loads((workdir / "result.json").read_text("utf-8"))
        environment = json.loads(
            (workdir / "environment.json").read_text("utf-8")
        )
    content = result["data_source"]["content"]
    if report.setdefault("content", content) != content:
        raise InputError(
            f"{values.output} has runs on another store than this one at "
            f"{values.data_dir or 'data/' + values.dataset}; name another "
            "--output."
        )
    report["data_source"] = result["data_source"]["kind"]
    report["split"] = result["split_rule"]
    report["environment"] = environment
    report["runs"][f"{variant}/{seed}"] = {
        "flags": list(given),
        **{name: result[name] for name in _COPIED},
    }


def _summary(runs: dict[str, Any]) -> dict[str, Any]:
    """Returns mean and standard deviation of the AUC of each variant."""
    by_variant: dict[str, dict[str, Any]] = {}
    for key, run in runs.items():
        variant, _, seed = key.partition("/")
        by_variant.setdefault(variant, {})[seed] = run
    summary: dict[str, Any] = {}
    first: dict[str, float] = {}
    for variant, found in by_variant.items():
        auc = {seed: run["metrics"]["auc"] for seed, run in found.items()}
        if None in auc.values():  # of labels of one class
            continue
        first = first or auc
        gains = [auc[seed] - first[seed] for seed in auc if seed in first]
        summary[variant] = {
            "runs": len(found),
            "auc_mean": statistics.mean(auc.values()),
            "auc_std": _deviation(list(auc.values())),
            "auc_min": min(auc.values()),
            "gain_mean": statistics.mean(gains) if gains else None,
            "gain_std": _deviation(gains),
            "train_seconds_median": statistics.median(
                run["train_seconds"] for run in found.values()
            ),
        }
    return summary


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


if __name__ == "__main__":
    define_flags()
    command.run(main)
