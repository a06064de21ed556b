"""The gate: every answer of a run passes, and nothing that differs from it in name, kind, type, shape or weight."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clients.agent import HolderAgent
from clients.desk.counts import mechanism_of
from clients.policy import AggregationPolicy
from clients.service.allowed import PARCELS
from clients.service.asked import Asked
from clients.service.gate import Gate, code_of, text_of
from clients.service.outbox import Outbox, read_outbox
from dhgsil.task import TASK
from integration.task import GROUPS
from integration.task import TASK as CALL_TASK
from privacy.plan import DPSGDPlan
from privacy.secure_aggregation.messages import Unmasking
from protocol.errors import BudgetExceededError, DataError, LedgerError, MigrafedError, RefusedError, StorageError
from protocol.masked_messages import MaskedAnswer, MaskedRequest
from protocol.messages import EvaluateReply, ExchangeReply, ExchangeRequest, StatisticsReply, StatisticsRequest
from protocol.plan import Plan
from protocol.record_bytes import records_from_bytes
from protocol.records import Header
from protocol.tasks import Task
from server.journal import Journal
from server.rounds import Coordinator, Stage
from server.stages import newton_steps
from simulations.holders import SimulatedHolders
from simulations.holdings import Holdings
from simulations.protection import open_custodies
from tests.call_rows import call_plan, gaussian_rows, tables_of
from tests.clients.service.gate_trials import GateTrials, label
from tests.federation import make_holders
from tests.plans import PLAIN, PLAIN_POLICY, series_of, tiny_plan

FOUR = {"north": ("C001", "C002"), "east": ("C003", "C004"), "west": ("C005", "C006"), "south": ("C007", "C008")}
PRIVATE: dict[str, Any] = {
    "privacy.mode": "window-dpsgd", "privacy.epsilon": 8.0, "privacy.delta": 1e-5, "privacy.score_against": "truth",
    "federation.shares": ["weights"], "compare.pooled": False, "compare.alone": False, "training.select": "last",
    "training.optimizer": "sgd", "model.node_features": False, "model.pair": "embedding",
}  # fmt: skip
STAGE = Stage(name="stage", share="weights")


@contextmanager
def trials(agents: Mapping[str, HolderAgent], folder: Path, **given: Any) -> Iterator[GateTrials]:
    with ExitStack() as stack:
        outboxes = {name: stack.enter_context(Outbox(folder / f"{name}.jsonl")) for name in agents}
        yield GateTrials.over(agents, outboxes, **given)


def run(
    tried: GateTrials, holders: SimulatedHolders, folder: Path, task: Task = TASK, public: Any = None
) -> Coordinator:
    journal = Journal(folder / "journal.sqlite", run="test", plan_hash=holders.plan.digest())
    return Coordinator(
        tried.grid(), task, public, holders.plan, run="test", journal=journal, roster=holders.roster,
        holder_states=holders,
    )  # fmt: skip


@pytest.mark.slow
def test_a_masked_training_with_a_holder_that_drops_out(tmp_path: Path) -> None:
    """Terms, adverts, survivors, unmasking with seeds, opening: each step passes, and nothing near it."""
    plan = tiny_plan({"federation.holders": FOUR, "training.rounds": 2})
    holders = make_holders(plan)
    for masking in holders.masking.values():
        masking.policy = AggregationPolicy(allow=("secure",), openings=True)

    def silent(name: str, asked: Asked) -> bool:
        return name == "west" and label(asked) == "train"

    with trials(holders.agents, tmp_path, silent=silent) as tried:
        run(tried, holders, tmp_path, public=TASK.public(series_of(plan))).run_stage(holders.stage)
        asked = tried.last["north", "masked unmasking"]
        assert isinstance(asked.request, MaskedRequest)
        context = Unmasking.from_bytes(asked.request.parts["unmasking"]).survivors.context
        shown = Asked("query.masked", replace(asked.request, step="opening", parts={"opening": context}))
        tried.answer("north", shown)
        check_openings(tried, shown)
        finish(tried, holders)
    assert set(tried.passed) == {
        "statistics margins", "statistics ready", "statistics finished", "train", "evaluate", "masked terms",
        "masked adverts", "masked survivors", "masked unmasking", "masked opening",
    }  # fmt: skip
    assert min(tried.held.values()) >= 10


def finish(tried: GateTrials, holders: SimulatedHolders) -> None:
    """Final weights are answered with a weight alone, also by a holder that was started anew."""
    agent = tried.agents["north"]
    session = agent.session("stage")
    weights = {
        name: leaf.detach().numpy() for name, leaf in session.model.named_parameters() if name not in session.personal
    }
    header = Header(run="test", plan_hash=holders.plan.digest(), stage="stage")
    asked = Asked("query", StatisticsRequest.of_final_weights(header, weights, chosen_round=1))
    examples = session.dataset.num_examples
    assert StatisticsReply.from_records(records_from_bytes(tried.answer("north", asked))).num_examples == examples > 1
    agent.close("stage")
    assert StatisticsReply.from_records(records_from_bytes(tried.answer("north", asked))).num_examples == 1


def check_openings(tried: GateTrials, shown: Asked) -> None:
    """What was put into a sum stays where the policy says so, or where the gate has seen no sum."""
    agent = tried.agents["north"]
    reply, gate = shown.answered_by(agent), tried.gates["north"]
    fresh = Gate(gate._outbox, ledger_holder="north")
    with pytest.raises(RefusedError, match="not of the size of the last sum"):
        fresh.release(shown, agent, reply)
    assert agent.masking is not None
    agent.masking.policy = AggregationPolicy(allow=("secure",))
    with pytest.raises(RefusedError, match="policy lets it show nothing"):
        gate.release(shown, agent, reply)


@pytest.mark.slow
def test_a_plain_training(tmp_path: Path) -> None:
    plan = tiny_plan(PLAIN | {"federation.shares": ["weights"]})
    holders = make_holders(plan, "weights")
    with trials(holders.agents, tmp_path) as tried:
        run(tried, holders, tmp_path, public=TASK.public(series_of(plan))).run_stage(holders.stage)
    assert {"statistics linear", "statistics ready", "train", "evaluate"} <= set(tried.passed)
    assert min(tried.held.values()) >= 15


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [PRIVATE | PLAIN, PRIVATE, PRIVATE | {"privacy.noise": "distributed"}],
    ids=["plain", "masked", "shared noise"],
)
def test_a_private_training(changes: dict[str, Any], tmp_path: Path) -> None:
    plan = tiny_plan(changes)
    series = series_of(plan)
    mechanism = mechanism_of(plan, TASK, series)
    assert isinstance(mechanism, DPSGDPlan)
    with open_custodies(plan, tmp_path / "ledgers") as custodies:
        holders = SimulatedHolders(
            Holdings.split(series, plan.federation.holders).parts, plan, TASK, STAGE, custodies=custodies,
            mechanism=mechanism,
        )  # fmt: skip
        with trials(holders.agents, tmp_path) as tried:
            run(tried, holders, tmp_path, public=TASK.public(series)).run_stage(STAGE)
            check_no_error_leaves(tried)
    assert {"statistics ready", "train"} <= set(tried.passed)


def check_no_error_leaves(tried: GateTrials) -> None:
    """A private training measures nothing; should an agent do so, the number stays."""
    asked, agent = tried.last["north", "train"], tried.agents["north"]
    evaluated = Asked("evaluate", asked.request)
    reply = EvaluateReply(num_examples=agent.session("stage").dataset.num_examples, error=0.5)
    with pytest.raises(RefusedError, match="nothing is measured on raw data"):
        tried.gates["north"].release(evaluated, agent, reply)


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["secure", "plain"])
def test_sums_of_groups_and_newton_steps(aggregation: str, tmp_path: Path) -> None:
    plan = call_plan(changes={"federation.aggregation": aggregation})
    tables = tables_of(gaussian_rows(local=90, settled=70, new=40, missing=0.1))
    parts = {name: CALL_TASK.held_by(tables, codes) for name, codes in plan.federation.holders.items()}
    holders = SimulatedHolders(parts, plan, CALL_TASK, STAGE)
    with trials(holders.agents, tmp_path) as tried:
        coordinator = run(tried, holders, tmp_path, CALL_TASK)
        newton_steps(coordinator, STAGE, plan, CALL_TASK)
        coordinator.sums(STAGE, GROUPS, {})
    assert {f"statistics {name}" for name in ("medians", "moments", "newton", "groups")} <= set(tried.passed)


class Letters:
    """Sends every other operator as many bytes as told."""

    def __init__(self, length: int) -> None:
        self.length = length

    def write(self, header: Header, phase: str) -> dict[str, bytes]:
        return {"east": bytes(self.length), "west": bytes(self.length)}

    def read(self, header: Header, phase: str, inbox: Mapping[str, bytes]) -> None: ...

    def tables(self) -> Any:
        return None


def mail_agent(plan: Plan, length: int = 100, task: Task = CALL_TASK) -> HolderAgent:
    return HolderAgent(
        "north", None, plan, task, {"stage": "weights"}, aggregation=PLAIN_POLICY, letters=Letters(length)
    )  # fmt: skip


def mail_asked(plan: Plan, phase: str, inbox: dict[str, bytes] | None = None) -> Asked:
    header = Header(run="r", plan_hash=plan.digest(), stage="stage")
    return Asked("query.exchange", ExchangeRequest(header=header, phase=phase, inbox=inbox))


PUSHING = {"data.pushes": "L1", "federation.aggregation": "plain"}


def test_mail_of_an_exchange(tmp_path: Path) -> None:
    plan = call_plan(changes=PUSHING)
    for asked in (
        mail_asked(plan, "hello"), mail_asked(plan, "pushes"), mail_asked(plan, "pushes", {"east": b"x", "west": b"y"}),
    ):  # fmt: skip
        with trials({"north": mail_agent(plan)}, tmp_path) as tried:
            tried.answer("north", asked)
            assert tried.held["query.exchange"] >= 19


@pytest.mark.parametrize("phase", ["keys", "hubs", "pushes"])
def test_parcels_have_a_largest_size(phase: str, tmp_path: Path) -> None:
    plan, most = call_plan(changes=PUSHING), PARCELS[phase]
    if phase == "pushes":
        most = PARCELS["keys"]  # a quarter of a gigabyte is only tried where it must stay
    with trials({"north": mail_agent(plan, most)}, tmp_path) as tried:
        asked = mail_asked(plan, phase)
        agent, gate = tried.agents["north"], tried.gates["north"]
        assert len(gate.release(asked, agent, asked.answered_by(agent))) > 2 * most
        with pytest.raises(RefusedError, match=f"has more than the {PARCELS[phase]} bytes"):
            gate.release(asked, agent, ExchangeReply(holder="north", outbox={"east": bytes(PARCELS[phase] + 1)}))


@pytest.mark.parametrize(
    ("plan", "task", "phase"),
    [
        (call_plan(changes=PUSHING | {"data.pushes": "none"}), CALL_TASK, "pushes"),
        (call_plan(changes=PUSHING), CALL_TASK, "questions"),
        (call_plan(changes=PUSHING), CALL_TASK, "rows"),
        (tiny_plan(PLAIN), TASK, "keys"),
    ],
)
def test_phases_that_the_plan_does_not_have_send_nothing(plan: Plan, task: Task, phase: str, tmp_path: Path) -> None:
    with trials({"north": mail_agent(plan, task=task)}, tmp_path) as tried:
        asked, agent = mail_asked(plan, phase), tried.agents["north"]
        with pytest.raises(RefusedError, match="sends no parcels here"):
            tried.gates["north"].release(asked, agent, asked.answered_by(agent))


def test_an_answer_of_a_masked_sum_under_a_plan_that_masks_nothing(tmp_path: Path) -> None:
    plan = tiny_plan(PLAIN)
    agent = make_holders(plan).agents["north"]
    header = Header(run="r", plan_hash=plan.digest(), stage="stage")
    asked = Asked("query.masked", MaskedRequest(header=header, step="survivors"))
    with Outbox(tmp_path / "outbox.jsonl") as outbox, pytest.raises(RefusedError, match="not this holder's answer"):
        Gate(outbox, ledger_holder="north").release(asked, agent, MaskedAnswer(holder="north", part=bytes(64)))


def hello(plan: Plan) -> tuple[Asked, HolderAgent, ExchangeReply]:
    agent = mail_agent(plan)
    return mail_asked(plan, "hello"), agent, ExchangeReply(holder="north")


def test_what_leaves_has_its_line_before(tmp_path: Path) -> None:
    plan = call_plan(changes=PUSHING)
    asked, agent, reply = hello(plan)
    with Outbox(tmp_path / "outbox.jsonl") as outbox:
        gate = Gate(outbox, ledger_holder="north")
        content = gate.release(asked, agent, reply)
        (line,) = read_outbox(tmp_path / "outbox.jsonl")
    assert (gate.counts, gate.bytes_sent) == ({"ExchangeReply": 1}, len(content))
    told = (line.run, line.stage, line.plan_hash, line.message_type, line.kind, line.bytes)
    assert told == ("r", "stage", plan.digest(), "query.exchange", "ExchangeReply", len(content))
    assert line.sha256 == hashlib.sha256(content).hexdigest()


def test_records_of_more_bytes_than_their_content_may_have_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a serialiser might put in besides."""
    asked, agent, reply = hello(call_plan(changes=PUSHING))
    with Outbox(tmp_path / "outbox.jsonl") as outbox:
        gate = Gate(outbox, ledger_holder="north")
        for length, leaves in ((4096, True), (4097, False)):
            monkeypatch.setattr("clients.service.gate.records_to_bytes", lambda records, length=length: bytes(length))
            if leaves:
                assert len(gate.release(asked, agent, reply)) == length
            else:
                with pytest.raises(RefusedError, match="it has 4097 bytes and may have 4096"):
                    gate.release(asked, agent, reply)
        assert outbox.length == 1


