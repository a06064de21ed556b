"""Private runs: what leaves a holder is noised and paid for, and everything after it is made of what left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from clients.agent import HolderAgent
from clients.desk.counts import mechanism_of
from clients.masking import Masking
from dhgsil.series import ODSeries
from dhgsil.task import TASK, DHGSILTask
from privacy.card import PrivacyCard
from privacy.ledger import verify_ledger
from privacy.plan import CountReleasePlan, DPSGDPlan
from protocol.errors import (
    BudgetExceededError,
    ConformanceError,
    LedgerError,
    PlanError,
    PolicyRefusedError,
    ProtocolError,
    RefusedError,
    RunInterruptedError,
)
from protocol.masked_messages import MaskedReply
from protocol.messages import EvaluateReply, RoundRequest, StatisticsReply, TrainReply
from protocol.plan import Plan
from protocol.records import Header
from simulations import protection
from simulations.evaluation import Evaluation
from simulations.progress import Progress
from simulations.records import CountedRecords, blank
from simulations.runner import simulate
from tests.plans import FILES, PLAIN, PLAIN_POLICY, RecordingProgress, digests, series_of, tiny_plan

COUNTS: dict[str, Any] = {
    "privacy.epsilon": 2.0,
    "privacy.delta": 1e-6,
    "privacy.contributions": 4,
    "compare.alone": False,
    "compare.pooled": False,
}
WINDOWS: dict[str, Any] = COUNTS | {
    "privacy.mode": "window-dpsgd",
    "privacy.epsilon": 8.0,
    "privacy.score_against": "truth",
    "federation.shares": ["weights"],
    "training.select": "last",
    "model.node_features": False,
    "model.pair": "embedding",
}


pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _checked_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conformance checks have tests of their own; here they only cost time."""
    monkeypatch.setattr(protection, "require_conformance", lambda subject: [])


def interrupt_at(round_number: int) -> Callable[[str, int], None]:
    def at(name: str, done: int) -> None:
        if name.startswith("federated") and done == round_number:
            raise KeyboardInterrupt

    return at


def card_of(folder: Path) -> PrivacyCard:
    return PrivacyCard.from_json((folder / "card.json").read_text(encoding="utf-8"))


def test_a_run_sees_only_what_was_released(tmp_path: Path) -> None:
    """The raw counts are gone after the release: the run ends with the same bytes as before, and never asks."""
    plan = tiny_plan(COUNTS)
    simulate(plan, out=tmp_path / "first", ledgers=tmp_path / "ledgers")

    class Emptied(CountedRecords):
        def __init__(self, plan: Plan, task: DHGSILTask, series: ODSeries) -> None:
            super().__init__(plan, task, blank(series))

        def queries(self, holder: str, place: Path, progress: Progress) -> NoReturn:
            raise AssertionError(f"raw counts of {holder} were asked for")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simulations.records.CountedRecords", Emptied)
        simulate(plan, out=tmp_path / "second", ledgers=tmp_path / "ledgers")
    assert digests(tmp_path / "first") == digests(tmp_path / "second")


def test_one_release_serves_many_plans(tmp_path: Path) -> None:
    """Another schedule on the same records and mechanism spends nothing; another epsilon is a new release."""
    ledgers = tmp_path / "ledgers"
    budget = {"privacy.budget": 3.0}
    simulate(tiny_plan(COUNTS | budget), out=tmp_path / "a", ledgers=ledgers)
    lengths = {
        name: verify_ledger(ledgers / name / "people/ledger").witness.length for name in ("north", "east", "west")
    }
    simulate(tiny_plan(COUNTS | budget | {"training.rounds": 1}), out=tmp_path / "b", ledgers=ledgers)
    assert {name: verify_ledger(ledgers / name / "people/ledger").witness.length for name in lengths} == lengths
    with pytest.raises(BudgetExceededError, match="left: "):
        simulate(tiny_plan(COUNTS | budget | {"privacy.epsilon": 1.9}), out=tmp_path / "c", ledgers=ledgers)
    assert not (tmp_path / "c").exists()
    assert {name: verify_ledger(ledgers / name / "people/ledger").witness.length for name in lengths} == lengths


