"""Time zones: what a day, an hour and a weekend are where data come from."""

import dataclasses
import datetime
import functools
import zoneinfo
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sparsectr.errors import InputError, did_you_mean

Seconds = npt.NDArray[np.int64]

LATEST_TIME = 4_102_444_800
"""Unix seconds of the year 2100: from it on a time is not in seconds."""

SECONDS_PER_DAY = 86_400

MINUTES = (-12 * 60, 14 * 60)
"""The offsets that are in use, in minutes."""

_EPOCH = datetime.datetime(1970, 1, 1)

# No zone has changed twice in less than six days since 1970.
_SCAN_SECONDS = SECONDS_PER_DAY


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeZone:
    """The offsets of local time from UTC, from 1970 to 2100.

    A value that is complete in itself: whoever has it needs no time-zone data,
    and all that have it agree, whatever data they have.

    Args:
        name: "UTC+8", "UTC-3:30" or "Europe/Copenhagen", for example.
        offsets: Pairs, ascending: the first Unix second from which an offset
            holds, and the offset in seconds east of UTC. The first offset
            also holds before its second, which is at most 0. No two seconds
            are less than a day apart.

    Raises:
        ValueError: If the offsets are no such pairs.
    """

    name: str
    offsets: tuple[tuple[int, int], ...] = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(
                f"`name` of a time zone must be text. Received: {self.name!r}"
            )
        starts = [start for start, _ in self.offsets]
        is_whole = all(type(n) is int for pair in self.offsets for n in pair)
        if (
            not starts
            or not is_whole
            or any(abs(offset) >= SECONDS_PER_DAY for _, offset in self.offsets)
            or starts[0] > 0
            or any(b - a < SECONDS_PER_DAY for a, b in pairwise(starts))
        ):
            raise ValueError(
                "`offsets` must be pairs of whole numbers, a Unix second and "
                "the seconds east of UTC from it on, from 0 on and a day or "
                f"more apart (time zone {self.name!r})."
            )

    @classmethod
    def fixed(cls, minutes: int) -> Self:
        """Returns the zone that is always so many minutes east of UTC.

        Raises:
            ValueError: If it is not from -12 to 14 hours.
        """
        least, most = MINUTES
        # To Python a bool is an int.
        if type(minutes) is not int or not least <= minutes <= most:
            raise ValueError(
                f"`minutes` must be whole minutes from {least} to {most}. "
                f"Received: minutes={minutes!r}"
            )
        hours, rest = divmod(abs(minutes), 60)
        sign = "-" if minutes < 0 else "+"
        name = f"UTC{sign}{hours}" + (f":{rest:02}" if rest else "")
        return cls(name=name, offsets=((0, 60 * minutes),))

    @classmethod
    def named(cls, name: str) -> Self:
        """Returns a zone of the time-zone database (IANA), such as Asia/Tokyo.

        Raises:
            InputError: If there is none of that name.
        """
        return cls(name=name, offsets=_offsets(name))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Returns the zone that `dataclasses.asdict` made a dict of.

        Raises:
            ValueError: If the dict describes no zone.
        """
        try:
            pairs = [(start, offset) for start, offset in values["offsets"]]
            return cls(**{**values, "offsets": tuple(pairs)})
        except (TypeError, KeyError) as error:
            raise ValueError(f"Not a time zone: {error}") from error

    @property
    def is_fixed(self) -> bool:
        """Whether the offset never changes."""
        return len(self.offsets) == 1

    def local(self, time: npt.ArrayLike) -> Seconds:
        """Returns local times.

        Args:
            time: Unix seconds, whole.

        Returns:
            int64, the seconds since 1970-01-01 00:00 that a clock there shows.
        """
        time = np.asarray(time, np.int64)
        starts, offsets = self._table()
        return time + offsets[np.searchsorted(starts[1:], time, side="right")]

    def universal(self, local: npt.ArrayLike) -> Seconds:
        """Returns the Unix seconds of local times.

        Of a local time that occurs twice, since clocks were put back, it is
        the first; one that does not occur is read by the offset before clocks
        were put forward, as `fold=0` does in Python.

        Args:
            local: Seconds since 1970-01-01 00:00 by a clock there, whole.

        Returns:
            int64.
        """
        local = np.asarray(local, np.int64)
        starts, offsets = self._table()
        changes = starts[1:] + np.maximum(offsets[:-1], offsets[1:])
        return local - offsets[np.searchsorted(changes, local, side="right")]

    def start_of_day(self, day: datetime.date) -> int:
        """Returns the first second of a day: its midnight, if there is one."""
        midnight = (day - _EPOCH.date()).days * SECONDS_PER_DAY
        starts, offsets = self._table()
        first = np.maximum(starts, midnight - offsets)
        first[0] = midnight - offsets[0]
        ends = np.append(starts[1:], np.iinfo(np.int64).max)
        return int(first[np.argmax(first < ends)])

    def moment(self, time: int) -> datetime.datetime:
        """Returns date and clock time of a Unix second, with its offset."""
        zone = self._offset_as_zone(int(self.local(time)) - time)
        return datetime.datetime.fromtimestamp(time, zone)

    def attach(self, moment: datetime.datetime) -> datetime.datetime:
        """Returns a clock time that says no zone with its offset here.

        What `universal` says of clock times that occur twice or never holds.
        """
        local = (moment - _EPOCH) // datetime.timedelta(seconds=1)
        offset = local - int(self.universal(local))
        return moment.replace(tzinfo=self._offset_as_zone(offset))

    @staticmethod
    def _offset_as_zone(seconds: int) -> datetime.timezone:
        return datetime.timezone(datetime.timedelta(seconds=seconds))

    def _table(self) -> tuple[Seconds, Seconds]:
        """Returns the starts and the offsets."""
        table = np.array(self.offsets, np.int64)
        return table[:, 0], table[:, 1]


UTC = TimeZone.fixed(0)


@functools.cache
def _offsets(name: str) -> tuple[tuple[int, int], ...]:
    """Finds the changes of a zone, exact to the second.

    `zoneinfo` tells the offset of a moment, and not when it changes.
    """
    known = zoneinfo.available_timezones()
    if name not in known:
        raise InputError(
            f"there is no time zone {name!r}; zones are named as "
            "Europe/Copenhagen." + did_you_mean(name, sorted(known))
        )
    zone = zoneinfo.ZoneInfo(name)

    def offset_at(time: int) -> int:
        offset = datetime.datetime.fromtimestamp(time, zone).utcoffset()
        return 0 if offset is None else int(offset.total_seconds())

    time, offset = 0, offset_at(0)
    found = [(time, offset)]
    while time < LATEST_TIME:
        later = min(time + _SCAN_SECONDS, LATEST_TIME)
        if offset_at(later) != offset:
            earlier = time
            while later - earlier > 1:
                middle = (earlier + later) // 2
                if offset_at(middle) == offset:
                    earlier = middle
                else:
                    later = middle
            offset = offset_at(later)
            found.append((later, offset))
        time = later
    return tuple(found)
