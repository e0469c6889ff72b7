"""The statistics of a store as text of 79 columns, but for a long path."""

from collections.abc import Iterator, Sequence

from data_pipelines.description.duration_counts import (
    CLASS_NAMES,
    DurationCounts,
)
from data_pipelines.description.integer_counts import IntegerCounts
from data_pipelines.description.periods import count_by_period
from data_pipelines.description.store_statistics import (
    StoreStatistics,
    TimeSpan,
    field_tables,
)
from data_pipelines.stores.shard import SPLITS
from data_pipelines.stores.store import Store
from sparsectr.schema import DatasetSchema
from sparsectr.statistic import span_text
from sparsectr.time_zone import TimeZone

_PERCENTS = {
    "min": 0,
    "10 %": 10,
    "50 %": 50,
    "90 %": 90,
    "99 %": 99,
    "max": 100,
}

NONE = "-"


def describe(
    store: Store, statistics: StoreStatistics, location: str | None = None
) -> str:
    """Returns what a store holds, for people.

    Args:
        store: The store.
        statistics: What was counted in it.
        location: What its user calls it; `None` for its path.
    """
    sections = (
        _overview(store, statistics, location or str(store.path)),
        _requests(statistics),
        *([_parts(statistics)] if statistics.parts else []),
        _percentiles(statistics),
        _chunks(statistics),
        _durations(statistics),
        _periods(statistics),
        _fields(statistics, store.schema),
        *([_counted(store)] if store.schema.statistics else []),
    )
    return "\n\n".join("\n".join(section) for section in sections)


def source(store: Store) -> str:
    """Returns where a store comes from, loud if that is no real data."""
    found = store.manifest.get("data_source", "unknown source")
    if found == "synthetic sample":
        return "SYNTHETIC SAMPLE, not real data"
    return found


def split_rule(store: Store) -> str | None:
    """Returns how train and test were told apart, if the manifest says it."""
    rule: str | None = store.manifest.get("split", {}).get("rule")
    return rule


def share(part: int, whole: int) -> str:
    """Returns a share in percent that shows 0 and 100 % only where exact."""
    if whole == 0:
        return NONE
    if part == 0:
        return "0"
    percent = 100 * part / whole
    if percent < 0.1:
        return "<0.1 %"
    if part == whole:
        return "100 %"
    return f"{percent:.1f} %" if percent <= 99.9 else ">99.9 %"


def share_kept(rate: float) -> str:
    """Returns a share of negatives in percent."""
    return f"{100 * rate:g} %"


def duration(seconds: int | None) -> str:
    """Returns a duration of two digits or so, cut off, not rounded."""
    if seconds is None:
        return NONE
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            tenths = 10 * seconds // length
            if tenths >= 100:
                return f"{tenths // 10:,} {unit}"
            return f"{tenths // 10}.{tenths % 10} {unit}"
    return f"{seconds} s"


def _line(label: str, values: Sequence[str], width: int) -> str:
    """Returns a label and values that end at the right edge."""
    right = "".join(f"{value:>{width}}" for value in values)
    space = 79 - len(right)
    if len(label) > space:
        return f"{label}\n{'':{space}}{right}".rstrip()
    return f"{label:{space}}{right}".rstrip()


def _overview(
    store: Store, statistics: StoreStatistics, location: str
) -> Iterator[str]:
    schema = store.schema
    yield f"{schema.name} ({source(store)})"
    yield f"store: {location}"
    yield (
        f"{statistics.num_users:,} users, "
        f"{statistics.behaviors_by_day.total:,} behaviors"
    )
    rule = split_rule(store)
    if rule is not None:
        yield f"split: {rule}"
    cut = store.manifest.get("split", {}).get("validation_rule")
    if cut is not None:
        yield f"validation: {cut}"
    if schema.time_fields:
        yield f"time fields: {', '.join(schema.time_fields)}"
    if schema.negative_rate < 1.0:
        yield (
            f"negatives: the log has {share_kept(schema.negative_rate)} of "
            "them; rates below are the log's"
        )
    yield ""
    yield _line(f"Times, {schema.time_zone.name}", ["first", "last"], 22)
    spans = {"behaviors": statistics.behavior_span}
    for split in SPLITS:
        spans[f"{split} requests"] = statistics.splits[split].span
    for name, span in spans.items():
        yield _line(f"  {name}", _ends(span, schema.time_zone), 22)