def test_another_grid_is_another_release(tmp_path: Path) -> None:
    """Two data sets of one source do not share a release only because their plans look alike."""
    plan = tiny_plan(COUNTS)
    series, mechanism = series_of(plan), mechanism_of(plan, TASK, series_of(plan))
    assert isinstance(mechanism, CountReleasePlan)
    shorter = series.between(None, str(series.times[-2]))
    longer, short, empty = (CountedRecords(plan, TASK, each) for each in (series, shorter, blank(series)))
    names = {protection.campaign_of_counts(plan, each, "north", mechanism) for each in (longer, short)}
    assert len(names) == 2
    assert protection.campaign_of_counts(plan, empty, "north", mechanism) in names  # counts have no part


def test_real_records_need_ledgers_that_outlive_the_run_and_a_public_calendar(tmp_path: Path) -> None:
    plan = tiny_plan(COUNTS)
    series, mechanism = series_of(plan), mechanism_of(plan, TASK, series_of(plan))
    assert mechanism is not None
    real = plan.model_copy(update={"data": {**plan.data, "source": "parquet", "world": None}})
    records = CountedRecords(plan, TASK, series)
    with pytest.raises(PlanError, match="--ledgers DIR"):
        protection.check_protection(real, records, mechanism, run="tiny", ledgers=None)
    with pytest.raises(PlanError, match=r"data\.start and data\.end"):
        protection.check_protection(real, records, mechanism, run="tiny", ledgers=tmp_path)
    days = {"start": str(series.times[0]), "end": str(series.times[-1])}
    dated = real.model_copy(update={"data": {**real.data, **days}})
    assert protection.check_protection(dated, records, mechanism, run="tiny", ledgers=tmp_path) == []


