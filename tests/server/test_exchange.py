"""Holders' mail reaches those it is for, once, in the order of names, and whatever else happens is refused."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from clients.agent import HolderAgent
from clients.app import relay
from dhgsil.task import TASK
from protocol.errors import ProtocolError, RunFolderError, TrainingError
from protocol.messages import ExchangeRequest
from protocol.records import Header
from server.journal import Journal
from server.rounds import Coordinator, Stage
from simulations.grid import NODE_NAME, InProcessGrid
from tests.federation import journal_in
from tests.plans import PLAIN, PLAIN_POLICY, tiny_plan

PLAN = tiny_plan(PLAIN)
STAGE = Stage(name="stage", share="weights")
NAMES = ("west", "north", "east")
PHASES = ("keys", "pushes")
HEADER = Header(run="test", plan_hash=PLAN.digest(), stage="stage")


class Writer:
    """Writes the others the phase and both names; remembers what it was asked for and what it got."""

    def __init__(self, name: str, others: Sequence[str]) -> None:
        self.name, self.others = name, others
        self.asked: list[str] = []
        self.got: list[tuple[str, list[tuple[str, bytes]]]] = []

    def write(self, header: Header, phase: str) -> dict[str, bytes]:
        self.asked.append(phase)
        return {other: f"{phase}: {self.name} to {other}".encode() for other in self.others}

    def read(self, header: Header, phase: str, inbox: Mapping[str, bytes]) -> None:
        self.got.append((phase, list(inbox.items())))

    def tables(self) -> Any:
        return "tables"


def writers() -> dict[str, Writer]:
    return {name: Writer(name, [other for other in NAMES if other != name]) for name in NAMES}


def agents(letters: Mapping[str, Any]) -> dict[str, HolderAgent]:
    return {
        name: HolderAgent(name, None, PLAN, TASK, {"stage": "weights"}, aggregation=PLAIN_POLICY, letters=own)
        for name, own in letters.items()
    }


def coordinator(answering: Mapping[str, HolderAgent], journal: Journal) -> Coordinator:
    app = relay(lambda context: answering[str(context.node_config[NODE_NAME])])
    return Coordinator(InProcessGrid(app, list(answering)), TASK, None, PLAN, run="test", journal=journal)


def exchange(letters: Mapping[str, Any], phases: Sequence[str] = PHASES) -> None:
    with tempfile.TemporaryDirectory() as folder, journal_in(Path(folder), PLAN) as journal:
        coordinator(agents(letters), journal).exchange(STAGE, phases)


def test_mail_reaches_its_recipients_in_the_order_of_names() -> None:
    each = writers()
    exchange(each)
    for name, writer in each.items():
        assert writer.asked == list(PHASES)
        others = sorted(other for other in NAMES if other != name)
        assert writer.got == [
            (phase, [(other, f"{phase}: {other} to {name}".encode()) for other in others]) for phase in PHASES
        ]


def test_a_resumed_run_delivers_the_same_mail_and_asks_nobody_again(tmp_path: Path) -> None:
    """Killed after the first phase: its mail is delivered again to holders that lost theirs; nobody pushes twice."""
    first, second = writers(), writers()
    with journal_in(tmp_path, PLAN) as journal:
        coordinator(agents(first), journal).exchange(STAGE, PHASES[:1])
    with journal_in(tmp_path, PLAN) as journal:
        coordinator(agents(second), journal).exchange(STAGE, PHASES)
        assert journal.mail("stage", "keys") == {
            name: {other: f"keys: {name} to {other}".encode() for other in writer.others}
            for name, writer in first.items()
        }
    for name, writer in second.items():
        assert writer.asked == ["pushes"]
        assert writer.got[0] == first[name].got[0]
        assert [phase for phase, _ in writer.got] == list(PHASES)


def test_mail_changed_on_the_coordinators_disk_is_refused(tmp_path: Path) -> None:
    with journal_in(tmp_path, PLAN) as journal:
        coordinator(agents(writers()), journal).exchange(STAGE, PHASES[:1])
        journal._db.execute("UPDATE mail SET parcels = CAST(substr(parcels, 1, length(parcels) - 1) || 'x' AS BLOB)")
        with pytest.raises(RunFolderError, match="SHA-256"):
            coordinator(agents(writers()), journal).exchange(STAGE, PHASES[:1])


def answering(outbox: Callable[[str], dict[str, bytes]]) -> dict[str, Writer]:
    each = writers()
    for name, writer in each.items():
        cast("Any", writer).write = lambda header, phase, name=name: outbox(name)
    return each


def test_a_parcel_for_nobody_is_refused_before_anything_is_kept(tmp_path: Path) -> None:
    each = answering(lambda name: {"south": b"?"} if name == "east" else {})
    with journal_in(tmp_path, PLAN) as journal:
        with pytest.raises(ProtocolError, match="parcels for \\['south'\\], who do not take part"):
            coordinator(agents(each), journal).exchange(STAGE, PHASES)
        assert journal.mail("stage", "keys") is None
    assert not any(writer.got for writer in each.values())


def test_a_parcel_to_oneself_is_refused() -> None:
    with pytest.raises((ProtocolError, TrainingError), match="to itself"):
        exchange(answering(lambda name: {name: b"mine"}))


def test_two_holders_of_one_name_are_refused(tmp_path: Path) -> None:
    each = agents(writers())
    each["west"].name = "east"
    with journal_in(tmp_path, PLAN) as journal, pytest.raises(ProtocolError, match="the same name"):
        coordinator(each, journal).exchange(STAGE, PHASES)


def test_a_holder_that_fails_ends_the_exchange_with_its_cause() -> None:
    each: dict[str, Any] = dict(writers())
    each["east"] = None
    with pytest.raises(TrainingError, match="'east' takes part in no exchange"):
        exchange(each)


def test_messages_of_another_plan_or_stage_are_refused() -> None:
    agent = agents(writers())["north"]
    for header, words in (
        (Header(run="test", plan_hash="b" * 64, stage="stage"), "approve the new plan first"),
        (Header(run="test", plan_hash=PLAN.digest(), stage="other"), "takes part in no stage"),
    ):
        with pytest.raises(ProtocolError, match=words):
            agent.exchange(ExchangeRequest(header=header, phase="keys"))


def test_sums_adds_up_what_holders_contribute(tmp_path: Path) -> None:
    from tests.federation import make_holders
    from tests.plans import series_of

    holders = make_holders(PLAN)
    with journal_in(tmp_path, PLAN) as journal:
        leader = Coordinator(holders.grid(), TASK, TASK.public(series_of(PLAN)), PLAN, run="test", journal=journal)
        found = leader.sums(holders.stage, "margins", {})
    parts = [TASK.statistics("margins", tables, PLAN, holders.stage.share, {}) for tables in holders.tables.values()]
    for name, total in found.items():
        assert np.allclose(total, sum(np.asarray(part[name]) for part in parts))
