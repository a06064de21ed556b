"""The sections of a holder's settings: what may be named together, and what may not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from integration.records.source import CallSource, CellSource, HolderTables, SubscriberSource


def test_defaults_name_the_columns_of_the_contract() -> None:
    assert CallSource(calls="c").columns() == ["caller", "callee", "start", "end", "caller_cell", "callee_cell"]
    assert CallSource(calls="c", seconds="s").columns() == [
        "caller",
        "callee",
        "start",
        "s",
        "caller_cell",
        "callee_cell",
    ]
    assert CallSource(calls="c", owner="o", cell="p").columns() == ["caller", "callee", "start", "end", "p", "o"]
    assert CallSource(calls="c", caller_cell=None, callee_cell=None).columns() == ["caller", "callee", "start", "end"]
    assert CellSource(cells="c").columns() == ["cell", "lat", "lon"]
    assert SubscriberSource(subscribers="s").columns() == ["number", "birthplace", "sex", "birth_year"]
    assert SubscriberSource(subscribers="s", age="a", identity="i").columns() == [
        "number", "birthplace", "sex", "a", "i",
    ]  # fmt: skip


def test_an_empty_name_says_that_there_is_no_such_column() -> None:
    """TOML has no null."""
    assert CallSource(calls="c", caller_cell="", callee_cell="").columns() == ["caller", "callee", "start", "end"]
    assert SubscriberSource(subscribers="s", sex="", birth_year="").columns() == ["number", "birthplace"]
    assert CallSource(calls="c", end="", seconds="s", owner="").seconds == "s"
    with pytest.raises(ValidationError, match="at least 1 character"):
        CallSource(calls="c", caller="")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"end": None}, "exactly one of end"),
        ({"end": "e", "seconds": "s"}, "exactly one of end"),
        ({"cell": "p"}, "cell needs owner"),
        ({"owner": "o", "cell": "p", "caller_cell": "q"}, "has one cell"),
        ({"caller": "callee"}, "one column is named twice"),
        ({"naive_times": "Shanghai"}, "no time zone"),
        ({"calls": ""}, "at least 1 character"),
        ({"duration": "d"}, "Extra inputs"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CallSource(**{"calls": "c", **values})


def test_age_and_year_of_birth_say_the_same_thing() -> None:
    with pytest.raises(ValidationError, match="not both"):
        SubscriberSource(subscribers="s", age="a", birth_year="b")
    with pytest.raises(ValidationError):
        HolderTables.model_validate({"calls": {"calls": "c"}, "cells": {"cells": "c"}})
