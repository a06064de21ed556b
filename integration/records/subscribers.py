"""A holder's own numbers and what is known of them; a number that is there twice must say the same twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from integration.provinces import NUMBER_OF, PROVINCES, UNKNOWN
from integration.records.numbers import NO_NUMBER, codes_of
from integration.records.source import SubscriberSource
from integration.records.values import combined, floats, refuse_unreadable, trimmed, whole_table
from integration.weeks import CallCalendar
from protocol.errors import DataError
from tables.checks import check_schema, refuse_failed
from tables.engine import Engine
from tables.sources import open_source

OLDEST = 120
SEXES = {"f": 0, "female": 0, "m": 1, "male": 1}
SAYS_UNKNOWN = ("u", "unknown", "nan", "none", "null")
NO_NUMBERS, TWICE, NO_SUCH_AGE = "no number", "same row again", "age below 0 or above 120"


@dataclass(frozen=True, eq=False)
class Subscribers:
    """Rows of a table of subscribers, one for each number.

    Args:
        table: person, birthplace, sex, birth_year and perhaps identity, sorted by person; see `integration.people`.
        noted: Rows that were left out or lost a value, by why.
    """

    table: pd.DataFrame
    noted: dict[str, int] = field(default_factory=dict)


def read_subscribers(
    source: SubscriberSource, base: Path, engine: Engine | None, calendar: CallCalendar
) -> pd.DataFrame:
    """The table of `subscribers_of`."""
    return subscribers_of(source, base, engine, calendar).table


def subscribers_of(source: SubscriberSource, base: Path, engine: Engine | None, calendar: CallCalendar) -> Subscribers:
    """The subscribers of a table. A row without a number is left out, and one that is there again; both are counted.

    Raises:
        DataError: a column is missing or of a wrong type; a birthplace that is no province, a sex that is neither, a
            year or an age that is no whole number; or a number with two different values of anything.
        EngineError: the engine failed.
    """
    rows = open_source(source.subscribers, base=base, engine=engine)
    refuse_failed(check_schema(rows.schema, source.contract()), source=rows.name)
    raw = whole_table(rows, source.columns())
    columns: dict[str, Any] = {"person": codes_of(combined(raw[source.number]))}
    columns["birthplace"] = _birthplaces(combined(raw[source.birthplace]), rows.name, source.birthplace)
    columns["sex"] = np.full(len(raw), UNKNOWN, np.int8)
    if source.sex is not None:
        columns["sex"] = _sexes(combined(raw[source.sex]), rows.name, source.sex)
    columns["birth_year"], impossible = _birth_years(raw, source, rows.name, calendar.start.year)
    if source.identity is not None:
        columns["identity"] = trimmed(combined(raw[source.identity])).to_pandas()
    table = pd.DataFrame(columns)
    numbered = table[table["person"] != NO_NUMBER]
    once = numbered.drop_duplicates()
    twice = int(once["person"].duplicated().sum())
    if twice:
        raise DataError(
            f"{twice} numbers are there again with another birthplace, sex, age or identity",
            way_out="say which row of each holds, and remove the others",
            source=rows.name,
            column=source.number,
        )
    noted = {NO_NUMBERS: len(table) - len(numbered), TWICE: len(numbered) - len(once), NO_SUCH_AGE: impossible}
    return Subscribers(once.sort_values("person", ignore_index=True), noted)


def _birthplaces(column: pa.Array, source: str, name: str) -> np.ndarray:
    words = pc.call_function("utf8_upper", [trimmed(column)])
    words = pc.call_function("replace_substring_regex", [words], pc.ReplaceSubstringOptions("^CN-", ""))
    numbers, bad = _looked_up(words, NUMBER_OF, tuple(word.upper() for word in SAYS_UNKNOWN))
    refuse_unreadable(bad, source=source, column=name, what=f"province ({', '.join(PROVINCES)})")
    return numbers


def _sexes(column: pa.Array, source: str, name: str) -> np.ndarray:
    numbers, bad = _looked_up(pc.call_function("utf8_lower", [trimmed(column)]), SEXES, SAYS_UNKNOWN)
    refuse_unreadable(bad, source=source, column=name, what="sex (F or M)")
    return numbers


def _looked_up(words: Any, numbers: dict[str, int], unknown: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Number of each word, -1 for a missing one, and which words are none of these."""
    encoded = words.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    number = np.array([*(numbers.get(word, UNKNOWN) for word in distinct), UNKNOWN], np.int8)
    bad = np.array([*(word not in numbers and word not in unknown for word in distinct), False])
    at = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
    return number[at], bad[at]


def _birth_years(raw: pa.Table, source: SubscriberSource, name: str, year: int) -> tuple[np.ndarray, int]:
    """Years of birth, -1 unknown; and how many were left out as no age of anybody."""
    column = source.birth_year or source.age
    if column is None:
        return np.full(len(raw), UNKNOWN, np.int16), 0
    values, unreadable = floats(combined(raw[column]))
    unreadable |= ~np.isnan(values) & (values != np.round(values))
    refuse_unreadable(unreadable, source=name, column=column, what="whole number")
    ages = values if source.age is not None else year - values
    known = ~np.isnan(values)
    possible = known & (ages >= 0) & (ages <= OLDEST)
    years = np.where(possible, year - np.where(possible, ages, 0), UNKNOWN).astype(np.int16)
    return years, int((known & ~possible).sum())
