"""The written city is what its mechanism says: two operators see one call, and each its own cells alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from protocol.errors import DataError, PlanError
from simulations.worlds.calls import TINY, CallWorldConfig, make_call_world, write_calls


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("city") / "city"
    write_calls(make_call_world(TINY, 1), folder)
    return folder


def test_unknown_keys_are_refused() -> None:
    """A knob that is misspelt must not leave the default in place."""
    with pytest.raises(ValidationError):
        CallWorldConfig.model_validate({"sacle": 0.01})


def test_a_negative_seed_and_a_full_folder_are_refused(city: Path) -> None:
    """Nothing is overwritten."""
    with pytest.raises(PlanError):
        make_call_world(TINY, -1)
    with pytest.raises(DataError):
        write_calls(make_call_world(TINY, 1), city)


def test_a_call_between_operators_is_in_both_files(city: Path) -> None:
    """With equal times; each side has the cell of its own subscriber and never the other's."""
    routing = pq.read_table(city / "routing.parquet").to_pandas().set_index("number")["operator"]
    assert routing.index.is_unique
    parts = {}
    for name in TINY.operators:
        calls = pq.read_table(city / name / "calls").to_pandas().drop_duplicates()
        for side in ("caller", "callee"):
            calls[f"{side}_at"] = calls[side].map(routing)
            foreign = calls[f"{side}_at"] != name
            assert calls.loc[foreign, f"{side}_cell"].isna().all()
            assert calls.loc[~foreign, f"{side}_cell"].notna().mean() > 0.99
        assert ((calls["caller_at"] == name) | (calls["callee_at"] == name)).all()
        parts[name] = calls
    key = ["caller", "callee", "start", "end"]
    between = {
        name: calls[(calls["caller_at"] == other) | (calls["callee_at"] == other)][key]
        for name, other, calls in (("east", "north", parts["east"]), ("north", "east", parts["north"]))
    }
    assert len(between["east"]) > 1000
    merged = between["east"].merge(between["north"], on=key)
    assert len(merged) == len(between["east"]) == len(between["north"])
