"""`migrafed holder agent`: run the trusted process of a holder in the foreground, until it is told to stop."""

from __future__ import annotations

import argparse
from contextlib import closing

from clients.approvals import Approvals
from clients.desk.desk import Desk
from clients.holder_folder import find_holder
from clients.modes import check_modes
from clients.service.service import AgentService
from migrafed.terminal import Outcome, Terminal


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Serve the socket; being told to stop is how an agent ends well."""
    place = find_holder(options.holder)
    check_modes(place)
    terminal.hold_nothing()
    with closing(Desk(place, Approvals(place))) as desk:
        AgentService(place, desk).serve(
            ready=lambda: terminal.say(
                f"agent of '{place.name}' listens at {place.socket}; stop it with Ctrl-C or TERM"
            )
        )
    payload = {"holder": place.name, "socket": str(place.socket), "ended": "on request"}
    facts = [("holder", place.name), ("socket", f"{place.socket}, gone"), ("told", "migrafed holder outbox")]
    return Outcome(payload, "SUCCESS agent stopped on request", facts)
