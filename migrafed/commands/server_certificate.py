"""`migrafed server certificate`: a new certificate for the SuperLink, from the authority that holders trust."""

from __future__ import annotations

import argparse

from migrafed.terminal import Outcome, Terminal
from server.link import supervisor
from server.link.authority import CERTIFICATE_DAYS, issue, read_certificate
from server.settings import SERVER_CERTIFICATE, load_server


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """Issue it, and say whether the SuperLink has to be started again."""
    place = load_server(options.server)
    issue(place, options.days or CERTIFICATE_DAYS)
    ends = read_certificate(place, SERVER_CERTIFICATE).not_valid_after_utc
    running = supervisor.state(place).running
    payload = {
        "hosts": list(place.config.server.hosts),
        "not_after": ends.isoformat(),
        "restart_needed": running,
        "paths": {"certificate": str(place.own(SERVER_CERTIFICATE))},
    }
    facts = [
        ("for", ", ".join(place.config.server.hosts)),
        ("until", f"{ends:%Y-%m-%d %H:%M UTC}"),
        ("file", str(place.own(SERVER_CERTIFICATE))),
    ]
    if running:
        facts.append(("next", "the SuperLink still shows the old one: migrafed server down, then migrafed server up"))
    return Outcome(payload, "SUCCESS a new certificate", facts)
