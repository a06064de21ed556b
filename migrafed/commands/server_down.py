"""`migrafed server down`: end the SuperLink."""

from __future__ import annotations

import argparse

from migrafed.terminal import Outcome, Terminal
from server.link import supervisor
from server.settings import load_server


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """End it, and say whether there was one. Runs under way stop, and can be resumed."""
    place = load_server(options.server)
    ended = supervisor.down(place)
    title = "SUCCESS the SuperLink is down" if ended else "SUCCESS no SuperLink was running"
    return Outcome({"was_running": ended}, title, [("folder", str(place.folder))])
