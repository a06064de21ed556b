"""Findings: what a check looked at, what it found there, and what to do about it. Never a value of a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from protocol.errors import DataError
from tables.contracts import Column, kind_of_type

Status = Literal["ok", "note", "failed"]


@dataclass(frozen=True)
class Finding:
    """What one check found: "ok", "note" (rows will be dropped, say), or "failed" (nothing can be done with the table).

    Args:
        check: What was looked at, in a few words.
        column: The column's name in the table; empty where a check is about the whole.
        status: How bad it is.
        found: What was found, in numbers and types.
        way_out: What to do about it; empty where all is well.
    """

    check: str
    column: str
    status: Status
    found: str
    way_out: str = ""


def check_schema(schema: pa.Schema, columns: Iterable[Column]) -> list[Finding]:
    """One finding for each column of a contract: it is there and of a kind that will do, or not.

    A column that is not required and not there is a note; a column of nulls alone is of any kind.
    """
    return [_check_column(schema, column) for column in columns]


def refuse_failed(findings: Sequence[Finding], *, source: str) -> None:
    """Raise the first finding that failed, with the number of all.

    Raises:
        DataError: a check failed.
    """
    failed = [finding for finding in findings if finding.status == "failed"]
    if failed:
        first = failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise DataError(
            f"{first.check}: {first.found}{more}", way_out=first.way_out, source=source, column=first.column or None
        )


def _check_column(schema: pa.Schema, column: Column) -> Finding:
    check = f"column for the {column.role}"
    there = schema.names.count(column.name)
    if there > 1:
        return Finding(check, column.name, "failed", f"there {there} times", "rename all but one")
    if not there:
        near = [name for name in schema.names if name.strip().lower() == column.name.strip().lower()]
        names = ", ".join(near or schema.names[:20]) or "none"
        if not column.required:
            return Finding(check, column.name, "note", "missing, and not needed")
        return Finding(
            check, column.name, "failed", f"missing; the table has {names}", f"name the {column.role} column"
        )
    type_ = schema.field(column.name).type
    kind = kind_of_type(type_)
    if kind not in column.kinds and not pa.types.is_null(type_):
        wanted = " or ".join(column.kinds)
        return Finding(check, column.name, "failed", str(type_), f"convert it to {wanted} where the table is made")
    return Finding(check, column.name, "ok", str(type_))
