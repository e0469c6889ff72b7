"""The JSON file of a sweep: all of its state, and what it must not mix."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.text import say
from benchmarks.sweeps.scaling_law import scaling_law
from benchmarks.sweeps.sweep_plan import (
    PlannedVariant,
    read_sweep,
    sweep_names,
)
from benchmarks.sweeps.sweep_summary import summary
from benchmarks.sweeps.variant_run import KEPT, read_json, write_json
from sparsectr.errors import InputError

_PROTOCOL = {
    "dataset": "data set",
    "sweep": "sweep",
    "part": "part that is scored",
    "base_flags": "flags of the sweep",
    "train_flags": "--train_flags",
    "content": "digest of the data",
    "split": "split",
}
"""What all runs of a file have in common, and how to call it."""


class SweepFile:
    """A file of runs, rewritten after each of them.

    Args:
        path: Where it is, or will be.

    Raises:
        InputError: If it is the file of something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.report: dict[str, Any] = {"runs": {}}
        if path.exists():
            found = read_json(path)
            if not isinstance(found, dict) or "runs" not in found:
                raise InputError(f"{path} is no file of benchmarks.sweep.")
            self.report = _in_this_form(found)

    def begin(
        self, protocol: Mapping[str, Any], variants: Sequence[PlannedVariant]
    ) -> None:
        """Sets what its runs have in common.

        Args:
            protocol: Values of `_PROTOCOL`.
            variants: All that there are, the base first.

        Raises:
            InputError: If it has runs of another protocol, or of other flags
                of a variant. It names what differs.
        """
        known = self.report.get("variants", {})
        if self.report["runs"]:
            for name, title in _PROTOCOL.items():
                before, now = self.report.get(name), protocol[name]
                if before != now:
                    raise self._of_another(title, before, now)
        for variant in variants:
            before, now = known.get(variant.name), list(variant.flags)
            has_runs = bool(self.runs_of(variant.name))
            if has_runs and before is not None and before != now:
                title = f"flags of variant {variant.name}"
                raise self._of_another(title, before, now)
            known[variant.name] = now
        runs = self.report.pop("runs")
        self.report |= {**protocol, "variants": known, "runs": runs}

    def _of_another(self, title: str, before: Any, now: Any) -> InputError:
        return InputError(
            f"{self.path} has runs of another {title}: {before!r}, not "
            f"{now!r}. Name another --output."
        )

    def runs_of(self, variant: str) -> dict[str, Any]:
        """Returns the runs of a variant by their seed."""
        return {
            seed: run
            for key, run in self.report["runs"].items()
            for name, _, seed in [key.rpartition("/")]
            if name == variant
        }

    def add(
        self, variant: PlannedVariant, seed: str, result: Mapping[str, Any]
    ) -> None:
        """Adds a run and writes the file.

        Raises:
            InputError: If it was trained on other data, or scored elsewhere,
                than the file is of.
        """
        content = result["data_source"]["content"]
        if content != self.report["content"]:
            raise self._of_another(
                "digest of the data", self.report["content"], content
            )
        if result["split"] != self.report["part"]:
            raise self._of_another(
                "part that is scored", self.report["part"], result["split"]
            )
        self.report["environment"] = result["environment"]
        self.report["runs"][f"{variant.name}/{seed}"] = {
            "flags": list(variant.flags),
            **{name: result[name] for name in KEPT},
            "best_step": result.get("best_step"),
            "max_history": variant.config.data.max_history,
            "flops": variant.flops,
            "state_bytes": variant.state_bytes,
            "commit": result["environment"]["commit"],
            "resampled_aucs": result["resampled_aucs"],
        }
        self.save()

    def run_missing(
        self,
        variants: Sequence[PlannedVariant],
        seeds: Sequence[str],
        train: Callable[[PlannedVariant, str], Mapping[str, Any]],
        show: Callable[[], object],
    ) -> None:
        """Runs what is not in the file, all variants of a seed in turn.

        Args:
            variants: Those to run.
            seeds: Seeds of each.
            train: Runs a variant with a seed; returns what `add` takes.
            show: Called after each run.
        """
        missing = [
            (variant, seed)
            for seed in seeds
            for variant in variants
            if seed not in self.runs_of(variant.name)
        ]
        for number, (variant, seed) in enumerate(missing, 1):
            count = f"{number} of {len(missing)}"
            say(f"sweep: {variant.name}, seed {seed} ({count})")
            self.add(variant, seed, train(variant, seed))
            show()

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        self.report["summary"] = self.summary()
        self.report["scaling_law"] = self.scaling_law()
        write_json(self.path, self.report)

    def summary(self) -> dict[str, Any]:
        """Returns means, deviations and differences to the base."""
        return summary(self._runs_by_variant())

    def scaling_law(self) -> dict[str, Any] | None:
        """Returns the law of a sweep that fits one and has enough points."""
        name = self.report.get("sweep")
        if name not in sweep_names() or not read_sweep(name).fits_power_law:
            return None
        return scaling_law(self._runs_by_variant())

    def _runs_by_variant(self) -> dict[str, Any]:
        names = self.report.get("variants", {})
        return {name: self.runs_of(name) for name in names}


def _in_this_form(report: dict[str, Any]) -> dict[str, Any]:
    """Returns a report with what files of before do not say."""
    given = shlex.split(report.get("train_flags") or "")
    is_validation = "--validation" in given
    variants: dict[str, Any] = {}
    for key, run in report["runs"].items():
        variants.setdefault(key.rpartition("/")[0], run.get("flags"))
    return {
        "sweep": None,
        "base_flags": [],
        "part": "validation" if is_validation else "test",
        "variants": variants,
        **report,
        "train_flags": shlex.join(f for f in given if f != "--validation"),
    }
