"""Books with one mistake in them: ledgers that give back or give twice, accountants and plans that leave things out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from privacy.audits.defect import Defect, planted
from privacy.audits.subject import Subject
from privacy.events import GaussianSteps, PrivacyEvent
from privacy.filters import Cost

Produce = Callable[[], bytes]


@planted("ledger that refunds", "a campaign whose release fails gets its budget back")
def _refunds(subject: Subject) -> Subject:
    class Refunding(subject.ledger):
        def serve(self, campaign: str, round_number: int, *, request: str, produce: Produce) -> bytes:
            try:
                return super().serve(campaign, round_number, request=request, produce=produce)
            except RuntimeError:
                book = self._chain.book
                cost = book.campaigns.pop(campaign).cost
                book.spent_rdp = tuple(all_ - own for all_, own in zip(book.spent_rdp, cost.rdp, strict=True))
                raise

    return replace(subject, ledger=Refunding)


@planted("ledger without a cap", "a reservation is written down and never compared with the budget")
def _no_cap(subject: Subject) -> Subject:
    class Generous(subject.ledger):
        def reserve(self, campaign: str, cost: Cost, *, request: str, rounds: int) -> None:
            self._chain.book.check_budget = lambda campaign, cost: None
            super().reserve(campaign, cost, request=request, rounds=rounds)

    return replace(subject, ledger=Generous)


@planted("ledger that forgets", "each campaign is compared with the whole cap, not with what is left of it")
def _forgets(subject: Subject) -> Subject:
    class Forgetful(subject.ledger):
        def reserve(self, campaign: str, cost: Cost, *, request: str, rounds: int) -> None:
            book = self._chain.book
            book.spent_rdp = tuple(0 * value for value in book.spent_rdp)
            super().reserve(campaign, cost, request=request, rounds=rounds)

    return replace(subject, ledger=Forgetful)


@planted("replay draws new noise", "a round that is asked for again is released again, with other noise")
def _answers_anew(subject: Subject) -> Subject:
    class Anew(subject.ledger):
        def serve(self, campaign: str, round_number: int, *, request: str, produce: Produce) -> bytes:
            known = self._chain.book.campaigns.get(campaign)
            if known is not None and round_number in known.served:
                return produce()
            return super().serve(campaign, round_number, request=request, produce=produce)

    return replace(subject, ledger=Anew)


@planted("another request served", "a round that was released is released to whoever asks, whatever the question")
def _any_request(subject: Subject) -> Subject:
    class Lenient(subject.ledger):
        def serve(self, campaign: str, round_number: int, *, request: str, produce: Produce) -> bytes:
            known = self._chain.book.campaigns.get(campaign)
            first = known.served.get(round_number, (request, "")) if known is not None else (request, "")
            return super().serve(campaign, round_number, request=first[0], produce=produce)

    return replace(subject, ledger=Lenient)


@planted("accounting of fewer rounds", "one of twenty steps is taken and not charged")
def _fewer_rounds(subject: Subject) -> Subject:
    def charge(mechanism: Any, *, trainings: int = 1) -> Sequence[PrivacyEvent]:
        return tuple(
            replace(event, steps=event.steps - max(1, event.steps // 20)) if isinstance(event, GaussianSteps) else event
            for event in subject.charge(mechanism, trainings=trainings)
        )

    return replace(subject, charge=charge)


@planted("best-seed selection uncharged", "several trainings are run, the best is kept, and one is charged")
def _best_seed(subject: Subject) -> Subject:
    return replace(subject, charge=lambda mechanism, *, trainings=1: subject.charge(mechanism, trainings=1))


@planted("delta of the wrong size", "a delta far above 1 / population is accepted")
def _large_delta(subject: Subject) -> Subject:
    return replace(
        subject,
        check_delta=lambda delta, *, population: subject.check_delta(delta, population=max(1, int(population**0.5))),
    )


@planted("epsilon at another delta", "the accountant is asked at a hundred times the delta that is stated")
def _other_delta(subject: Subject) -> Subject:
    return replace(subject, epsilon=lambda events, *, delta: subject.epsilon(events, delta=min(0.5, 100 * delta)))


@planted("amplification counted twice", "the accountant squares the sampling rate")
def _squared_rate(subject: Subject) -> Subject:
    def epsilon(events: Sequence[PrivacyEvent], *, delta: float) -> float:
        twice = [
            replace(event, sampling_rate=event.sampling_rate**2) if isinstance(event, GaussianSteps) else event
            for event in events
        ]
        return subject.epsilon(twice, delta=delta)

    return replace(subject, epsilon=epsilon)


@planted("largest event only", "tasks on the same people are charged as the dearest of them")
def _largest_only(subject: Subject) -> Subject:
    return replace(
        subject, epsilon=lambda events, *, delta: max(subject.epsilon([event], delta=delta) for event in events)
    )


DEFECTS: tuple[Defect, ...] = (
    _refunds,
    _no_cap,
    _forgets,
    _answers_anew,
    _any_request,
    _fewer_rounds,
    _best_seed,
    _large_delta,
    _other_delta,
    _squared_rate,
    _largest_only,
)
