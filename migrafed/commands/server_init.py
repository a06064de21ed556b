"""`migrafed server init DIR`: the folder of a new coordinator."""

from __future__ import annotations

import argparse
import shlex

from migrafed.terminal import Outcome, Terminal
from protocol.membership import key_fingerprint
from protocol.plan import parse_config
from server.link.authority import CERTIFICATE_DAYS
from server.members import own_address, signing_key
from server.server_folder import make_server
from server.settings import SETTINGS_FILE, ServerFile


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """Make the folder, and say the fingerprint that holders will ask for."""
    values = {
        "name": options.name,
        "hosts": options.hosts,
        "listen": options.listen,
        "port": options.port,
        "control_port": options.control_port,
    }
    settings = parse_config(ServerFile, {"server": values}, where="command line")
    place = make_server(options.folder, settings, days=options.days or CERTIFICATE_DAYS)
    key = signing_key(place).public_key().public_bytes_raw().hex()
    payload = {
        "server": options.name,
        "address": own_address(place),
        "coordinator": key,
        "fingerprint": key_fingerprint(key),
        "paths": {"folder": str(place.folder), "settings": str(place.own(SETTINGS_FILE))},
    }
    here = shlex.quote(str(options.folder))
    facts = [
        ("folder", f"{place.folder}, for this user only; back it up whole"),
        ("address", f"{own_address(place)}, listening at {settings.server.listen}"),
        ("its key", f"{key_fingerprint(key)} (stands in every invitation and roster)"),
        ("next", f"migrafed server up --server {here}; migrafed server invite HOLDER --server {here}"),
    ]
    return Outcome(payload, f"SUCCESS coordinator '{options.name}'", facts)
