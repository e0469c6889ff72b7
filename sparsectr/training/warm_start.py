"""A run that goes on from the weights of another one, on days that are new.

The old rows of its tables, their moments and their averages are those of the
run before; new rows are as those of any new run. Steps go on counting where
the moments and averages do, and the schedule of the learning rate begins anew.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from data_pipelines.stores.store import Store
from data_pipelines.stores.store_identity import StoreIdentity
from sparsectr.config import Config
from sparsectr.errors import InputError
from sparsectr.schema import NUM_RESERVED_IDS, PREFIXES, DatasetSchema
from sparsectr.training.run_directory import RunDirectory

Array = npt.NDArray[Any]

WARM_START = "warm_start.json"
"""Where a run says where it began."""

BEFORE_TRAINING = "before_training.json"
"""What the run before scored on the new days, in a run that goes on."""

# What is the new run's own: rates are flags, and may be variables.
_NOT_TAKEN = "learning_rate"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmStart:
    """Where a run begins.

    Args:
        run: The run before.
        steps: Steps that its moments and averages have behind them, those of
            the runs before it too.
        first_time: Unix seconds; what is before was trained on, or was there
            to be trained on.
        end_time: Unix seconds at which the test begins.
        sizes: Rows of each table in the run before.
    """

    run: str
    steps: int
    first_time: int
    end_time: int
    sizes: Mapping[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Returns values for JSON."""
        return dataclasses.asdict(self)

    def days(self, schema: DatasetSchema) -> Iterator[tuple[str, int, int]]:
        """Yields the days before the test that are new.

        Yields:
            Date, first second and one past the last.
        """
        zone, begin = schema.time_zone, self.first_time
        while begin < self.end_time:
            day = zone.moment(begin).date()
            # Not by 24 hours: a clock that changes has a shorter day.
            end = zone.start_of_day(zone.moment(begin + 86_400).date())
            if end <= begin:
                end = begin + 86_400
            end = min(end, self.end_time)
            yield str(day), begin, end
            begin = end


