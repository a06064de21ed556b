"""Private training over rows of persons: mechanism, refusals, and the way through agent, custody and ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from clients.agent import HolderAgent
from clients.custody import Custody
from clients.person_rows import person_mechanism as calibrated
from integration import catalogue
from integration.person_rows import CAP, check_person_features, own_features
from integration.task import CallTables
from privacy.accounting import cost_of
from privacy.mechanisms import OWN_RECORDS, unit_of
from privacy.plan import DPSGDPlan
from protocol.errors import BudgetExceededError, DataError, PlanError, PolicyRefusedError, RefusedError
from protocol.messages import READY, RoundRequest, StatisticsRequest
from protocol.plan import Plan
from protocol.records import Header
from protocol.tasks import task_named
from server.cards.persons import person_headline, person_not_promised
from simulations.person_promises import person_holder_cards
from simulations.protection import open_custodies, policy_of, required
from tests.call_rows import OPERATORS, call_plan, gaussian_rows, tables_of
from tests.federation import readable
from tests.plans import PLAIN, PLAIN_POLICY

PRIVATE: dict[str, Any] = {
    "privacy.mode": "person-dpsgd", "privacy.epsilon": 2.0, "privacy.delta": 1e-6, "privacy.score_against": "truth",
    "model.features": "own", "training.batch_size": 8, "training.rounds": 2, "training.select": "last",
    "compare.alone": False, "compare.pooled": False,
}  # fmt: skip
CAPPED = PRIVATE | {"privacy.contacts": 2, "model.features": "own+capped"}
ROWS = 40
_MECHANISMS: dict[str, DPSGDPlan] = {}


def plan_of(changes: dict[str, Any] | None = None, task: str = "integration") -> Plan:
    return call_plan(task, PRIVATE | PLAIN | (changes or {}))


def private_tables(contacts: int = 0) -> CallTables:
    """Rows as `integration.features.private_rows` makes them, with invented values."""
    rows = gaussian_rows(local=60, settled=60, new=0)
    rng = np.random.default_rng(3)
    capped = {name: np.abs(rng.normal(size=len(rows))) for name in (catalogue.capped() if contacts else ())}
    wanted = ["person", "week", "group", *catalogue.own()]
    return tables_of(pd.concat([rows[wanted], pd.DataFrame(capped)], axis=1).assign(**{CAP: contacts}))


def person_mechanism(plan: Plan, *, num_rows: int) -> DPSGDPlan:
    """The same each time, so calibrated once for equal plans: that takes seconds."""
    key = f"{plan.digest()} {num_rows}"
    if key not in _MECHANISMS:
        _MECHANISMS[key] = calibrated(plan, num_rows=num_rows)
    return _MECHANISMS[key]


def agent_of(plan: Plan, tables: CallTables, custody: Custody) -> HolderAgent:
    task = task_named(plan.run.task)
    mechanism = person_mechanism(plan, num_rows=ROWS)
    held = task.held_by(tables, (OPERATORS[0],))
    return HolderAgent(
        OPERATORS[0], held, plan, task, {"stage": "weights"}, custody=custody, mechanism=mechanism,
        aggregation=PLAIN_POLICY,
    )  # fmt: skip


def header_of(plan: Plan) -> Header:
    return Header(run="tiny", plan_hash=plan.digest(), stage="stage")


def first_round(agent: HolderAgent, plan: Plan, number: int = 1) -> RoundRequest:
    weights = {k: v.detach().numpy().copy() for k, v in agent.session("stage").model.named_parameters()}
    return RoundRequest(header=header_of(plan), round=number, weights=weights)


@pytest.mark.parametrize("changes", [{}, CAPPED], ids=["K 0", "K 2"])
def test_the_mechanism_keeps_the_promise_of_the_plan(changes: dict[str, Any]) -> None:
    """Its epsilon is the plan's, for the rate, the steps and the cap of the plan; its unit is named."""
    plan = plan_of(changes)
    mechanism = person_mechanism(plan, num_rows=ROWS)
    assert 1.98 <= mechanism.epsilon(1e-6) <= 2.0
    assert (mechanism.sampling_rate, mechanism.expected_batch, mechanism.steps) == (8 / ROWS, 8, 2 * 5)
    assert mechanism.contacts == required(plan).contacts
    assert mechanism.unit == unit_of(mechanism.contacts)


