"""`migrafed audit`: do the privacy mechanisms do what is promised of them, and can these checks fail at all?

Without options the conformance checks alone, which also run before every private run. `--mutation` plants every known
defect and shows which check catches it; `--canaries` and `--attacks` try to tell people from what is released.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from migrafed.reports.audit import write_audit_page
from migrafed.terminal import SCHEMA_VERSION, Outcome, Terminal
from privacy.audits.attacks import attack_audits
from privacy.audits.canaries import canary_audits
from privacy.audits.check import CheckResult
from privacy.audits.conformance import CHECKS, conformance, false_alarms
from privacy.audits.defects import DEFECTS, Hunt, hunt_all
from privacy.audits.results import AuditResult
from privacy.audits.statistics import LEVEL
from privacy.audits.subject import Subject, production
from protocol.errors import RunFolderError
from simulations.audit_cases import ForecasterCounting, ForecasterTraining

REPORT_FILE = "audit.json"
CORRECT_RUNS, QUICK_RUNS = 10, 3


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Carry out the audits that were asked for; fails if one of them found something."""
    target = _report_path(options.out)
    started = time.process_time()
    subject = production() if options.quick else production(ForecasterTraining(), ForecasterCounting())
    checks = _checked(subject, terminal)
    hunts = _hunted(subject, terminal) if options.mutation else None
    alarms = _alarms(subject, _runs(options), terminal) if options.mutation else None
    canaries = _audited("canaries", canary_audits, options, terminal) if options.canaries else None
    attacks = _audited("attacks", attack_audits, options, terminal) if options.attacks else None
    payload = {
        "ok": _is_good(checks, hunts, alarms, [*(canaries or ()), *(attacks or ())]),
        "version": importlib.metadata.version("migrafed"),
        "quick": options.quick,
        "tried_on": [subject.training.name, subject.counting.name],
        "level": LEVEL,
        "defects": None if hunts is None else len(hunts),
        "caught": None if hunts is None else sum(bool(each.caught_by) for each in hunts),
        "correct_runs": None if alarms is None else len(alarms),
        "false_alarms": None if alarms is None else sum(bool(each) for each in alarms),
        "seconds": round(time.process_time() - started, 3),
        "checks": [result.to_json() for result in checks],
        "planted": None if hunts is None else [each.to_json() for each in hunts],
        "alarms": None if alarms is None else [result.to_json() for each in alarms for result in each],
        "canaries": None if canaries is None else [result.to_json() for result in canaries],
        "attacks": None if attacks is None else [result.to_json() for result in attacks],
    }
    facts = [("seconds", f"{payload['seconds']:.0f} of processor time")]
    if target is not None:
        facts += [("report", str(path)) for path in _write(target, payload)]
    lines = [*_check_lines(checks), *_hunt_lines(hunts or ()), *_audit_lines([*(canaries or ()), *(attacks or ())])]
    return Outcome(payload, _title(payload), facts, above=lines, exit_code=0 if payload["ok"] else 1)


def _checked(subject: Subject, terminal: Terminal) -> list[CheckResult]:
    with _Stage(terminal, "conformance", len(CHECKS)) as stage:
        return conformance(subject, done=lambda result: stage.step(result.check))


def _hunted(subject: Subject, terminal: Terminal) -> list[Hunt]:
    with _Stage(terminal, "planted defects", len(DEFECTS)) as stage:
        return hunt_all(subject, done=lambda found: stage.step(found.defect.name))


def _alarms(subject: Subject, runs: int, terminal: Terminal) -> list[list[CheckResult]]:
    with _Stage(terminal, "correct mechanisms", runs) as stage:
        return false_alarms(subject, runs=runs, done=lambda _: stage.step())


def _audited(
    name: str, audits: Callable[..., list[AuditResult]], options: argparse.Namespace, terminal: Terminal
) -> list[AuditResult]:
    with _Stage(terminal, name, 1) as stage:
        found = audits(quick=options.quick)
        stage.step(f"{len(found)} results")
        return found


