"""`migrafed holder revoke HASH`: withdraw the approval of a plan, or of all of them."""

from __future__ import annotations

import argparse

from clients.approvals import Approvals
from clients.holder_folder import find_holder
from clients.settings import APPROVALS, HolderPlace
from migrafed.terminal import Outcome, Terminal

ALL = "all"


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """Withdraw; the agent sees it at its next message, without being started anew."""
    place = find_holder(options.holder)
    approvals = Approvals(place)
    names = {one.plan_hash: one.name for one in approvals.listed()}
    wanted = _all(place) if options.hash == ALL else [options.hash]
    gone = [approvals.revoke(digits) for digits in wanted]
    left = [plan_hash for plan_hash in names if plan_hash not in gone]
    payload = {"holder": place.name, "revoked": gone, "approved": left}
    facts = [
        *(("revoked", f"{plan_hash[:12]} {names.get(plan_hash, '(damaged)')}") for plan_hash in gone),
        ("holds", "from the next message on, also in a run that is under way"),
        ("stays", "what was released before: it is charged, and others have it"),
        ("approved", ", ".join(f"{plan_hash[:12]} {names[plan_hash]}" for plan_hash in left) or "nothing"),
    ]
    title = f"SUCCESS {len(gone)} plan{'s' * (len(gone) != 1)} revoked" if gone else "SUCCESS nothing was approved"
    return Outcome(payload, title, facts)


def _all(place: HolderPlace) -> list[str]:
    """Also approvals that are damaged: nothing may be left of them."""
    return sorted(path.stem for path in place.own(APPROVALS).glob("*.json"))