def test_nothing_is_checked_on_raw_counts_before_they_are_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a private run starts at all does not depend on a count."""
    seen: list[ODSeries] = []
    original = Evaluation.of.__func__  # type: ignore[attr-defined]

    def recorded(cls: type[Evaluation], plan: Any, series: ODSeries, **others: Any) -> Evaluation:
        seen.append(series)
        return original(cls, plan, series, **others)

    monkeypatch.setattr(Evaluation, "of", classmethod(recorded))
    simulate(tiny_plan(COUNTS | {"training.rounds": 1}), out=tmp_path / "run")
    first, second = seen
    assert np.unique(first.counts).tolist() == [1]
    assert second.counts.dtype == np.float64


def test_a_policy_that_forbids_the_plan_stops_it_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(PolicyRefusedError, match="at most 1"):
        simulate(tiny_plan(COUNTS | {"privacy.budget": 1.0}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_mechanism_that_fails_its_check_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(subject: object) -> list[object]:
        raise ConformanceError("noise is too quiet; do not release anything with this installation")

    monkeypatch.setattr(protection, "require_conformance", failing)
    with pytest.raises(ConformanceError):
        simulate(tiny_plan(COUNTS), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_checks_of_a_private_run_stand_on_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    simulate(tiny_plan(COUNTS), out=tmp_path / "run")
    audits = card_of(tmp_path / "run").audits
    assert len(audits) > 30
    assert all(audit.passed for audit in audits)


@pytest.mark.parametrize("values", [COUNTS, WINDOWS], ids=["counts", "windows"])
def test_an_interrupted_private_run_is_continued_to_the_same_bytes(tmp_path: Path, values: dict[str, Any]) -> None:
    """Releases come back from the ledger: a copy made after round 1 ends as the run itself, at no further cost."""
    plan = tiny_plan(values)
    with pytest.raises(RunInterruptedError):
        simulate(plan, out=tmp_path / "run", progress=RecordingProgress(interrupt_at(1)))
    simulate(plan, resume=tmp_path / "run")
    unit = "windows" if plan.trains_privately else "people"
    folder = tmp_path / "run/holders"
    whole = {name: verify_ledger(folder / name / unit / "ledger") for name in plan.federation.holders}
    assert all(facts.witness.length <= 2 + plan.training.rounds for facts in whole.values())
    card = card_of(tmp_path / "run")
    assert [holder.holder for holder in card.holders] == list(plan.federation.holders)
    for holder in card.holders:
        assert holder.spent_epsilon is not None
        assert holder.budget_epsilon is not None
        assert holder.spent_epsilon <= holder.budget_epsilon


def test_a_round_that_was_lost_after_its_release_is_not_made_again(tmp_path: Path) -> None:
    """The journal is put back to before round 2, the ledgers are not: the same bytes come out of them."""
    plan = tiny_plan(WINDOWS)
    kept = tmp_path / "journal of round 1"

    def keep(name: str, done: int) -> None:
        if name.startswith("federated") and done == 1:
            shutil.copytree(tmp_path / "run", kept)
        if name.startswith("federated") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(RunInterruptedError):
        simulate(plan, out=tmp_path / "run", progress=RecordingProgress(keep))
    other = tmp_path / "other"
    shutil.copytree(kept, other)
    shutil.rmtree(other / "holders")
    shutil.copytree(tmp_path / "run/holders", other / "holders")
    simulate(plan, resume=tmp_path / "run")
    simulate(plan, resume=other)
    same = set(FILES)
    assert {k: v for k, v in digests(tmp_path / "run").items() if k in same} == digests(other)


def test_a_ledger_that_was_put_back_is_noticed(tmp_path: Path) -> None:
    """The coordinator's journal has seen the ledgers further on: the run does not go on with an older copy."""
    plan = tiny_plan(WINDOWS)
    early = tmp_path / "early"

    def keep(name: str, done: int) -> None:
        if name.startswith("federated") and done == 1:
            shutil.copytree(tmp_path / "run/holders", early)
        if name.startswith("federated") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(RunInterruptedError):
        simulate(plan, out=tmp_path / "run", progress=RecordingProgress(keep))
    shutil.rmtree(tmp_path / "run/holders")
    shutil.copytree(early, tmp_path / "run/holders")
    with pytest.raises(LedgerError):
        simulate(plan, resume=tmp_path / "run")


def test_no_loss_no_error_and_no_statistic_of_raw_data_leaves_a_private_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies: list[Any] = []
    for kind in (StatisticsReply, TrainReply, EvaluateReply):

        def recorded(self: Any, original: Any = kind.to_records) -> Any:
            replies.append(self)
            return original(self)

        monkeypatch.setattr(kind, "to_records", recorded)
    simulate(tiny_plan(WINDOWS | PLAIN), out=tmp_path / "run")
    assert {type(reply) for reply in replies} == {StatisticsReply, TrainReply}
    assert all(reply.arrays == {} for reply in replies if isinstance(reply, StatisticsReply))
    assert all(reply.loss is None and reply.ledger for reply in replies if isinstance(reply, TrainReply))
    assert not any(name.startswith("pair.") for r in replies if isinstance(r, TrainReply) for name in r.weights)


def test_masked_sums_of_a_private_training_are_of_noised_updates_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No loss and no statistic is put into a sum, and every part comes with where the ledger stands."""
    put_in: list[tuple[str, ...]] = []
    replies: list[MaskedReply] = []
    contribute, to_records = Masking.contribute, MaskedReply.to_records

    def contributed(self: Masking, header: Header, layout: Any, arrays: Any) -> bytes:
        put_in.append(tuple(arrays))
        return contribute(self, header, layout, arrays)

    def recorded(self: MaskedReply) -> Any:
        replies.append(self)
        return to_records(self)

    monkeypatch.setattr(Masking, "contribute", contributed)
    monkeypatch.setattr(MaskedReply, "to_records", recorded)
    plan = tiny_plan(WINDOWS)
    simulate(plan, out=tmp_path / "run")
    assert len(put_in) == len(replies) == 3 * plan.training.rounds
    assert all(reply.ledger for reply in replies)
    assert not any(name.startswith(("metric:", "pair.")) for names in put_in for name in names)


def test_two_private_runs_draw_different_noise(tmp_path: Path) -> None:
    """The plan's seed does not reach the noise."""
    weights = []
    for name in ("a", "b"):
        torch.manual_seed(0)
        simulate(tiny_plan(WINDOWS), out=tmp_path / name)
        weights.append(digests(tmp_path / name)["model.safetensors"])
    assert weights[0] != weights[1]