class _Stage:
    """One part of the work as the terminal shows it."""

    def __init__(self, terminal: Terminal, name: str, total: int) -> None:
        self._progress, self._name, self._total, self._done = terminal.progress, name, total, 0

    def __enter__(self) -> _Stage:
        self._progress.stage_started(self._name, self._total)
        return self

    def step(self, message: str = "") -> None:
        self._done += 1
        self._progress.advanced(self._name, self._done, message)

    def __exit__(self, *_: object) -> None:
        self._progress.stage_ended(self._name)


def _runs(options: argparse.Namespace) -> int:
    return options.runs if options.runs is not None else QUICK_RUNS if options.quick else CORRECT_RUNS


def _is_good(
    checks: Sequence[CheckResult],
    hunts: Sequence[Hunt] | None,
    alarms: Sequence[Sequence[CheckResult]] | None,
    audits: Sequence[AuditResult],
) -> bool:
    return (
        all(result.passed for result in checks)
        and all(each.caught_by for each in hunts or ())
        and not any(alarms or ())
        and all(result.consistent for result in audits)
    )


def _title(payload: dict[str, Any]) -> str:
    passed = sum(check["passed"] for check in payload["checks"])
    parts = [f"{passed} of {len(payload['checks'])} checks passed"]
    if payload["defects"] is not None:
        parts.append(f"{payload['caught']} of {payload['defects']} planted defects caught")
        parts.append(f"{payload['false_alarms']} false alarms in {payload['correct_runs']} runs")
    for name in ("canaries", "attacks"):
        if payload[name] is not None:
            good = sum(result["consistent"] for result in payload[name])
            parts.append(f"{good} of {len(payload[name])} {name} consistent with the claim")
    return f"{'SUCCESS' if payload['ok'] else 'FAILED'} {', '.join(parts)}"


def _check_lines(checks: Sequence[CheckResult]) -> Iterator[str]:
    yield f"      {'check':<34} {'figure':>10}    {'most':>10}"
    for result in checks:
        mark = "ok  " if result.passed else "FAIL"
        yield f"{mark}  {result.check:<34} {result.figure:>10.4g} <= {result.threshold:<10.4g} {result.detail}"


def _hunt_lines(hunts: Sequence[Hunt]) -> Iterator[str]:
    if hunts:
        yield ""
        yield f"      {'planted defect':<38} caught by"
    for each in hunts:
        mark = "ok  " if each.caught_by else "FAIL"
        yield f"{mark}  {each.defect.name:<38} {', '.join(each.caught_by) or 'nothing'}"


def _audit_lines(audits: Sequence[AuditResult]) -> Iterator[str]:
    if audits:
        yield ""
        yield f"      {'at least':>8} {'provable':>8} {'claimed':>8}  audit (epsilon)"
    for result in audits:
        numbers = (result.lower_bound, result.largest_provable, result.claimed_epsilon)
        shown = " ".join(f"{'-' if number is None else format(number, '.3f'):>8}" for number in numbers)
        yield f"{'ok  ' if result.consistent else 'FAIL'}  {shown}  {result.name}"


def _report_path(folder: Path | None) -> Path | None:
    """Where the report goes, checked before the work begins."""
    if folder is None:
        return None
    target = folder / REPORT_FILE
    if target.exists() or (folder.exists() and not folder.is_dir()):
        raise RunFolderError(f"{target} is there already or cannot be made; give another folder with --out")
    return target


def _write(target: Path, payload: dict[str, Any]) -> tuple[Path, Path]:
    """The results as JSON and as a page."""
    target.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema_version": SCHEMA_VERSION} | payload, ensure_ascii=False, allow_nan=False, indent=2)
    target.write_text(text + "\n", encoding="utf-8")
    return target, write_audit_page(target.parent, payload)