def test_contacts_take_more_noise() -> None:
    alone, capped = (person_mechanism(plan_of(changes), num_rows=ROWS) for changes in ({}, CAPPED))
    assert capped.noise_multiplier > 2 * alone.noise_multiplier


def test_units_say_what_is_not_protected() -> None:
    assert unit_of(0) == OWN_RECORDS == "a subscriber's own outgoing records; being called is not protected"
    assert "at most 5 rows of others" in unit_of(5)
    assert "being called is not protected" in unit_of(5)


@pytest.mark.parametrize(
    ("names", "contacts", "said"),
    [
        (("own_degree", "degree", "clustering"), 0, "'degree' and 1 other feature"),
        (("own_degree", "capped_in_degree"), 0, "privacy.contacts is 0"),
        (("own_degree",), 3, "noise for nothing"),
        (("capped_in_degree",), 3, "stand beside them, not alone"),
        (("own_degree", "known_share"), 1, "'known_share' read"),
    ],
)
def test_features_that_the_promise_does_not_cover_are_refused(names: Any, contacts: int, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        check_person_features(names, contacts=contacts)


def test_features_that_are_covered_are_not_refused() -> None:
    for contacts in (0, 1, 5):
        check_person_features(own_features(contacts), contacts=contacts)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.features": "families"}, 'model.features = "own"'),
        ({"model.features": "rarefied"}, 'model.features = "own"'),
        ({"model.features": "own+capped"}, "privacy.contacts is 0"),
        ({"privacy.contacts": 1}, "noise for nothing"),
        ({"training.batch_size": 41}, "from 1 to that number"),
    ],
)
def test_plans_without_a_mechanism_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        person_mechanism(plan_of(changes), num_rows=ROWS)


