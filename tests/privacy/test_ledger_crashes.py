"""Nothing is released beyond what is on the disk, however and whenever the holder's program ends."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from protocol.errors import LedgerError
from tests import ledger_cuts
from tests.ledgers import new_ledger

ROOT = Path(__file__).resolve().parents[2]


def told(program: str, *given: str, seconds: int) -> dict[str, float]:
    """What one of the programs found; they are programs, since a light process forks quickly."""
    done = subprocess.run(
        [sys.executable, "-m", program, *given], cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def check_storm(figures: dict[str, float], *, kills: int) -> None:
    print(figures)  # noqa: T201 -- the evidence, shown with `pytest -s`
    assert figures["kills"] >= kills
    assert not figures.get("failures"), "a writer ended by itself"
    assert not figures.get("overspends"), "more was reserved than the cap"
    assert not figures.get("beyond_the_ledger"), (
        "something was released that the ledger does not hold, or holds otherwise"
    )
    assert not figures.get("served_twice")
    assert figures["releases"] > 0


@pytest.mark.slow
def test_three_writers_and_fifty_kills(tmp_path: Path) -> None:
    check_storm(told("tests.ledger_storm", str(tmp_path), "50", "20261", seconds=120), kills=50)


@pytest.mark.slow
def test_three_writers_and_a_thousand_kills(tmp_path: Path) -> None:
    """At random moments: no overspend, no release beyond the ledger, every chain verifies, and budgets are used up."""
    figures = told("tests.ledger_storm", str(tmp_path), "1000", "20262", seconds=600)
    check_storm(figures, kills=1000)
    assert figures["returned"] > figures["releases"], "no round was ever asked for twice"
    assert figures["full"] >= 0.5 * figures["trials"], "budgets were not used up, so the cap was not tried"


@pytest.mark.slow
def test_a_cut_at_every_write_boundary_twice(tmp_path: Path) -> None:
    """Creation, reservation and release are cut at every boundary, so is the recovery; unsynchronised data are lost.

    The program itself checks every state: it verifies, goes on, and gives what was acknowledged.
    """
    figures = told("tests.ledger_cuts", str(tmp_path), seconds=600)
    print(figures)  # noqa: T201 -- the evidence
    assert figures["cuts"] > 500
    assert figures["states_of_one_cut"] >= 25
    assert figures["states_of_two_cuts"] >= 100


@pytest.mark.parametrize("fsync_works", [True, False])
def test_the_played_disk_notices_a_missing_fsync(
    tmp_path: Path, fsync_works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power of the test above: if fsync did nothing, an acknowledged release would be lost, and that is noticed."""
    ledger = new_ledger(tmp_path / "ledger")
    ledger.reserve("spring", ledger_cuts.COST, request="plan", rounds=3)
    ledger.serve("spring", 1, request="first", produce=lambda: b"noisy")
    done = ledger_cuts.cut(
        ledger_cuts.serve,
        tmp_path / "ledger",
        end_at=ledger_cuts.NEVER,
        lost=ledger_cuts.LOSSES[3],
        fsync_works=fsync_works,
    )
    assert done is not None
    monkeypatch.setattr(ledger_cuts, "PRODUCER", "another one")
    lost = nullcontext() if fsync_works else pytest.raises((RuntimeError, LedgerError))
    with lost:
        ledger_cuts.check(tmp_path, ledger_cuts.serve, [done[0]])
