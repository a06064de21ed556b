"""The ledger's benchmark measures a real ledger, and a spend does not grow with the chain."""

from __future__ import annotations

from pathlib import Path

import pytest

from privacy.ledger import verify_ledger
from privacy.ledger_file import LedgerFolder
from simulations.benchmarks.ledger import main, measure


def test_benchmark_measures_a_valid_ledger(tmp_path: Path) -> None:
    times = measure(tmp_path, lines=40, spends=3)
    assert (times.lines, len(times.spends), len(times.bare)) == (40, 3, 3)
    facts = verify_ledger(tmp_path / "ledger")
    assert facts.witness.length == 43
    assert facts.blobs_checked == 3
    assert times.ratio > 1


def test_benchmark_prints_its_table(capsys: pytest.CaptureFixture[str]) -> None:
    main(["20", "5"])
    shown = capsys.readouterr().out
    assert "Ledger of 20 lines, 5 spends" in shown
    assert "times a bare write" in shown


def test_a_spend_reads_only_the_last_line_and_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what keeps it quick on a chain of ten thousand lines."""
    read, sizes = LedgerFolder.lines_from, []

    def noted(self: LedgerFolder, offset: int) -> bytes:
        data = read(self, offset)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(LedgerFolder, "lines_from", noted)
    measure(tmp_path, lines=300, spends=4)
    assert max(sizes) > 100_000
    assert max(sizes[-4:]) < 1_000