@pytest.mark.parametrize(
    ("task", "changes", "said"),
    [
        ("integration", {"privacy.mode": "counts"}, 'not for task "integration"; set one of person-dpsgd'),
        ("integration-mlp", {"privacy.mode": "window-dpsgd"}, 'not for task "integration-mlp"'),
        ("integration", {"privacy.score_against": "released"}, "releases no values"),
        ("integration", {"privacy.contacts": -1}, "greater than or equal to 0"),
        ("integration", {"compare.pooled": True}, 'privacy.mode = "person-dpsgd" every training'),
    ],
)
def test_plans_that_break_a_rule_are_refused_when_they_are_read(task: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        plan_of(changes, task)


def test_no_contacts_leave_the_digest_of_a_plan_alone() -> None:
    """As if the key did not exist; a cap is part of the plan."""
    plain, capped = plan_of(), plan_of(CAPPED | {"model.features": "own"})
    assert plain.digest() == plan_of({"privacy.contacts": 0}).digest() != capped.digest()
    assert "contacts" not in plain.model_dump(mode="json")["privacy"]


@pytest.mark.parametrize("task", ["integration", "integration-mlp"])
def test_a_round_goes_through_agent_custody_and_ledger(tmp_path: Path, task: str) -> None:
    """Charged once and whole before the first step; asked again, the same bytes; no error, no number of rows leaves."""
    plan = plan_of(task=task)
    with open_custodies(plan, tmp_path) as custodies:
        custody = custodies[OPERATORS[0]]
        agent = agent_of(plan, private_tables(), custody)
        ready = agent.statistics(StatisticsRequest(header=header_of(plan), phase=READY))
        assert ready.num_examples == 1
        mechanism = person_mechanism(plan, num_rows=ROWS)
        assert custody.ledger.spent == cost_of(mechanism.events(), delta=1e-6).epsilon
        asked = first_round(agent, plan)
        reply, again = readable(agent.train(asked)), readable(agent.train(asked))
        assert reply.num_examples == 1
        assert reply.loss is None
        assert all(np.array_equal(reply.weights[name], again.weights[name]) for name in reply.weights)
        assert any(np.any(reply.weights[name] != asked.weights[name]) for name in asked.weights)
        with pytest.raises(RefusedError, match="no error on raw data"):
            agent.evaluate(asked)
        assert "subscribers" in str(custody.policy.population)
    assert (tmp_path / OPERATORS[0] / "subscribers").is_dir()


def test_a_second_training_is_beyond_the_budget(tmp_path: Path) -> None:
    plan = plan_of(CAPPED)
    with open_custodies(plan, tmp_path) as custodies:
        agent = agent_of(plan, private_tables(2), custodies[OPERATORS[0]])
        agent.statistics(StatisticsRequest(header=header_of(plan), phase=READY))
        with pytest.raises(BudgetExceededError, match="left: nothing of epsilon 2"):
            agent.statistics(
                StatisticsRequest(header=Header(run="other", plan_hash=plan.digest(), stage="stage"), phase=READY)
            )


def test_a_policy_refuses_contacts_it_was_not_asked_for(tmp_path: Path) -> None:
    """A mechanism that leaves the contacts out of its noise costs more than the policy's cap."""
    mechanism = person_mechanism(plan_of(), num_rows=ROWS)
    policy = policy_of(required(plan_of()), "north")
    policy.check(mechanism)
    with pytest.raises(PolicyRefusedError, match="epsilon at delta 1e-06"):
        policy.check(mechanism.model_copy(update={"contacts": 1}))


def test_rows_made_for_other_purposes_are_refused(tmp_path: Path) -> None:
    """Ordinary rows, whose groups follow from received calls; and rows with a larger cap than the plan pays for."""
    plan = plan_of()
    task = task_named("integration")
    ordinary = tables_of(gaussian_rows(local=40, settled=40, new=0))
    with pytest.raises(DataError, match="decided by outgoing calls alone"):
        task.prepare(ordinary, plan, "weights", {})
    with pytest.raises(DataError, match="cap of 5 contacts, and the plan pays for 2"):
        task.prepare(private_tables(5), plan_of(CAPPED), "weights", {})


@pytest.mark.parametrize("task", ["integration", "integration-mlp"])
def test_one_persons_row_changes_no_other_example(task: str) -> None:
    """Tensors of everybody else are the same bits without the person, dropout masks included, wherever rows stand."""
    plan = plan_of({"model.dropout": 0.3} if task.endswith("mlp") else {}, task)
    tables = private_tables()
    gone = int(np.sort(tables.rows["person"].unique())[3])
    less = CallTables(tables.rows[tables.rows["person"] != gone].reset_index(drop=True), tables.operators)
    tensors: list[dict[int, Any]] = []
    for part in (tables, less):
        dataset = task_named(task).prepare(part, plan, "weights", {})
        rows = part.rows.set_index(["week", "person"])
        examples = dataset.examples("train")
        batch = dataset.training_examples(examples, draw=7)
        persons = sorted_train_persons(dataset, rows)
        tensors.append({who: {k: v[i].numpy() for k, v in batch.items()} for i, who in enumerate(persons)})
    whole, without = tensors
    assert set(whole) - set(without) <= {gone}
    assert set(without) < set(whole) or gone not in whole
    for who, values in without.items():
        assert all(np.array_equal(values[key], whole[who][key]) for key in values)


def sorted_train_persons(dataset: Any, rows: pd.DataFrame) -> list[int]:
    return [int(code) for code in dataset._persons[dataset.examples("train")]]


def test_the_card_names_unit_cap_and_what_is_not_promised(tmp_path: Path) -> None:
    plan = plan_of(CAPPED)
    mechanism = person_mechanism(plan, num_rows=ROWS)
    with open_custodies(plan, tmp_path) as custodies:
        cards = person_holder_cards(plan, mechanism, custodies)
    (promise,) = cards[0].promises
    assert promise.is_person
    assert promise.contacts == 2
    assert "2 rows of others" in promise.unit
    assert "not tight" in promise.accountant
    assert "at most 2 others" in person_headline(mechanism, required(plan))
    assert any("cap of 2" in text for text in person_not_promised(mechanism))
    alone = person_mechanism(plan_of(), num_rows=ROWS)
    assert alone.unit == OWN_RECORDS
    assert not any("cap" in text for text in person_not_promised(alone))
