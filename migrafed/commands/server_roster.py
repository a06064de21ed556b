"""`migrafed server roster PLAN`: the holders of a plan with their keys, signed; what every operator approves."""

from __future__ import annotations

import argparse

from migrafed.terminal import Outcome, Terminal
from protocol.files import check_absent, write_new
from protocol.membership import grouped, key_fingerprint
from protocol.plan import load_plan
from server.members import Members
from server.settings import load_server


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """Write the roster of exactly the plan's holders, and list what operators compare."""
    place = load_server(options.server)
    plan = load_plan(options.plan)
    check_absent(options.out)
    members, names = Members(place), tuple(plan.federation.holders)
    digest = members.roster(names).digest().hex()
    page, content = members.page(names)
    write_new(options.out, content)
    payload = {
        "plan_hash": plan.digest(),
        "roster_hash": digest,
        "coordinator": page.coordinator,
        "members": [
            {"holder": name, "identity": key, "fingerprint": key_fingerprint(key)} for name, key in page.members.items()
        ],
        "paths": {"roster": str(options.out)},
    }
    facts = [
        ("plan", f"{grouped(plan.digest())} ({plan.run.name})"),
        ("roster", grouped(digest)),
        ("signed by", key_fingerprint(page.coordinator)),
        ("send", f"{options.out} and {options.plan} to every operator; neither holds anything secret"),
        ("next", "each operator: migrafed holder approve PLAN --roster FILE; then: migrafed server run PLAN"),
    ]
    above = [f"  {name:<20} {key_fingerprint(key)}" for name, key in page.members.items()]
    return Outcome(payload, f"SUCCESS roster of {len(names)} holders", facts, above=above)
