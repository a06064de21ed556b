"""`migrafed holder approve PLAN`: what the plan does here, on one page; then approve it by its hash, or leave it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from clients.approval_page import ApprovalPage, page_of
from clients.approvals import Approvals
from clients.holder_folder import find_holder, keep_roster
from clients.settings import ROSTER, HolderPlace
from migrafed.questions import Questions
from migrafed.terminal import Outcome, Terminal
from protocol.errors import InputError, NotApprovedError, PolicyRefusedError
from protocol.membership import RosterPage, grouped, read_file
from protocol.plan import Plan, load_plan

_SHORTEST = 12


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Show the page, get a yes in one of three ways, keep the roster and the approval."""
    place = find_holder(options.holder)
    plan, roster, approvals = load_plan(options.plan), _roster(options, place), Approvals(place)
    page = page_of(place, plan, roster)
    refusal = _refusal(approvals, plan, roster)
    for line in _lines(page):
        terminal.say(line)
    payload = {"page": asdict(page), "plan_hash": page.plan_hash, "roster_hash": page.roster_hash, "refused": refusal}
    if options.show:
        facts = [("policy", refusal or "would allow it"), ("changed", "nothing")]
        return Outcome(payload | {"approved": False}, "SUCCESS shown, not approved", facts)
    if refusal:
        raise PolicyRefusedError(refusal)
    _agree(options, page, Questions(as_json=options.json))
    if options.roster is not None:
        keep_roster(place, options.roster)
    approval, here = approvals.approve(plan, roster), str(options.holder)
    facts = [
        ("plan", f"{page.run}, {page.plan_hash}"),
        ("roster", f"{page.roster_hash[:24]}, {', '.join(page.members)}"),
        ("approval", approval.digest),
        ("next", shlex.join(["migrafed", "holder", "check", here])),
        ("revoke", shlex.join(["migrafed", "holder", "revoke", page.plan_hash[:12], "--holder", here])),
    ]
    return Outcome(payload | {"approved": True, "approval": approval.digest}, f"SUCCESS '{page.run}' approved", facts)


def _roster(options: argparse.Namespace, place: HolderPlace) -> RosterPage:
    path: Path = options.roster or place.own(ROSTER)
    if options.roster is None and not path.exists():
        raise InputError("this holder has no roster yet; give the coordinator's with --roster FILE")
    return read_file(RosterPage, path)


def _refusal(approvals: Approvals, plan: Plan, roster: RosterPage) -> str:
    """Why the holder's own policy does not allow the plan; empty if it does."""
    try:
        approvals.proposed(plan, roster)
    except PolicyRefusedError as error:
        return str(error)
    return ""


def _agree(options: argparse.Namespace, page: ApprovalPage, questions: Questions) -> None:
    if options.hash is not None:
        given = "".join(options.hash.lower().split())  # the page shows it in groups of four
        if len(given) < _SHORTEST or not page.plan_hash.startswith(given):
            raise NotApprovedError(
                f"the plan has hash {page.plan_hash} and --hash says '{given[:70]}': it is another plan than the one "
                f"that was agreed on (or fewer than {_SHORTEST} digits); nothing was approved"
            )
        return
    if options.yes or questions.agreed(f"Approve the plan {page.plan_hash[:12]}?", flag="--hash or --yes"):
        return
    raise NotApprovedError(f"the plan {page.plan_hash[:12]} was not approved; nothing was changed")


def _lines(page: ApprovalPage) -> Iterator[str]:
    """The page as it is printed."""
    yield f"PLAN '{page.run}' for holder '{page.holder}'"
    yield from _section("who asks", [f"{page.server} at {page.address}, key {page.coordinator}"])
    yield from _section("what", [
        f"task {page.task}", f"plan    {grouped(page.plan_hash)}   compare with the other holders",
        f"roster  {grouped(page.roster_hash)}", *(f"   {name}: {key}" for name, key in page.members.items()),
    ])  # fmt: skip
    yield from _section("code", [
        f"{page.software}, as installed here; code that a coordinator ships is never run", f"bundle  {page.bundle}",
    ])  # fmt: skip
    yield from _section("reads", [page.data, page.reads, f"rows of {', '.join(page.held)}"])
    for price in page.prices:
        lines = [f"protects {price.unit}"]
        if price.ledger:
            lines += [
                f"asks     epsilon {price.epsilon:g} at delta {price.delta:g}; your policy allows {price.most:g}",
                f"left     {price.left} (ledger '{price.ledger}')",
                f"again    another run costs {price.again}",
            ]
        yield from _section("price", lines)
    yield from _section("leaves", _leaving(page))
    yield from _section("receives", list(page.receives))
    yield from _section("beware", list(page.warnings))
    yield ""


def _leaving(page: ApprovalPage) -> Iterator[str]:
    stage = ""
    for item in page.leaves:
        if item.stage != stage:
            stage = item.stage
            yield f"in '{stage}':"
        size = "the gate's size" if item.bytes is None else f"<= {item.bytes:,} bytes"
        yield f"  {item.times:>3} x {size:<20} {item.what}; to {item.reader}"
    yield "refusals: a code and a number; the reason stays in your outbox log"
    yield "nothing else: every message passes one gate and is written to your outbox log before it leaves"


def _section(title: str, lines: list[str] | Iterator[str]) -> Iterator[str]:
    yield ""
    for number, line in enumerate(lines):
        yield f"  {title if number == 0 else '':<9} {line}"
