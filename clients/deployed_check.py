"""Whether a deployed holder is fit to take part: modes, keys, policy, data, clock, disk, connection. Changes nothing.

Every check says what it found, and if that is not well, what to do. No row is shown and none leaves: the connection is
tried with the node's key, by logging in and out again.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import shutil
import ssl
from dataclasses import dataclass

import httpx

from clients.approvals import Approvals
from clients.check_report import CheckedHolder, Report, size_in_words
from clients.custody import LEDGER_FOLDER
from clients.desk.calls import TABLES, OperatorRows
from clients.desk.counts import ForecasterRows, own_series
from clients.desk.desk import WORK
from clients.desk.own_rows import Ledgers, Premises
from clients.desk.queries import source_of
from clients.holder_folder import node_group
from clients.joining import identity_of, node_key_of
from clients.modes import wrong_modes
from clients.node.door import StillAliveError, knock, trust
from clients.service.outbox import read_outbox
from clients.settings import APPROVALS, LEDGERS, OUTBOX, HolderPlace
from dhgsil.public_grid import PARQUET
from dhgsil.task import JOB_QUERIES
from privacy.ledger import verify_ledger
from protocol.errors import DataError, LinkError, RefusedError
from protocol.membership import key_fingerprint
from protocol.plan import Plan
from tables.sources import open_source

_GIGABYTE = 10**9
_LEAST_DISK = 2 * _GIGABYTE
_MOST_AHEAD, _MOST_BEHIND = 4.0, 300.0
"""Seconds by which the node's clock may differ from the coordinator's; Flower takes 5 ahead and 305 behind."""
_PATIENCE, _WARN_DAYS = 10.0, 30


def check_deployed(place: HolderPlace, *, rows: int = 1000) -> CheckedHolder:
    """All checks of a holder, in the order in which they have to be put right.

    Args:
        place: The holder.
        rows: How many of its raw queries are looked at.
    """
    report = Report()
    _check_modes(place, report)
    with report.trying("identity"):
        report.ok("identity", key_fingerprint(identity_of(place).public.hex()))
    with report.trying("node key"):
        node_key_of(place)
        report.ok("node key", "EC P-384, OpenSSH form")
    _check_policy(place, report)
    _check_disk(place, report)
    with report.trying("outbox"):
        report.ok("outbox", f"{len(read_outbox(place.own(OUTBOX)))} lines as they were written")
    _check_ledgers(place, report)
    _check_approvals(place, report, rows)
    _check_connection(place, report)
    return CheckedHolder(tuple(report.findings))


def _check_modes(place: HolderPlace, report: Report) -> None:
    """Nobody else reads anything, but the node's group what a node needs."""
    with report.trying("modes"):
        wrong = list(wrong_modes(place))
        for problem, way_out in wrong:
            report.failed("modes", problem, way_out)
        if not wrong:
            shared = node_group(place.config.holder.node_user) is not None
            report.ok("modes", f"only the owner{' and, where needed, the node' if shared else ''}")


def _check_policy(place: HolderPlace, report: Report) -> None:
    policy = place.config.privacy
    found = f"epsilon {policy.max_epsilon:g} at delta {policy.delta:g} for {policy.population}, {policy.period}"
    if policy.holder == place.name:
        report.ok("policy", f"{found}; {', '.join(policy.aggregation.allow)} sums")
    else:
        report.failed(
            "policy", f"it is for '{policy.holder}', and this holder is '{place.name}'", "give both the same name"
        )
    if policy.population_size is None:
        report.note("population", "its size is not given", "give population_size, so that delta is checked against it")


def _check_disk(place: HolderPlace, report: Report) -> None:
    free = shutil.disk_usage(place.folder).free
    found = f"{free / _GIGABYTE:.1f} GB free at {place.folder} (needs {_LEAST_DISK / _GIGABYTE:.0f})"
    if free >= _LEAST_DISK:
        report.ok("disk", found)
    else:
        report.failed("disk", found, "make room: with a full disk nothing leaves, and a run stops")


def _check_ledgers(place: HolderPlace, report: Report) -> None:
    for folder in sorted(place.own(LEDGERS).glob(f"*/{LEDGER_FOLDER}")):
        name = f"ledger {folder.parent.name}"
        with report.trying(name):
            found = verify_ledger(folder)
            if found.terms != place.config.privacy.terms():
                raise RefusedError(
                    f"it was opened for epsilon {float(found.terms.epsilon):g} at delta {float(found.terms.delta):g} "
                    f"in '{found.terms.period}', and the policy says otherwise; a budget is not changed on the way: "
                    "put the policy back, or give a new period"
                )
            report.ok(name, f"{len(found.lines)} lines as signed; left: {found.book.left_in_words}")


