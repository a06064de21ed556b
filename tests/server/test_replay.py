"""A training that is carried out once more from its recorded sums comes to the same, and to nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from clients.app import relay
from dhgsil.task import TASK
from privacy.secure_aggregation.roster import Roster
from privacy.secure_aggregation.terms import SumOrder
from privacy.secure_aggregation.transcript import SumRecord
from protocol.errors import TranscriptError
from protocol.plan import Plan
from server.journal import Journal
from server.recorded_sums import RecordedSums
from server.replay import replayed
from server.rounds import Coordinator, Stage, StageOutcome
from simulations.grid import FIRST_NODE, NODE_NAME, InProcessGrid
from simulations.holders import SimulatedHolders
from simulations.holdings import Holdings
from simulations.identities import identities_of
from tests.federation import journal_in
from tests.plans import series_of, tiny_plan

pytestmark = pytest.mark.slow
STAGE = Stage(name="stage", share="weights+margins")
FIVE = {f"h{number}": [f"C00{number}"] for number in range(1, 6)}


class SilentAt(InProcessGrid):
    """A grid in which one holder does not answer one message: (holder, Flower type or step, which of these)."""

    def __init__(self, holders: SimulatedHolders, silent: tuple[str, str, int]) -> None:
        app = relay(lambda context: holders.agents[str(context.node_config[NODE_NAME])])
        super().__init__(app, list(holders.agents))
        self._silent, self._seen = silent, Counter[str]()
        self._name_of = {FIRST_NODE + place: name for place, name in enumerate(holders.agents)}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        replies = []
        for message in messages:
            holder, step, which = self._silent
            if self._name_of[message.metadata.dst_node_id] == holder and _step(message) == step:
                self._seen[step] += 1
                if self._seen[step] == which:
                    replies.append(Message(Error(code=ErrorCode.NODE_UNAVAILABLE, reason="gone"), reply_to=message))
                    continue
            replies += super().send_and_receive([message])
        return replies


def _step(message: Message) -> str:
    config = message.content.config_records["config"]
    return str(config["step"]) if "step" in config else message.metadata.message_type.split(".")[0]


def plan_of_five(changes: dict[str, Any] | None = None) -> Plan:
    return tiny_plan({"federation.vectorise": "never", "federation.holders": FIVE} | (changes or {}))


def carried_out(plan: Plan, folder: Path, *, silent: tuple[str, str, int] = ("", "", 0)) -> StageOutcome:
    tables = Holdings.split(series_of(plan), plan.federation.holders).parts
    identities = identities_of(tables, folder / "holders")
    holders = SimulatedHolders(tables, plan, TASK, STAGE, identities=identities)
    with journal_in(folder, plan) as journal:
        return Coordinator(
            SilentAt(holders, silent), TASK, TASK.public(series_of(plan)), plan, run="test", journal=journal,
            roster=holders.roster, holder_states=holders,
        ).run_stage(holders.stage)  # fmt: skip


def nobody(roster: Roster) -> InProcessGrid:
    def refuse(context: object) -> Any:
        raise AssertionError(f"{context} was asked")

    return InProcessGrid(relay(refuse), roster.names)


def repeated(
    plan: Plan, folder: Path, on_sum: Callable[[str], None] = lambda label: None
) -> tuple[RecordedSums, StageOutcome]:
    with Journal(folder / "journal.sqlite", run="test", plan_hash=plan.digest(), read_only=True) as journal:
        return replayed(
            journal, STAGE.name, task=TASK, plan=plan, run="test", grid=nobody,
            carry_out=lambda replay: replay.run_stage(STAGE), on_sum=on_sum,
        )  # fmt: skip


def same(one: StageOutcome, other: StageOutcome) -> bool:
    return one.records == other.records and all(
        np.array_equal(value, other.weights[name]) for name, value in one.weights.items()
    )


def test_a_training_is_repeated_sum_by_sum(tmp_path: Path) -> None:
    """In the order in which the coordinator asked."""
    plan, labels = tiny_plan(), []
    outcome = carried_out(plan, tmp_path)
    recorded, again = repeated(plan, tmp_path, labels.append)
    assert same(outcome, again)
    assert labels == ["statistics margins", "train 1", "evaluate 1", "train 2", "evaluate 2"]
    assert recorded.counts.rounds == 2


@pytest.mark.parametrize(
    ("step", "which", "dropped"),
    [("train", 1, 1), ("evaluate", 2, 1), ("unmasking", 3, 0), ("query", 1, 1), ("terms", 1, 0)],
)
def test_dropouts_are_repeated(step: str, which: int, dropped: int, tmp_path: Path) -> None:
    """Sums over those who were left, opened from shares where a holder did not answer, and sessions of fewer."""
    plan = plan_of_five()
    outcome = carried_out(plan, tmp_path, silent=("h3", step, which))
    recorded, again = repeated(plan, tmp_path)
    assert same(outcome, again)
    assert recorded.counts.dropped == dropped
    assert recorded.roster.names == tuple(sorted(FIVE))


def change(folder: Path, plan: Plan, sequence: int, edit: Callable[[SumRecord], SumRecord]) -> None:
    with journal_in(folder, plan) as journal:
        ((session, _),) = journal.sessions("stage")
        record = edit(SumRecord.from_bytes(journal.masked_sum("stage", session, sequence))).to_bytes()
        journal._db.execute("DELETE FROM sums WHERE sequence = ?", (sequence,))
        journal.save_sum("stage", session, sequence, record)


def test_another_weight_is_named(tmp_path: Path) -> None:
    """A coordinator that says afterwards that a holder counted more contradicts what all signed."""
    plan = tiny_plan()
    carried_out(plan, tmp_path)

    def heavier(record: SumRecord) -> SumRecord:
        order = SumOrder.from_bytes(record.order)
        changed = replace(order, weights={name: weight + 1 for name, weight in order.weights.items()})
        return replace(record, order=changed.to_bytes())

    change(tmp_path, plan, 4, heavier)
    with pytest.raises(TranscriptError, match="contributed to another sum") as error:
        repeated(plan, tmp_path)
    assert (error.value.stage, error.value.sequence) == ("stage", 4)


def test_another_question_is_named(tmp_path: Path) -> None:
    """Holders were asked to train on other weights than the rounds before lead to."""
    plan = tiny_plan()
    carried_out(plan, tmp_path)

    def other(record: SumRecord) -> SumRecord:
        order = SumOrder.from_bytes(record.order)
        changed = replace(order, model_hash=bytes(32))
        return replace(record, order=changed.to_bytes())

    change(tmp_path, plan, 4, other)
    with pytest.raises(TranscriptError, match="'train 2' was asked with other weights") as error:
        repeated(plan, tmp_path)
    assert error.value.sequence == 4


def test_one_label_over_different_holders_is_named(tmp_path: Path) -> None:
    """Holders that forgot what they opened, started anew: the difference of the two sums shows one holder's part."""
    plan = plan_of_five()
    carried_out(plan, tmp_path)
    with journal_in(tmp_path, plan) as journal:  # as after a kill that lost the rounds
        journal._db.execute("DELETE FROM rounds")
    carried_out(plan, tmp_path, silent=("h2", "train", 1))
    with pytest.raises(TranscriptError, match="'train 1' was opened over 5 holders here and over other 4 in sum 1 of"):
        repeated(plan, tmp_path)
