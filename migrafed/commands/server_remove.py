"""`migrafed server remove HOLDER`: shut a holder out."""

from __future__ import annotations

import argparse

from migrafed.coordinating import register
from migrafed.questions import Questions
from migrafed.terminal import Outcome, Terminal
from protocol.errors import InputError
from server.members import Members
from server.settings import load_server


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """Forget the holder, and shut its node out if the SuperLink runs."""
    place = load_server(options.server)
    members = Members(place)
    book = members.book
    if options.holder in book.members and not options.yes:
        question = f"Shut out '{options.holder}'? Its node key never works again."
        if not Questions(as_json=options.json).agreed(question, flag="--yes"):
            raise InputError(f"'{options.holder}' stays a member; nothing was changed")
    members.remove(options.holder)
    wrong = register(place)
    facts = [("node", problem) for problem in wrong or ()]
    if wrong is None:
        facts.append(("node", "shut out when the SuperLink is started"))
    facts.append(("next", "holders approve plans and rosters without it; a run in which it takes part will miss it"))
    payload = {"holder": options.holder, "was_member": options.holder in book.members, "node_problems": wrong or []}
    return Outcome(payload, f"SUCCESS '{options.holder}' is out", facts)
