"""`migrafed server verify`: exit codes, the table, the JSON object, and the first thing that does not hold."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from migrafed.__main__ import main
from server.run_folder import JOURNAL_FILE, MODEL_FILE
from simulations.runner import simulate
from tests.plans import tiny_plan

pytestmark = pytest.mark.slow
NO_EXTRAS = {"compare.alone": False, "compare.pooled": False, "compare.baselines": []}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    simulate(tiny_plan(NO_EXTRAS), out=folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def verify(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["server", "verify", *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_sound_run_is_said_to_hold(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row for each training, then what was compared."""
    code, out, _ = verify(capsys, str(run))
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["stage", "sessions", "sums", "repeated", "parts", "dropped", "signatures", "rounds"]
    assert lines[1].split()[-7:] == ["1", "5", "0", "15", "0", "51", "2"]
    assert "every sum holds" in out
    assert f"{MODEL_FILE} is what the sums lead to, byte for byte" in out
    assert "compare it: --roster HASH" in out


def test_json_is_one_object(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = verify(capsys, str(run), "--json")
    told = json.loads(out)
    assert (code, told["schema_version"], told["ok"], told["failure"]) == (0, 1, True, None)
    assert told["holders"] == ["east", "north", "west"]
    assert told["model"] == MODEL_FILE
    (stage,) = told["stages"]
    assert (stage["stage"], stage["sums"], stage["rounds"]) == ("federated, weights+margins", 5, 2)
    code, out, _ = verify(capsys, str(run), "--json", "--roster", told["roster"].upper())
    assert code == 0
    assert json.loads(out)["roster_compared"] is True


def test_the_first_thing_that_does_not_hold_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stage, session, sum, and what; exit code 1, in words and in JSON."""
    with closing(sqlite3.connect(run / JOURNAL_FILE, isolation_level=None)) as db:
        (session,) = db.execute("SELECT hex(session) FROM sessions").fetchone()
        records = dict(db.execute("SELECT sequence, record FROM sums"))
        db.execute("UPDATE sums SET record = ? WHERE sequence = 3", (records[2],))
    code, out, _ = verify(capsys, str(run))
    assert code == 1
    assert "a check failed" in out
    for words in ("federated, weights+margins", session.lower(), "sums were exchanged"):
        assert words in out
    code, out, _ = verify(capsys, str(run), "--json")
    told = json.loads(out)
    assert (code, told["ok"], told["model"]) == (1, False, None)
    assert told["failure"]["session"] == session.lower()
    assert told["failure"]["sum"] == 3


def test_another_roster_does_not_hold(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = verify(capsys, str(run), "--roster", "0" * 64)
    assert code == 1
    assert "000000000000 was approved" in out


@pytest.mark.parametrize("roster", ["", "0" * 63, "x" * 64])
def test_a_roster_that_is_no_hash_is_bad_input(run: Path, capsys: pytest.CaptureFixture[str], roster: str) -> None:
    code, _, err = verify(capsys, str(run), "--roster", roster)
    assert code == 2
    assert "64 hexadecimal digits" in err


def test_what_cannot_be_verified_is_bad_input(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No run, a run that is not finished, a damaged journal, a run that masked nothing."""
    code, _, err = verify(capsys, str(tmp_path / "none"))
    assert (code, "holds no run" in err) == (2, True)
    (run / JOURNAL_FILE).write_bytes(b"damaged")
    code, _, err = verify(capsys, str(run))
    assert (code, "not a readable journal" in err) == (2, True)
    (run / MODEL_FILE).unlink()
    code, _, err = verify(capsys, str(run))
    assert (code, "no finished run" in err) == (2, True)
    simulate(tiny_plan(NO_EXTRAS | {"federation.aggregation": "plain", "training.rounds": 1}), out=tmp_path / "plain")
    code, out, _ = verify(capsys, str(tmp_path / "plain"), "--json")
    assert code == 2
    assert "nothing to verify" in json.loads(out)["error"]["message"]
