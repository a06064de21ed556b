"""A holder says once which column is what, and contradictions are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dhgsil.queries.source import QuerySource

FINE: dict[str, Any] = {"queries": "q.parquet", "ip": "ip", "ip_database": "a.mmdb", "text": "text"}


def test_columns_that_are_read() -> None:
    assert QuerySource(**FINE).columns() == ["time", "user", "ip", "text"]
    assert QuerySource(**FINE, naive_times="+08:00").naive_times == "+08:00"
    assert [column.role for column in QuerySource(**FINE).contract()] == ["time", "user", "ip", "text"]
    source = QuerySource(queries="table:q", time="t", user="u", origin="o", destination="d")
    assert source.columns() == ["t", "u", "o", "d"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ip": None, "ip_database": None}, "exactly one of origin"),
        ({"origin": "o"}, "exactly one of origin"),
        ({"text": None}, "name text"),
        ({"ip_database": None}, "ip needs ip_database"),
        ({"ip": None, "origin": "o"}, "mean nothing without ip"),
        ({"text": "user"}, "one column is named twice"),
        ({"naive_times": "Mars/Olympus"}, "is no time zone"),
        ({"naive_times": "../../etc/passwd"}, "is no time zone"),
        ({"country": "China"}, "country"),
        ({"queries": ""}, "queries"),
        ({"users": "u"}, "users"),
    ],
)
def test_contradictions_are_refused(change: dict, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        QuerySource(**(FINE | change))
