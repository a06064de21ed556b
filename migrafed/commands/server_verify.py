"""`migrafed server verify RUN`: recheck every masked sum of a finished run and train once more from the sums.

It reads the run's journal, plan and model and changes nothing. It needs no key and no data of a holder.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from migrafed.folders import given_folder
from migrafed.terminal import Outcome, Terminal
from protocol.errors import InputError, TranscriptError
from server.recorded_sums import Counts
from server.run_folder import CARD_FILE, MODEL_FILE
from simulations.verification import RunFound, StageFound, verify_run

_HASH_DIGITS = 64
_COLUMNS = "{:<34} {:>8} {:>6} {:>8} {:>8} {:>8} {:>11} {:>7}"


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Recheck the run, and say what was checked how often; exit code 1 if something does not hold."""
    folder = given_folder(options.run, what="the folder of a run")
    found = verify_run(folder, roster_hash=_roster_hash(options.roster), progress=terminal.progress)
    good = found.failure is None
    facts = list(_facts(found, compared=options.roster is not None))
    title = f"SUCCESS {found.run}, every sum holds" if good else f"FAILED {found.run}, a check failed"
    return Outcome(_payload(found, options), title, facts, above=list(_table(found.stages)), exit_code=0 if good else 1)


def _roster_hash(text: str | None) -> str | None:
    if text is None:
        return None
    digits = text.strip().lower()
    if len(digits) != _HASH_DIGITS or set(digits) - set("0123456789abcdef"):
        raise InputError(f"--roster {text}: give the {_HASH_DIGITS} hexadecimal digits that the operator approved")
    return digits


def _payload(found: RunFound, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "ok": found.failure is None,
        "run": found.run,
        "plan_hash": found.plan_hash,
        "roster": None if found.roster is None else found.roster.digest().hex(),
        "holders": [] if found.roster is None else list(found.roster.names),
        "roster_compared": options.roster is not None,
        "model": MODEL_FILE if any(stage.gives_model for stage in found.stages) else None,
        "card": CARD_FILE if found.card else None,
        "stages": [
            {"stage": stage.name, "gives_model": stage.gives_model, **vars(stage.counts)} for stage in found.stages
        ],
        "failure": None if found.failure is None else _where(found.failure),
    }


def _where(failure: TranscriptError) -> dict[str, Any]:
    return {
        "stage": failure.stage,
        "session": failure.session or None,
        "sum": failure.sequence or None,
        "problem": failure.problem,
    }


def _table(stages: Sequence[StageFound]) -> Iterator[str]:
    if stages:
        yield _COLUMNS.format(
            "stage", "sessions", "sums", "repeated", "parts", "dropped", "signatures", "rounds"
        )  # fmt: skip
    for stage in stages:
        yield _row(stage.name, stage.counts)


def _row(name: str, counts: Counts) -> str:
    return _COLUMNS.format(
        name, counts.sessions, counts.sums, counts.repeated, counts.parts, counts.dropped, counts.signatures,
        counts.rounds,
    )  # fmt: skip


def _facts(found: RunFound, *, compared: bool) -> Iterator[tuple[str, str]]:
    failure = found.failure
    if failure is not None:
        yield "stage", failure.stage
        if failure.session:
            yield "session", failure.session
        if failure.sequence:
            yield "sum", str(failure.sequence)
        yield "cause", failure.problem
        yield "after", f"{len(found.stages)} stages that hold"
        return
    if shown := sum(stage.counts.openings for stage in found.stages):
        yield "openings", f"{shown} shown under dispute, each what its holder committed to"
    if any(stage.gives_model for stage in found.stages):
        yield "model", f"{MODEL_FILE} is what the sums lead to, byte for byte"
    if found.card:
        yield "card", f"{CARD_FILE} is what the run wrote, and of this plan"
    yield "start", "the weights that each training begins with are taken as stored; all holders signed for their hash"
    if found.roster is not None:
        yield "holders", ", ".join(found.roster.names)
        yield "roster", found.roster.digest().hex() + ("" if compared else " (compare it: --roster HASH)")