def test_nothing_leaves_that_cannot_be_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, agent, reply = hello(call_plan(changes=PUSHING))
    with Outbox(tmp_path / "outbox.jsonl") as outbox:
        gate = Gate(outbox, ledger_holder="north")
        (tmp_path / "outbox.jsonl").unlink()
        with pytest.raises(StorageError, match="so nothing leaves"):
            gate.release(asked, agent, reply)
        assert (gate.counts, gate.bytes_sent) == ({}, 0)
        assert gate.refuse("train", None, RefusedError("no")) == ("StorageError", 0)
        assert gate.counts == {"refusal": 1}


def test_of_a_refusal_others_get_a_code_and_a_number(tmp_path: Path) -> None:
    asked, *_ = hello(call_plan(changes=PUSHING))
    with Outbox(tmp_path / "outbox.jsonl") as outbox:
        gate = Gate(outbox, ledger_holder="north")
        assert gate.refuse("query.exchange", asked, LedgerError("line 3 is odd")) == ("LedgerError", 1)
        assert gate.refuse("train", None, KeyError("row 17: Lee")) == ("UnexpectedError", 2)
    first, second = read_outbox(tmp_path / "outbox.jsonl")
    assert (first.kind, first.code, first.text, first.run) == ("refusal", "LedgerError", "line 3 is odd", "r")
    assert (second.code, second.run) == ("UnexpectedError", "")
    assert second.text == "KeyError; the agent's log has the way there"


