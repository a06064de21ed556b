"""ISO 8601 texts to seconds, many at a time: texts of one length are a matrix of bytes, and a column is one comparison.

Read are "2023-01-05", and "2023-01-05T12:00", "2023-01-05 12:00:59.123456789" with T, t or a blank between, a decimal
point or comma, and at the end nothing, Z, z, " UTC", +08, +0800 or +08:00, with or without a blank before. A leap
second (:60) counts as the second before it. Anything else is unreadable, nothing is guessed: 05/01/2023 is a day in May
for some and in January for others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

DATE, LONGEST = len("2023-01-05"), 64
ROWS_AT_A_TIME = 1 << 14  # a column of them stays in the processor's cache
MINUTES, SECONDS = len("2023-01-05T12:00"), len("2023-01-05T12:00:59")


@dataclass(frozen=True, eq=False)
class IsoTimes:
    """Seconds since 1970-01-01 00:00, in UTC where the text has an offset and on its own clock where it has none.

    Shapes: all (n,); seconds int64, the others bool. Seconds mean nothing where a text is not readable.
    """

    seconds: np.ndarray
    has_offset: np.ndarray
    readable: np.ndarray
    missing: np.ndarray


def read_iso_times(texts: Any) -> IsoTimes:
    """The texts of an Arrow array of strings; a text of blanks is missing.

    Shapes: texts (n,) -> each (n,)
    """
    trimmed = pc.call_function("utf8_trim_whitespace", [pc.fill_null(texts.cast(pa.large_string()), "")])
    starts, lengths, data = _layout(trimmed)
    count = len(trimmed)
    times = IsoTimes(np.zeros(count, np.int64), *(np.zeros(count, bool) for _ in range(3)))
    times.missing[:] = lengths == 0
    for first in range(0, count, ROWS_AT_A_TIME):
        part = slice(first, first + ROWS_AT_A_TIME)
        for length in np.unique(lengths[part]):
            if DATE <= length <= LONGEST:
                rows = first + np.flatnonzero(lengths[part] == length)
                _read_texts(_matrix(data, starts[rows], int(length)), rows, times)
    return times


def _layout(texts: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start and length of each text in one array of bytes."""
    _, offsets, data = texts.buffers()
    if not len(texts) or offsets is None or data is None:
        return np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64), np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return ends[:-1], np.diff(ends), np.frombuffer(data, np.uint8)


def _matrix(data: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Texts of one length, one in a column, so that a position of all texts lies together; (length, n) uint8."""
    matrix = np.empty((length, len(starts)), np.uint8)
    for position in range(length):
        np.take(data, starts + position, out=matrix[position], mode="clip")
    return matrix


def _read_texts(texts: np.ndarray, rows: np.ndarray, times: IsoTimes) -> None:
    """Texts of one length, (length, n)."""
    body, offset, has_offset, readable = _offsets(texts)
    for length in np.unique(body[readable]):
        chosen = readable & (body == length)
        seconds, good = _clock(texts[:length] if chosen.all() else texts[:length, chosen])
        target = rows[chosen]
        times.seconds[target] = seconds - offset[chosen]
        times.has_offset[target] = has_offset[chosen]
        times.readable[target] = good


def _offsets(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Length of each text without its offset, the offset in seconds, whether it has one, and whether it is in order."""
    length, count = texts.shape
    body, offset = np.full(count, length), np.zeros(count, np.int64)
    has_offset, readable = np.zeros(count, bool), np.ones(count, bool)
    undecided = np.ones(count, bool)

    def decide(found: np.ndarray, width: int) -> np.ndarray:
        found = found & undecided
        undecided[found] = False
        body[found] = length - width
        has_offset[found] = True
        return found

    if length > MINUTES:
        decide((texts[-1] == ord("Z")) | (texts[-1] == ord("z")), 1)
    if length > MINUTES + 3:
        decide((texts[-3] == ord("U")) & (texts[-2] == ord("T")) & (texts[-1] == ord("C")), 3)
    for width, minutes in ((6, 2), (5, 2), (3, None)):
        if length < MINUTES + width:
            continue
        sign = texts[-width]
        found = (sign == ord("+")) | (sign == ord("-"))
        if width == 6:
            found &= texts[-3] == ord(":")
        found = decide(found, width)
        hours, good = _number(texts[-width + 1 : length - width + 3])
        rest, fine = _number(texts[-minutes:]) if minutes else (np.zeros(count, np.int64), np.ones(count, bool))
        readable &= ~found | (good & fine & (hours < 24) & (rest < 60))
        offset[found] = (np.where(sign == ord("-"), -1, 1) * (hours * 3600 + rest * 60))[found]
    blank = has_offset & (np.take_along_axis(texts, (body - 1)[None], 0)[0] == ord(" "))
    body[blank] -= 1
    return body, offset, has_offset, readable


def _clock(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Seconds since 1970-01-01 00:00 on the text's own clock, and whether the text is in order; (length, n) -> (n,)."""
    length, count = texts.shape
    good = np.ones(count, bool)

    def number(start: int, end: int, least: int, most: int) -> np.ndarray:
        value, digits = _number(texts[start:end])
        good[:] &= digits & (value >= least) & (value <= most)
        return value

    def sign(position: int, signs: str) -> None:
        good[:] &= np.logical_or.reduce([texts[position] == ord(sign) for sign in signs])

    if length not in (DATE, MINUTES, SECONDS) and length < SECONDS + 2:
        return np.zeros(count, np.int64), ~good
    year, month, day = number(0, 4, 1, 9999), number(5, 7, 1, 12), number(8, 10, 1, 31)
    sign(4, "-")
    sign(7, "-")
    days, exists = _days(year, month, day)
    good &= exists
    seconds = days * 86_400
    if length >= MINUTES:
        sign(10, "Tt ")
        sign(13, ":")
        seconds += number(11, 13, 0, 23) * 3600 + number(14, 16, 0, 59) * 60
    if length >= SECONDS:
        sign(16, ":")
        seconds += np.minimum(number(17, 19, 0, 60), 59)
    if length > SECONDS:
        sign(19, ".,")
        good &= ((texts[20:] >= ord("0")) & (texts[20:] <= ord("9"))).all(axis=0)
    return seconds, good


def _number(digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number that each column of digits spells, and whether they are digits; (width, n) -> (n,)."""
    values = digits - np.uint8(ord("0"))  # what is no digit wraps to more than 9
    good: Any = (values <= 9).all(axis=0)
    number = values[0].astype(np.int64)
    for value in values[1:]:
        number *= 10
        number += value
    return number, good


def _days(year: np.ndarray, month: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Days since 1970-01-01, and whether the month has such a day."""
    months = np.clip((year - 1970) * 12 + month - 1, -(1970 * 12), 8030 * 12)
    first: np.ndarray = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    following = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    days: Any = first + day - 1
    exists: Any = days < following
    return days, exists
