"""`migrafed simulate`: run a plan on this machine, write its report, say where everything is."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from migrafed.arguments import overrides
from migrafed.reports.forecast import write_report
from migrafed.summary import metric_rows, privacy_facts, result_facts, skill_lines
from migrafed.terminal import Outcome, Terminal
from protocol.plan import Plan, load_plan
from simulations.results import RunResult
from simulations.runner import Engine, simulate


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Carry out a plan given by the user."""
    plan = load_plan(options.plan, overrides=overrides(options.settings), seed=options.seed)
    return run_plan(
        plan, terminal, data=options.data, out=options.out, resume=options.resume, engine=options.engine,
        ledgers=options.ledgers,
        command=_command(options),
    )  # fmt: skip


def run_plan(
    plan: Plan,
    terminal: Terminal,
    *,
    data: Path | None = None,
    out: Path | None = None,
    resume: Path | None = None,
    engine: Engine = "inprocess",
    ledgers: Path | None = None,
    command: str,
) -> Outcome:
    """Simulate, write the report, and put together what is said about it."""
    summary = simulate(
        plan,
        data=data,
        out=out,
        resume=resume,
        engine=engine,
        ledgers=ledgers,
        progress=terminal.progress,
        command=command,
    )
    result = RunResult.read(summary.folder)
    report = write_report(result)
    paths, facts = result_facts(result, report)
    payload = {
        "run": result.facts.run,
        "plan_hash": result.facts.plan_hash,
        "seconds": round(summary.seconds, 3),
        "holders": [holder.name for holder in result.facts.holders],
        "metrics": metric_rows(result),
        "privacy": privacy_facts(result),
        "paths": paths,
    }
    title = f"SUCCESS {result.facts.run}, {summary.seconds:.0f} s"
    return Outcome(payload, title, facts, above=skill_lines(result))


def _command(options: argparse.Namespace) -> str:
    """The command line that repeats the run; folders of this machine are no part of it."""
    words = ["migrafed", "simulate", options.plan.name]
    if options.data is not None:
        words += ["--data", "DIR"]
    if options.seed is not None:
        words += ["--seed", str(options.seed)]
    for setting in options.settings:
        words += ["--set", setting]
    if options.engine != "inprocess":
        words += ["--engine", options.engine]
    if options.ledgers is not None:
        words += ["--ledgers", "DIR"]
    return shlex.join(words)
