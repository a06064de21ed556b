"""`migrafed holder check FILE`: look at a sample of the holder's rows and at its settings. Changes nothing."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from clients.holder_check import CheckedHolder, check_holder
from clients.holder_config import load_holder
from clients.holder_rows import open_rows, opened_engine
from migrafed.terminal import Outcome, Terminal
from tables.checks import Finding

STAYS = "this output is made of raw rows: it stays with the holder"
_MARKS = {"ok": "ok  ", "note": "note", "failed": "FAIL"}


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Check the file and a sample of what it names; print what every check found."""
    settings = load_holder(options.file)
    with (
        tempfile.TemporaryDirectory(prefix="migrafed-check-") as folder,
        opened_engine(options.backend, Path(folder)) as engine,
    ):
        rows = partial(open_rows, settings, engine)
        checked = check_holder(settings, rows, rows=options.rows, stages=terminal.progress)
    title = f"FAILED {checked.failed} of {len(checked.findings)} checks" if checked.failed else "SUCCESS"
    title = title if checked.failed else f"{title} {len(checked.findings)} checks"
    facts = [("sample", f"{checked.rows:,} rows"), ("changed", "nothing"), ("keep", STAYS)]
    above = [*(line for one in checked.findings for line in _lines(one)), *_balance(checked)]
    return Outcome(_payload(checked), title, facts, above=above, exit_code=2 if checked.failed else 0)


def _payload(checked: CheckedHolder) -> dict[str, Any]:
    return {
        "ok": not checked.failed,
        "rows": checked.rows,
        "checks": [asdict(one) for one in checked.findings],
        "balance": None if checked.balance is None else checked.balance.as_json(),
        "keep": STAYS,
    }


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{_MARKS[finding.status]}  {finding.check:<14} {finding.column:<14} {finding.found}"
    if finding.status != "ok" and finding.way_out:
        yield f"      {'':<14} {'':<14} fix: {finding.way_out}"


def _balance(checked: CheckedHolder) -> list[str]:
    return [] if checked.balance is None else ["", "rows of the sample:", *checked.balance.lines()]
