"""Rounds over masked sums, as messages of a Flower grid: exact sums, few messages, holders that drop out."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from clients.masking import Masking
from dhgsil.task import TASK, HolderWindows
from integration.task import CallTables, IntegrationTask
from privacy.secure_aggregation.layout import Layout
from protocol.errors import PlanError, ProtocolError, TrainingError
from protocol.masked_messages import MaskedReply
from protocol.plan import Plan
from protocol.tasks import task_named
from server.journal import Journal
from server.rounds import Coordinator, StageOutcome
from simulations.call_training import newton_fit, rounds_fit
from simulations.grid import InProcessGrid
from simulations.holders import SimulatedHolders
from tests.call_rows import OPERATORS, call_plan, gaussian_rows, tables_of
from tests.dropping import DroppingGrid, step_of
from tests.federation import journal_in, largest_difference, make_holders, outcome_of
from tests.plans import PLAIN, series_of, tiny_plan

FIVE = {f"h{number}": [f"C00{number}"] for number in range(1, 6)}


@pytest.fixture
def put_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[np.ndarray], np.ndarray]]:
    """(label, words that each holder put in, words of the sum) of every masked sum of the test, in order."""
    sums: list[tuple[str, list[np.ndarray], np.ndarray]] = []
    words: list[np.ndarray] = []
    labels: list[str] = []
    begin, encode, decode = Masking.begin, Layout.encode, Layout.decode

    def begun(self: Masking, *args: Any, label: str, **others: Any) -> Any:
        labels.append(label)
        return begin(self, *args, label=label, **others)

    def encoded(self: Layout, arrays: Any) -> np.ndarray:
        words.append(encode(self, arrays))
        return words[-1]

    def decoded(self: Layout, total: np.ndarray, **others: Any) -> Any:
        sums.append((labels[-1], list(words), total))
        words.clear()
        return decode(self, total, **others)

    monkeypatch.setattr(Masking, "begin", begun)
    monkeypatch.setattr(Layout, "encode", encoded)
    monkeypatch.setattr(Layout, "decode", decoded)
    return sums


def assert_exact(sums: list[tuple[str, list[np.ndarray], np.ndarray]], *, holders: int) -> None:
    for label, words, total in sums:
        assert len(words) == holders, label
        assert np.array_equal(total, np.sum(words, axis=0, dtype=np.uint32)), label


def test_forecaster_sums_are_those_of_the_same_words(put_in: Any) -> None:
    """Every masked sum of a training equals the plain sum of what holders put in, bit for bit."""
    plan = tiny_plan()
    outcome_of(plan)
    assert_exact(put_in, holders=3)
    labels = ["statistics margins", "train 1", "evaluate 1", "train 2", "evaluate 2"]
    assert [label for label, _, _ in put_in] == labels


@pytest.mark.parametrize("task", ["integration", "integration-mlp"])
def test_classifier_sums_are_those_of_the_same_words(put_in: Any, task: str, tmp_path: Path) -> None:
    """The same for both classifiers in rounds."""
    trained(call_plan(task), tmp_path)
    assert_exact(put_in, holders=3)
    labels = ["statistics medians", "statistics moments", "train 1", "evaluate 1", "train 2", "evaluate 2"]
    assert [label for label, _, _ in put_in] == labels


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedadam"])
def test_forecaster_ends_as_without_masks(strategy: str) -> None:
    """Final weights differ from those of a plain training by quantisation alone, with each of Flower's strategies."""
    changes = {"federation.strategy": strategy, "training.select": "last"}
    masked, plain = outcome_of(tiny_plan(changes)), outcome_of(tiny_plan(PLAIN | changes))
    # FedAdam divides by the root of tiny second moments, which makes more of a difference in the last bits.
    assert largest_difference(masked.weights, plain.weights) <= (1e-4 if strategy == "fedadam" else 1e-6)
    for ours, theirs in zip(masked.records, plain.records, strict=True):
        assert (ours.loss, ours.error) == pytest.approx((theirs.loss, theirs.error), rel=1e-5)


@pytest.mark.parametrize("task", ["integration", "integration-mlp"])
def test_classifier_ends_as_without_masks(task: str, tmp_path: Path) -> None:
    masked, plain = trained(call_plan(task), tmp_path), trained(call_plan(task, PLAIN), tmp_path)
    assert largest_difference(masked, plain) <= 1e-6


