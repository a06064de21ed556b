"""What a row of a table is of, beside the person: the week where a table has several, the kind of calls."""

from __future__ import annotations

from typing import Any

BESIDE = ("week", "kind")


def keys(table: Any, *names: str) -> list[str]:
    """The columns `names`, after those of `BESIDE` that the table has."""
    return [*(name for name in BESIDE if name in table.columns), *names]


def shared(one: Any, other: Any, *names: str) -> list[str]:
    """The columns `names`, after those of `BESIDE` that both tables have."""
    return [*(name for name in BESIDE if name in one.columns and name in other.columns), *names]