def _check_approvals(place: HolderPlace, report: Report, rows: int) -> None:
    """Every approved plan still holds, and its rows are there."""
    approvals = Approvals(place)
    paths = sorted(place.own(APPROVALS).glob("*.json"))
    if not paths:
        report.note("approvals", "no plan is approved, so everything is refused", "migrafed holder approve PLAN")
    for path in paths:
        name = f"plan {path.stem[:12]}"
        with report.trying(name):
            plan = approvals.plan(path.stem).plan
            report.ok(name, f"{plan.run.name}: approved, and nothing of it has changed")
        if report.findings[-1].status == "ok":
            with report.trying(f"data {path.stem[:12]}"):
                report.ok(f"data {path.stem[:12]}", own_data(place, plan, rows=rows))


def own_data(place: HolderPlace, plan: Plan, *, rows: int) -> str:
    """Open this holder's rows as the agent will for this plan, and say what is there; nothing is counted.

    Raises:
        InputError: a list, a description or a table is missing or breaks a rule, or holds no row of this holder.
    """
    premises = Premises(place.name, place.data, place.own(WORK), Ledgers(place.own(LEDGERS), place.config.privacy))
    own = (ForecasterRows if plan.run.task == "dhgsil" else OperatorRows)(plan, premises)
    own.close()
    source = str(plan.data["source"])
    if source == PARQUET:
        return f"{int(own_series(plan, place.data, place.name).observed.sum())} regions with counts in {place.data}"
    if source == JOB_QUERIES:
        described = source_of(place.data)
        table = open_source(described.queries, base=place.data, engine=None)
        found = table.sample(described.columns(), rows=rows).num_rows
        if not found:
            raise DataError("there is no row", way_out="point [data] folder to this holder's rows", source=place.data)
        return f"{size_in_words(table)} of raw queries; columns {', '.join(described.columns())} are there"
    return f"tables {', '.join(TABLES)} are described in {place.data}; look at them with 'holder check' there"


def _check_connection(place: HolderPlace, report: Report) -> None:
    if place.config.coordinator is None:
        report.note("coordinator", "this holder has joined nobody", "migrafed holder join INVITATION")
        return
    address = place.coordinator.address
    with report.trying("connection"):
        told = _asked(place)
        ends = "" if told.days is None else f", certificate for {told.days:.0f} more days"
        report.add(
            "connection", f"{address}, TLS{ends}", "its operator issues another: migrafed server certificate",
            well=told.days is None or told.days > _WARN_DAYS,
        )  # fmt: skip
        if told.ahead is None:
            report.note("clock", f"{address} tells no time", "compare both clocks")
        elif -_MOST_BEHIND <= told.ahead <= _MOST_AHEAD:
            report.ok("clock", f"{told.ahead:+.0f} s from the coordinator's")
        else:
            report.failed("clock", f"{told.ahead:+.0f} s from the coordinator's", "set the clock, NTP say")
    with report.trying("node"):
        try:
            report.ok("node", f"admitted, number {knock(place)}")
        except StillAliveError:
            report.ok("node", "a SuperNode with this key is logged in, or was a minute ago")


@dataclass(frozen=True)
class _Told:
    """What the coordinator's answer says: how far this clock is ahead, and how long its certificate lasts."""

    ahead: float | None
    days: float | None


def _asked(place: HolderPlace) -> _Told:
    """Ask for nothing, over TLS that trusts the invitation's authority alone.

    Raises:
        LinkError: it cannot be reached, or is not who it should be.
    """
    address, now = place.coordinator.address, dt.datetime.now(dt.UTC)
    try:
        with (
            httpx.Client(verify=trust(place), timeout=_PATIENCE, trust_env=False) as client,
            client.stream("GET", f"https://{address}/") as answer,
        ):
            certificate = answer.extensions["network_stream"].get_extra_info("ssl_object").getpeercert()
            date = answer.headers.get("date")
    except httpx.HTTPError:
        knock(place)  # says in words what is wrong
        raise LinkError(f"{address} answered the node and not a plain question; try again") from None
    days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - now.timestamp()) / 86400
    try:
        ahead = None if date is None else (now - email.utils.parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        ahead = None
    return _Told(ahead, days)
