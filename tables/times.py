"""Days in one time zone, from instants of any unit, and from texts with offsets.

    day = floor(local time in `zone` / 24 h), counted from 1970-01-01

A time without a zone is an instant only if somebody says which zone is meant: `naive`. Then PEP 495 decides what clocks
leave open: an hour that comes twice is its first coming, an hour that is skipped is the moment after the gap. With
`naive` the same as `zone`, the day is the one that is written, whatever the clocks did.

Integers are refused: 1672531200 may be seconds here and milliseconds there, and nothing in the column tells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from protocol.errors import DataError, PlanError
from tables.iso_times import read_iso_times

UNITS_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
NO_DAY = int(np.iinfo(np.int32).min)  # far outside any period, should somebody forget the status


class TimeStatus(IntEnum):
    """What became of a time."""

    OK = 0
    MISSING = 1
    NO_ZONE = 2
    UNREADABLE = 3


@dataclass(frozen=True, eq=False)
class LocalDays:
    """The day of each time, and what became of it.

    Shapes: days (n,) int32, days since 1970-01-01 in the zone asked for, `NO_DAY` where the status is not `OK`;
    status (n,) int8 of `TimeStatus`.
    """

    days: np.ndarray
    status: np.ndarray


def known_zone(name: str, *, offsets: bool = False) -> str:
    """The name of a time zone, after looking it up; for fields of a configuration.

    Args:
        name: An IANA name.
        offsets: Whether an offset such as "+08:00" will do, too.

    Raises:
        ValueError: there is no such zone.
    """
    if offsets and re.fullmatch(r"[+-]\d\d:\d\d", name):
        return name
    try:
        check_zone(name)
    except PlanError:
        raise ValueError(
            f"'{name}' is no time zone; write Asia/Shanghai{', UTC or +08:00' if offsets else ' or UTC'}"
        ) from None
    return name


def local_days(times: Any, *, zone: str, naive: str | None) -> LocalDays:
    """The local day of each time.

    Args:
        times: Arrow timestamps with or without a zone, dates, or texts in ISO 8601 ("2023-01-05T23:30:00+08:00", each
            with its own offset, "Z" or none).
        zone: IANA name of the zone whose days are counted.
        naive: Zone of times that name none, an IANA name or an offset such as "+08:00"; None lets them be `NO_ZONE`.

    Shapes: times (n,) -> days (n,), status (n,)

    Raises:
        PlanError: a zone that does not exist.
        DataError: times that are neither timestamps, dates nor texts.

    Source: PEP 495 for the hours that clocks repeat or skip.
    """
    check_zone(zone)
    if naive is not None and not re.fullmatch(r"[+-]\d\d:\d\d", naive):
        check_zone(naive)
    array = times.combine_chunks() if isinstance(times, pa.ChunkedArray) else times
    if isinstance(array, pa.ChunkedArray):  # no chunks at all
        array = pa.array([], times.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    type_ = array.type
    if pa.types.is_timestamp(type_):
        return _of_timestamps(array, zone, naive)
    if pa.types.is_date(type_):
        if naive is not None and naive != zone:
            raise DataError(
                f"days without a time of day cannot be moved from {naive} to {zone}",
                way_out=f"declare naive_times = '{zone}', or give full times",
            )
        return _of_timestamps(array.cast(pa.timestamp("s")), zone, naive)
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return _of_texts(array, zone, naive)
    if pa.types.is_null(type_):
        return LocalDays(np.full(len(array), NO_DAY, np.int32), np.full(len(array), TimeStatus.MISSING, np.int8))
    raise DataError(
        f"times must be timestamps or ISO 8601 texts, got {type_}",
        way_out="convert them where the table is made: a number does not tell its unit nor its zone",
    )


def check_zone(zone: str) -> None:
    """Refuse a zone that does not exist.

    Raises:
        PlanError: no such IANA zone.
    """
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PlanError(f"no time zone '{zone}'; use an IANA name such as Asia/Shanghai") from None


def _of_timestamps(array: Any, zone: str, naive: str | None) -> LocalDays:
    status = np.where(array.is_null().to_numpy(zero_copy_only=False), TimeStatus.MISSING, TimeStatus.OK)
    status = status.astype(np.int8)
    if array.type.tz is None:
        if naive is None:
            status[status == TimeStatus.OK] = TimeStatus.NO_ZONE
            return LocalDays(np.full(len(array), NO_DAY, np.int32), status)
        if naive != zone:
            rule = pc.AssumeTimezoneOptions(naive, ambiguous="earliest", nonexistent="latest")
            array = pc.call_function("assume_timezone", [array], rule)
    return LocalDays(_local_day(array, zone, status == TimeStatus.OK), status)


def _of_texts(array: Any, zone: str, naive: str | None) -> LocalDays:
    instants = read_iso_times(array)
    status = np.full(len(array), TimeStatus.UNREADABLE, np.int8)
    status[instants.missing] = TimeStatus.MISSING
    status[instants.readable & instants.has_offset] = TimeStatus.OK
    floating = instants.readable & ~instants.has_offset
    status[floating] = TimeStatus.NO_ZONE if naive is None else TimeStatus.OK
    days = np.full(len(array), NO_DAY, np.int32)
    absolute = instants.readable & instants.has_offset
    for mask, type_ in ((absolute, pa.timestamp("s", "UTC")), (floating, pa.timestamp("s"))):
        if mask.any():
            days[mask] = _of_timestamps(pa.array(instants.seconds[mask]).cast(type_), zone, naive).days
    return LocalDays(days, status)


def _local_day(array: Any, zone: str, known: np.ndarray) -> np.ndarray:
    """Days since 1970-01-01 of instants, or of times that are local already."""
    unit = array.type.unit
    if array.type.tz is not None:
        array = pc.call_function("local_timestamp", [array.cast(pa.timestamp(unit, zone))])
    ticks = pc.fill_null(array.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    # Floor, so that the evening of 31 December 1969 is day -1.
    days = np.clip(ticks // UNITS_PER_DAY[unit], NO_DAY, -NO_DAY - 1)  # years no calendar has stay far away
    return np.where(known, days, NO_DAY).astype(np.int32)
