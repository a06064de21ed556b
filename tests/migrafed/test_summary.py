"""What is said about privacy at the end of a run."""

from __future__ import annotations

from migrafed.summary import budget_lines, person_lines, privacy_facts
from simulations.results import RunResult
from tests.cards import plain_card, private_card, window_card
from tests.migrafed.conftest import RunMaker


def test_what_a_window_is_worth_to_a_person_is_said(make_run: RunMaker) -> None:
    """Each number of windows once, whoever promises it, with both bounds."""
    run = RunResult.read(make_run(card=window_card()))
    lines = person_lines(run)
    (promise, *_) = run.card.holders[0].promises
    assert len(lines) == len(promise.person_epsilon) > 0
    assert all("if they came and went, up to" in line for line in lines)


def test_budgets_are_said_once_for_holders_that_say_the_same(make_run: RunMaker) -> None:
    run = RunResult.read(make_run(card=private_card()))
    lines = budget_lines(run)
    assert person_lines(run) == []
    assert len(lines) < len(run.card.holders) or len(lines) == len({holder.left for holder in run.card.holders})
    for holder in run.card.holders:
        assert holder.left is not None
        assert any(holder.holder in line and holder.left in line for line in lines)
    assert [facts["holder"] for facts in privacy_facts(run.card)["holders"]] == [
        each.holder for each in run.card.holders
    ]


def test_a_plain_run_has_no_budget(make_run: RunMaker) -> None:
    run = RunResult.read(make_run(card=plain_card()))
    assert budget_lines(run) == person_lines(run) == []
    assert privacy_facts(run.card)["flavour"] == "none"
