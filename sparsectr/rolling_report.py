r"""What models said of each day before they were trained on it.

    python -m sparsectr.rolling_report runs/11 runs/12 runs/13

The runs go on from each other (`sparsectr.train --warm_start`), the oldest
first. Each row is a day that a model had not seen: those that a run was to be
trained on, scored by the run before it, and last the test of the newest run.

Prints Markdown, or JSON with --json.
"""

import json
from collections.abc import Sequence
from typing import Any

from absl import flags

from sparsectr.comparison.comparison_table import markdown
from sparsectr.errors import InputError
from sparsectr.process import command
from sparsectr.training.run_directory import RunDirectory

_METRICS = {
    "auc": "AUC",
    "auc_standard_error": "error over users",
    "gauc": "GAUC",
    "normalized_entropy": "NE",
    "logloss": "logloss",
    "calibration": "calibration",
}


def rolling_days(locations: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the metrics of each day, with the run that scored it.

    Raises:
        InputError: If a run is not done, or does not go on from the one
            before it.
    """
    days: list[dict[str, Any]] = []
    last: dict[str, Any] = {}
    for number, location in enumerate(locations):
        result = RunDirectory.of(location).read_result()
        if not result:
            raise InputError(f"{location} has no result.json yet.")
        if number:
            scored_by = locations[number - 1]
            _check_order(scored_by, last, location, result)
            days += [
                {**day, "run": scored_by} for day in result["before_training"]
            ]
        last = result
    rule = last["split_rule"]["rule"]
    return [*days, {"day": rule, **last["metrics"], "run": locations[-1]}]


def _check_order(before: str, earlier: Any, location: str, result: Any) -> None:
    """Raises InputError if a run does not begin where another one ends."""
    begin = result.get("warm_start", {}).get("first_time")
    end = earlier["split_rule"]["test_time"]
    is_next = begin == end and result["model"] == earlier["model"]
    if not is_next:
        where = "from nothing" if begin is None else f"at Unix second {begin}"
        raise InputError(
            f"{location} does not go on from {before}: it begins {where}, "
            f"with the model {result['model']}, and {before} ends at Unix "
            f"second {end}, with {earlier['model']}. Name runs that go on from "
            "each other, the oldest first."
        )


def _table(days: Sequence[dict[str, Any]]) -> str:
    rows = [["day", "candidates", *_METRICS.values(), "scored by"]]
    for day in days:
        values = [day.get(name) for name in _METRICS]
        rows.append(
            [
                day["day"],
                f"{day['num_candidates']:,}",
                *("-" if v is None else f"{v:.4f}" for v in values),
                day["run"],
            ]
        )
    return markdown(rows)


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_boolean("json", False, "Print JSON.")


def main(argv: list[str]) -> None:
    """Runs the command."""
    days = rolling_days(argv[1:])
    if flags.FLAGS.json:
        print(json.dumps(days, indent=2, allow_nan=False))
    else:
        print(_table(days))


if __name__ == "__main__":
    define_flags()
    command.run(main, arguments="RUN, the folder of a finished run,")
