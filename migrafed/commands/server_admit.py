"""`migrafed server admit JOINING`: take in the keys of a holder, after its operator has read out their fingerprint."""

from __future__ import annotations

import argparse

from migrafed.coordinating import compare, register
from migrafed.terminal import Outcome, Terminal
from protocol.membership import Joining, key_fingerprint, read_file
from server.members import Members
from server.settings import load_server


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Check the answer, have its fingerprint compared, and register its node if the SuperLink runs."""
    place = load_server(options.server)
    members, joining = Members(place), read_file(Joining, options.file)
    members.check(joining)
    terminal.say(f"  {'holder':<10} {joining.holder}")
    terminal.say(f"  {'fingerprint':<10} {joining.fingerprint}   compare this with what its operator says")
    compare(options, joining.fingerprint, whose=f"'{joining.holder}'")
    members.admit(joining)
    problems = register(place)
    member = members.book.members[joining.holder]
    payload = {
        "holder": joining.holder,
        "identity": joining.identity,
        "fingerprint": joining.fingerprint,
        "node_id": member.node_id,
        "node_problems": problems or [],
    }
    facts = [
        ("its key", f"{key_fingerprint(joining.identity)} (stands in rosters)"),
        *(("node", words) for words in _node(problems)),
        ("next", "when all holders of a plan are in: migrafed server roster PLAN"),
    ]
    return Outcome(payload, f"SUCCESS '{joining.holder}' is a member", facts)


def _node(problems: list[str] | None) -> list[str]:
    if problems is None:
        return ["registered when the SuperLink is started, with 'migrafed server up'"]
    return problems or ["registered with the SuperLink"]
