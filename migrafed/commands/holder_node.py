"""`migrafed holder node`: run the SuperNode of a holder and its executor in the foreground, until told to stop."""

from __future__ import annotations

import argparse

from clients.holder_folder import find_holder
from clients.joining import node_key_of
from clients.node.supervisor import run_node
from migrafed.terminal import Outcome, Terminal


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Keep the node connected; being told to stop is how a node ends well."""
    place = find_holder(options.holder)
    node_key_of(place)  # refused here where others may read it: Flower would take it as it is
    terminal.hold_nothing()
    run_node(place)
    payload = {"holder": place.name, "coordinator": place.coordinator.address, "ended": "on request"}
    facts = [("holder", place.name), ("left", f"{place.coordinator.address}: logged out there")]
    return Outcome(payload, "SUCCESS node stopped on request", facts)
