"""`migrafed server invite HOLDER`: the file with which a holder joins."""

from __future__ import annotations

import argparse
from pathlib import Path

from migrafed.terminal import Outcome, Terminal
from protocol.files import check_absent, write_new
from protocol.membership import key_fingerprint, utc
from server.members import Members
from server.settings import load_server


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """Write the invitation and say the fingerprint that is read out."""
    place = load_server(options.server)
    members = Members(place)
    path = options.out if options.out is not None else Path(f"invitation-{options.holder[:65].replace('/', '_')}.json")
    check_absent(path)
    invitation, content = members.invite(options.holder, days=options.days, address=options.address)
    write_new(path, content)
    payload = {
        "holder": invitation.holder,
        "server": invitation.server,
        "address": invitation.address,
        "coordinator": invitation.coordinator,
        "fingerprint": invitation.fingerprint,
        "expires": invitation.expires,
        "paths": {"invitation": str(path)},
    }
    facts = [
        ("send", f"{path} to the operator of '{invitation.holder}'; it holds nothing secret"),
        ("read out", f"{invitation.fingerprint} (fingerprint of that file, on the telephone)"),
        ("its key", key_fingerprint(invitation.coordinator)),
        ("until", f"{utc(invitation.expires)}, for one answer"),
        ("next", "take in the answer: migrafed server admit FILE"),
    ]
    if options.holder in members.book.members:
        facts.append(("member", f"'{options.holder}' is in already; its answer will replace its keys"))
    return Outcome(payload, f"SUCCESS '{invitation.holder}' is invited to {invitation.address}", facts)
