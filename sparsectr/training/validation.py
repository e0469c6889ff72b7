"""What a run of `--validation` has found so far, and what follows from it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data_pipelines.stores.store import Store
from sparsectr.config import Config
from sparsectr.config_flags import flags_of
from sparsectr.errors import InputError
from sparsectr.metrics import Metrics

VALIDATION = "validation"
"""The part that is evaluated, and what marks its lines in `metrics.jsonl`."""


class Evaluation(NamedTuple):
    """Metrics of the validation after some steps."""

    step: int
    metrics: Metrics


class Validation:
    """The evaluations of a run, in order. Best is the first of the best AUC.

    There is no other state: a run that goes on reads them from the log again,
    up to the checkpoint that it goes on from.

    Args:
        every: Steps between evaluations; the last step is evaluated too.
        num_steps: Steps of the run.
        patience: After so many evaluations in a row that are not better, the
            run is over; 0 for never.
    """

    def __init__(self, *, every: int, num_steps: int, patience: int) -> None:
        self._every = every
        self._num_steps = num_steps
        self._patience = patience
        self._evaluations: list[Evaluation] = []

    @property
    def best(self) -> Evaluation | None:
        """The best evaluation, `None` before the first."""
        return best_of(self._evaluations)

    @property
    def is_over(self) -> bool:
        """Whether the patience is at its end."""
        if self.best is None or not self._patience:
            return False
        later = sum(each.step > self.best.step for each in self._evaluations)
        return later >= self._patience

    def is_due(self, step: int) -> bool:
        """Whether the weights after `step` steps are to be evaluated."""
        return step % self._every == 0 or step == self._num_steps

    def add(self, step: int, metrics: Metrics) -> None:
        """Adds an evaluation."""
        self._evaluations.append(Evaluation(step, metrics))

    def restore(self, lines: Sequence[Mapping[str, Any]], step: int) -> None:
        """Reads the evaluations of a run that goes on.

        Args:
            lines: Those of the log, up to the checkpoint.
            step: Steps that the checkpoint has behind it.

        Raises:
            InputError: If one is missing.
        """
        self._evaluations = evaluations_in(lines)
        found = [each.step for each in self._evaluations]
        # Each evaluation is logged before the checkpoint of its step.
        expected = [s for s in range(1, step + 1) if self.is_due(s)]
        if set(expected) - set(found):
            raise InputError(
                f"metrics.jsonl lacks evaluations of the {step} steps that the "
                "newest checkpoint has behind it, so that the best is not "
                "known. Train anew."
            )


def best_of(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """Returns the first of the best AUC, `None` if there is none."""
    return max(evaluations, key=lambda each: each.metrics.auc, default=None)


def evaluations_in(lines: Sequence[Mapping[str, Any]]) -> list[Evaluation]:
    """Returns the evaluations among the lines of a log."""
    names = [field.name for field in dataclasses.fields(Metrics)]
    found = []
    for line in lines:
        if line.get("split") == VALIDATION:
            # What is no number is `null` in the log.
            values: dict[str, Any] = {
                name: float("nan") if line[name] is None else line[name]
                for name in names
            }
            found.append(Evaluation(line["step"], Metrics(**values)))
    return found


def check_parts(store: Store) -> None:
    """Checks that there is something to train on, and to choose by.

    Raises:
        InputError: If the store has no validation time, or a part has no
            requests or, to validate on, labels of one class alone.
    """
    time = store.validation_time
    counts = store.manifest["counts"]
    older, newer = counts["train_older"], counts[VALIDATION]
    if not (older["requests"] and 0 < newer["positives"] < newer["candidates"]):
        raise InputError(
            f"{store.path}: --validation cannot choose: {older['requests']:,} "
            f"requests come before the validation, which begins at Unix second "
            f"{time} and has {newer['requests']:,} with {newer['positives']:,} "
            f"clicks among {newer['candidates']:,} candidates. Prepare again "
            "with another --validation_time."
        )


def final_run(
    config: Config,
    data_dir: str,
    *,
    best_step: int,
    num_requests: int,
    num_requests_older: int,
    num_batches: int,
) -> dict[str, Any]:
    """Returns the run that trains on everything before the test.

    It has as many steps for a request as the best one had, and no other end.

    Args:
        config: That of the run of `--validation`.
        data_dir: The store.
        best_step: Steps of the best evaluation.
        num_requests: Requests before the test.
        num_requests_older: Those that were trained on.
        num_batches: Batches of an epoch of all of them.
    """
    max_steps = max(1, round(best_step * num_requests / num_requests_older))
    train = dataclasses.replace(
        config.train,
        validation=False,
        validate_every=0,
        patience=0,
        max_steps=max_steps,
        newest_share=1.0,
        # Batches that are not full make epochs a little shorter or longer.
        epochs=-(-max_steps // num_batches),
    )
    flags = flags_of(dataclasses.replace(config, train=train))
    return {
        "max_steps": max_steps,
        "flags": [*flags, f"--data_dir={data_dir}"],
    }