def _ends(span: TimeSpan, time_zone: TimeZone) -> list[str]:
    return [
        NONE
        if time is None
        else time_zone.moment(time).strftime("%Y-%m-%d %H:%M:%S")
        for time in (span.first, span.last)
    ]


def _requests(statistics: StoreStatistics) -> Iterator[str]:
    limit = statistics.max_history
    splits = [statistics.splits[split] for split in SPLITS]
    requests = [split.num_candidates.total for split in splits]
    candidates = [split.num_candidates.sum for split in splits]
    clicks = [split.clicks_by_day.total for split in splits]

    def shares(parts: Sequence[int], wholes: Sequence[int]) -> list[str]:
        return [share(*pair) for pair in zip(parts, wholes, strict=True)]

    rows = {
        "requests": [f"{number:,}" for number in requests],
        "candidates": [f"{number:,}" for number in candidates],
        "click rate, of candidates": shares(clicks, candidates),
        "requests without history": shares(
            [s.history_length.between(0, 1) for s in splits], requests
        ),
        f"requests with a history of more than {limit:,}": shares(
            [s.history_length.between(limit + 1) for s in splits], requests
        ),
        f"behaviors of histories beyond the newest {limit:,}": shares(
            [s.history_length.sum - s.behaviors_read for s in splits],
            [s.history_length.sum for s in splits],
        ),
        "requests with a behavior in their second": shares(
            [split.num_same_second for split in splits], requests
        ),
    }
    yield _line("Splits", SPLITS, 14)
    for label, values in rows.items():
        yield _line(f"  {label}", values, 14)
    delay = statistics.history_delay
    yield (
        f"  (what is newer than {duration(delay)} at a request is no part of "
        "its history)"
        if delay
        else "  (what is in the request's own second is no part of its history)"
    )


def _parts(statistics: StoreStatistics) -> Iterator[str]:
    parts = list(statistics.parts.values())
    rates = [share(part["positives"], part["candidates"]) for part in parts]
    yield _line("Parts by time", list(statistics.parts), 14)
    for name in ("requests", "candidates"):
        yield _line(f"  {name}", [f"{part[name]:,}" for part in parts], 14)
    yield _line("  click rate, of candidates", rates, 14)
    yield "  (train is train_older with validation)"


def _percentiles(statistics: StoreStatistics) -> Iterator[str]:
    yield _line("Percentiles", list(_PERCENTS), 9)
    yield from _percentile_lines("history length", statistics, "history_length")
    yield from _percentile_lines("candidates", statistics, "num_candidates")
    yield from _percentile_lines("newest behavior", statistics, "newest_age")
    yield from _percentile_lines("oldest behavior", statistics, "oldest_age")
    yield _percentile_line("between behaviors", statistics.gap)
    yield "  (newest and oldest: time before the request, where there is a"
    yield f"  history; oldest of the newest {statistics.max_history:,})"


def _percentile_lines(
    label: str, statistics: StoreStatistics, name: str
) -> Iterator[str]:
    for split in SPLITS:
        counts = getattr(statistics.splits[split], name)
        yield _percentile_line(f"{label}, {split}", counts)


def _percentile_line(label: str, counts: IntegerCounts | DurationCounts) -> str:
    values = [counts.percentile(percent) for percent in _PERCENTS.values()]
    if isinstance(counts, DurationCounts):
        texts = [duration(value) for value in values]
    else:
        texts = [NONE if v is None else f"{v:,}" for v in values]
    return _line(f"  {label}", texts, 9)


