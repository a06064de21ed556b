"""`migrafed doctor`: check this machine and the data before a run; each failure names its fix."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from dhgsil.readers import SOURCES, read_series
from migrafed.checks import Check, machine_checks
from migrafed.terminal import Outcome, Terminal
from protocol.errors import DataError


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """Run every check, and say what to do about those that failed."""
    checks = list(machine_checks(Path()))
    if options.data is not None:
        checks += data_checks(options.data)
    failed = [check for check in checks if not check.ok]
    lines = [line for check in checks for line in _lines(check)]
    payload = {
        "ok": not failed,
        "checks": [{"name": c.name, "ok": c.ok, "found": c.found, "fix": "" if c.ok else c.fix} for c in checks],
    }
    title = f"FAILED {len(failed)} of {len(checks)} checks" if failed else f"SUCCESS {len(checks)} checks"
    return Outcome(payload, title, above=lines, exit_code=1 if failed else 0)


def data_checks(folder: Path) -> Iterator[Check]:
    """Read every data set found in a folder, with all checks of its reader."""
    names = _sources_in(folder)
    if not names:
        wanted = ", ".join(name for name in SOURCES if name != "parquet")
        fix = f"give a Parquet file, a folder with one, or a folder that holds one of: {wanted}"
        yield Check("data", False, f"{folder} {'holds no known data' if folder.exists() else 'does not exist'}", fix)
    for name in names:
        try:
            series = read_series(name, folder)
        except DataError as error:
            problem = str(error).removesuffix(error.way_out).rstrip("; ")
            yield Check(f"data {name}", False, problem, error.way_out)
        else:
            span = f"{series.times[0]} to {series.times[-1]}"
            found = (
                f"{series.num_steps} {series.step}s ({span}), {series.num_regions} regions, {series.provenance.measure}"
            )
            yield Check(f"data {name}", True, found)


def _sources_in(folder: Path) -> list[str]:
    """Sources whose files lie in the folder; a folder named like a source is one."""
    names = [name for name in SOURCES if (folder / name).is_dir()]
    if folder.is_file() or any(folder.glob("*.parquet")):
        names.append("parquet")
    return names


def _lines(check: Check) -> Iterator[str]:
    yield f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<20} {check.found}"
    if not check.ok:
        yield f"      {'':<20} fix: {check.fix}"