def read_warm_start(run: RunDirectory) -> WarmStart | None:
    """Returns where a run began; `None` if from nothing."""
    path = run.path / WARM_START
    if not path.exists():
        return None
    try:
        return WarmStart(**json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error


def find_warm_start(
    before: RunDirectory, config: Config, store: Store
) -> WarmStart:
    """Checks that a run can go on from another one.

    Args:
        before: The other run, which is done.
        config: What the new run is to be.
        store: Its store.

    Raises:
        InputError: If the model, the fields or the meaning of an id differ,
            or if the store has no days that the run has not seen.
    """
    result = before.read_result()
    if not result:
        raise InputError(
            f"--warm_start: {before.location} has no result yet. Go on with "
            "it by --resume."
        )
    _check_config(before, config)
    seen, found = before.read_store(), StoreIdentity.of(store)
    _check_rows(before, seen, found)
    _check_schema(before, seen.schema, found.schema)
    for table in seen.schema.tables:
        if table.kind != "hashed":
            _check_ids(before, seen, store, table.name, table.size or 0)
    if seen.test_time is None or found.test_time is None:
        raise InputError(
            f"--warm_start: {before.location} does not say up to when it was "
            "trained; an earlier version made it. Train anew."
        )
    if found.test_time <= seen.test_time:
        raise InputError(
            f"--warm_start: {store.path} has no day before its test that "
            f"{before.location} was not trained on: both end at Unix second "
            f"{seen.test_time}. Add days by data_pipelines.prepare --update."
        )
    earlier = read_warm_start(before)
    return WarmStart(
        run=before.location,
        steps=int(result["step"]) + (earlier.steps if earlier else 0),
        first_time=seen.test_time,
        end_time=found.test_time,
        sizes={table.name: table.size or 0 for table in seen.schema.tables},
    )


def restore_from(before: RunDirectory, parts: Mapping[str, Any]) -> None:
    """Gives variables the values of a run's newest checkpoint.

    Args:
        before: The run.
        parts: `tf.Variable`s by what a checkpoint calls them, in dicts. One
            with more rows keeps its own behind those of the checkpoint.

    Raises:
        InputError: If the checkpoint has another one, or of another shape.
    """
    path = tf.train.latest_checkpoint(str(before.checkpoints))
    if path is None:
        raise InputError(f"--warm_start: {before.location} has no checkpoint.")
    reader = tf.train.load_checkpoint(path)
    for name, variable in _named(parts):
        if name.endswith(_NOT_TAKEN):
            continue
        key = f"{name}/.ATTRIBUTES/VARIABLE_VALUE"
        if not reader.has_tensor(key):
            raise InputError(
                f"--warm_start: {before.location} has no "
                f"{name.replace('.S', '/')}: it is of another model."
            )
        value = reader.get_tensor(key)
        shape = tuple(variable.shape)
        if value.shape != shape:
            is_grown = (
                value.shape[1:] == shape[1:]
                and len(shape) > 0
                and value.shape[0] < shape[0]
            )
            if not is_grown:
                raise InputError(
                    f"--warm_start: {name.replace('.S', '/')} has the shape "
                    f"{value.shape} in {before.location}, and {shape} now."
                )
            whole = tf.convert_to_tensor(variable).numpy()
            whole[: len(value)] = value
            value = whole
        variable.assign(value)


def _named(parts: Mapping[str, Any], prefix: str = "") -> Iterator[Any]:
    for name, part in parts.items():
        # As TensorFlow writes them.
        path = prefix + name.replace(".", "..").replace("/", ".S")
        if isinstance(part, Mapping):
            yield from _named(part, f"{path}/")
        else:
            yield path, part


def _check_config(before: RunDirectory, config: Config) -> None:
    theirs, _ = before.read_config()
    if theirs.train.validation or config.train.validation:
        raise InputError(
            "--warm_start goes from a final run to another one, and not from "
            "or to one of --validation."
        )
    different = [
        f"{what} ({was!r}, {now!r})"
        for what, was, now in (
            ("model.name", theirs.model.name, config.model.name),
            *(
                (
                    f"model.{field.name}",
                    getattr(theirs.model, field.name),
                    getattr(config.model, field.name, None),
                )
                for field in dataclasses.fields(theirs.model)
            ),
            ("data.leave_out", theirs.data.leave_out, config.data.leave_out),
            ("ema_decay", theirs.train.ema_decay, config.train.ema_decay),
        )
        if was != now
    ]
    if different:
        raise InputError(
            f"--warm_start: {before.location} is of another model: "
            f"{'; '.join(different)} differ."
        )


def _check_rows(
    before: RunDirectory, seen: StoreIdentity, found: StoreIdentity
) -> None:
    # A store without updates is known by its vocabularies alone.
    count = len(seen.updates)
    if list(found.updates[:count]) != list(seen.updates):
        raise InputError(
            f"--warm_start: the store is not the one that {before.location} "
            "was trained on, with days added: its first "
            f"{count} updates hold other rows."
        )


def _check_schema(
    before: RunDirectory, seen: DatasetSchema, found: DatasetSchema
) -> None:
    different = [
        field.name
        for field in dataclasses.fields(DatasetSchema)
        if _compared(seen, field.name) != _compared(found, field.name)
    ]
    if different:
        hint = ""
        if {f"{prefix}_dense_fields" for prefix in PREFIXES} & {*different}:
            hint = " (numbers keep the scales of the first days)"
        raise InputError(
            f"--warm_start: {before.location} has another schema: "
            f"{', '.join(different)} differ{hint}."
        )


def _compared(schema: DatasetSchema, name: str) -> Any:
    """Returns a part of a schema, without the sizes of vocabularies."""
    value = getattr(schema, name)
    if name != "tables":
        return value
    return [
        dataclasses.replace(
            table, size=table.size if table.kind == "hashed" else None
        )
        for table in value
    ]


def _check_ids(
    before: RunDirectory,
    seen: StoreIdentity,
    store: Store,
    table: str,
    size: int,
) -> None:
    """Checks that the ids of a table mean what they did, by content."""
    path = store.vocabulary_file(table)
    values = json.loads(path.read_text("utf-8"))[: size - NUM_RESERVED_IDS]
    text = json.dumps(values, allow_nan=False) + "\n"
    found = hashlib.sha256(text.encode()).hexdigest()
    if found != seen.vocabularies[table]:
        raise InputError(
            f"--warm_start: the first {size} ids of the table {table!r} mean "
            f"other values in {store.path} than in {before.location}."
        )
