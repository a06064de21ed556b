"""`migrafed simulate`: run a plan on this machine, write its report, say where everything is."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from migrafed.arguments import overrides
from migrafed.integration_summary import integration_facts, integration_metrics
from migrafed.reports.forecast import write_report
from migrafed.reports.integration import write_integration_report
from migrafed.summary import metric_rows, privacy_facts, result_facts, skill_lines
from migrafed.terminal import Outcome, Terminal
from protocol.errors import PlanError
from protocol.plan import Plan, load_plan
from simulations.call_results import INTEGRATION_TASKS, IntegrationResult
from simulations.call_run import simulate_calls
from simulations.results import RunResult
from simulations.runner import Engine, simulate


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Carry out a plan given by the user."""
    plan = load_plan(options.plan, overrides=overrides(options.settings), seed=options.seed)
    if plan.run.task in INTEGRATION_TASKS:
        return run_integration(
            plan, terminal, data=options.data, out=options.out, resume=options.resume, engine=options.engine,
            ledgers=options.ledgers, scores=options.scores, command=_command(options),
        )  # fmt: skip
    if options.scores:
        raise PlanError(f"task '{plan.run.task}' scores no persons; leave out --scores")
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
        "privacy": privacy_facts(result.card),
        "paths": paths,
    }
    title = f"SUCCESS {result.facts.run}, {summary.seconds:.0f} s"
    return Outcome(payload, title, facts, above=skill_lines(result))


def run_integration(
    plan: Plan,
    terminal: Terminal,
    *,
    data: Path | None,
    out: Path | None,
    resume: Path | None,
    engine: Engine,
    ledgers: Path | None,
    scores: bool,
    command: str,
) -> Outcome:
    """Simulate operators, write their report, and put together what is said about it."""
    if engine != "inprocess":
        raise PlanError(f"task '{plan.run.task}' is simulated in one process; leave out --engine")
    summary = simulate_calls(
        plan, data=data, out=out, resume=resume, ledgers=ledgers, scores=scores, progress=terminal.progress,
        command=command,
    )  # fmt: skip
    result = IntegrationResult.read(summary.folder)
    paths, facts = integration_facts(result, write_integration_report(result))
    payload = {
        "run": result.facts.run,
        "plan_hash": result.facts.plan_hash,
        "seconds": round(summary.seconds, 3),
        "holders": [operator.name for operator in result.facts.operators],
        "metrics": integration_metrics(result),
        "privacy": privacy_facts(result.card),
        "paths": paths,
    }
    return Outcome(payload, f"SUCCESS {result.facts.run}, {summary.seconds:.0f} s", facts)


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
    if options.scores:
        words.append("--scores")
    return shlex.join(words)
