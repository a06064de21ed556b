"""`migrafed holder status`: what agent, node, approvals, ledgers and outbox are doing, on one screen."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clients.approvals import Approvals
from clients.custody import LEDGER_FOLDER
from clients.holder_folder import find_holder
from clients.node.client import AgentClient
from clients.node.folder import node_status
from clients.service.outbox import REFUSAL, read_outbox
from clients.settings import LEDGERS, OUTBOX, HolderPlace
from migrafed.terminal import Outcome, Terminal
from privacy.ledger import verify_ledger
from protocol.errors import MigrafedError
from protocol.membership import utc

Facts = list[tuple[str, str]]


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """Ask the agent, read the files; nothing is changed and no network is used."""
    place = find_holder(options.holder)
    agent, node = _agent(place, options.timeout), node_status(place)
    approvals, ledgers, outbox = list(_approvals(place)), list(_ledgers(place)), _outbox(place)
    joined = place.config.coordinator
    payload = {
        "holder": place.name,
        "coordinator": None if joined is None else joined.address,
        "agent": agent,
        "node": node,
        "approvals": approvals,
        "ledgers": ledgers,
        "outbox": outbox,
    }
    facts = [
        ("holder", f"{place.name}, {place.file}"),
        ("joined", joined.address if joined is not None else "not yet: migrafed holder join INVITATION"),
        ("agent", _agent_words(agent)),
        *((f"run {name}"[:20], f"plan {run['plan'][:12]}") for name, run in _desk(agent, "runs").items()),
        ("node", _node_words(node)),
        *((f"plan {one['plan_hash'][:12]}", _approval_words(one)) for one in approvals),
        *((f"ledger {one['unit']}", _ledger_words(one)) for one in ledgers),
        ("outbox", outbox["problem"] or f"{outbox['left']} left, {outbox['refused']} refused, last {outbox['last']}"),
    ]
    up = agent["answers"]
    return Outcome(payload, "SUCCESS the agent answers" if up else "FAILED the agent does not answer", facts,
                   exit_code=0 if up else 1)  # fmt: skip


def _agent(place: HolderPlace, patience: float) -> dict[str, Any]:
    try:
        told = dict(AgentClient(place.socket).status(patience=patience))
    except MigrafedError as error:
        return {"answers": False, "problem": str(error)}
    return {"answers": True, **{key: value for key, value in told.items() if key not in ("kind", "version")}}


def _desk(agent: dict[str, Any], key: str) -> dict[str, Any]:
    """What the agent has open."""
    return dict(agent.get("desk", {}).get(key, {}))


def _agent_words(agent: dict[str, Any]) -> str:
    if not agent["answers"]:
        return agent["problem"]
    sent = ", ".join(f"{number} {kind}" for kind, number in sorted(agent.get("sent", {}).items())) or "nothing"
    return f"{agent.get('state')}, up {agent.get('up_seconds', 0):,.0f} s; sent since then: {sent}"


def _node_words(node: dict[str, Any]) -> str:
    if not node["running"]:
        return "not running: migrafed holder node"
    state = "connected" if node.get("connected") else "not connected"
    done = f"{node.get('answered', 0)} answered, {node.get('refused', 0)} refused, {node.get('restarts', 0)} restarts"
    return "; ".join([state, done, *(str(node[key]) for key in ("problem", "agent") if node.get(key))])


def _approvals(place: HolderPlace) -> Iterator[dict[str, Any]]:
    approvals = Approvals(place)
    for one in approvals.listed():
        problem = ""
        try:
            approvals.plan(one.plan_hash)
        except MigrafedError as error:
            problem = str(error)
        yield {"plan_hash": one.plan_hash, "name": one.name, "approved": utc(one.approved), "problem": problem}


def _approval_words(one: dict[str, Any]) -> str:
    return f"{one['name']}, " + (f"NOT VALID: {one['problem']}" if one["problem"] else f"approved {one['approved']}")


def _ledgers(place: HolderPlace) -> Iterator[dict[str, Any]]:
    for folder in sorted(path for path in place.own(LEDGERS).glob("*") if (path / LEDGER_FOLDER).is_dir()):
        yield {"unit": folder.name, **_ledger(folder / LEDGER_FOLDER)}


def _ledger(folder: Path) -> dict[str, Any]:
    try:
        found = verify_ledger(folder)
    except MigrafedError as error:
        return {"spent": None, "epsilon": None, "left": "", "problem": str(error)}
    book = found.book
    return {
        "spent": float(book.spent),
        "epsilon": float(found.terms.epsilon),
        "left": book.left_in_words,
        "problem": "",
    }


def _ledger_words(one: dict[str, Any]) -> str:
    return one["problem"] or f"epsilon {one['spent']:.4g} of {one['epsilon']:.4g} spent; left: {one['left']}"


def _outbox(place: HolderPlace) -> dict[str, Any]:
    try:
        lines = read_outbox(place.own(OUTBOX))
    except MigrafedError as error:
        return {"left": None, "refused": None, "last": None, "problem": str(error)}
    refused = sum(line.kind == REFUSAL for line in lines)
    last = lines[-1].time if lines else "never"
    return {"left": len(lines) - refused, "refused": refused, "last": last, "problem": ""}
