r"""What does each model cost to train, to serve, and to keep a user of?

    python -m benchmarks.model_cost --output=benchmarks/results/model_cost.json

For every model and history length: requests a second of a training step; the
milliseconds of a whole pass for one request, as a server without a cache of
users does it; those of a `score` from a state that is there; and the size of
that state. Steps are compiled with XLA, and so are passes.

All of them take turns in random order, because other work on the machine slows
now the one and now the other: compare figures of one file alone. The requests
are made, on the fields of the Alibaba data: random ids and times, histories
that are all full. `--values` gives a model fields of its recipe, as
`--values="sim_hard category=cate"`.

Prints a table. `benchmarks.leaderboard --costs=FILE` puts it beside the AUC.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks.made_data.requests import made_requests, made_schema
from benchmarks.measuring import number_flags, result_files
from benchmarks.measuring.interleaved import (
    MachineLoad,
    Turns,
    spread,
    take_turns,
)
from benchmarks.measuring.text import (
    aligned,
    disturbance,
    say,
    with_quartiles,
)
from sparsectr.config import TrainConfig
from sparsectr.errors import InputError
from sparsectr.model_recipe import ModelRecipe
from sparsectr.model_registry import model_names, recipe_class
from sparsectr.process import command
from sparsectr.process.quiet_tensorflow import import_tensorflow_quietly
from sparsectr.training.run_directory import environment

_KINDS = ("training", "pass", "score")

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """What is timed.

    Args:
        recipes: The models, by name.
        lengths: Values of L.
        batch_size: B of a training step.
        num_candidates: C of a training step.
        num_scored: C of a pass and of a score, which are of one request.
        num_rows: Rows of every embedding table.
        turns: How often.
    """

    recipes: Mapping[str, ModelRecipe]
    lengths: tuple[int, ...]
    batch_size: int
    num_candidates: int
    num_scored: int
    num_rows: int
    turns: Turns


def measure(workload: Workload) -> dict[str, Any]:
    """Times everything in this process."""
    import_tensorflow_quietly()
    calls: dict[tuple[str, int, str], Call] = {}
    for name, recipe in workload.recipes.items():
        say(f"compiling {name}")
        calls |= _calls(name, recipe, workload)
    load = MachineLoad()
    seconds = take_turns(calls, workload.turns)
    schema = made_schema(workload.num_rows)
    models: dict[str, Any] = {}
    for name, recipe in workload.recipes.items():
        spec = recipe.state_spec(schema)
        models[name] = {"bound_to_request_time": spec.bound_to_request_time}
        for length in workload.lengths:
            found = {k: seconds[name, length, k] for k in _KINDS}
            models[name][str(length)] = {
                **_figures(found, workload.batch_size),
                "state_kilobytes": spec.num_bytes(length) / 1e3,
            }
    return {
        "models": models,
        "workload": {
            **dataclasses.asdict(workload),
            "recipes": {n: r.to_dict() for n, r in workload.recipes.items()},
        },
        "load": load.read(),
        "environment": environment(),
    }


def _figures(
    seconds: Mapping[str, Sequence[float]], batch_size: int
) -> dict[str, Any]:
    """Returns medians, and the quartiles behind them."""
    spreads = {kind: spread(found) for kind, found in seconds.items()}
    return {
        "requests_per_second": batch_size / spreads["training"]["median"],
        "pass_milliseconds": 1e3 * spreads["pass"]["median"],
        "score_milliseconds": 1e3 * spreads["score"]["median"],
        "seconds": spreads,
    }


def _calls(
    name: str, recipe: ModelRecipe, workload: Workload
) -> dict[tuple[str, int, str], Call]:
    """Returns a model's calls, each of which has run once."""
    import tensorflow as tf

    from sparsectr.training.devices import make_strategy
    from sparsectr.training.train_step import make_train_step

    schema = made_schema(workload.num_rows)
    model = recipe.build(schema)
    step = make_train_step(
        model, TrainConfig(jit_compile=True), make_strategy(num_devices=1)
    )
    whole, score = _compiled(model), _compiled(model.score)
    calls: dict[tuple[str, int, str], Call] = {}
    for length in workload.lengths:
        batch, request = (
            {
                key: tf.constant(value)
                for key, value in made_requests(
                    schema, size, length, candidates
                ).items()
            }
            for size, candidates in (
                (workload.batch_size, workload.num_candidates),
                (1, workload.num_scored),
            )
        )
        asked = {
            key: value
            for key, value in request.items()
            if key.startswith("candidate_") or key == "request_time"
        }
        state = model.encode_user(request)
        calls[name, length, "training"] = _call(step, batch)
        calls[name, length, "pass"] = _call(whole, request)
        calls[name, length, "score"] = _call(score, state, asked)
    for call in calls.values():
        call()
    return calls


