"""`migrafed holder check FILE`: look at a holder's settings, keys, rows and connection. Changes nothing.

Which checks are made depends on the file: ``[holder]`` is one that takes part in runs, ``[job_queries]`` or ``[calls]``
describe rows alone.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from clients.call_check import check_calls
from clients.call_config import has_calls, load_call_holder
from clients.check_report import CheckedHolder
from clients.holder_check import check_holder
from clients.holder_config import load_holder
from clients.holder_folder import settings_file
from clients.holder_rows import open_rows, opened_engine
from clients.settings import load_place
from migrafed.terminal import Outcome, Terminal
from protocol.plan import read_toml
from tables.checks import Finding
from tables.engine import Engine

STAYS = "this output is made of raw rows: it stays with the holder"
_MARKS = {"ok": "ok  ", "note": "note", "failed": "FAIL"}


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Check the file and a sample of what it names; print what every check found."""
    options.file = settings_file(options.file)
    if "holder" in read_toml(options.file, what="holder's settings"):
        return _deployed(options)
    check = _check_of(options, terminal)
    with (
        tempfile.TemporaryDirectory(prefix="migrafed-check-") as folder,
        opened_engine(options.backend, Path(folder)) as engine,
    ):
        checked = check(engine)
    checks = len(checked.findings)
    title = f"FAILED {checked.failed} of {checks} checks" if checked.failed else f"SUCCESS {checks} checks"
    facts = [("sample", f"{checked.rows:,} rows"), ("changed", "nothing"), ("keep", STAYS)]
    above = [*_table(checked.findings), *_balance(checked)]
    return Outcome(_payload(checked), title, facts, above=above, exit_code=2 if checked.failed else 0)


def _deployed(options: argparse.Namespace) -> Outcome:
    """A holder that takes part in runs."""
    place = load_place(options.file)
    # Loaded now: agent and node bring torch and Flower along, which rows alone do not need.
    checked = importlib.import_module("clients.deployed_check").check_deployed(place, rows=min(options.rows, 1000))
    checks = len(checked.findings)
    title = f"FAILED {checked.failed} of {checks} checks" if checked.failed else f"SUCCESS {checks} checks"
    facts = [("holder", f"{place.name}, {place.file}"), ("changed", "nothing")]
    return Outcome(
        {"ok": not checked.failed, "holder": place.name, "checks": [asdict(one) for one in checked.findings]},
        title, facts, above=list(_table(checked.findings)), exit_code=2 if checked.failed else 0,
    )  # fmt: skip


def _check_of(options: argparse.Namespace, terminal: Terminal) -> Callable[[Engine], CheckedHolder]:
    """The check that fits the file, which is read already."""
    if has_calls(options.file):
        holder = load_call_holder(options.file)
        return lambda engine: check_calls(holder, engine, rows=options.rows, stages=terminal.progress)
    settings = load_holder(options.file)
    return lambda engine: check_holder(
        settings, partial(open_rows, settings, engine), rows=options.rows, stages=terminal.progress
    )


def _payload(checked: CheckedHolder) -> dict[str, Any]:
    return {
        "ok": not checked.failed,
        "rows": checked.rows,
        "checks": [asdict(one) for one in checked.findings],
        "balance": None if checked.balance is None else checked.balance.as_json(),
        "keep": STAYS,
    }


def _table(findings: Sequence[Finding]) -> Iterator[str]:
    """One line for each finding, and one for the way out where there is one."""
    check, column = (
        max(len(text) for text in texts) for texts in zip(*((f.check, f.column) for f in findings), strict=True)
    )
    for one in findings:
        yield f"{_MARKS[one.status]}  {one.check:<{check}}  {one.column:<{column}}  {one.found}"
        if one.status != "ok" and one.way_out:
            yield f"{'':<{check + column + 10}}fix: {one.way_out}"


def _balance(checked: CheckedHolder) -> list[str]:
    return [] if checked.balance is None else ["", "rows of the sample:", *checked.balance.lines()]