def _chunks(statistics: StoreStatistics) -> Iterator[str]:
    num_chunks = statistics.num_chunks
    chunk_length = statistics.chunk_length
    yield f"TimeChunking of each user's last history into {num_chunks} chunks"
    rows = {
        f"histories of fewer than {num_chunks} behaviors": share(
            statistics.num_short_histories, statistics.num_histories
        ),
        "others cut between behaviors of one second": share(
            statistics.shortest_cut.classes()[0], statistics.shortest_cut.total
        ),
        "chunks of one behavior": share(
            chunk_length.between(1, 2), chunk_length.total
        ),
    }
    for label, value in rows.items():
        yield _line(f"  {label}", [value], 14)
    yield ""
    yield _line("", list(_PERCENTS), 9)
    yield _percentile_line("shortest gap cut", statistics.shortest_cut)
    yield _percentile_line("chunk length", chunk_length)
    yield _percentile_line("largest chunk, % of all", statistics.largest_chunk)


def _durations(statistics: StoreStatistics) -> Iterator[str]:
    yield _line("Durations", ["all gaps", "shortest gap cut"], 18)
    for name, *counts in zip(
        CLASS_NAMES,
        statistics.gap.classes(),
        statistics.shortest_cut.classes(),
        strict=True,
    ):
        totals = (statistics.gap.total, statistics.shortest_cut.total)
        shares = [share(*pair) for pair in zip(counts, totals, strict=True)]
        yield _line(f"  {name}", shares, 18)


def _periods(statistics: StoreStatistics) -> Iterator[str]:
    periods = count_by_period(statistics)
    yield _line("", ["", "requests", "", "click rate", ""], 13)
    yield _line(f"By {periods.unit}", ["behaviors", *SPLITS, *SPLITS], 13)
    # 2017-05-13, 2017-05 or 2017.
    length = {"day": 10, "month": 7, "year": 4}[periods.unit]
    for index, start in enumerate(periods.edges[:-1]):
        numbers = [
            periods.behaviors[index],
            *(periods.requests[split][index] for split in SPLITS),
        ]
        if any(numbers):
            rates = [
                share(periods.clicks[s][index], periods.candidates[s][index])
                for s in SPLITS
            ]
            texts = [f"{number:,}" if number else NONE for number in numbers]
            yield _line(f"  {str(start)[:length]}", [*texts, *rates], 13)


def _fields(
    statistics: StoreStatistics, schema: DatasetSchema
) -> Iterator[str]:
    yield _line("", ["missing", "", "unknown", ""], 9)
    yield _line("Fields", ["rows", *SPLITS, *SPLITS], 9)
    for name, rows in field_tables(schema).items():
        counts = [statistics.fields[name][split] for split in SPLITS]
        missing = [share(c.missing, c.rows) for c in counts]
        unknown = [share(c.out_of_vocabulary, c.rows) for c in counts]
        if rows is None:
            yield _line(f"  {name}", ["dense", *missing, NONE, NONE], 9)
        else:
            yield _line(f"  {name}", [f"{rows:,}", *missing, *unknown], 9)
    yield "  (rows: of the embedding table; unknown: out of vocabulary. Users"
    yield "  have a value a request. Behaviors from the test time on are test)"


def _counted(store: Store) -> Iterator[str]:
    described = store.manifest.get("statistics", {})
    columns = ["values", "by time", "bucket", "delay"]
    yield _line("Statistics", columns, 11)
    for statistic in store.schema.statistics:
        counts = described.get(statistic.name, {})
        numbers = [
            f"{counts[key]:,}" if key in counts else NONE
            for key in ("values", "pairs")
        ]
        spans = [span_text(statistic.bucket), span_text(statistic.delay)]
        name = f"{statistic.name}: {' x '.join(statistic.fields)}"
        yield _line(f"  {name}", [*numbers, *spans], 11)
    yield "  (of all candidates shown before the request's bucket less the"
    yield "  delay; by time: counts that are kept, one a value and bucket)"
