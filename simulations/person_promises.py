"""The holders of a card of training over rows of persons, as their ledgers say."""

from __future__ import annotations

from collections.abc import Mapping

from clients.custody import Custody
from privacy.accounting import epsilon
from privacy.card import HolderCard
from privacy.plan import DPSGDPlan
from protocol.plan import Plan
from server.cards.persons import person_promise


def person_holder_cards(plan: Plan, mechanism: DPSGDPlan, custodies: Mapping[str, Custody]) -> tuple[HolderCard, ...]:
    """What each holder promises, and what its ledger says."""
    cards = []
    for name, custody in custodies.items():
        policy, head = custody.policy, custody.head()
        cards.append(
            HolderCard(
                holder=name,
                population=policy.population,
                period=policy.period,
                promises=(person_promise(plan, mechanism, delta=policy.delta),),
                joint_epsilon=epsilon(mechanism.events(), delta=policy.delta),
                joint_delta=policy.delta,
                budget_epsilon=policy.max_epsilon,
                spent_epsilon=float(custody.ledger.spent),
                left=custody.ledger.left_in_words,
                ledger_length=head.length,
                ledger_head=head.head,
            )
        )
    return tuple(cards)
