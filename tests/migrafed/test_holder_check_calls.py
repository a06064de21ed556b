"""`migrafed holder check` on call records: the same look as for job queries, and no value of a row in it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from migrafed.__main__ import main
from tests.call_tables import Call, call_table, moment, number, person_table, write_tables
from tests.holder_files import tree

STEPS = ["read", "calls", "parties", "duplicates"]


def holder(folder: Path) -> Path:
    calls: list[Call] = [(number(a), number(a + 3), moment(a / 4, a), 30.0, "P1", None) for a in range(108)]
    people = [(number(a), "SH" if a % 2 else "AH", "F", 1990) for a in range(120)]
    write_tables(folder, call_table([*calls, (number(1), number(1), moment(0), 9.0)]), person_table(people))
    path = folder / "holder.toml"
    path.write_text(
        '[calls]\ncalls = "calls.parquet"\n[cells]\ncells = "cells.csv"\n'
        '[subscribers]\nsubscribers = "subscribers.parquet"\n'
    )
    return path


def test_a_check_says_shares_and_no_values_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number is looked for in all that is printed."""
    path = holder(tmp_path / "holder")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = tree(path.parent)
    assert main(["holder", "check", str(path)]) == 0
    shown = capsys.readouterr()
    assert main(["holder", "check", str(path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert tree(path.parent) == before
    assert not list(scratch.iterdir())
    printed = shown.out + shown.err + json.dumps(answer)
    assert not [a for a in range(120) if number(a) in printed]
    assert [step["name"] for step in answer["balance"]["steps"]] == STEPS
    assert (answer["ok"], answer["rows"], answer["balance"]["rows_in"]) == (True, 109, 109)
    assert "a call to oneself" in shown.out
    assert "stays with the holder" in shown.out.rstrip().splitlines()[-1]


def test_tables_that_cannot_be_used_have_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = holder(tmp_path)
    (tmp_path / "cells.csv").write_text("cell,lat,lon\nP1,121.4,31.2\n")
    assert main(["holder", "check", str(path), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ok"]
    assert "swapped" in next(one for one in answer["checks"] if one["check"] == "cells")["found"]
    path.write_text(path.read_text() + '[job_queries]\nqueries = "q"\n')
    assert main(["holder", "check", str(path)]) == 2
