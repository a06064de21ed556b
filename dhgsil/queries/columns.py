"""Columns of a holder's table: which types are read, and texts, codes and gaps of one batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dhgsil.queries.source import QuerySource
from protocol.errors import DataError
from tables.source_columns import readable_text
from tables.sources import RowSource

UNKNOWN, MISSING = -1, -2
"""Instead of a city index: a code that is not in the city list, and no code."""

TEXT, WHOLE, TIME = "text", "integer", "timestamp"
KINDS = {"time": (TIME, TEXT), "user": (TEXT, WHOLE), "origin": (TEXT, WHOLE), "destination": (TEXT, WHOLE)}
"""Kinds of values by role; addresses and query texts are texts."""


def check_columns(rows: RowSource, source: QuerySource) -> None:
    """Refuse a table without one of the columns, or with one of another kind. A column of nulls alone is of any kind.

    Raises:
        DataError: says the column, what it is for, the type found and the kinds expected.
    """
    for role in ("time", "user", "origin", "ip", "text", "destination"):
        name = getattr(source, role)
        if name is None:
            continue
        if name not in rows.schema.names:
            problem = f"the column for the {role} is missing; the table has {', '.join(rows.schema.names[:20])}"
            raise DataError(problem, way_out=f'name it as {role} = "…"', source=rows.name, column=name)
        expected, found = KINDS.get(role, (TEXT,)), rows.schema.field(name).type
        if not pa.types.is_null(found) and _kind(found) not in expected:
            raise DataError(
                f"the column for the {role} is of type {found}; {' or '.join(expected)} is expected",
                way_out="convert it where the table is made, or name another column",
                source=rows.name,
                column=name,
            )


def _kind(type_: pa.DataType) -> str | None:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return TIME
    if pa.types.is_integer(type_) or (pa.types.is_decimal(type_) and type_.scale == 0):
        return WHOLE
    return TEXT if _is_text(type_) or _is_bytes(type_) or pa.types.is_string_view(type_) else None


def plain(column: pa.Array, *, text: bool = False) -> pa.Array:
    """The values without a dictionary around them; an array of nulls becomes text.

    With `text` everything does: an integer its digits, bytes what they spell, U+FFFD where they are not UTF-8. Large
    texts stay large: a batch of them may not fit 32-bit offsets.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type) or pa.types.is_string_view(column.type):
        return column.cast(pa.string())
    if not text or _is_text(column.type):
        return column
    return readable_text(column) if _is_bytes(column.type) else column.cast(pa.string())


def is_missing(encoded: pa.DictionaryArray) -> np.ndarray:
    """Whether a value is null or a blank text.  Shapes: -> (n,) bool"""
    values = encoded.dictionary
    blank = np.zeros(len(values) + 1, dtype=bool)
    if _is_text(values.type):
        trimmed = pc.call_function("utf8_trim_whitespace", [values])
        blank[:-1] = pc.call_function("equal", [trimmed, pa.scalar("", trimmed.type)]).to_numpy(zero_copy_only=False)
    blank[-1] = True
    return blank[encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)]


def indices_of_codes(column: pa.Array, index: Mapping[str, int]) -> np.ndarray:
    """City index of each code, `UNKNOWN` or `MISSING`; blanks around it do not count.

    Shapes: -> (n,) int32
    """
    encoded = column.dictionary_encode()
    codes = [code.strip() for code in encoded.dictionary.to_pylist()]
    found = np.array([*(index.get(code, UNKNOWN) if code else MISSING for code in codes), MISSING], dtype=np.int32)
    return found[encoded.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)]


def _is_bytes(type_: pa.DataType) -> bool:
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_)


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)
