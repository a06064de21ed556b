"""What a card says of sums: the plan's promise with its numbers, never both promises, and the limits of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from migrafed.reports.privacy import privacy_context
from privacy.card import SumsPromise
from privacy.secure_aggregation.layout import Layout
from protocol.plan import Plan
from server.cards.sum_words import (
    coordinator_gets,
    coordinator_party,
    masking_messages,
    number_bytes,
    sums_not_promised,
    sums_promise,
)
from tests.call_rows import call_plan
from tests.cards import card
from tests.plans import tiny_plan

CODES = [f"C{number:03d}" for number in range(1, 9)]
NOISED = {"privacy.epsilon": 2.0, "privacy.delta": 1e-6}
HIDDEN, ROBUST, NEITHER = "Hidden updates: ", "Robust to dishonest holders by ", "Neither promise: "


def plan_of(aggregation: str, holders: int = 5, **federation: Any) -> Plan:
    names = {f"holder {number}": [code] for number, code in enumerate(CODES[:holders])}
    changes = {"federation.aggregation": aggregation, "federation.holders": names}
    return tiny_plan(NOISED | changes | {f"federation.{name}": value for name, value in federation.items()})


@pytest.mark.parametrize(
    ("aggregation", "opening"), [("secure", HIDDEN), ("robust", ROBUST), ("plain", NEITHER)]
)  # fmt: skip
def test_a_plan_makes_one_promise_at_most(aggregation: str, opening: str) -> None:
    """Hidden and robust exclude each other, and each says that it is not the other."""
    plan = plan_of(aggregation)
    promise, limits = sums_promise(plan), " ".join(sums_not_promised(plan))
    assert promise.headline.startswith(opening)
    assert sum(promise.headline.startswith(start) for start in (HIDDEN, ROBUST, NEITHER)) == 1
    if aggregation == "secure":
        assert "No defence against holders that send false updates" in promise.headline
        assert "nobody outside this project has checked" in promise.holds_while
        assert "Two holders learn each other's part" in limits
        assert "not reviewed by anybody outside" in limits
        assert "no differential privacy" in limits
    else:
        assert "Updates are not hidden" in limits
        assert "masked:" not in coordinator_gets(plan)
    assert ("colluders" in limits) == (aggregation == "robust")


@pytest.mark.parametrize(("holders", "survivors", "colluders"), [(2, 2, 1), (3, 3, 2), (5, 4, 2), (7, 5, 2), (8, 6, 3)])
def test_numbers_of_hidden_updates_are_those_of_the_protocol(holders: int, survivors: int, colluders: int) -> None:
    """t = floor(2n/3) + 1, and c <= 2t - n - 1 helpers of a lying coordinator, as the security page has them."""
    promise = sums_promise(plan_of("secure", holders))
    assert (promise.num_holders, promise.least_survivors, promise.colluders) == (holders, survivors, colluders)
    assert f"at least {survivors} of {holders} holders" in promise.headline
    assert promise.update_norm == 64.0


@pytest.mark.parametrize(
    ("rule", "holders", "dishonest"),
    [("median", 3, 1), ("median", 8, 3), ("trimmed_mean", 5, 1), ("trimmed_mean", 8, 2), ("norm_bound", 5, None)],
)
def test_robust_to_as_many_as_the_rule_bears(rule: str, holders: int, dishonest: int | None) -> None:
    promise = sums_promise(plan_of("robust", holders, robust_rule=rule, trim=0.25))
    assert (promise.rule, promise.dishonest) == (rule, dishonest)
    assert (promise.update_norm is None) == (rule != "norm_bound")
    if dishonest is None:
        assert "by more than 25.6 in L2" in promise.headline  # twice 64 over 5 holders
    else:
        assert f"at most {dishonest} of {holders} holders dishonest" in promise.headline


def test_sums_before_training_are_said_to_be_seen_where_there_are_any() -> None:
    """Counts are released and then summed up in the open; private training of persons sums nothing."""
    seen = "no rule bounds them"
    assert seen in " ".join(sums_not_promised(plan_of("robust")))
    persons = {
        "model.features": "own", "privacy.mode": "person-dpsgd", "privacy.epsilon": 2.0, "privacy.delta": 1e-6,
        "privacy.score_against": "truth", "training.batch_size": 8, "training.select": "last", "compare.alone": False,
        "compare.pooled": False, "federation.aggregation": "robust",
    }  # fmt: skip
    assert seen not in " ".join(sums_not_promised(call_plan(changes=persons)))


def test_noise_that_only_the_sum_has_falls_with_the_masks() -> None:
    """A promise to persons survives broken masks only where each holder's noise is whole."""
    local, shared = plan_of("secure"), plan_of("secure")
    assert "stands all the same" in sums_promise(local).otherwise
    privacy = shared.privacy.model_copy(update={"noise": "distributed"})  # type: ignore[union-attr]
    assert "falls with it" in sums_promise(shared.model_copy(update={"privacy": privacy})).otherwise


def test_words_of_a_number_are_those_of_the_layout() -> None:
    for holders in (2, 3, 5, 8):
        plan = plan_of("secure", holders)
        real = Layout.for_statistics({"a": np.zeros(3)}, holders=holders)
        update = Layout.for_update({"a": (3,)}, clip_norm=1.0, holders=holders)
        assert number_bytes(plan, update=False) * 3 == 4 * real.words
        assert number_bytes(plan, update=True) * 3 == 4 * update.words
    assert (number_bytes(plan_of("plain"), update=True), number_bytes(plan_of("robust"), update=False)) == (4, 8)


def test_only_masked_sums_have_keys_and_hashes() -> None:
    assert len(list(masking_messages(plan_of("secure"), "raw data"))) == 3
    assert not list(masking_messages(plan_of("plain"), "raw data"))
    assert "unmasked" in coordinator_party(plan_of("plain")).trusted_with
    assert "unmasked" not in coordinator_party(plan_of("secure")).trusted_with


@pytest.mark.parametrize(
    "changes", [{"aggregation": "secure"}, {"least_survivors": 4}, {"rule": "median"}, {"aggregation": "robust"}]
)
def test_a_promise_without_its_numbers_is_no_promise(changes: dict[str, Any]) -> None:
    """What a card states is tied to the numbers that go with it, and to no others."""
    values = sums_promise(plan_of("plain")).model_dump()
    with pytest.raises(ValidationError, match="least_survivors goes with secure sums"):
        SumsPromise(**(values | changes))


@pytest.mark.parametrize("aggregation", ["secure", "robust", "plain"])
def test_the_report_has_the_promise_of_the_card(aggregation: str) -> None:
    """Who sees what, while what holds, and what otherwise; a card from before there was a choice has none of it."""
    promise = sums_promise(plan_of(aggregation))
    facts = dict(privacy_context(card(sums=promise))["sums"])
    assert facts["Coordinator sees"] == promise.coordinator_sees
    assert facts["Holds while"] == promise.holds_while
    assert ("Longest update" in facts) == (aggregation == "secure")
    assert privacy_context(card())["sums"] == []