def _compiled(function: Any) -> Any:
    import tensorflow as tf

    return tf.function(
        lambda *given: function(*given).logits,
        jit_compile=True,
        autograph=False,
    )


def _call(function: Any, *given: Any) -> Call:
    # Copied to the host, which waits for the device.
    return lambda: function(*given).numpy()


def table(result: Mapping[str, Any]) -> list[str]:
    """Returns the figures as lines, the cheapest score first."""
    lengths = [str(length) for length in result["workload"]["lengths"]]
    rows = [["model", "L", "training req/s", "pass ms", "score ms", "state KB"]]
    for length in lengths:
        ordered = sorted(
            result["models"].items(),
            key=lambda item: item[1][length]["score_milliseconds"],
        )
        for name, of_lengths in ordered:
            found = of_lengths[length]
            seconds = found["seconds"]
            rows.append(
                [
                    name,
                    length,
                    f"{found['requests_per_second']:,.0f}",
                    with_quartiles(seconds["pass"], 1e3),
                    with_quartiles(seconds["score"], 1e3),
                    f"{found['state_kilobytes']:,.1f}"
                    + "*" * of_lengths["bound_to_request_time"],
                ]
            )
    return [
        *aligned(rows),
        "* the state holds for one request time alone.",
        *disturbance(result["load"]),
    ]


def _recipes(names: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """Returns the recipes of models, with the values that are given."""
    unknown = [name for name in names if name not in model_names()]
    if unknown:
        raise InputError(
            f"--models must be among {', '.join(model_names())}. "
            f"Received: {unknown[0]}"
        )
    values: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, _, given = text.partition(" ")
        field, _, value = given.partition("=")
        if name not in names or not value:
            raise InputError(
                "--values must be a model, a blank and field=value. "
                f"Received: {text!r}"
            )
        values.setdefault(name, {})[field] = value
    try:
        return {n: recipe_class(n)(**values.get(n, {})) for n in names}
    except (TypeError, ValueError) as error:
        raise InputError(f"--values: {error}") from error


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_list("models", None, "Models (default: all).")
    flags.DEFINE_multi_string(
        "values", [], "A model, a blank and field=value of its recipe."
    )
    flags.DEFINE_list("lengths", ["128", "1024"], "History lengths L.")
    flags.DEFINE_integer("batch_size", 64, "B of training.", lower_bound=1)
    flags.DEFINE_integer("num_candidates", 4, "C of training.", lower_bound=1)
    flags.DEFINE_integer("num_scored", 32, "C of a score.", lower_bound=1)
    flags.DEFINE_integer("num_rows", 100_000, "Rows of tables.", lower_bound=9)
    flags.DEFINE_integer("num_rounds", 15, "Rounds.", lower_bound=1)
    flags.DEFINE_float("turn_seconds", 0.2, "Seconds of a turn, at least.")
    result_files.define_flags()


def main(argv: list[str]) -> None:
    """Runs the command."""
    del argv  # Every option is a flag.
    values = flags.FLAGS
    result_files.check_flags()
    names = values.models or list(model_names())
    workload = Workload(
        recipes=_recipes(names, values.values),
        lengths=number_flags.ascending("lengths"),
        batch_size=values.batch_size,
        num_candidates=values.num_candidates,
        num_scored=values.num_scored,
        num_rows=values.num_rows,
        turns=Turns(num_rounds=values.num_rounds, seconds=values.turn_seconds),
    )
    result = measure(workload)
    result_files.write(result)
    print("\n".join(table(result)))


if __name__ == "__main__":
    define_flags()
    command.run(main)