def test_windows_that_carry_statistics_of_others_are_refused() -> None:
    series = series_of(tiny_plan(WINDOWS))
    for change in (
        {"model.node_features": True},
        {"model.pair_features": ["train_mean"]},
        {"data.block_steps": 2},
        {"data.index": "pair_minmax_train", "data.space": "linear"},
    ):
        with pytest.raises(PlanError, match="own window only"):
            mechanism_of(tiny_plan(WINDOWS | change), TASK, series)
        with pytest.raises(PlanError, match="own window only"):  # the holder refuses too, whatever it was asked before
            TASK.prepare(series, tiny_plan(WINDOWS | change), "weights", {})
    with pytest.raises(PlanError, match="training windows"):
        mechanism_of(tiny_plan(WINDOWS | {"training.batch_size": 1000}), TASK, series)


def test_mechanisms_keep_the_plans_promise() -> None:
    counts = mechanism_of(tiny_plan(COUNTS), TASK, series_of(tiny_plan(COUNTS)))
    assert isinstance(counts, CountReleasePlan)
    assert 1.98 <= counts.epsilon(1e-6) <= 2.0
    windows = mechanism_of(tiny_plan(WINDOWS), TASK, series_of(tiny_plan(WINDOWS)))
    assert isinstance(windows, DPSGDPlan)
    assert 7.9 <= windows.epsilon(1e-6) <= 8.0
    assert windows.unit == TASK.unit
    assert "not a person" in windows.unit


def test_the_card_says_what_a_window_is_worth_to_a_person(tmp_path: Path) -> None:
    simulate(tiny_plan(WINDOWS), out=tmp_path / "run")
    (promise,) = card_of(tmp_path / "run").holders[0].promises
    assert not promise.is_person
    assert all(value is None or value > promise.epsilon for value in promise.person_epsilon.values())
    assert 6 in promise.person_epsilon  # four input steps and two target steps see one active step
    text = json.dumps(json.loads((tmp_path / "run/card.json").read_text(encoding="utf-8")))
    assert "not a person" in text


def test_an_agent_without_custody_does_not_train_privately() -> None:
    plan = tiny_plan(WINDOWS)
    with pytest.raises(PlanError, match="without a ledger"):
        HolderAgent("north", series_of(plan), plan, TASK, {"stage": "weights"})


def test_a_private_holder_measures_no_error(tmp_path: Path) -> None:
    plan = tiny_plan(WINDOWS | PLAIN)
    tables = TASK.held_by(series_of(plan), plan.federation.holders["north"])
    with protection.open_custodies(plan, tmp_path) as custodies:
        mechanism = mechanism_of(plan, TASK, tables)
        assert isinstance(mechanism, DPSGDPlan)
        agent = HolderAgent(
            "north", tables, plan, TASK, {"stage": "weights"}, custody=custodies["north"], mechanism=mechanism,
            aggregation=PLAIN_POLICY,
        )  # fmt: skip
        header = Header(run="tiny", plan_hash=plan.digest(), stage="stage")
        with pytest.raises(RefusedError, match="measures no error"):
            agent.evaluate(RoundRequest(header=header, round=1, weights={}))
        with pytest.raises(ProtocolError, match="no open stage"):
            agent.train(RoundRequest(header=header, round=1, weights={}))
        assert custodies["north"].ledger.spent == 0


def test_ray_is_refused_where_ledgers_must_stay_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.runner.check_ray", lambda: None)
    with pytest.raises(PlanError, match="inprocess"):
        simulate(tiny_plan(WINDOWS), out=tmp_path / "run", engine="ray")
