"""`migrafed server run PLAN`: carry out a plan over the holders that approved it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from migrafed.arguments import overrides
from migrafed.deployed_summary import deployed_paths
from migrafed.reports.deployed import write_deployed_report
from migrafed.summary import privacy_facts
from migrafed.terminal import Outcome, Terminal
from protocol.plan import Plan, load_plan
from server.deployed import run_deployed
from server.deployed_facts import DeployedResult
from server.federation import federation_of
from server.settings import RUNS, ServerPlace, load_server


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Carry out a plan given by the user."""
    place = load_server(options.server)
    plan = load_plan(options.plan, overrides=overrides(options.settings), seed=options.seed)
    return carried_out(plan, place, terminal, resume=None)


def carried_out(plan: Plan, place: ServerPlace, terminal: Terminal, *, resume: Path | None) -> Outcome:
    """Carry out a plan, or go on with it, and put together what is said about it."""
    terminal.resume_command = lambda folder: shlex.join(
        ["migrafed", "server", "resume", str(folder), "--server", str(place.folder)]
    )
    federation = federation_of(place, plan)
    done = run_deployed(plan, federation, runs=place.own(RUNS), resume=resume, progress=terminal.progress)
    facts = done.facts
    result = DeployedResult.read(done.folder)
    paths, failed = deployed_paths(done.folder), []
    try:
        write_deployed_report(result)
    except OSError as error:
        del paths["report"]
        failed.append(("report", f"not written ({error.strerror}); make room, then 'migrafed report {done.folder}'"))
    payload = {
        "seconds": round(done.seconds, 3),
        "attempts": done.attempts,
        **{key: facts[key] for key in ("run", "plan_hash", "holders", "roster", "ledgers", "stages")},
        "privacy": privacy_facts(result.card),
        "paths": paths,
    }
    block = [
        ("holders", ", ".join(facts["holders"])),
        ("roster", facts["roster"]),
        *(("ledger", f"{name}: {seen['length']} lines seen") for name, seen in facts["ledgers"].items()),
        ("privacy", result.card.headline),
        *((name, path) for name, path in paths.items() if name != "folder"),
        *failed,
    ]
    if plan.masks:
        block.append(("recheck", shlex.join(["migrafed", "server", "verify", str(done.folder)])))
    tries = "" if done.attempts < 2 else f", {done.attempts} attempts"
    return Outcome(payload, f"SUCCESS {facts['run']}, {done.seconds:.0f} s{tries}", block)
