"""`migrafed server up`: start the SuperLink, and register the nodes of members."""

from __future__ import annotations

import argparse

from migrafed.coordinating import register
from migrafed.terminal import Outcome, Terminal
from server.link import supervisor
from server.members import own_address
from server.settings import LOGS, load_server


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """In front until it is told to stop, or behind until it answers."""
    place = load_server(options.server)
    problems: list[str] = []

    def ready() -> None:
        """Whenever it has come up: its database may be another one than before."""
        problems[:] = register(place) or []
        for problem in problems:
            terminal.say(problem)
        known = "members are registered" if not problems else "the other members are registered"
        terminal.say(f"{known}; holders reach it at {own_address(place)}")

    supervisor.up(place, detach=options.detach, say=terminal.say, ready=ready)
    payload = {"address": own_address(place), "running": options.detach, "node_problems": problems}
    facts = [("log", str(place.own(LOGS) / "link.log"))]
    if options.detach:
        facts.append(("end", "migrafed server down"))
    title = "SUCCESS the SuperLink is up" if options.detach else "SUCCESS the SuperLink was ended as asked"
    return Outcome(payload, title, facts)