def test_newton_steps_end_as_without_masks(tmp_path: Path) -> None:
    """Gradients and Hessians are summed in fixed point of 41 fraction bits: the fit is the same to 1e-9."""
    masked, plain = newton(call_plan(), tmp_path), newton(call_plan("integration", PLAIN), tmp_path)
    assert largest_difference(masked, plain) <= 1e-9


def test_messages_are_two_for_a_session_and_two_for_a_sum() -> None:
    """While nobody drops out: adverts and confirmations once, then the request of each sum and what opens it."""
    plan = tiny_plan({"federation.vectorise": "never"})
    holders = make_holders(plan)
    grid = DroppingGrid(holders, lambda holder, message: False)
    carry_out(plan, holders, grid)
    steps = Counter(step_of(message) for message in grid.sent)
    sums = 1 + 2 * plan.training.rounds
    assert steps == Counter(
        {"terms": 3, "adverts": 3, "unmasking": 3 * sums, "query": 3 * 2, "train": 3 * 2, "evaluate": 3 * 2}
    )  # the two queries are the margins and the phase that makes holders ready


@pytest.mark.parametrize("step", ["train", "evaluate", "query", "unmasking"])
@pytest.mark.parametrize("answers", ["error", "nothing"])
def test_a_holder_that_drops_out_is_left_out_and_may_come_back(step: str, answers: str, put_in: Any) -> None:
    """Silent once at one step: the training goes on, and every sum is over those who were left."""
    plan = five_holders()
    holders = make_holders(plan)
    seen: Counter[str] = Counter()

    def silent(holder: str, message: Message) -> bool:
        asked = step_of(message)
        seen[f"{holder} {asked}"] += 1
        return holder == "h2" and asked == step and seen[f"h2 {step}"] == 1

    outcome = carry_out(plan, holders, DroppingGrid(holders, silent, answers=answers))
    assert len(outcome.records) == plan.training.rounds
    for label, words, total in put_in:
        assert len(words) >= 4, label
        assert np.array_equal(total, np.sum(words, axis=0, dtype=np.uint32)), label


def test_the_mean_is_over_those_who_are_left() -> None:
    """With one holder silent in a round, its weight is in neither sum: the round is that of the other four."""
    plan = five_holders({"training.rounds": 1, "training.select": "last"})
    holders = make_holders(plan)
    dropped = DroppingGrid(holders, lambda holder, message: holder == "h5" and step_of(message) == "train")
    outcome = carry_out(plan, holders, dropped)
    plain = plan.unmasked()
    others = SimulatedHolders({n: t for n, t in holders.tables.items() if n != "h5"}, plain, TASK, holders.stage)
    reference = carry_out(plain, others, DroppingGrid(others, lambda holder, message: False), totals=outcome.totals)
    assert largest_difference(outcome.weights, reference.weights) <= 1e-6


@pytest.mark.parametrize("step", ["terms", "train", "unmasking"])
def test_too_few_holders_stop_the_run_and_nothing_of_the_round_is_kept(step: str, tmp_path: Path) -> None:
    """Two of five silent is one too many, for 4 = floor(2 · 5 / 3) + 1 are needed."""
    plan = five_holders()
    holders = make_holders(plan)
    grid = DroppingGrid(holders, lambda holder, message: holder in ("h1", "h2") and step_of(message) == step)
    with journal_in(tmp_path, plan) as journal:
        with pytest.raises(TrainingError, match=r"are needed; .*[Rr]esume the run once they are back|start them"):
            make_coordinator(plan, holders, grid, journal).run_stage(holders.stage)
        assert journal.checkpoint("stage") is None


def test_a_holder_that_refuses_ends_the_run_with_its_reason() -> None:
    """A refusal is no silence: it is said, with what the holder says."""
    plan = tiny_plan({"federation.vectorise": "never"})
    holders = make_holders(plan)

    def refuse(request: Any) -> Any:
        raise ProtocolError("not today; ask tomorrow")

    holders.agents["west"].train = refuse  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="not today; ask tomorrow"):
        carry_out(plan, holders, DroppingGrid(holders, lambda holder, message: False))


