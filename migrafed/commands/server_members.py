"""`migrafed server members`: who was invited, and who is in."""

from __future__ import annotations

import argparse
import time
from typing import Any

from migrafed.terminal import Outcome, Terminal
from protocol.membership import utc
from server.members import Members
from server.settings import load_server

_COLUMNS = "{:<20}  {:<29}  {:<10}  {}"


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """List members with the fingerprints of their signing keys, then invitations without an answer."""
    place = load_server(options.server)
    book = Members(place).book
    now = time.time()
    members: list[dict[str, Any]] = [
        {
            "holder": name,
            "identity": member.identity,
            "fingerprint": member.fingerprint,
            "node_id": member.node_id,
            "admitted": member.admitted,
        }
        for name, member in book.members.items()
    ]
    invited: list[dict[str, Any]] = [
        {"holder": name, "expires": one.expires, "over": now > one.expires}
        for name, one in sorted(book.invited.items())
    ]
    table = [_COLUMNS.format("holder", "fingerprint of its key", "node", "since")] if members else []
    table += [
        _COLUMNS.format(
            row["holder"],
            row["fingerprint"],
            "waiting" if row["node_id"] is None else "registered",
            utc(row["admitted"]),
        )
        for row in members
    ]
    facts = [
        ("invited", f"{row['holder']}, {'ended' if row['over'] else 'until'} {utc(row['expires'])}") for row in invited
    ]
    title = f"SUCCESS members of '{place.config.server.name}': {len(members)}"
    return Outcome(
        {"server": place.config.server.name, "members": members, "invited": invited}, title, facts, above=table
    )