class _OwnError(BudgetExceededError):
    pass


class RefusedErrorElsewhere(Exception):  # noqa: N818 -- the name of a toolkit's error with another meaning
    pass


RefusedErrorElsewhere.__name__ = "RefusedError"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RefusedError("x"), "RefusedError"),
        (DataError("x", way_out="y"), "DataError"),
        (_OwnError("x", requested=1, left=0), "BudgetExceededError"),
        (MigrafedError("x"), "MigrafedError"),
        (OSError(errno.ENOSPC, "full"), "StorageError"),
        (OSError(errno.EDQUOT, "full"), "StorageError"),
        (OSError(errno.ENOENT, "/home/lee"), "UnexpectedError"),
        (RefusedErrorElsewhere("x"), "UnexpectedError"),
        (ValueError("row 17"), "UnexpectedError"),
        (MemoryError(), "UnexpectedError"),
    ],
)
def test_codes_are_words_of_a_public_list(error: Exception, code: str) -> None:
    assert code_of(error) == code


def test_the_text_of_what_nobody_foresaw_is_not_kept() -> None:
    """A library may quote a value of a row."""
    with pytest.raises(ValueError, match="Lee") as caught:
        float("Lee, 17 Rose St")
    text = text_of(caught.value)
    assert text.startswith("ValueError at ")
    assert "Lee" not in text
    assert text_of(RefusedError("the rule")) == "the rule"