def test_an_answer_that_can_be_read_is_not_used() -> None:
    """A holder that sends its weights unmasked under a plan that masks ends the round; they are in no sum."""
    plan = tiny_plan({"federation.vectorise": "never"})
    holders = make_holders(plan)
    agent = holders.agents["west"]
    agent._sent = lambda request, reply: reply  # type: ignore[method-assign]
    with pytest.raises(ProtocolError, match="not masked although the plan says so"):
        carry_out(plan, holders, DroppingGrid(holders, lambda holder, message: False))


def test_a_changed_weight_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A holder whose answer has another weight than it told before is named."""
    plan = tiny_plan({"federation.vectorise": "never"})
    holders = make_holders(plan)
    original = MaskedReply.to_records

    def heavier(self: MaskedReply) -> Any:
        changed = self.num_examples + (1 if self.num_examples > 1 else 0)
        return original(MaskedReply(contribution=self.contribution, num_examples=changed))

    monkeypatch.setattr(MaskedReply, "to_records", heavier)
    with pytest.raises(ProtocolError, match=r"weighs .* now and .* before"):
        carry_out(plan, holders, DroppingGrid(holders, lambda holder, message: False))


def test_a_plan_that_masks_needs_a_roster(tmp_path: Path) -> None:
    plan = tiny_plan()
    holders = make_holders(plan)
    with journal_in(tmp_path, plan) as journal, pytest.raises(PlanError, match="give the roster"):
        Coordinator(holders.grid(), TASK, None, plan, run="test", journal=journal)


def five_holders(changes: dict[str, Any] | None = None) -> Plan:
    return tiny_plan({"federation.vectorise": "never", "federation.holders": FIVE} | (changes or {}))


def make_coordinator(plan: Plan, holders: SimulatedHolders, grid: InProcessGrid, journal: Journal) -> Coordinator:
    public = TASK.public(series_of(plan))
    return Coordinator(
        grid, TASK, public, plan, run="test", journal=journal, roster=holders.roster, holder_states=holders
    )  # fmt: skip


def carry_out(
    plan: Plan, holders: SimulatedHolders, grid: InProcessGrid, *, totals: dict[str, np.ndarray] | None = None
) -> StageOutcome:
    with tempfile.TemporaryDirectory() as folder, journal_in(Path(folder), plan) as journal:
        if totals is not None:
            journal.save_totals("stage", totals)
        return make_coordinator(plan, holders, grid, journal).run_stage(holders.stage)


def held() -> dict[str, CallTables]:
    whole = tables_of(gaussian_rows(local=90, settled=60, new=12))
    return {name: whole.held_by((name,)) for name in OPERATORS}


def classifier(plan: Plan) -> IntegrationTask:
    task = task_named(plan.run.task)
    assert isinstance(task, IntegrationTask)
    return task


def trained(plan: Plan, folder: Path) -> dict[str, np.ndarray]:
    with Journal(folder / f"{plan.digest()[:8]}.sqlite", run="test", plan_hash=plan.digest()) as journal:
        return dict(rounds_fit(plan, classifier(plan), held(), run="test", journal=journal, name="rounds").weights)


def newton(plan: Plan, folder: Path) -> dict[str, np.ndarray]:
    with Journal(folder / f"{plan.digest()[:8]}.sqlite", run="test", plan_hash=plan.digest()) as journal:
        return dict(newton_fit(plan, classifier(plan), held(), run="test", journal=journal).weights)


def test_a_holder_cannot_weigh_more_than_the_plan_lets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A false weight shows in no sum, so a claim far above the others' ends the round and names its holder."""
    plan = tiny_plan({"federation.vectorise": "never"})
    original = HolderWindows.num_examples.fget

    def claimed(self: HolderWindows) -> int:
        return original(self) * (1000 if len(self.rows) == 2 else 1)  # type: ignore[misc]  # two rows: east

    monkeypatch.setattr(HolderWindows, "num_examples", property(claimed))
    with pytest.raises(ProtocolError, match=r"'east' claims weight .* times the median, and the plan's weight_cap is"):
        outcome_of(plan)


def test_a_holder_puts_nothing_into_a_sum_of_such_weights() -> None:
    """The holder checks for itself what the coordinator says that others weigh."""
    section = tiny_plan().federation
    section.check_weights({"north": 100, "east": 1, "west": 1})
    with pytest.raises(ProtocolError, match="'north' claims weight 101, 101 times the median"):
        section.check_weights({"north": 101, "east": 1, "west": 1})
