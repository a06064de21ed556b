"""Why a row is dropped: the states of a row in each step, and the words of the balance for them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from dhgsil.queries.origins import OriginStatus
from dhgsil.queries.texts import TextStatus


class ReadStatus(IntEnum):
    """Whether a row has a person and a day of the period; 1 to 3 are the states of `tables.times.LocalDays`."""

    OK = 0
    NO_TIME = 1
    NO_ZONE = 2
    UNREADABLE_TIME = 3
    OUTSIDE = 4
    NO_USER = 5


class TargetStatus(IntEnum):
    """What is known of the destination."""

    OK = 0
    PROVINCE_ONLY = 1
    SEVERAL_CITIES = 2
    NO_CITY = 3
    UNKNOWN_CODE = 4


READ_REASONS: Mapping[int, str] = {
    ReadStatus.NO_USER: "no user",
    ReadStatus.NO_TIME: "no time",
    ReadStatus.NO_ZONE: "time without zone",
    ReadStatus.UNREADABLE_TIME: "unreadable time",
    ReadStatus.OUTSIDE: "outside the period",
}
CLEAN_REASONS: Mapping[int, str] = {
    TextStatus.EMPTY: "empty text",
    TextStatus.TOO_LONG: "text too long",
    TextStatus.UNREADABLE: "not readable text",
}
JOB_REASONS: Mapping[int, str] = {TextStatus.NO_JOB_TERM: "no job term", TextStatus.STOP_TERM: "stop term"}
ORIGIN_REASONS: Mapping[int, str] = {
    OriginStatus.MISSING: "no address",
    OriginStatus.PRIVATE: "private address",
    OriginStatus.FOREIGN: "foreign address",
    OriginStatus.UNKNOWN: "unknown address",
    OriginStatus.UNKNOWN_CODE: "unknown city code",
    OriginStatus.NOT_HELD: "not a city of this holder",
}
DESTINATION_REASONS: Mapping[int, str] = {
    TargetStatus.PROVINCE_ONLY: "province only",
    TargetStatus.SEVERAL_CITIES: "name of several cities",
    TargetStatus.NO_CITY: "no city named",
    TargetStatus.UNKNOWN_CODE: "unknown city code",
}
