"""`migrafed holder release FILE --period P`: release steps of job-query counts, each once, through the ledger."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Sequence

from clients.holder_config import load_holder
from clients.release_store import ReleaseStore
from clients.releases import ReleaseOutcome, parse_period, release_steps
from migrafed.commands.holder_check import STAYS
from migrafed.terminal import Outcome, Terminal


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Release what was asked for and was not released before; say what it cost and where it lies."""
    settings = load_holder(options.file)
    wanted = parse_period(settings, options.period)
    done = release_steps(settings, wanted, backend=options.backend, complete=options.complete, stages=terminal.progress)
    privacy, store = settings.config.privacy, ReleaseStore(settings.store)
    paths = {"releases": str(store.published), "ledger": str(store.ledger_folder(privacy.period))}
    payload = {
        "released": list(map(str, done.released)),
        "stored": list(map(str, done.stored)),
        "waiting": list(map(str, done.waiting)),
        "privacy": {
            "period": privacy.period, "epsilon": done.epsilon, "delta": privacy.delta, "spent": done.spent,
            "left": done.left, "contributions": settings.config.release.contributions,
            "window_days": settings.config.release.window_days,
        },
        "paths": paths,
        "balance": None if done.balance is None else done.balance.as_json(),
        "keep": STAYS,
    }  # fmt: skip
    title = f"SUCCESS {len(done.released)} released" if done.released else "SUCCESS nothing new to release"
    facts = [*_facts(done), ("cost", _cost(done, privacy.period)), *paths.items(), ("keep", STAYS)]
    above = [] if done.balance is None else ["rows read:", *done.balance.lines()]
    return Outcome(payload, title, facts, above=above)


def _facts(done: ReleaseOutcome) -> list[tuple[str, str]]:
    facts = [("released", _days(done.released)), ("stored", _days(done.stored)), ("waiting", _days(done.waiting))]
    notes = {"stored": " (released before: the same values, at no cost)", "waiting": " (no later rows yet)"}
    return [(name, text + notes.get(name, "")) for name, text in facts if text]


def _cost(done: ReleaseOutcome, period: str) -> str:
    return f"epsilon {done.epsilon:.4g} for all steps of '{period}' together; left: {done.left}"


def _days(days: Sequence[dt.date]) -> str:
    if not days:
        return ""
    return str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}, {len(days)} steps"
